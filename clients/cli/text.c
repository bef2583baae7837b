/* Text for people: see text.h. */
#include "clients/cli/text.h"

#include <math.h>
#include <string.h>

/* Marks and overrides of writing direction: with them a name can show as another one. */
static gboolean turns_direction(gunichar c)
{
    return c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

static gboolean is_unsafe(gunichar c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || turns_direction(c);
}

static void append_escaped(GString *out, gunichar c)
{
    if (c == '\n')
        g_string_append(out, "\\n");
    else if (c == '\t')
        g_string_append(out, "\\t");
    else
        g_string_append_printf(out, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
}

char *vp_text_escape(const char *text)
{
    GString *out = g_string_new(NULL);

    for (const char *at = text ? text : ""; *at;) {
        const gunichar c = g_utf8_get_char_validated(at, -1);

        if (c == (gunichar)-1 || c == (gunichar)-2) {
            g_string_append_printf(out, "\\x%02x", (guchar)*at++);
            continue;
        }
        if (is_unsafe(c))
            append_escaped(out, c);
        else
            g_string_append_unichar(out, c);
        at = g_utf8_next_char(at);
    }
    return g_string_free(out, FALSE);
}

char *vp_text_escape_json(const char *json)
{
    GString *out = g_string_new(NULL);

    for (const char *at = json; *at; at = g_utf8_next_char(at)) {
        const gunichar c = g_utf8_get_char(at);

        if (c >= 0x20 && is_unsafe(c))
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_unichar(out, c);
    }
    return g_string_free(out, FALSE);
}

char *vp_text_shorten(const char *text, guint most)
{
    g_autofree char *safe = vp_text_escape(text);

    if (g_utf8_strlen(safe, -1) <= (glong)most)
        return g_steal_pointer(&safe);
    g_autofree char *start = g_utf8_substring(safe, 0, (glong)most - 3);
    return g_strconcat(start, "...", NULL);
}

char *vp_text_size(guint64 bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    guint unit = 0;

    while (value >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        unit++;
    }
    /* One digit after the point where it says something. */
    if (value < 100 && floor(value * 10 + 0.5) != floor(value) * 10)
        return g_strdup_printf("%.1f %s", value, units[unit]);
    return g_strdup_printf("%.0f %s", value, units[unit]);
}

static int unit_shift(const char *unit)
{
    static const char letters[] = "KMGTP";

    if (*unit == '\0')
        return 0;
    const char *found = strchr(letters, g_ascii_toupper(*unit));
    if (!found || (unit[1] != '\0' && !g_str_equal(unit + 1, "iB") && !g_str_equal(unit + 1, "i")))
        return -1;
    return (int)(found - letters + 1) * 10;
}

gboolean vp_text_parse_size(const char *text, guint64 *ret_bytes)
{
    char *end;

    if (!g_ascii_isdigit(*text))
        return FALSE;
    const guint64 whole = g_ascii_strtoull(text, &end, 10);
    double fraction = 0;
    if (*end == '.') {
        double scale = 0.1;

        if (!g_ascii_isdigit(end[1]))
            return FALSE;
        for (end++; g_ascii_isdigit(*end); end++, scale /= 10)
            fraction += g_ascii_digit_value(*end) * scale;
    }
    while (*end == ' ')
        end++;
    const int shift = unit_shift(end);
    if (shift < 0 || (fraction > 0 && shift == 0) || whole > (G_MAXUINT64 >> 1) >> shift)
        return FALSE;
    *ret_bytes = (whole << shift) + (guint64)(fraction * (double)(G_GUINT64_CONSTANT(1) << shift) + 0.5);
    return TRUE;
}

static gint64 unit_ms(const char **unit)
{
    static const struct {
        const char *name;
        gint64 ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 86400 * 1000}};

    for (guint i = 0; i < G_N_ELEMENTS(units); i++) {
        const gsize length = strlen(units[i].name);

        if (strncmp(*unit, units[i].name, length) == 0 && !g_ascii_isalpha((*unit)[length])) {
            *unit += length;
            return units[i].ms;
        }
    }
    return 0;
}

gboolean vp_text_parse_duration(const char *text, gint64 *ret_ms)
{
    static const gint64 max_ms = G_GINT64_CONSTANT(366) * 86400 * 1000;
    gint64 total = 0;

    if (!*text)
        return FALSE;
    while (*text) {
        char *end;

        if (!g_ascii_isdigit(*text))
            return FALSE;
        const double value = g_ascii_strtod(text, &end);
        const char *unit = end;
        const gint64 ms = *unit ? unit_ms(&unit) : 1000;
        /* A number without its unit is only understood alone. */
        if (ms == 0 || (!*end && total > 0) || value > (double)max_ms)
            return FALSE;
        total += (gint64)(value * (double)ms + 0.5);
        if (total > max_ms)
            return FALSE;
        text = unit;
    }
    *ret_ms = total;
    return TRUE;
}

char *vp_text_time(const Google__Protobuf__Timestamp *time, gboolean fraction)
{
    g_autoptr(GDateTime) utc = time ? g_date_time_new_from_unix_utc(time->seconds) : NULL;
    g_autoptr(GDateTime) local = utc ? g_date_time_to_local(utc) : NULL;

    if (!local)
        return g_strdup("-");
    g_autofree char *text = g_date_time_format(local, "%Y-%m-%d %H:%M:%S");
    if (!fraction)
        return g_steal_pointer(&text);
    return g_strdup_printf("%s.%03d", text, CLAMP(time->nanos / 1000000, 0, 999));
}

/* "ImageFormat" to "IMAGE_FORMAT_", what its values start with. */
static char *enum_prefix(const ProtobufCEnumDescriptor *descriptor)
{
    GString *out = g_string_new(NULL);

    for (const char *c = descriptor->short_name; *c; c++) {
        if (g_ascii_isupper(*c) && c != descriptor->short_name)
            g_string_append_c(out, '_');
        g_string_append_c(out, g_ascii_toupper(*c));
    }
    g_string_append_c(out, '_');
    return g_string_free(out, FALSE);
}

char *vp_text_code(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);
    g_autofree char *prefix = enum_prefix(descriptor);

    if (value == 0)
        return g_strdup("");
    if (!found)
        return g_strdup_printf("%d", value);
    return g_strdup(g_str_has_prefix(found->name, prefix) ? found->name + strlen(prefix) : found->name);
}

