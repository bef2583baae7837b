/* libFuzzer on what a guest's agent sends: in pieces of any length, no message passes its bounds, and whole ones come out whatever the pieces. */
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "drivers/qemu/agent_reader.h"
#include "drivers/qemu/guest_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever was asked, this is the answer. What comes of it can be sent on: protobuf-c would stumble over what is not whole. */
static void read_as_all(json_t *result)
{
    vp_pb_auto PbGuestInfo *info = vp_pb_new(&pb_guest_info__descriptor);
    vp_pb_auto PbPingGuestResponse *agent = vp_pb_new(&pb_ping_guest_response__descriptor);
    g_autofree guint8 *bytes = NULL;
    gsize size;
    gboolean at_end;
    gint64 number;

    vp_guest_read_agent(result, agent);
    vp_guest_read_system(result, info);
    vp_guest_read_host_name(result, info);
    vp_guest_read_zone(result, info);
    vp_guest_read_filesystems(result, info);
    vp_guest_read_time(result, &number);
    vp_guest_read_pid(result, &number);
    if (vp_guest_read_chunk(result, 100, &bytes, &size, &at_end) && size > 100)
        abort();
    void *const messages[] = {
        vp_guest_read_run(result, 100),
        vp_guest_read_interfaces(result),
        vp_guest_read_users(result),
        vp_guest_read_trim(result),
        vp_pb_dup(info),
        vp_pb_dup(agent),
    };
    for (size_t i = 0; i < G_N_ELEMENTS(messages); i++) {
        vp_pb_free(vp_pb_dup(messages[i]));
        vp_pb_free(messages[i]);
    }
}

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

            if (json_object_get(message, "return"))
                read_as_all(json_object_get(message, "return"));
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
