/* An error as a person reads it: see complain.h. */
#include "clients/cli/complain.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/c/client.h"
#include "clients/cli/text.h"

static const char UNIX_PREFIX[] = "unix:";
static const char SYSTEM_SOCKET[] = "/run/virtplane/virtplaned.sock";

/* ---- what is told already ---- */

static gboolean is_word(char c)
{
    return g_ascii_isalnum(c) || c == '_' || c == '-' || c == '/' || (guchar)c >= 0x80;
}

/* Whether `text` has `value` as words of their own: who has read the one need not read the other. */
static gboolean says(const char *text, const char *value)
{
    const gsize length = strlen(value);

    for (const char *at = strstr(text, value); length && at; at = strstr(at + 1, value)) {
        const char *end = at + length;

        if ((at == text || !is_word(at[-1])) && !is_word(*end) && !(*end == '.' && is_word(end[1])))
            return TRUE;
    }
    return FALSE;
}

/* The message without the remedy that it may end with, and without the name that `doing` ended with. */
static char *bare_message(const VpError *error, const char *doing)
{
    const char *remedy = vp_error_get(error, "remedy");
    g_autofree char *tail = remedy && *remedy ? g_strdup_printf(". Remedy: %s", remedy) : NULL;
    const char *space = strrchr(doing, ' ');
    g_autofree char *head = g_strdup_printf("%s: ", space ? space + 1 : doing);
    const char *start = error->message + (g_str_has_prefix(error->message, head) ? strlen(head) : 0);

    return g_strndup(start, strlen(start) - (tail && g_str_has_suffix(start, tail) ? strlen(tail) : 0));
}

/* ---- the details below ---- */

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

static void append_details(GString *out, const VpError *error, const char *told)
{
    const char *remedy = vp_error_get(error, "remedy");

    for (guint i = 0; error->violations && i < error->violations->len; i++) {
        const VpErrorPair *violation = &g_array_index(error->violations, VpErrorPair, i);

        if (!says(told, violation->value))
            append_pair(out, *violation->key ? violation->key : "request", violation->value);
    }
    if (error->reason && *error->reason)
        append_pair(out, "reason", error->reason);
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);

        if (!g_str_equal(pair->key, "remedy") && !says(told, pair->value))
            append_pair(out, pair->key, pair->value);
    }
    /* Last, where the eye rests: what to do. */
    if (remedy && *remedy)
        append_pair(out, "remedy", remedy);
    if (error->retry_after_ms > 0)
        g_string_append_printf(out, "  try again in %.1f s\n", (double)error->retry_after_ms / 1000);
}

/* ---- no daemon ---- */

static void advise_socket(GString *out, const char *path)
{
    g_autofree char *shown = vp_text_escape(path);

    if (access(path, R_OK | W_OK) < 0 && errno == EACCES) {
        g_string_append_printf(out,
                               "  The daemon at %s belongs to another user. Run vpctl as that one (as in sudo vpctl)\n"
                               "  or start a daemon of your own:  virtplaned\n",
                               shown);
        return;
    }
    g_string_append(out, "  Start a daemon with:  virtplaned\n");
    if (geteuid() != 0 && !g_str_equal(path, SYSTEM_SOCKET) && access(SYSTEM_SOCKET, F_OK) == 0)
        g_string_append(out, "  or ask the system's daemon, which is there:  sudo vpctl ...\n");
    g_string_append(out, "  or name another one with --connect ADDRESS or VIRTPLANE_ENDPOINT (unix:PATH, HOST:PORT)\n");
}

static void advise(GString *out, const char *address)
{
    if (address && g_str_has_prefix(address, UNIX_PREFIX)) {
        advise_socket(out, address + strlen(UNIX_PREFIX));
        return;
    }
    g_string_append(out,
                    "  Check the host and the port, and that the daemon listens there (virtplaned --listen HOST:PORT)\n"
                    "  or name another one with --connect ADDRESS or VIRTPLANE_ENDPOINT (unix:PATH, HOST:PORT)\n");
}

char *vp_complain(const VpError *error, const char *doing, const char *address, gint64 timeout_ms)
{
    g_autofree char *bare = bare_message(error, doing);
    g_autofree char *safe_doing = vp_text_escape(doing);
    g_autofree char *safe_message = vp_text_escape(bare);
    GString *out = g_string_new("vpctl: ");

    /* A message that says what could not be done needs no other one to say so. */
    if (!g_str_has_prefix(safe_message, "cannot "))
        g_string_append_printf(out, "cannot %s: ", safe_doing);
    if (vp_client_no_answer(error)) {
        g_string_append_printf(out, "%s\n", safe_message);
        advise(out, address);
    } else if (error->code == VP_DEADLINE_EXCEEDED && !error->reason) {
        /* Made here, when the clock ran out: the words of gRPC say nothing more. */
        g_string_append_printf(out,
                               "no answer within %.1f s\n"
                               "  What was asked for may still be under way:  vpctl operation list\n"
                               "  --timeout TIME waits longer\n",
                               (double)timeout_ms / 1000);
    } else if (error->code == VP_UNAVAILABLE && !error->reason) {
        /* A daemon that refuses says why; this one vanished. */
        g_string_append_printf(out,
                               "the connection to the daemon broke before it answered (%s)\n"
                               "  What was asked for may have been done: look before you ask again\n",
                               safe_message);
    } else {
        g_autofree char *told = g_strdup_printf("%s: %s", doing, error->message);

        g_string_append_printf(out, "%s\n", safe_message);
        append_details(out, error, told);
    }
    return g_string_free(out, FALSE);
}

/* ---- for programs ---- */

char *vp_complain_json(const VpError *error)
{
    json_t *inner = json_pack("{s:s,s:s}", "code", vp_code_name(error->code), "message", error->message);
    json_t *metadata = json_object();
    json_t *violations = json_array();

    if (!inner) /* a message that is not UTF-8 */
        inner = json_pack("{s:s}", "code", vp_code_name(error->code));
    if (error->reason)
        json_object_set_new(inner, "reason", json_string(error->reason));
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);

        json_object_set_new(metadata, pair->key, json_string(pair->value));
    }
    for (guint i = 0; error->violations && i < error->violations->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->violations, VpErrorPair, i);

        json_array_append_new(violations, json_pack("{s:s,s:s}", "field", pair->key, "description", pair->value));
    }
    if (json_object_size(metadata))
        json_object_set(inner, "metadata", metadata);
    if (json_array_size(violations))
        json_object_set(inner, "violations", violations);
    if (error->retry_after_ms > 0)
        json_object_set_new(inner, "retryAfterMs", json_integer(error->retry_after_ms));
    json_decref(metadata);
    json_decref(violations);

    json_t *outer = json_pack("{s:o}", "error", inner);
    char *text = json_dumps(outer, JSON_COMPACT);
    g_autofree char *safe = vp_text_escape_json(text);
    char *line = g_strdup_printf("%s\n", safe);

    json_decref(outer);
    free(text);
    return line;
}
