/* Tells that files have changed, by watching their folders: files that are replaced, as tools do it, are other files afterwards. */
#pragma once

#include "base/error.h"

typedef struct VpFileWatch VpFileWatch;

/* Calls `changed(data)` on a thread of its own when anything in the folders of `files` (NULL ones are left out) has; it must not block for long. */
VpFileWatch *vp_file_watch_new(const char *const *files, gsize n_files, void (*changed)(void *data), void *data,
                               VpError **error);
/* Afterwards it is not called any more. NULL is let pass. */
void vp_file_watch_free(VpFileWatch *watch);
