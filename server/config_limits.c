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
        guint64 value = 0;
        VpError *error = vp_config_read_number(config, "daemon", settings[i].key, settings[i].most, &value);

        if (error)
            return error;
        *settings[i].setting = (guint)value;
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
            error = vp_config_wrong("limits", *key, "there is no such setting");
    }
    for (gsize i = 0; !error && i < G_N_ELEMENTS(limits_keys); i++) {
        guint64 value = G_MAXUINT64; /* -1: not set */

        error = vp_config_read_number(config, "limits", limits_keys[i], VP_POLICY_MOST, &value);
        config->limits[i] = (gint64)value;
    }
    return error;
}
