/* See text.h. */
#include "storage/chain/text.h"

#include <string.h>

static void append_hex(GString *out, const char *bytes, gsize count)
{
    for (gsize i = 0; i < count; i++) {
        g_string_append_printf(out, "\\x%02x", (guint8)bytes[i]);
    }
}

/* Copies what is good and writes the rest as \xNN; `quote`: for $'...', where backslashes and quotes are escaped too. */
static char *escape(const char *bytes, gssize size, gboolean control_too, gboolean quote)
{
    gsize left = size < 0 ? strlen(bytes) : (gsize)size;
    GString *out = g_string_sized_new(left + 16);

    while (left > 0) {
        gunichar c = g_utf8_get_char_validated(bytes, (gssize)left);
        gsize width = 1;
        if (c == (gunichar)-1 || c == (gunichar)-2 || c == 0) {
            append_hex(out, bytes, 1);
        } else {
            width = (gsize)(g_utf8_next_char(bytes) - bytes);
            if (control_too && !g_unichar_isprint(c)) {
                append_hex(out, bytes, width);
            } else {
                if (quote && (c == '\\' || c == '\'')) {
                    g_string_append_c(out, '\\');
                }
                g_string_append_len(out, bytes, (gssize)width);
            }
        }
        bytes += width;
        left -= width;
    }
    return g_string_free(out, FALSE);
}

char *vp_text_escape(const char *bytes, gssize size)
{
    return escape(bytes, size, /* control_too= */ TRUE, /* quote= */ FALSE);
}

char *vp_text_utf8(const char *bytes, gssize size)
{
    /* Nearly every path is. */
    if (g_utf8_validate(bytes, size, NULL)) {
        return size < 0 ? g_strdup(bytes) : g_strndup(bytes, (gsize)size);
    }
    return escape(bytes, size, /* control_too= */ FALSE, /* quote= */ FALSE);
}

char *vp_text_shell(const char *bytes)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=@%:,";
    if (bytes[0] && bytes[strspn(bytes, plain)] == '\0') {
        return g_strdup(bytes);
    }
    g_autofree char *escaped = vp_text_escape(bytes, -1);
    if (strcmp(escaped, bytes) == 0) {
        return g_shell_quote(bytes);
    }
    g_autofree char *body = escape(bytes, -1, /* control_too= */ TRUE, /* quote= */ TRUE);
    return g_strdup_printf("$'%s'", body);
}