char *vp_text_enum(const ProtobufCEnumDescriptor *descriptor, int value)
{
    g_autofree char *code = vp_text_code(descriptor, value);
    char *text = g_ascii_strdown(code, -1);

    return g_strdelimit(text, "_", '-');
}

VpError *vp_text_parse_enum(const ProtobufCEnumDescriptor *descriptor, const char *text, int *ret_value)
{
    g_autofree char *prefix = enum_prefix(descriptor);
    g_autofree char *upper = g_ascii_strup(text, -1);
    g_autoptr(GString) known = g_string_new(NULL);

    g_strdelimit(upper, "-", '_');
    const char *wanted = g_str_has_prefix(upper, prefix) ? upper + strlen(prefix) : upper;
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        const int value = descriptor->values[i].value;
        g_autofree char *code = vp_text_code(descriptor, value);
        g_autofree char *shown = vp_text_enum(descriptor, value);

        if (*code && g_str_equal(code, wanted)) {
            *ret_value = value;
            return NULL;
        }
        if (*code)
            g_string_append_printf(known, "%s%s", known->len ? ", " : "", shown);
    }
    return vp_error_new(VP_INVALID_ARGUMENT, "UNKNOWN_VALUE", "\"%s\" is not known here; there is %s", text,
                        known->str);
}

/* Edits from one word to the other: letters put in, taken out, replaced, or swapped with their neighbour. */
static guint distance(const char *a, const char *b)
{
    enum {
        LONGEST = 32,
    };
    guint table[LONGEST + 1][LONGEST + 1];
    const gsize m = strlen(a);
    const gsize n = strlen(b);

    if (m > LONGEST || n > LONGEST)
        return G_MAXUINT;
    for (gsize i = 0; i <= m; i++) {
        for (gsize j = 0; j <= n; j++) {
            if (i == 0 || j == 0) {
                table[i][j] = (guint)(i + j);
                continue;
            }
            const guint replaced = table[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            table[i][j] = MIN(replaced, MIN(table[i - 1][j], table[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                table[i][j] = MIN(table[i][j], table[i - 2][j - 2] + 1);
        }
    }
    return table[m][n];
}

const char *vp_text_nearest(const char *text, const char *const *words)
{
    const char *best = NULL;
    guint least = G_MAXUINT;

    for (; *words; words++) {
        const guint edits = distance(text, *words);

        if (edits < least) {
            least = edits;
            best = *words;
        }
    }
    /* More than a third of the word changed is no slip of the fingers. */
    return best && least <= MAX(1, strlen(best) / 3) ? best : NULL;
}
