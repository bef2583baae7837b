/*
 * Pictures in files without a name: what a driver has written there as a PPM, and the same as a PNG. What is read comes from a hypervisor, and is not trusted.
 * Blocks for as long as the compression takes. Who calls: screenshot.c.
 */
#pragma once

#include "base/error.h"

/* A picture of 8192 by 4096 pixels. */
#define VP_PICTURE_MAX_PIXELS (32u << 20)
#define VP_PICTURE_MAX_HEADER 64

typedef struct VpPpm {
    guint32 width;   /* 1 or more, as is `height`; both together at most VP_PICTURE_MAX_PIXELS */
    guint32 height;  /* rows */
    gsize pixels_at; /* where the first row begins */
    gsize size;      /* of the whole file */
} VpPpm;

/* Makes an empty file in memory for a picture. -1 and an error. */
int vp_picture_file(VpError **error);

/* Reads the header of a binary PPM with three bytes a pixel. From here on the file keeps its size, whoever has it open. INTERNAL, reason BAD_PICTURE;
 * RESOURCE_EXHAUSTED, reason PICTURE_TOO_LARGE. */
VpError *vp_ppm_read(int fd, VpPpm *ret_ppm);

/* Compresses what was read into another such file; `ret_size` is the PNG's. */
VpError *vp_ppm_to_png(int ppm_fd, const VpPpm *ppm, int png_fd, gsize *ret_size);
