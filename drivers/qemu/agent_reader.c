/* The messages of a guest's agent: see agent_reader.h. */
#include "agent_reader.h"

#include <string.h>

#define DELIMITER 0xff

void vp_agent_reader_init(VpAgentReader *reader)
{
    *reader = (VpAgentReader){.line = g_byte_array_new(), .max_bytes = VP_AGENT_COMMON_MESSAGE};
}

void vp_agent_reader_clear(VpAgentReader *reader)
{
    g_clear_pointer(&reader->line, g_byte_array_unref);
}

/* A long answer's memory is not kept. */
static void begin_line(VpAgentReader *reader)
{
    g_byte_array_unref(reader->line);
    reader->line = g_byte_array_new();
    reader->delimited = FALSE;
    reader->too_long = FALSE;
}

void vp_agent_reader_wait(VpAgentReader *reader)
{
    begin_line(reader);
    reader->waiting = TRUE;
}

/* Whether a parser may have it. What is in a string does not count; where one is not well formed the parser says so. */
static gboolean within_bounds(const guint8 *text, gsize length)
{
    gboolean in_string = FALSE;
    guint values = 1;
    guint depth = 0;

    for (gsize i = 0; i < length; i++) {
        const guint8 c = text[i];

        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        if (in_string)
            continue;
        if (c == '[' || c == '{')
            depth++;
        else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        if (c == ',' || c == ':' || c == '[' || c == '{')
            values++;
        if (depth > VP_AGENT_MAX_DEPTH || values > VP_AGENT_MAX_VALUES)
            return FALSE;
    }
    return TRUE;
}

static VpAgentRead parse(const GByteArray *line, json_t **ret_message)
{
    if (!within_bounds(line->data, line->len))
        return VP_AGENT_READ_TOO_LARGE;
    json_t *message = json_loadb((const char *)line->data, line->len, 0, NULL);
    if (!json_is_object(message)) {
        json_decref(message);
        return VP_AGENT_READ_GARBAGE;
    }
    *ret_message = message;
    return VP_AGENT_READ_MESSAGE;
}

static gboolean is_blank(const GByteArray *line)
{
    for (guint i = 0; i < line->len; i++) {
        if (!strchr(" \t\r", line->data[i]))
            return FALSE;
    }
    return TRUE;
}

/* The line has ended. */
static VpAgentRead end_line(VpAgentReader *reader, json_t **ret_message, gboolean *ret_delimited)
{
    VpAgentRead read = VP_AGENT_READ_MORE;

    *ret_delimited = reader->delimited;
    if (reader->too_long)
        read = VP_AGENT_READ_TOO_LARGE;
    else if (!is_blank(reader->line))
        read = parse(reader->line, ret_message);
    begin_line(reader);
    return read;
}

static void append(VpAgentReader *reader, const guint8 *data, gsize length)
{
    if (reader->waiting || reader->too_long)
        return;
    if (reader->line->len > reader->max_bytes || length > reader->max_bytes - reader->line->len) {
        begin_line(reader);
        reader->too_long = TRUE;
        return;
    }
    g_byte_array_append(reader->line, data, (guint)length);
}

VpAgentRead vp_agent_reader_take(VpAgentReader *reader, const guint8 **data, gsize *length, json_t **ret_message,
                                 gboolean *ret_delimited)
{
    while (*length > 0) {
        gsize n = 0;

        while (n < *length && (*data)[n] != '\n' && (*data)[n] != DELIMITER)
            n++;
        append(reader, *data, n);
        const gboolean ended = n < *length;
        const guint8 end = ended ? (*data)[n] : 0;
        n += ended;
        *data += n;
        *length -= n;
        if (ended && end == DELIMITER) {
            begin_line(reader);
            reader->waiting = FALSE;
            reader->delimited = TRUE;
        } else if (ended && !reader->waiting) {
            const VpAgentRead read = end_line(reader, ret_message, ret_delimited);

            if (read != VP_AGENT_READ_MORE)
                return read;
        }
    }
    return VP_AGENT_READ_MORE;
}
