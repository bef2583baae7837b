/*
 * List, then watch: the domains that a stream begins with. They are read from the store as of one revision, so that the events after it fit on with
 * nothing missed and nothing twice. One list serves all streams that waited when it was made: a thousand consumers that come back at once, after the
 * daemon's restart, cost one.
 */
#include "base/pb.h"
#include "base/thread.h"
#include "server/services/event_stream.h"

/* No further list is made while those that slow readers hold have more than this. */
#define MAX_STATE_BYTES (32u << 20)

void vp_state_list_unref(VpStateList *list)
{
    if (!list || !g_atomic_int_dec_and_test(&list->refs))
        return;
    pthread_mutex_lock(&list->hub->mutex);
    list->hub->state_bytes -= list->bytes;
    pthread_mutex_unlock(&list->hub->mutex);
    g_ptr_array_unref(list->states);
    g_free(list);
}

/* What is stored does not repeat the key's revision: see server/domains. */
static GBytes *pack_state(const VpKeyValue *kv)
{
    vp_pb_auto PbDomain *domain = vp_pb_unpack(&pb_domain__descriptor, kv->value);
    PbResourceState state = PB_RESOURCE_STATE__INIT;

    if (!domain)
        return NULL;
    domain->revision = kv->mod_revision;
    state.resource_case = PB_RESOURCE_STATE__RESOURCE_DOMAIN;
    state.domain = domain;
    return vp_pb_pack(&state);
}

static VpStateList *list_new(VpEventHub *hub, VpError **error)
{
    gint64 revision = 0;
    g_autoptr(GPtrArray) stored = vp_store_snapshot(hub->store, "/domains/", &revision, error);

    if (!stored)
        return NULL;
    VpStateList *list = g_new0(VpStateList, 1);
    list->refs = 1;
    list->hub = hub;
    list->revision = revision;
    list->states = g_ptr_array_new_full(stored->len, (GDestroyNotify)g_bytes_unref);
    for (guint i = 0; i < stored->len; i++) {
        const VpKeyValue *kv = stored->pdata[i];
        GBytes *packed = pack_state(kv);

        if (!packed) {
            *error = vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT",
                                  "the stored domain %s cannot be read; restore the store from a backup", kv->key);
            vp_state_list_unref(list);
            return NULL;
        }
        g_ptr_array_add(list->states, packed);
        list->bytes += g_bytes_get_size(packed);
        pthread_mutex_lock(&hub->mutex);
        hub->state_bytes += g_bytes_get_size(packed);
        pthread_mutex_unlock(&hub->mutex);
    }
    return list;
}

static VpError *too_busy(void)
{
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY",
                                       "the daemon is sending its state to too many slow consumers; try again"),
                          1000);
}

/* Those that wait now. The list is made after they asked, never before. The caller comes again if there were any, unless it gives up. */
static GPtrArray *take_listeners(VpEventHub *hub, gboolean give_up, gboolean *ret_room)
{
    GPtrArray *streams = g_ptr_array_new_with_free_func((GDestroyNotify)vp_event_stream_unref);

    VP_LOCK(&hub->mutex);
    while (!g_queue_is_empty(&hub->listeners))
        g_ptr_array_add(streams, g_queue_pop_head(&hub->listeners));
    hub->listing = streams->len > 0 && !give_up;
    if (!hub->listing)
        pthread_cond_broadcast(&hub->empty);
    *ret_room = hub->state_bytes <= MAX_STATE_BYTES;
    return streams;
}

static void begin_stream(VpEventStream *stream, VpStateList *list)
{
    g_atomic_int_inc(&list->refs);
    stream->state = list;
    stream->next_revision = list->revision + 1;
    vp_event_stream_pump(stream);
}

/* On a worker, for as long as there are streams that wait. */
static void make_lists(void *data)
{
    VpEventHub *hub = data;

    for (;;) {
        gboolean room = FALSE;
        g_autoptr(GPtrArray) streams = take_listeners(hub, /* give_up= */ FALSE, &room);
        g_autoptr(VpError) error = NULL;

        if (streams->len == 0)
            return;
        VpStateList *list = room ? list_new(hub, &error) : NULL;
        if (!list && !error)
            error = too_busy();
        for (guint i = 0; i < streams->len; i++) {
            if (list)
                begin_stream(streams->pdata[i], list);
            else
                vp_event_stream_fail(streams->pdata[i], vp_error_copy(error));
        }
        vp_state_list_unref(list);
    }
}

void vp_event_state_begin(VpEventStream *stream)
{
    VpEventHub *hub = stream->hub;

    pthread_mutex_lock(&hub->mutex);
    g_queue_push_tail(&hub->listeners, vp_event_stream_ref(stream));
    const gboolean first = !hub->listing;
    hub->listing = TRUE;
    pthread_mutex_unlock(&hub->mutex);
    if (!first || vp_pool_submit(hub->pool, make_lists, hub))
        return;

    gboolean room = FALSE;
    g_autoptr(GPtrArray) refused = take_listeners(hub, /* give_up= */ TRUE, &room);
    for (guint i = 0; i < refused->len; i++)
        vp_event_stream_fail(refused->pdata[i], too_busy());
}
