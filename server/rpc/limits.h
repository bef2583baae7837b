/* What one identity may have of the daemon at once. */
#pragma once

#include <glib.h>

/* 0: no such limit. */
typedef struct VpLimits {
    guint connections;
    guint calls; /* under way, streams included */
    guint streams;
    guint calls_per_second;
    gsize message_bytes; /* of one request; never more than the server takes of anybody */
    guint domains;       /* that it has created and that are still there */
    guint secrets;
    gboolean shared; /* not the identity of one client: connections do not count for it */
} VpLimits;
