/* What a domain in memory has on its screen. */
#pragma once

#include "base/error.h"

#define VP_TEST_PICTURE_WIDTH 320U
#define VP_TEST_PICTURE_HEIGHT 200U

/* Writes a binary PPM: bars of colour over a frame in the domain's own, darker while it is paused. */
VpError *vp_test_picture(int fd, const char *uid, gboolean paused);
