/* Settings: see config.h. The file is a key file (https://docs.gtk.org/glib/struct.KeyFile.html) with the groups [daemon], [events] and
 * [images] (storage/chain/policy.h) and one for each driver. */
#include "server/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "drivers/driver.h"

#define DEFAULT_DRAIN_MS 10000
#define DEFAULT_AUTOSTART_PARALLEL 4

static VpError *check_keys(VpConfig *config, const char *path, const char *group, const char *const *known)
{
    g_auto(GStrv) keys = g_key_file_get_keys(config->file, group, NULL, NULL);

    for (char **key = keys; key && *key; key++) {
        if (!g_strv_contains(known, *key))
            return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "%s: [%s] has no setting \"%s\"", path, group, *key);
    }
    return NULL;
}

static gboolean is_driver(const char *name)
{
    for (const VpDriverOps *const *ops = vp_driver_table; *ops; ops++) {
        if (g_str_equal((*ops)->name, name))
            return TRUE;
    }
    return FALSE;
}

/* A group that is misspelt would be a setting that silently does nothing. */
static VpError *check_groups(VpConfig *config, const char *path)
{
    static const char *const own[] = {"daemon", "events", "images",  "auth",   "tls",
                                      "tokens", "audit",  "secrets", "limits", NULL};
    g_auto(GStrv) groups = g_key_file_get_groups(config->file, NULL);

    for (char **group = groups; *group; group++) {
        if (!g_strv_contains(own, *group) && !is_driver(*group))
            return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG",
                                "%s: there is no group [%s]; [daemon], [events], [images], [auth], [tls], [tokens], "
                                "[audit], [secrets], [limits] and one for each driver are",
                                path, *group);
    }
    return NULL;
}

static VpError *load_file(VpConfig *config, const char *path)
{
    static const char *const daemon_keys[] =
        {"state_dir",   "listen",       "rpc_threads",          "drain_ms",
         "socket_mode", "socket_group", "insecure_tcp",         "max_connections",
         "max_calls",   "max_streams",  "max_calls_per_second", "max_message_bytes",
         "max_domains", "max_secrets",  "autostart_parallel",   "sandbox",
         NULL};
    static const char *const events_keys[] = {"max_count",  "max_bytes",        "max_age_seconds",
                                              "keep_count", "keep_age_seconds", "clients",
                                              NULL};
    g_autoptr(GError) why = NULL;

    if (!path)
        return NULL;
    if (!g_key_file_load_from_file(config->file, path, G_KEY_FILE_NONE, &why))
        return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "the configuration %s cannot be read: %s", path,
                            why->message);

    VpError *error = check_groups(config, path);
    if (!error)
        error = check_keys(config, path, "daemon", daemon_keys);
    return error ? error : check_keys(config, path, "events", events_keys);
}

VpError *vp_config_wrong(const char *group, const char *key, const char *what)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "[%s] %s: %s", group, key, what);
}

VpError *vp_config_read_number(const VpConfig *config, const char *group, const char *key, guint64 most,
                               guint64 *setting)
{
    g_autoptr(GError) why = NULL;

    if (!g_key_file_has_key(config->file, group, key, NULL))
        return NULL;
    const guint64 value = g_key_file_get_uint64(config->file, group, key, &why);
    if (why || value > most)
        return vp_config_wrong(group, key, why ? why->message : "is too large");
    *setting = value;
    return NULL;
}

VpError *vp_config_read_boolean(const VpConfig *config, const char *group, const char *key, gboolean *setting)
{
    g_autoptr(GError) why = NULL;

    if (!g_key_file_has_key(config->file, group, key, NULL))
        return NULL;
    const gboolean value = g_key_file_get_boolean(config->file, group, key, &why);
    if (why)
        return vp_config_wrong(group, key, "is true or false");
    *setting = value;
    return NULL;
}

static VpError *read_uint(VpConfig *config, const char *key, guint most, guint *setting)
{
    guint64 value = *setting;
    VpError *error = vp_config_read_number(config, "daemon", key, most, &value);

    *setting = (guint)value;
    return error;
}

/* Large enough for whatever is meant, and small enough to be multiplied. */
#define EVENTS_MOST (1ull << 50)

static VpError *read_events(VpConfig *config)
{
    const struct {
        const char *key;
        guint64 *setting;
    } settings[] = {
        {"max_count", &config->events_max_count},         {"max_bytes", &config->events_max_bytes},
        {"max_age_seconds", &config->events_max_age_s},   {"keep_count", &config->events_keep_count},
        {"keep_age_seconds", &config->events_keep_age_s}, {"clients", &config->events_clients},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(settings); i++) {
        VpError *error = vp_config_read_number(config, "events", settings[i].key, EVENTS_MOST, settings[i].setting);

        if (error)
            return error;
    }
    return NULL;
}

