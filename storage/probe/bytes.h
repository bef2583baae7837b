/* Integers out of header bytes, whatever the byte order of the host and however the bytes are aligned. The caller has checked the bounds. */
#pragma once

#include <glib.h>
#include <string.h>

static inline guint16 vp_be16(const guint8 *p)
{
    return (guint16)(p[0] << 8 | p[1]);
}

static inline guint32 vp_be32(const guint8 *p)
{
    return (guint32)p[0] << 24 | (guint32)p[1] << 16 | (guint32)p[2] << 8 | p[3];
}

static inline guint64 vp_be64(const guint8 *p)
{
    return (guint64)vp_be32(p) << 32 | vp_be32(p + 4);
}

static inline guint16 vp_le16(const guint8 *p)
{
    return (guint16)(p[1] << 8 | p[0]);
}

static inline guint32 vp_le32(const guint8 *p)
{
    return (guint32)p[3] << 24 | (guint32)p[2] << 16 | (guint32)p[1] << 8 | p[0];
}

static inline guint64 vp_le64(const guint8 *p)
{
    return (guint64)vp_le32(p + 4) << 32 | vp_le32(p);
}
