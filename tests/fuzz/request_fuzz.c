/*
 * libFuzzer on what comes from clients: the validator, and protobuf-c on what it lets pass. The first byte chooses the method, so that one corpus serves all
 * request types. What passes must be unpacked, and packing that again must pass.
 */
#include <stdlib.h>

#include "base/pb.h"
#include "server/rpc/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const VpContract *contract(void)
{
    static VpContract *it;
    VpError *error = NULL;

    if (!it)
        it = vp_contract_new(&error);
    if (!it)
        abort();
    return it;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const GArray *methods = vp_contract_methods(contract());
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *input = g_array_index(methods, VpMethod, data[0] % methods->len).input;
    g_autoptr(VpError) refused = vp_validate(contract(), input, data + 1, size - 1);
    if (refused) {
        if (refused->code != VP_INVALID_ARGUMENT || !g_utf8_validate(refused->message, -1, NULL))
            abort();
        return 0;
    }

    vp_pb_auto ProtobufCMessage *message = protobuf_c_message_unpack(input, NULL, size - 1, data + 1);
    if (!message)
        abort();
    g_autoptr(GBytes) packed = vp_pb_pack(message);
    gsize packed_size = 0;
    const guint8 *bytes = g_bytes_get_data(packed, &packed_size);
    g_autoptr(VpError) again = vp_validate(contract(), input, bytes, packed_size);
    if (again)
        abort();
    return 0;
}
