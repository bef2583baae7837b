/* Rich errors: see status.h. */
#include "server/rpc/status.h"

#include <string.h>

#include "base/pb.h"
#include "google_rpc.pb-c.h"

static void add_detail(Google__Rpc__Status *status, const void *detail)
{
    const ProtobufCMessage *message = detail;
    g_autoptr(GBytes) packed = vp_pb_pack(message);
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);
    Google__Protobuf__Any *any = vp_pb_new(&google__protobuf__any__descriptor);

    vp_pb_printf(&any->type_url, "type.googleapis.com/%s", message->descriptor->name);
    any->value.data = g_memdup2(bytes, size);
    any->value.len = size;
    vp_pb_append(&status->n_details, &status->details, any);
}

static void add_error_info(Google__Rpc__Status *status, const VpError *error)
{
    vp_pb_auto Google__Rpc__ErrorInfo *info = vp_pb_new(&google__rpc__error_info__descriptor);

    vp_pb_set(&info->reason, error->reason);
    vp_pb_set(&info->domain, VP_ERROR_DOMAIN);
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);
        Google__Rpc__ErrorInfo__MetadataEntry *entry = vp_pb_new(&google__rpc__error_info__metadata_entry__descriptor);

        vp_pb_set(&entry->key, pair->key);
        vp_pb_set(&entry->value, pair->value);
        vp_pb_append(&info->n_metadata, &info->metadata, entry);
    }
    add_detail(status, info);
}

static void add_bad_request(Google__Rpc__Status *status, const VpError *error)
{
    vp_pb_auto Google__Rpc__BadRequest *bad = vp_pb_new(&google__rpc__bad_request__descriptor);

    for (guint i = 0; i < error->violations->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->violations, VpErrorPair, i);
        Google__Rpc__FieldViolation *violation = vp_pb_new(&google__rpc__field_violation__descriptor);

        vp_pb_set(&violation->field, pair->key);
        vp_pb_set(&violation->description, pair->value);
        vp_pb_append(&bad->n_field_violations, &bad->field_violations, violation);
    }
    add_detail(status, bad);
}

static void add_retry_info(Google__Rpc__Status *status, const VpError *error)
{
    vp_pb_auto Google__Rpc__RetryInfo *retry = vp_pb_new(&google__rpc__retry_info__descriptor);

    retry->retry_delay = vp_pb_new(&google__protobuf__duration__descriptor);
    retry->retry_delay->seconds = error->retry_after_ms / 1000;
    retry->retry_delay->nanos = (gint32)(error->retry_after_ms % 1000) * 1000000;
    add_detail(status, retry);
}

GBytes *vp_status_details(const VpError *error, gsize max_bytes)
{
    vp_pb_auto Google__Rpc__Status *status = vp_pb_new(&google__rpc__status__descriptor);

    status->code = (gint32)error->code;
    vp_pb_set(&status->message, error->message);
    if (error->reason)
        add_error_info(status, error);
    if (error->retry_after_ms > 0)
        add_retry_info(status, error);
    if (error->violations)
        add_bad_request(status, error);

    /* Metadata have a limit (8 KiB in the clients' defaults): a trailer beyond it would cost the client the whole status. The last detail goes
     * first: the reason is the one that programs need. */
    while (google__rpc__status__get_packed_size(status) > max_bytes && status->n_details > 0)
        vp_pb_free(status->details[--status->n_details]);
    if (google__rpc__status__get_packed_size(status) > max_bytes)
        vp_pb_set(&status->message, "");
    return vp_pb_pack(status);
}
