/* How a call ended, as a VpError: the code, and what the daemon sent in grpc-status-details-bin. */
#include <grpc/grpc.h>
#include <string.h>

#include "base/pb.h"
#include "clients/c/internal.h"
#include "google_rpc.pb-c.h"

/* What C core puts before the words of the failed connect(). */
static const char CONNECT_WORDS[] = "Failed to connect to remote host: ";

void vp_client_status_init(VpClientStatus *status)
{
    grpc_metadata_array_init(&status->trailing);
    status->code = GRPC_STATUS_UNKNOWN;
    status->details = grpc_empty_slice();
}

void vp_client_status_clear(VpClientStatus *status)
{
    grpc_metadata_array_destroy(&status->trailing);
    grpc_slice_unref(status->details);
}

static void add_error_info(VpError *error, const Google__Rpc__ErrorInfo *info)
{
    g_free(error->reason);
    error->reason = g_strdup(info->reason);
    for (size_t i = 0; i < info->n_metadata; i++)
        vp_error_with(error, info->metadata[i]->key, info->metadata[i]->value);
}

static void add_bad_request(VpError *error, const Google__Rpc__BadRequest *bad)
{
    for (size_t i = 0; i < bad->n_field_violations; i++)
        vp_error_violation(error, bad->field_violations[i]->field, "%s", bad->field_violations[i]->description);
}

static void add_retry_info(VpError *error, const Google__Rpc__RetryInfo *retry)
{
    const Google__Protobuf__Duration *delay = retry->retry_delay;

    if (delay && delay->seconds >= 0 && delay->seconds < G_MAXINT32 && delay->nanos >= 0)
        vp_error_retry(error, delay->seconds * 1000 + delay->nanos / 1000000);
}

static void *unpack_any(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *descriptor)
{
    const char *slash = strrchr(any->type_url, '/');

    if (!slash || !g_str_equal(slash + 1, descriptor->name))
        return NULL;
    return protobuf_c_message_unpack(descriptor, NULL, any->value.len, any->value.data);
}

/* Details that are not known, or are malformed, are passed over: the code and the message stand. */
static void add_detail(VpError *error, const Google__Protobuf__Any *any)
{
    vp_pb_auto Google__Rpc__ErrorInfo *info = unpack_any(any, &google__rpc__error_info__descriptor);
    vp_pb_auto Google__Rpc__BadRequest *bad = unpack_any(any, &google__rpc__bad_request__descriptor);
    vp_pb_auto Google__Rpc__RetryInfo *retry = unpack_any(any, &google__rpc__retry_info__descriptor);

    if (info)
        add_error_info(error, info);
    if (bad)
        add_bad_request(error, bad);
    if (retry)
        add_retry_info(error, retry);
}

static void add_details(VpError *error, const grpc_metadata_array *trailing)
{
    for (size_t i = 0; i < trailing->count; i++) {
        const grpc_slice value = trailing->metadata[i].value;

        if (grpc_slice_str_cmp(trailing->metadata[i].key, "grpc-status-details-bin") != 0)
            continue;
        vp_pb_auto Google__Rpc__Status *details =
            google__rpc__status__unpack(NULL, GRPC_SLICE_LENGTH(value), GRPC_SLICE_START_PTR(value));
        for (size_t d = 0; details && d < details->n_details; d++)
            add_detail(error, details->details[d]);
    }
}

/* UNAVAILABLE is made by C core too, when there is no connection. The channel's state tells the two apart. */
static gboolean is_unreachable(VpClient *client, const VpClientStatus *status)
{
    return status->code == GRPC_STATUS_UNAVAILABLE && status->trailing.count == 0 &&
           grpc_channel_check_connectivity_state(client->channel, /* try_to_connect= */ 0) ==
               GRPC_CHANNEL_TRANSIENT_FAILURE;
}

VpError *vp_client_status_error(VpClient *client, const VpClientStatus *status)
{
    if (status->code == GRPC_STATUS_OK)
        return NULL;

    g_autofree char *words =
        g_strndup((const char *)GRPC_SLICE_START_PTR(status->details), GRPC_SLICE_LENGTH(status->details));
    if (is_unreachable(client, status)) {
        g_autofree char *why = vp_client_why_unreachable(client->address);
        const char *core = strstr(words, CONNECT_WORDS);

        return vp_error_new(VP_UNAVAILABLE, VP_CLIENT_NO_DAEMON, "no daemon answers at %s%s: %s", client->address,
                            client->tls ? " with TLS" : "",
                            why    ? why
                            : core ? core + strlen(CONNECT_WORDS)
                                   : words);
    }

    VpError *error =
        vp_error_new((VpCode)status->code, NULL, "%s", *words ? words : vp_code_name((VpCode)status->code));
    add_details(error, &status->trailing);
    return error;
}
