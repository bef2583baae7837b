/* virtplane.v1.SecretService. Values come in and never go out. */
#include <string.h>

#include "base/pb.h"
#include "server/secrets/secrets.h"
#include "server/services/services.h"
#include "virtplane/v1/secret_service.pb-c.h"

static void get_secret(VpCall *call, const void *message, void *context)
{
    const PbGetSecretRequest *request = message;
    const VpServices *services = context;
    VpError *error = NULL;
    vp_pb_auto PbSecret *secret = vp_secrets_get(services->secrets, request->name, request->uid, &error);
    PbGetSecretResponse response = PB_GET_SECRET_RESPONSE__INIT;

    if (!secret) {
        vp_call_fail(call, error);
        return;
    }
    response.secret = secret;
    vp_call_reply(call, &response);
}

static gboolean sees(const VpSight *sight, const PbSecret *secret)
{
    const VpResource resource = {.type = "secret",
                                 .name = secret->name,
                                 .uid = secret->uid,
                                 .n_labels = secret->n_labels,
                                 .labels = (void *const *)secret->labels};

    return vp_sight_sees(sight, &resource);
}

/* Labels are what is large of a secret, at most 16 KiB: a page of so many has less than clients take. */
#define PAGE_MOST 100

/* The secrets of a page: those that the caller sees. */
static GPtrArray *list_seen(const VpServices *services, const VpSight *sight, const PbListSecretsRequest *request,
                            const char *after, gboolean *ret_more)
{
    GPtrArray *seen = g_ptr_array_new_with_free_func(vp_pb_free);
    const guint limit = MIN(vp_page_size(request->page_size), PAGE_MOST);
    g_autofree char *place = g_strdup(after);

    *ret_more = TRUE;
    while (*ret_more && seen->len < limit) {
        g_autoptr(GPtrArray) secrets =
            vp_secrets_list(services->secrets, request->filter, place, limit - seen->len, ret_more);

        for (guint i = 0; i < secrets->len; i++) {
            PbSecret *secret = secrets->pdata[i];

            g_free(place);
            place = g_strdup(secret->name);
            if (sees(sight, secret))
                g_ptr_array_add(seen, vp_pb_dup(secret));
        }
    }
    return seen;
}

static void list_secrets(VpCall *call, const void *message, void *context)
{
    const PbListSecretsRequest *request = message;
    const VpServices *services = context;
    PbListSecretsResponse response = PB_LIST_SECRETS_RESPONSE__INIT;
    g_autofree char *after = NULL;
    g_autofree char *token = NULL;
    g_auto(VpSight) sight = {0};
    gboolean more = FALSE;

    VpError *error =
        vp_page_token_read(&services->page_key, "ListSecrets", request->filter, request->page_token, &after);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    vp_sight_take(call, NULL, &sight);
    response.revision = vp_store_revision(services->store);
    g_autoptr(GPtrArray) secrets = list_seen(services, &sight, request, after, &more);
    response.n_secrets = secrets->len;
    response.secrets = (PbSecret **)secrets->pdata;
    if (more && secrets->len > 0) {
        const PbSecret *last = secrets->pdata[secrets->len - 1];

        token = vp_page_token_new(&services->page_key, "ListSecrets", request->filter, last->name);
        response.next_page_token = token;
    }
    vp_call_reply(call, &response);
}

/* ---- changes; on worker threads, as they wait for the disk ---- */

static VpSecretCaller who_calls(VpCaller *caller, VpCall *call)
{
    vp_call_caller(call, caller);
    return (VpSecretCaller){.identity = caller->identity ? caller->identity : "anonymous",
                            .text = caller->text,
                            .most_secrets = vp_call_limits(call).secrets};
}

static void create_secret(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;
    VpError *error = NULL;
    VpCaller caller;
    const VpSecretCaller who = who_calls(&caller, call);
    vp_pb_auto PbSecret *secret = vp_secrets_create(services->secrets, message, &who, &error);
    PbCreateSecretResponse response = PB_CREATE_SECRET_RESPONSE__INIT;

    if (!secret) {
        vp_call_fail(call, error);
        return;
    }
    response.secret = secret;
    vp_call_reply(call, &response);
}

static void set_secret_value(VpCall *call, const void *message, void *context)
{
    const PbSetSecretValueRequest *request = message;
    const VpServices *services = context;
    VpError *error = NULL;
    VpCaller caller;
    const VpSecretCaller who = who_calls(&caller, call);
    vp_pb_auto PbSecret *secret = vp_secrets_set_value(services->secrets, request, &who, &error);
    PbSetSecretValueResponse response = PB_SET_SECRET_VALUE_RESPONSE__INIT;

    /* It is ours until the call goes, and is not looked at again. */
    if (request->value.len > 0)
        explicit_bzero(request->value.data, request->value.len);
    if (!secret) {
        vp_call_fail(call, error);
        return;
    }
    response.secret = secret;
    vp_call_reply(call, &response);
}

static void delete_secret(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;
    VpError *error = NULL;
    VpCaller caller;
    const VpSecretCaller who = who_calls(&caller, call);
    PbDeleteSecretResponse response = PB_DELETE_SECRET_RESPONSE__INIT;

    response.revision = vp_secrets_delete(services->secrets, message, &who, &error);
    if (error)
        vp_call_fail(call, error);
    else
        vp_call_reply(call, &response);
}

const VpMethodHandler vp_secret_handlers[] = {
    {"virtplane.v1.SecretService/CreateSecret", create_secret, VP_RPC_WORKER},
    {"virtplane.v1.SecretService/GetSecret", get_secret, VP_RPC_INLINE},
    {"virtplane.v1.SecretService/ListSecrets", list_secrets, VP_RPC_INLINE},
    {"virtplane.v1.SecretService/SetSecretValue", set_secret_value, VP_RPC_WORKER},
    {"virtplane.v1.SecretService/DeleteSecret", delete_secret, VP_RPC_WORKER},
    {0},
};
