/* libFuzzer on what a guest's agent sends: in pieces of any length, no message passes its bounds, and whole ones come out whatever the pieces. */
#include <stdlib.h>
#include <string.h>

#include "drivers/qemu/agent_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The messages of the text, one a line, read in pieces of `piece` bytes. */
static GString *read_all(const uint8_t *text, size_t size, size_t piece)
{
    GString *told = g_string_new(NULL);
    VpAgentReader reader;

    vp_agent_reader_init(&reader);
    while (size > 0) {
        const guint8 *data = text;
        gsize length = MIN(piece, size);

        text += length;
        size -= length;
        while (length > 0) {
            json_t *message = NULL;
            gboolean delimited = FALSE;
            const VpAgentRead read = vp_agent_reader_take(&reader, &data, &length, &message, &delimited);

            if ((read == VP_AGENT_READ_MESSAGE) != json_is_object(message))
                abort();
            if (read == VP_AGENT_READ_MORE)
                break;
            char *line = message ? json_dumps(message, JSON_COMPACT) : NULL;
            g_string_append_printf(told, "%d %d %s\n", (int)read, delimited, line ? line : "-");
            free(line);
            json_decref(message);
            /* As the client does when an answer was not one. */
            if (read == VP_AGENT_READ_TOO_LARGE)
                vp_agent_reader_wait(&reader);
        }
    }
    vp_agent_reader_clear(&reader);
    return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GString) whole = read_all(data, size, size);
    g_autoptr(GString) bytes = read_all(data, size, 1);
    g_autoptr(GString) some = read_all(data, size, 7);

    if (strcmp(whole->str, bytes->str) != 0 || strcmp(whole->str, some->str) != 0)
        abort();
    return 0;
}
