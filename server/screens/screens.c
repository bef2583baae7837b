/* Which screens are served, and where: see screens.h. */
#include "server/screens/screens.h"

#include <sys/resource.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/screens/internal.h"

void vp_screens_count(VpScreens *screens, gint change)
{
    VP_LOCK(&screens->mutex);
    screens->live += (guint)change;
    if (screens->live == 0)
        pthread_cond_broadcast(&screens->idle);
}

/* ---- the table; under the mutex ---- */

static VpScreenListener *find(VpScreens *screens, const char *uid, const char *device)
{
    g_autofree char *key = g_strdup_printf("%s %s", uid, device);

    return g_hash_table_lookup(screens->listeners, key);
}

/* Takes `listener`. */
static void put(VpScreens *screens, VpScreenListener *listener)
{
    screens->live++;
    listener->counted = TRUE;
    g_hash_table_insert(screens->listeners, listener->key, listener);
    vp_screen_listener_open(listener);
}

/* A reference, for vp_screen_listener_close() without the mutex. */
static VpScreenListener *remove_one(VpScreens *screens, VpScreenListener *listener)
{
    g_hash_table_steal(screens->listeners, listener->key);
    return listener;
}

static void close_all(GPtrArray *listeners)
{
    for (guint i = 0; i < listeners->len; i++)
        vp_screen_listener_close(listeners->pdata[i]);
}

static const char *const devices[] = {"vnc", "spice"};

static const PbDomainEndpoint *find_endpoint(const PbDomain *domain, const char *device)
{
    for (size_t i = 0; domain && domain->status && i < domain->status->n_endpoints; i++) {
        if (domain->status->endpoints[i]->tls_port && g_str_equal(domain->status->endpoints[i]->device, device))
            return domain->status->endpoints[i];
    }
    return NULL;
}

/* What `domain` (NULL: it is gone) has no use for goes out of the table, into the array. */
static GPtrArray *take_unused(VpScreens *screens, const char *uid, const PbDomain *domain, gboolean taken_too)
{
    GPtrArray *unused = g_ptr_array_new_with_free_func((GDestroyNotify)vp_screen_listener_unref);

    for (gsize i = 0; i < G_N_ELEMENTS(devices); i++) {
        VpScreenListener *listener = find(screens, uid, devices[i]);
        const gboolean used = find_endpoint(domain, devices[i]) != NULL;

        if (listener && !used && (taken_too || !listener->taken))
            g_ptr_array_add(unused, remove_one(screens, listener));
        else if (listener && used)
            listener->taken = FALSE;
    }
    return unused;
}

/* ---- as the domains' host ---- */

static VpError *check(void *data, const PbDomain *domain)
{
    const VpScreens *screens = data;

    if (screens->tls || domain->spec->n_tls_screens == 0)
        return NULL;
    return vp_error_violation(
        vp_error_new(VP_FAILED_PRECONDITION, "TLS_NOT_SET_UP",
                     "the domain %s asks for screens by TLS (tls_screens), and this daemon has no certificates: set "
                     "certificate, key and ca in [tls] of its configuration (vpctl pki makes them) and start it anew, "
                     "or leave tls_screens out",
                     domain->name),
        "domain.spec.tls_screens", "needs [tls] in the daemon's configuration");
}

static VpScreenListener *listen_for(VpScreens *screens, const PbDomain *domain, const PbTlsScreen *screen,
                                    VpError **error)
{
    const char *device = screen->type == PB_GRAPHICS_TYPE_SPICE ? "spice" : "vnc";
    const char *address = vp_screen_address_or_default(screen->address);
    int fd = -1;
    guint port = 0;
    VpError *failure = vp_screen_address_listen(address, screen->port, &fd, &port);

    if (!failure)
        return vp_screen_listener_new(screens, domain->uid, device, address, port, fd);
    *error = vp_error_prefix(failure, "the screen %s of the domain %s cannot be served", device, domain->name);
    return NULL;
}

static VpError *take(void *data, const PbDomain *domain)
{
    VpScreens *screens = data;
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func((GDestroyNotify)vp_screen_listener_unref);
    VpError *error = NULL;

    /* What is left of a run before is in nobody's way. */
    pthread_mutex_lock(&screens->mutex);
    g_autoptr(GPtrArray) before = take_unused(screens, domain->uid, NULL, /* taken_too= */ TRUE);
    pthread_mutex_unlock(&screens->mutex);
    close_all(before);
    for (size_t i = 0; i < domain->spec->n_tls_screens && !error; i++) {
        VpScreenListener *listener = listen_for(screens, domain, domain->spec->tls_screens[i], &error);

        if (listener)
            g_ptr_array_add(made, listener);
    }
    if (error)
        return error;
    VP_LOCK(&screens->mutex);
    if (screens->stopping)
        return vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "domain %s: the daemon stops", domain->name);
    for (guint i = 0; i < made->len; i++) {
        VpScreenListener *listener = made->pdata[i];

        listener->taken = TRUE;
        put(screens, vp_screen_listener_ref(listener));
    }
    return NULL;
}

static void settle(void *data, const char *uid, const PbDomain *domain)
{
    VpScreens *screens = data;

    pthread_mutex_lock(&screens->mutex);
    g_autoptr(GPtrArray) unused = take_unused(screens, uid, domain, /* taken_too= */ TRUE);
    pthread_mutex_unlock(&screens->mutex);
    close_all(unused);
}

static void tell(void *data, const char *uid, PbDomainEndpoint *endpoint)
{
    VpScreens *screens = data;
    VP_LOCK(&screens->mutex);
    const VpScreenListener *listener = find(screens, uid, endpoint->device);

    if (!listener)
        return;
    vp_pb_set(&endpoint->tls_address, listener->address);
    endpoint->tls_port = listener->port;
}

