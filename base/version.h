/* The version that all programs of the project carry. */
#pragma once

#define VP_VERSION "0.1.0"
