/*
 * The daemon's log: lines to stderr, each with a level that journald understands ("<3>" when it is the journal that reads).
 * Library code returns errors and does not log; what logs is the place where an error ends.
 */
#pragma once

#include <glib.h>

typedef enum VpLogLevel {
    VP_LOG_ERROR = 3,
    VP_LOG_WARNING = 4,
    VP_LOG_INFO = 6,
    VP_LOG_DEBUG = 7,
} VpLogLevel;

/* Writes one line; control characters in it are written as \xNN, so that no outside text forges a line. Any thread. */
void vp_log(VpLogLevel level, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The least important level that is written; VP_LOG_INFO at first. Any thread. */
void vp_log_set_level(VpLogLevel level);
VpLogLevel vp_log_level(void);
