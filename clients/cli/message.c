/* Fields of messages by name: see message.h. */
#include "clients/cli/message.h"

#include "base/pb.h"

void *vp_message_field(void *message, const char *name)
{
    const ProtobufCMessageDescriptor *descriptor = ((ProtobufCMessage *)message)->descriptor;
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(descriptor, name);

    g_assert(field);
    return (char *)message + field->offset;
}

void vp_message_set_who(void *message, const char *who)
{
    if (!g_uuid_string_is_valid(who)) {
        vp_pb_set(vp_message_field(message, "name"), who);
        return;
    }
    g_autofree char *lower = g_ascii_strdown(who, -1);
    vp_pb_set(vp_message_field(message, "uid"), lower);
}

Google__Protobuf__Duration *vp_message_duration(gint64 ms)
{
    Google__Protobuf__Duration *duration = vp_pb_new(&google__protobuf__duration__descriptor);

    duration->seconds = ms / 1000;
    duration->nanos = (gint32)(ms % 1000) * 1000000;
    return duration;
}