/* Root has the system's folders, everyone else their own. */
static VpError *fill_folders(VpConfig *config, const char *state_dir)
{
    const char *runtime = g_getenv("XDG_RUNTIME_DIR");

    if (state_dir && state_dir[0])
        config->state_dir = g_canonicalize_filename(state_dir, NULL);
    else if (!state_dir)
        config->state_dir = g_key_file_get_string(config->file, "daemon", "state_dir", NULL);
    /* A path on the command line starts where the person is; in the file it would start wherever the daemon is started from. */
    if ((state_dir && !state_dir[0]) || (config->state_dir && config->state_dir[0] != '/'))
        return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "state_dir \"%s\" is no absolute path",
                            config->state_dir ? config->state_dir : "");

    if (config->state_dir)
        /* A daemon with a state folder of its own is a world of its own. */
        config->run_dir = g_build_filename(config->state_dir, "run", NULL);
    else if (geteuid() == 0)
        config->run_dir = g_strdup("/run/virtplane");
    else if (runtime && runtime[0] == '/')
        config->run_dir = g_build_filename(runtime, "virtplane", NULL);
    else
        return vp_error_new(VP_FAILED_PRECONDITION, "CONFIG",
                            "XDG_RUNTIME_DIR is not set; set it, or give --state-dir and --listen");
    if (!config->state_dir)
        config->state_dir = geteuid() == 0 ? g_strdup("/var/lib/virtplane")
                                           : g_build_filename(g_get_user_state_dir(), "virtplane", NULL);
    return NULL;
}

static VpError *make_folder(const char *path)
{
    if (g_mkdir_with_parents(path, 0700) < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", path);
    if (access(path, R_OK | W_OK | X_OK) < 0)
        return vp_error_errno(errno, "STATE_DIR", "the folder %s cannot be used", path);
    return NULL;
}

static VpError *fill(VpConfig *config, const VpConfigArguments *arguments)
{
    VpError *error = load_file(config, arguments->config);
    if (!error)
        error = fill_folders(config, arguments->state_dir);
    if (!error)
        error = make_folder(config->state_dir);
    if (!error)
        error = make_folder(config->run_dir);
    if (!error)
        error = read_uint(config, "rpc_threads", 64, &config->rpc_threads);
    if (!error)
        error = read_uint(config, "drain_ms", 600000, &config->drain_ms);
    if (!error)
        error = vp_config_read_limits(config);
    if (!error)
        error = read_uint(config, "autostart_parallel", 64, &config->autostart_parallel);
    if (!error)
        error = vp_config_read_boolean(config, "daemon", "sandbox", &config->sandbox);
    if (!error)
        error = read_events(config);
    if (!error)
        error = vp_image_policy_read(config->file, &config->images);
    if (!error)
        error = vp_config_read_security(config, arguments, arguments->config);
    if (error)
        return error;

    config->listen = arguments->listen ? g_strdupv(arguments->listen)
                                       : g_key_file_get_string_list(config->file, "daemon", "listen", NULL, NULL);
    /* Sockets that systemd listens on stand for the default address. */
    const gboolean given = arguments->sockets && arguments->sockets[0] >= 0;
    if (!config->listen && given)
        config->listen = g_new0(char *, 1);
    if (!config->listen) {
        g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
        g_autofree char *address = g_strdup_printf("unix:%s/virtplaned.sock", config->run_dir);

        g_strv_builder_add(builder, address);
        config->listen = g_strv_builder_end(builder);
    }
    if (!config->listen[0] && !given)
        return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG",
                            "[daemon] listen: names no address; unix:PATH or HOST:PORT is one");
    return NULL;
}

VpConfig *vp_config_new(const VpConfigArguments *arguments, VpError **error)
{
    g_autoptr(VpConfig) config = g_new0(VpConfig, 1);

    config->file = g_key_file_new();
    config->drain_ms = DEFAULT_DRAIN_MS;
    config->autostart_parallel = DEFAULT_AUTOSTART_PARALLEL;
    config->sandbox = TRUE;
    VpError *failure = fill(config, arguments);
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&config);
}

void vp_config_free(VpConfig *config)
{
    if (!config)
        return;
    g_free(config->state_dir);
    g_free(config->run_dir);
    g_strfreev(config->listen);
    g_free(config->sockets);
    vp_config_clear_security(&config->security);
    vp_image_policy_clear(&config->images);
    g_key_file_unref(config->file);
    g_free(config);
}
