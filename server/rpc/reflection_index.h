/* What the embedded descriptors declare, and where: for reflection.c. Immutable once it is made. */
#pragma once

#include <glib.h>

typedef struct VpReflectionIndex VpReflectionIndex;

typedef struct VpReflectedFile {
    const guint8 *bytes; /* a FileDescriptorProto, within the program */
    gsize size;
    GPtrArray *imports; /* of VpReflectedFile */
} VpReflectedFile;

typedef struct VpReflectedExtension {
    gint32 number;
    const VpReflectedFile *file;
} VpReflectedExtension;

/* Takes a moment: some 2 ms. */
VpReflectionIndex *vp_reflection_index_new(void);

/* NULL: there is none. */
const VpReflectedFile *vp_reflection_by_name(const VpReflectionIndex *index, const char *name);
const VpReflectedFile *vp_reflection_by_symbol(const VpReflectionIndex *index, const char *symbol);
/* Of VpReflectedExtension; NULL: the type has none. */
const GArray *vp_reflection_extensions(const VpReflectionIndex *index, const char *type);

/* NULL is let pass. */
void vp_reflection_index_free(VpReflectionIndex *index);
