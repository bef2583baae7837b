/* What is in the root folder that a process is given: see contain.h. */
#pragma once

#include "confine.h"

/* Each adds to `view`, an array of VpViewEntry, what is above it first; what is there already is let be. What the host does not have is left out. */
void vp_view_folder(GArray *view, const char *target);
void vp_view_show(GArray *view, const char *source, const char *target, gboolean writable);
void vp_view_device(GArray *view, const char *path);

/* What every program needs: /usr and what leads into it, the loader's list, the harmless devices, its own descriptors. */
void vp_view_system(GArray *view);
/* A program that may be elsewhere than in /usr, alone. */
void vp_view_program(GArray *view, const char *binary);
/* What names of the network are resolved with. */
void vp_view_network(GArray *view);

GArray *vp_view_new(void);
