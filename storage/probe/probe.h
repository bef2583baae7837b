/*
 * What is this image, by its bytes alone? Pure: a prefix of the file, some windows further in and its size in, a verdict out; or the place that
 * has to be read first. No file is opened, nothing is allocated, and every number of a header is checked before it is used. The walk
 * (storage/chain) reads the bytes and applies the rule.
 */
#pragma once

#include <glib.h>

#include "virtplane/v1/image.pb-c.h"

/* The first read of the head: holds the marks, and the header, extensions and backing name of nearly every qcow2. */
#define VP_PROBE_HEAD_FIRST 1024u
/* What tells the formats of a file whose format nobody declared, beside its head: the first bytes of the descriptors of ISO 9660 and UDF, and of the last
 * sector. A file that ends with these descriptors, or before, is read whole. */
#define VP_PROBE_CONTENT 32768u
#define VP_PROBE_CONTENT_SIZE 2560u
#define VP_PROBE_MARK 8u
#define VP_PROBE_HEAD_ALL (VP_PROBE_CONTENT + VP_PROBE_CONTENT_SIZE)
/* No format needs more of the head than this: qcow2's first cluster at its largest. */
#define VP_PROBE_HEAD_MAX (2u << 20)
/* Where the formats with a mark at the end have it (VHD's footer, UDIF's trailer), counted from there. */
#define VP_PROBE_TAIL 512u
/* Places further in that one verdict may need (a vhdx has the most), and the size of the largest: a vhdx's tables. */
#define VP_PROBE_WINDOWS_MAX 13
#define VP_PROBE_WINDOW_MAX (64u << 10)

#define VP_PROBE_ISSUES_MAX 12
#define VP_PROBE_FEATURES_MAX 16

/* Bytes from the middle or the end of the file. */
typedef struct VpProbeWindow {
    guint64 offset;
    const guint8 *bytes;
    gsize size;
} VpProbeWindow;

typedef struct VpProbeInput {
    const guint8 *head;
    gsize head_size; /* fewer than asked for only if the file ends there */
    VpProbeWindow windows[VP_PROBE_WINDOWS_MAX];
    guint n_windows;
    guint64 file_size;
} VpProbeInput;

/* A place in the file; size 0: none. */
typedef struct VpProbeRange {
    guint64 offset;
    gsize size;
} VpProbeRange;

/* One thing wrong or worth knowing. `text` may hold any bytes of the header but NUL: escape it before showing it. */
typedef struct VpProbeIssue {
    PbFindingCode code;
    PbSeverity severity;
    char text[232];
} VpProbeIssue;

/* Bytes within the head or a window that was given, or a constant; not terminated; `size` 0: none. */
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
    /* A file that the image names and that is neither backing file nor data file: a vmdk's extent, the parent of a vdi, vpc or vhdx, the next
     * segment of a dmg. No such image is ever opened. */
    const char *other_role; /* "extent", "parent", "segment"; NULL: it names none */
    char other_file[256];   /* the first one's name, cut if it is long; any bytes but NUL; may be empty */
    const char *features[VP_PROBE_FEATURES_MAX]; /* constants */
    guint n_features;
    VpProbeIssue issues[VP_PROBE_ISSUES_MAX]; /* when there are more, the first ones */
    guint n_issues;
    VpProbeRange need; /* what has to be read first; size 0 once vp_probe() is done */
} VpProbe;

/*
 * Reads the image as `declared`, or, with UNSPECIFIED, as the only format that matches. TRUE: `probe` is filled in. FALSE: read what
 * probe->need says and call again. At offset 0 that is a longer head, of no more than VP_PROBE_HEAD_MAX; elsewhere a further window of no more than
 * VP_PROBE_WINDOW_MAX. It always lies within the file, was not given yet, and there is room for it in `input`.
 */
gboolean vp_probe(const VpProbeInput *input, PbImageFormat declared, VpProbe *probe);

/* Whether this version reads headers of that format in full. */
gboolean vp_probe_reads(PbImageFormat format);

/* For the parsers: notes an issue; severity ERROR makes the image malformed. */
void vp_probe_note(VpProbe *probe, PbFindingCode code, PbSeverity severity, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
void vp_probe_feature(VpProbe *probe, const char *name);
