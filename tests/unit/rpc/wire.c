/* See wire.h. */
#include "wire.h"

#include <stdlib.h>
#include <string.h>

void wire_varint(GByteArray *bytes, guint64 value)
{
    guint8 byte;

    for (; value >= 0x80; value >>= 7) {
        byte = (guint8)(value | 0x80);
        g_byte_array_append(bytes, &byte, 1);
    }
    byte = (guint8)value;
    g_byte_array_append(bytes, &byte, 1);
}

void wire_key(GByteArray *bytes, guint field, guint wire_type)
{
    wire_varint(bytes, (guint64)field << 3 | wire_type);
}

void wire_number(GByteArray *bytes, guint field, guint64 value)
{
    wire_key(bytes, field, 0);
    wire_varint(bytes, value);
}

void wire_bytes(GByteArray *bytes, guint field, const void *data, gsize size)
{
    wire_key(bytes, field, 2);
    wire_varint(bytes, size);
    g_byte_array_append(bytes, data, (guint)size);
}

void wire_text(GByteArray *bytes, guint field, const char *text)
{
    wire_bytes(bytes, field, text, strlen(text));
}

void wire_wrap(GByteArray *bytes, guint field)
{
    g_autofree guint8 *inner = g_memdup2(bytes->data, bytes->len);
    const guint size = bytes->len;

    g_byte_array_set_size(bytes, 0);
    wire_bytes(bytes, field, inner, size);
}

const VpMethod *method_of(const VpContract *contract, const char *name)
{
    g_autofree char *full = g_strconcat("virtplane.v1.", name, NULL);
    const GArray *methods = vp_contract_methods(contract);

    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, i);

        if (g_str_equal(method->method, full))
            return method;
    }
    g_printerr("there is no method %s\n", full);
    abort();
}
