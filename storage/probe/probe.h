/*
 * What is this image, by its bytes alone? Pure: a prefix of the file, its last bytes and its size in, a verdict out. No file is opened, nothing
 * is allocated, and every number of a header is checked before it is used. The walk (storage/chain) reads the bytes and applies the rule.
 */
#pragma once

#include <glib.h>

#include "virtplane/v1/image.pb-c.h"

/* The first read of a file whose format is declared: holds the header, extensions and backing name of nearly every qcow2. */
#define VP_PROBE_HEAD_FIRST 4096u
/* The first read of a file whose format nobody declared: reaches beyond the ISO 9660 descriptor at 32 KiB, the furthest of all marks. */
#define VP_PROBE_HEAD_ALL 36864u
/* No format needs more of the head than this: qcow2's first cluster at its largest. */
#define VP_PROBE_HEAD_MAX (2u << 20)
/* The tail that the formats with a mark at the end need (VHD's footer, UDIF's trailer). */
#define VP_PROBE_TAIL 512u

#define VP_PROBE_ISSUES_MAX 12
#define VP_PROBE_FEATURES_MAX 16

typedef struct VpProbeInput {
    const guint8 *head;
    gsize head_size;    /* fewer than asked for only if the file ends there */
    const guint8 *tail; /* the last VP_PROBE_TAIL bytes, or NULL: marks at the end are not looked for */
    gsize tail_size;
    guint64 file_size;
} VpProbeInput;

/* One thing wrong or worth knowing. `text` may hold any bytes of the header but NUL: escape it before showing it. */
typedef struct VpProbeIssue {
    PbFindingCode code;
    PbSeverity severity;
    char text[232];
} VpProbeIssue;

/* Bytes within the head that was given, not terminated; `size` 0: none. */
typedef struct VpProbeText {
    const char *bytes;
    gsize size;
} VpProbeText;

typedef struct VpProbe {
    guint32 matches;          /* bit N: PbImageFormat N matches; raw content (ISO, GPT, MBR, FAT) included */
    PbImageFormat looks_like; /* the one format that matches; RAW if none; UNSPECIFIED if several do */
    PbImageFormat content;    /* ISO, GPT, MBR or FAT, if that is what a raw image holds; else UNSPECIFIED */
    PbImageFormat format;     /* the one that was read: the declared one, else `looks_like` */
    gboolean format_matches;  /* the bytes carry the mark of `format` (always for raw) */
    gboolean well_formed;     /* no issue of severity ERROR */
    gboolean readable;        /* this version reads `format` in full; if not, only the marks were looked at */

    guint32 version;
    guint64 virtual_size;
    guint64 cluster_size;
    gboolean encrypted;
    gboolean uses_data_file; /* guest data is in another file */
    VpProbeText backing_path;
    VpProbeText backing_format; /* as the header has it: QEMU's name */
    VpProbeText data_file;
    const char *features[VP_PROBE_FEATURES_MAX]; /* constants */
    guint n_features;
    VpProbeIssue issues[VP_PROBE_ISSUES_MAX]; /* when there are more, the first ones */
    guint n_issues;
} VpProbe;

/*
 * Reads the image as `declared`, or, with UNSPECIFIED, as the only format that matches. Answers 0: `probe` is filled in. Otherwise the
 * number of head bytes that are needed, more than were given and no more than the file has and VP_PROBE_HEAD_MAX: read them and call again.
 */
gsize vp_probe(const VpProbeInput *input, PbImageFormat declared, VpProbe *probe);

/* For the parsers: notes an issue; severity ERROR makes the image malformed. */
void vp_probe_note(VpProbe *probe, PbFindingCode code, PbSeverity severity, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
void vp_probe_feature(VpProbe *probe, const char *name);
