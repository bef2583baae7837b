/* Pictures: what a hypervisor may write and what is taken of it, and that a PNG has what the PPM had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <png.h>
#include <string.h>
#include <unistd.h>

#include "server/services/picture.h"

static int file_with(const char *bytes, gsize length)
{
    VpError *error = NULL;
    const int fd = vp_picture_file(&error);

    assert_null(error);
    assert_int_equal(pwrite(fd, bytes, length, 0), length);
    return fd;
}

static void test_headers(void **state)
{
    static const struct {
        const char *text;
        guint32 width; /* 0: refused */
        guint32 height;
        gsize pixels_at;
        const char *reason;
    } cases[] = {
        {"P6\n720 400\n255\n", 720, 400, 15, NULL},
        {"P6 1\t1 255 ", 1, 1, 11, NULL},
        {"P6\n8192 4096\n255\n", 8192, 4096, 17, NULL},
        {"P6\n8192 4097\n255\n", 0, 0, 0, "PICTURE_TOO_LARGE"},
        {"P6\n99999999999999999999 1\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n33554433 1\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n65536 65536\n255\n", 0, 0, 0, "PICTURE_TOO_LARGE"},
        {"P6\n0 400\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n720 400\n65535\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n-720 400\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6720 400\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P5\n720 400\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n720 400\n255", 0, 0, 0, "BAD_PICTURE"},
        {"P6\n                                                                  7 4\n255\n", 0, 0, 0, "BAD_PICTURE"},
        {"", 0, 0, 0, "BAD_PICTURE"},
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        const int fd = file_with(cases[i].text, strlen(cases[i].text));
        /* The pixels are no part of these cases. */
        if (!cases[i].reason)
            assert_int_equal(ftruncate(fd, (off_t)cases[i].width * cases[i].height * 3 + 64), 0);
        VpPpm ppm = {0};
        g_autoptr(VpError) error = vp_ppm_read(fd, &ppm);

        assert_int_equal(error == NULL, cases[i].reason == NULL);
        if (error)
            assert_string_equal(error->reason, cases[i].reason);
        assert_int_equal(ppm.width, cases[i].width);
        assert_int_equal(ppm.height, cases[i].height);
        assert_int_equal(ppm.pixels_at, cases[i].pixels_at);
        close(fd);
    }
}

static void test_a_file_that_is_too_short(void **state)
{
    const int fd = file_with("P6\n2 2\n255\n12345678901", 22);
    VpPpm ppm;

    (void)state;
    g_autoptr(VpError) error = vp_ppm_read(fd, &ppm);
    assert_non_null(error);
    assert_string_equal(error->reason, "BAD_PICTURE");
    close(fd);
}

static void test_the_file_keeps_its_size(void **state)
{
    const int fd = file_with("P6\n2 2\n255\n123456789012", 23);
    VpPpm ppm;

    (void)state;
    assert_null(vp_ppm_read(fd, &ppm));
    assert_int_equal(ppm.size, 23);
    assert_int_equal(ftruncate(fd, 10), -1);
    assert_int_equal(pwrite(fd, "x", 1, 23), -1);
    close(fd);
}

static void test_a_png_has_the_same_pixels(void **state)
{
    static const char picture[] = "P6\n3 2\n255\nabcdefghi123456789";
    const int ppm_fd = file_with(picture, sizeof(picture) - 1);
    VpError *error = NULL;
    const int png_fd = vp_picture_file(&error);
    png_image image = {.version = PNG_IMAGE_VERSION};
    guint8 bytes[4096];
    guint8 pixels[18];
    gsize size = 0;
    VpPpm ppm;

    (void)state;
    assert_null(error);
    assert_null(vp_ppm_read(ppm_fd, &ppm));
    assert_null(vp_ppm_to_png(ppm_fd, &ppm, png_fd, &size));
    assert_in_range(size, 50, sizeof(bytes));
    assert_int_equal(pread(png_fd, bytes, size, 0), size);
    assert_true(png_image_begin_read_from_memory(&image, bytes, size));
    assert_int_equal(image.width, 3);
    assert_int_equal(image.height, 2);
    image.format = PNG_FORMAT_RGB;
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    assert_memory_equal(pixels, "abcdefghi123456789", 18);
    close(ppm_fd);
    close(png_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_a_file_that_is_too_short),
        cmocka_unit_test(test_the_file_keeps_its_size),
        cmocka_unit_test(test_a_png_has_the_same_pixels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
