/* Builds qcow2 headers byte by byte, and feeds the probe from memory as the walk feeds it from a file. */
#pragma once

#include <glib.h>

#include "storage/probe/probe.h"

#define HEADER_CLUSTER 65536u
#define HEADER_FILE (4u * HEADER_CLUSTER)

/* A file of HEADER_FILE bytes with a well formed qcow2 header of 1 MiB, no backing file. Version 3 has a header of 104 bytes. */
GByteArray *header_new(guint32 version);

/* Big-endian numbers at an offset. */
void header_put32(GByteArray *file, gsize offset, guint32 value);
void header_put64(GByteArray *file, gsize offset, guint64 value);

/* An extension at `offset`; answers where the next one goes. The rest is zero, so there is an end mark. */
gsize header_extension(GByteArray *file, gsize offset, guint32 type, const void *data, gsize size);

/* Puts a backing name at `offset`. */
void header_backing(GByteArray *file, gsize offset, const char *name);

/* Probes the bytes as a file. Fails the test if the probe asks for what it may not ask for. */
void probe_bytes(const guint8 *bytes, gsize size, PbImageFormat declared, VpProbe *probe);
void probe_file(const GByteArray *file, PbImageFormat declared, VpProbe *probe);

/* Whether an issue of that code was noted. */
gboolean has_issue(const VpProbe *probe, PbFindingCode code);
