/* The settings of how much clients may use: see config.h. */
#include "server/config.h"

static const char *const limits_keys[] = {
    [VP_POLICY_CONNECTIONS] = "connections",
    [VP_POLICY_CALLS] = "calls",
    [VP_POLICY_STREAMS] = "streams",
    [VP_POLICY_CALLS_PER_SECOND] = "calls_per_second",
    [VP_POLICY_MESSAGE_BYTES] = "message_bytes",
    [VP_POLICY_DOMAINS] = "domains",
    [VP_POLICY_SECRETS] = "secrets",
};

static VpError *wrong(const char *group, const char *key, const char *what)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "[%s] %s: %s", group, key, what);
}

/* -1 if it is not set. */
static VpError *read_number(const VpConfig *config, const char *group, const char *key, guint64 most, gint64 *setting)
{
    g_autoptr(GError) why = NULL;

    *setting = -1;
    if (!g_key_file_has_key(config->file, group, key, NULL))
        return NULL;
    const guint64 value = g_key_file_get_uint64(config->file, group, key, &why);
    if (why || value > most)
        return wrong(group, key, why ? why->message : "is too large");
    *setting = (gint64)value;
    return NULL;
}

static VpError *read_of_all(VpConfig *config)
{
    const struct {
        const char *key;
        guint64 most;
        guint *setting;
    } settings[] = {
        {"max_connections", 100000, &config->max_connections},
        {"max_calls", 1000000, &config->max_calls},
        {"max_streams", 1000000, &config->max_streams},
        {"max_calls_per_second", VP_POLICY_MOST, &config->max_calls_per_second},
        {"max_message_bytes", 64u << 20, &config->max_message_bytes},
        {"max_domains", VP_POLICY_MOST, &config->max_domains},
        {"max_secrets", VP_POLICY_MOST, &config->max_secrets},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(settings); i++) {
        gint64 value = -1;
        VpError *error = read_number(config, "daemon", settings[i].key, settings[i].most, &value);

        if (error)
            return error;
        *settings[i].setting = value < 0 ? 0 : (guint)value;
    }
    return NULL;
}

static gboolean is_known(const char *key)
{
    for (gsize i = 0; i < G_N_ELEMENTS(limits_keys); i++) {
        if (g_str_equal(limits_keys[i], key))
            return TRUE;
    }
    return FALSE;
}

VpError *vp_config_read_limits(VpConfig *config)
{
    g_auto(GStrv) keys = g_key_file_get_keys(config->file, "limits", NULL, NULL);
    VpError *error = read_of_all(config);

    for (char **key = keys; !error && key && *key; key++) {
        if (!is_known(*key))
            error = wrong("limits", *key, "there is no such setting");
    }
    for (gsize i = 0; !error && i < G_N_ELEMENTS(limits_keys); i++)
        error = read_number(config, "limits", limits_keys[i], VP_POLICY_MOST, &config->limits[i]);
    return error;
}
