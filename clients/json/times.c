/* Timestamp and Duration as text: see internal.h. */
#include "clients/json/internal.h"

#include <string.h>

enum {
    NANOS_PER_SECOND = 1000000000,
};

static const gint64 MAX_DURATION_SECONDS = 315576000000; /* 10,000 years, as the mapping has it */

/* 0, 3, 6 or 9 digits, whichever suffices. */
static void append_fraction(GString *out, gint32 nanos)
{
    if (nanos == 0)
        return;
    if (nanos % 1000000 == 0)
        g_string_append_printf(out, ".%03d", nanos / 1000000);
    else if (nanos % 1000 == 0)
        g_string_append_printf(out, ".%06d", nanos / 1000);
    else
        g_string_append_printf(out, ".%09d", nanos);
}

/* Reads ".DIGITS" (1 to 9 of them) if there is a point; answers the end, or NULL if it is malformed. */
static const char *read_fraction(const char *text, gint32 *ret_nanos)
{
    gint32 nanos = 0;
    int digits = 0;

    if (*text != '.') {
        *ret_nanos = 0;
        return text;
    }
    for (text++; g_ascii_isdigit(*text); text++) {
        if (++digits > 9)
            return NULL;
        nanos = nanos * 10 + g_ascii_digit_value(*text);
    }
    if (digits == 0)
        return NULL;
    for (; digits < 9; digits++)
        nanos *= 10;
    *ret_nanos = nanos;
    return text;
}

char *vp_json_timestamp_text(gint64 seconds, gint32 nanos)
{
    if (nanos < 0 || nanos >= NANOS_PER_SECOND)
        return NULL;
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(seconds);
    if (!time)
        return NULL;

    GString *out = g_string_new(NULL);
    g_string_printf(out, "%04d-%02d-%02dT%02d:%02d:%02d", g_date_time_get_year(time), g_date_time_get_month(time),
                    g_date_time_get_day_of_month(time), g_date_time_get_hour(time), g_date_time_get_minute(time),
                    g_date_time_get_second(time));
    append_fraction(out, nanos);
    g_string_append_c(out, 'Z');
    return g_string_free(out, FALSE);
}

gboolean vp_json_timestamp_parse(const char *text, gint64 *ret_seconds, gint32 *ret_nanos)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd";
    gint32 nanos;

    /* GLib's parser takes much more than RFC 3339 does. */
    for (gsize i = 0; form[i]; i++) {
        if (form[i] == 'd' ? !g_ascii_isdigit(text[i]) : text[i] != form[i])
            return FALSE;
    }
    const char *zone = read_fraction(text + strlen(form), &nanos);
    if (!zone || (!g_str_equal(zone, "Z") && !(strlen(zone) == 6 && strchr("+-", zone[0]) && zone[3] == ':')))
        return FALSE;

    g_autofree char *whole = g_strdup_printf("%.*s%s", (int)strlen(form), text, zone);
    g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(whole, NULL);
    if (!time)
        return FALSE;
    *ret_seconds = g_date_time_to_unix(time);
    *ret_nanos = nanos;
    return TRUE;
}

char *vp_json_duration_text(gint64 seconds, gint32 nanos)
{
    if (seconds > MAX_DURATION_SECONDS || seconds < -MAX_DURATION_SECONDS || nanos <= -NANOS_PER_SECOND ||
        nanos >= NANOS_PER_SECOND || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0))
        return NULL;

    GString *out = g_string_new(seconds < 0 || nanos < 0 ? "-" : "");
    g_string_append_printf(out, "%" G_GINT64_FORMAT, ABS(seconds));
    append_fraction(out, ABS(nanos));
    g_string_append_c(out, 's');
    return g_string_free(out, FALSE);
}

gboolean vp_json_duration_parse(const char *text, gint64 *ret_seconds, gint32 *ret_nanos)
{
    const gboolean negative = *text == '-';
    gint64 seconds = 0;
    gint32 nanos;

    if (negative)
        text++;
    if (!g_ascii_isdigit(*text))
        return FALSE;
    for (; g_ascii_isdigit(*text); text++) {
        seconds = seconds * 10 + g_ascii_digit_value(*text);
        if (seconds > MAX_DURATION_SECONDS)
            return FALSE;
    }
    text = read_fraction(text, &nanos);
    if (!text || !g_str_equal(text, "s"))
        return FALSE;
    *ret_seconds = negative ? -seconds : seconds;
    *ret_nanos = negative ? -nanos : nanos;
    return TRUE;
}
