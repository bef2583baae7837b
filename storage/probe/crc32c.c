/* See crc32c.h. Four bits a step: the table is small, and 72 KiB are all that is ever summed. */
#include "storage/probe/crc32c.h"

/* The reflected polynomial 0x82f63b78, for each value of four bits. */
static const guint32 table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

guint32 vp_crc32c(const guint8 *bytes, gsize size, gsize skip)
{
    guint32 crc = 0xffffffff;
    for (gsize i = 0; i < size; i++) {
        crc ^= i >= skip && i < skip + 4 ? 0 : bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}
