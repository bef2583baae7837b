/* See picture.h. */
#include "server/services/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int vp_picture_file(VpError **error)
{
    const int fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        *error = vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot make a file for a picture");
    return fd;
}

/* ---- PPM ---- */

static VpError *bad(const char *why)
{
    return vp_error_new(VP_INTERNAL, "BAD_PICTURE", "the hypervisor's picture is none: %s", why);
}

/* White space and then a number; FALSE: they are not there, or the number is beyond all sense. */
static gboolean read_number(const char *text, gsize length, gsize *at, guint32 *ret_number)
{
    const gsize begin = *at;
    guint32 number = 0;

    while (*at < length && g_ascii_isspace(text[*at]))
        (*at)++;
    if (*at == begin || *at == length || !g_ascii_isdigit(text[*at]))
        return FALSE;
    for (; *at < length && g_ascii_isdigit(text[*at]); (*at)++) {
        number = number * 10 + (guint32)(text[*at] - '0');
        if (number > VP_PICTURE_MAX_PIXELS)
            return FALSE;
    }
    *ret_number = number;
    return TRUE;
}

VpError *vp_ppm_read(int fd, VpPpm *ret_ppm)
{
    char text[VP_PICTURE_MAX_HEADER];
    const ssize_t length = pread(fd, text, sizeof(text), 0);
    guint32 most = 0;
    gsize at = 2;
    VpPpm ppm = {0};

    /* What is mapped is not to be taken away by whoever wrote it. */
    if (length < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
        return vp_error_errno(errno, "BAD_PICTURE", "cannot read the hypervisor's picture");
    if (length < 2 || text[0] != 'P' || text[1] != '6')
        return bad("it does not begin as a PPM does");
    if (!read_number(text, (gsize)length, &at, &ppm.width) || !read_number(text, (gsize)length, &at, &ppm.height) ||
        !read_number(text, (gsize)length, &at, &most))
        return bad("its header is broken off");
    if (at == (gsize)length || !g_ascii_isspace(text[at]) || most != 255 || ppm.width == 0 || ppm.height == 0)
        return bad("its header says nothing sensible");
    if ((guint64)ppm.width * ppm.height > VP_PICTURE_MAX_PIXELS)
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "PICTURE_TOO_LARGE",
                            "the screen has %u by %u pixels; pictures of up to %u are taken", ppm.width, ppm.height,
                            VP_PICTURE_MAX_PIXELS);
    ppm.pixels_at = at + 1;
    ppm.size = ppm.pixels_at + (gsize)ppm.width * ppm.height * 3;
    if (lseek(fd, 0, SEEK_END) < (off_t)ppm.size)
        return bad("it is shorter than its header says");
    *ret_ppm = ppm;
    return NULL;
}

/* ---- PNG ---- */

static VpError *write_png(const guint8 *pixels, const VpPpm *ppm, FILE *file, gsize *ret_size)
{
    png_image image = {
        .version = PNG_IMAGE_VERSION,
        .width = ppm->width,
        .height = ppm->height,
        .format = PNG_FORMAT_RGB,
        .flags = PNG_IMAGE_FLAG_FAST, /* screens are flat: more effort saves little */
    };

    if (!png_image_write_to_stdio(&image, file, /* convert_to_8bit= */ 0, pixels, /* row_stride= */ 0, NULL))
        return vp_error_new(VP_INTERNAL, "SCREENSHOT_FAILED", "cannot compress the picture: %s", image.message);
    const long size = ftell(file);
    if (size <= 0 || fflush(file) != 0)
        return vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot write the picture");
    *ret_size = (gsize)size;
    return NULL;
}

VpError *vp_ppm_to_png(int ppm_fd, const VpPpm *ppm, int png_fd, gsize *ret_size)
{
    void *map = mmap(NULL, ppm->size, PROT_READ, MAP_SHARED, ppm_fd, 0);

    if (map == MAP_FAILED)
        return vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot map the picture");
    const int copy = fcntl(png_fd, F_DUPFD_CLOEXEC, 0);
    FILE *file = copy < 0 ? NULL : fdopen(copy, "wb");
    VpError *error = file ? write_png((const guint8 *)map + ppm->pixels_at, ppm, file, ret_size)
                          : vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot write the picture");

    if (file)
        fclose(file);
    else if (copy >= 0)
        close(copy);
    munmap(map, ppm->size);
    return error;
}
