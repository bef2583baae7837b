/* See picture.h. */
#include "picture.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define BARS 8U
#define FRAME 10U

/* The bars' colours are the corners of the cube of colours. */
static void pixel(guint x, guint y, guint own, gboolean paused, guint8 ret_rgb[3])
{
    const gboolean frame =
        x < FRAME || x >= VP_TEST_PICTURE_WIDTH - FRAME || y < FRAME || y >= VP_TEST_PICTURE_HEIGHT - FRAME;
    const guint bar = x * BARS / VP_TEST_PICTURE_WIDTH;

    for (guint i = 0; i < 3; i++) {
        const guint value = frame ? (own >> (8 * i)) & 0xff : (bar >> i) & 1 ? 0xff : 0;

        ret_rgb[i] = (guint8)(paused ? value / 2 : value);
    }
}

VpError *vp_test_picture(int fd, const char *uid, gboolean paused)
{
    const guint own = g_str_hash(uid);
    g_autoptr(GByteArray) file = g_byte_array_new();
    g_autofree char *header = g_strdup_printf("P6\n%u %u\n255\n", VP_TEST_PICTURE_WIDTH, VP_TEST_PICTURE_HEIGHT);
    guint8 rgb[3];

    g_byte_array_append(file, (const guint8 *)header, (guint)strlen(header));
    for (guint y = 0; y < VP_TEST_PICTURE_HEIGHT; y++) {
        for (guint x = 0; x < VP_TEST_PICTURE_WIDTH; x++) {
            pixel(x, y, own, paused, rgb);
            g_byte_array_append(file, rgb, sizeof(rgb));
        }
    }
    if (pwrite(fd, file->data, file->len, 0) != (ssize_t)file->len)
        return vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot write the picture");
    return NULL;
}
