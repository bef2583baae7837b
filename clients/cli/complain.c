/* An error as a person reads it: see complain.h. */
#include "clients/cli/complain.h"

#include "clients/c/client.h"
#include "clients/cli/text.h"

/* "  key: value", with the lines of a value that has several below each other. */
static void append_pair(GString *out, const char *key, const char *value)
{
    g_autofree char *safe_key = vp_text_escape(key);
    g_auto(GStrv) lines = g_strsplit(value, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_autofree char *safe = vp_text_escape(*line);

        if (line == lines)
            g_string_append_printf(out, "  %s: %s\n", safe_key, safe);
        else
            g_string_append_printf(out, "    %s\n", safe);
    }
}

static void append_details(GString *out, const VpError *error)
{
    for (guint i = 0; error->violations && i < error->violations->len; i++) {
        const VpErrorPair *violation = &g_array_index(error->violations, VpErrorPair, i);

        append_pair(out, *violation->key ? violation->key : "request", violation->value);
    }
    if (error->reason && *error->reason)
        append_pair(out, "reason", error->reason);
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);

        if (!g_str_equal(pair->key, "remedy"))
            append_pair(out, pair->key, pair->value);
    }
    /* Last, where the eye rests: what to do. */
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);

        if (g_str_equal(pair->key, "remedy"))
            append_pair(out, pair->key, pair->value);
    }
    if (error->retry_after_ms > 0)
        g_string_append_printf(out, "  try again in %.1f s\n", (double)error->retry_after_ms / 1000);
}

char *vp_complain(const VpError *error, const char *doing, gint64 timeout_ms)
{
    GString *out = g_string_new(NULL);
    g_autofree char *safe_doing = vp_text_escape(doing);
    g_autofree char *safe_message = vp_text_escape(error->message);

    if (vp_client_no_answer(error)) {
        g_string_append_printf(
            out,
            "vpctl: cannot %s: %s\n"
            "  Start a daemon with:  virtplaned\n"
            "  or name another one with --connect ADDRESS or VIRTPLANE_ENDPOINT (unix:PATH, HOST:PORT)\n",
            safe_doing, safe_message);
        return g_string_free(out, FALSE);
    }
    /* Made here, when the clock ran out: the words of gRPC say nothing more. */
    if (error->code == VP_DEADLINE_EXCEEDED && !error->reason) {
        g_string_append_printf(out,
                               "vpctl: cannot %s: no answer within %.1f s\n"
                               "  What was asked for may still be under way:  vpctl operation list\n"
                               "  --timeout TIME waits longer\n",
                               safe_doing, (double)timeout_ms / 1000);
        return g_string_free(out, FALSE);
    }
    /* A daemon that refuses says why; this one vanished. */
    if (error->code == VP_UNAVAILABLE && !error->reason) {
        g_string_append_printf(out,
                               "vpctl: cannot %s: the connection to the daemon broke before it answered (%s)\n"
                               "  What was asked for may have been done: look before you ask again\n",
                               safe_doing, safe_message);
        return g_string_free(out, FALSE);
    }
    g_string_append_printf(out, "vpctl: cannot %s: %s\n", safe_doing, safe_message);
    append_details(out, error);
    return g_string_free(out, FALSE);
}
