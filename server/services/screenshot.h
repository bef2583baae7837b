/* Serves TakeScreenshot: asks the domain's driver for a picture in a file of ours, makes a PNG of it, and streams that as its reader takes it. */
#pragma once

#include "server/services/services.h"

void vp_screenshot_take(VpServices *services, VpCall *call, const PbTakeScreenshotRequest *request);
