/* The driver `test`: domains in memory, and faults that a client sets through labels (docs/test-driver.md). */
#pragma once

#include "drivers/driver.h"

extern const VpDriverOps vp_test_driver;