/* Of a domain that ran already when the daemon was started: at the address that clients know. */
static void take_up(VpScreens *screens, const PbDomain *domain, const PbDomainEndpoint *endpoint)
{
    int fd = -1;
    guint port = 0;
    /* One that is not to be had now is tried again, and told of, on the loop. */
    g_autoptr(VpError) error = vp_screen_address_listen(endpoint->tls_address, endpoint->tls_port, &fd, &port);

    put(screens,
        vp_screen_listener_new(screens, domain->uid, endpoint->device, endpoint->tls_address, endpoint->tls_port, fd));
}

static void changed(void *data, const PbDomain *domain)
{
    VpScreens *screens = data;

    pthread_mutex_lock(&screens->mutex);
    g_autoptr(GPtrArray) unused = take_unused(screens, domain->uid, domain, /* taken_too= */ FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(devices) && !screens->stopping && screens->tls; i++) {
        const PbDomainEndpoint *endpoint = find_endpoint(domain, devices[i]);

        if (endpoint && !find(screens, domain->uid, devices[i]))
            take_up(screens, domain, endpoint);
    }
    pthread_mutex_unlock(&screens->mutex);
    close_all(unused);
}

/* ---- its life ---- */

/* Under the mutex. */
static GPtrArray *all(VpScreens *screens)
{
    GPtrArray *listeners = g_ptr_array_new_with_free_func((GDestroyNotify)vp_screen_listener_unref);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, screens->listeners);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        g_ptr_array_add(listeners, vp_screen_listener_ref(value));
    return listeners;
}

static GPtrArray *all_now(VpScreens *screens)
{
    VP_LOCK(&screens->mutex);
    return all(screens);
}

VpScreens *vp_screens_new(gboolean tls, VpError **error)
{
    VpScreens *screens = g_new0(VpScreens, 1);
    struct rlimit limit = {.rlim_cur = 1024};

    getrlimit(RLIMIT_NOFILE, &limit);
    screens->tls = tls;
    screens->most_open = (guint)MIN((rlim_t)VP_SCREENS_MOST_OPEN, limit.rlim_cur / 8);
    screens->most_strangers = MAX(1, (guint)MIN((rlim_t)VP_SCREENS_MOST_STRANGERS, limit.rlim_cur / 16));
    screens->strangers = g_ptr_array_new();
    screens->host = (VpScreenHost){
        .check = check,
        .take = take,
        .settle = settle,
        .tell = tell,
        .changed = changed,
        .data = screens,
    };
    pthread_mutex_init(&screens->mutex, NULL);
    vp_cond_init(&screens->idle);
    screens->listeners = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)vp_screen_listener_unref);
    /* Without certificates nothing is ever served: no thread, and none of the descriptors that a loop takes. */
    screens->loop = tls ? vp_loop_new("vp-screens", error) : NULL;
    if (screens->loop || !tls)
        return screens;
    vp_screens_free(screens);
    return NULL;
}

const VpScreenHost *vp_screens_host(VpScreens *screens)
{
    return &screens->host;
}

static void serve_on_loop(void *data)
{
    VpScreens *screens = data;
    g_autoptr(GPtrArray) listeners = all_now(screens);

    screens->serving = TRUE;
    for (guint i = 0; i < listeners->len; i++)
        vp_screen_listener_serve(listeners->pdata[i]);
}

void vp_screens_start(VpScreens *screens, const VpScreensOptions *options)
{
    if (!screens->loop)
        return;
    screens->options = *options;
    screens->lines = vp_lines_new(options->domains, screens->loop, options->pool);
    screens->certificates = vp_screen_tls_new(vp_auth_tls(options->access->auth));
}

void vp_screens_serve(VpScreens *screens, VpAccounts *accounts)
{
    if (!screens->loop)
        return;
    screens->accounts = accounts;
    vp_loop_post(screens->loop, serve_on_loop, screens);
}

static void recheck_on_loop(void *data)
{
    VpScreens *screens = data;
    g_autoptr(GPtrArray) listeners = all_now(screens);

    for (guint i = 0; i < listeners->len; i++) {
        const VpScreenListener *listener = listeners->pdata[i];

        /* Those that end go out of the list, and perhaps others before them that have to make room. */
        for (guint j = listener->connections->len; j-- > 0;) {
            if (j < listener->connections->len)
                vp_viewer_recheck(listener->connections->pdata[j]);
        }
    }
}

void vp_screens_recheck(VpScreens *screens)
{
    if (screens->loop)
        vp_loop_post(screens->loop, recheck_on_loop, screens);
}

void vp_screens_stop(VpScreens *screens)
{
    if (!screens)
        return;
    pthread_mutex_lock(&screens->mutex);
    screens->stopping = TRUE;
    GPtrArray *listeners = all(screens);
    g_hash_table_remove_all(screens->listeners);
    pthread_mutex_unlock(&screens->mutex);
    close_all(listeners);
    g_ptr_array_unref(listeners);

    pthread_mutex_lock(&screens->mutex);
    while (screens->live > 0)
        pthread_cond_wait(&screens->idle, &screens->mutex);
    pthread_mutex_unlock(&screens->mutex);
    vp_lines_free(g_steal_pointer(&screens->lines));
    vp_screen_tls_free(g_steal_pointer(&screens->certificates));
}

void vp_screens_free(VpScreens *screens)
{
    if (!screens)
        return;
    vp_loop_free(screens->loop);
    g_hash_table_unref(screens->listeners);
    g_ptr_array_unref(screens->strangers);
    pthread_cond_destroy(&screens->idle);
    pthread_mutex_destroy(&screens->mutex);
    g_free(screens);
}
