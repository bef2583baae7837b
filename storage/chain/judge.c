/* The rule of DESIGN's heart, on one layer: see chain.h and docs/images.md. Decides from the probe's verdict alone; opens nothing. */
#include <string.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

static void set_text(char **field, VpProbeText text)
{
    if (text.size > 0) {
        *field = vp_text_utf8(text.bytes, (gssize)text.size);
    }
}

PbImageLayer *vp_layer_new(const char *path, guint32 depth, const VpOpened *file, const VpProbe *probe)
{
    PbImageLayer *layer = vp_pb_new(&pb_image_layer__descriptor);

    layer->path = vp_text_utf8(path, -1);
    layer->depth = depth;
    layer->file_size_bytes = file->size;
    layer->allocated_bytes = (guint64)file->st.st_blocks * 512;
    layer->owner_uid = file->st.st_uid;
    layer->owner_gid = file->st.st_gid;
    layer->mode = file->st.st_mode & 07777;
    layer->probed_format = probe->looks_like;
    if (probe->looks_like == PB_IMAGE_FORMAT_RAW && probe->content != PB_IMAGE_FORMAT_UNSPECIFIED) {
        layer->probed_format = probe->content;
    }
    layer->virtual_size_bytes = probe->virtual_size;
    layer->version = probe->version;
    layer->cluster_size_bytes = probe->cluster_size;
    layer->encrypted = probe->encrypted;
    set_text(&layer->backing_path, probe->backing_path);
    set_text(&layer->data_file, probe->data_file);
    layer->backing_format = vp_format_from_qemu_name(probe->backing_format.bytes, probe->backing_format.size);
    for (guint i = 0; i < probe->n_features; i++) {
        vp_pb_append(&layer->n_features, &layer->features, g_strdup(probe->features[i]));
    }
    return layer;
}

char *vp_matches_words(guint32 matches)
{
    GString *words = g_string_new(NULL);
    for (guint i = 1; i < 32; i++) {
        if (matches & 1u << i) {
            g_string_append_printf(words, "%s%s", words->len ? ", " : "", vp_format_words((PbImageFormat)i));
        }
    }
    return g_string_free(words, FALSE);
}

/* The remedy for a format that nobody declared: at the layer above, or with the caller for the top. */
static char *declare_remedy(const VpNext *next, PbImageFormat format)
{
    if (next->overlay && next->overlay_format != PB_IMAGE_FORMAT_QCOW2) {
        return vp_remedy_convert(next->overlay, next->overlay_format, next->path, format);
    }
    return next->overlay ? vp_remedy_record(next->overlay, next->name, format) : vp_remedy_declare(next->path, format);
}

PbFinding *vp_not_declared(const VpNext *next, PbImageFormat looks_like)
{
    if (!next->overlay) {
        return vp_finding_new(PB_FINDING_CODE_FORMAT_NOT_DECLARED, PB_SEVERITY_WARNING, next->depth, next->path,
                              declare_remedy(next, looks_like), "nobody declared the format of this image");
    }
    return vp_finding_new(PB_FINDING_CODE_FORMAT_NOT_DECLARED, PB_SEVERITY_WARNING, next->depth - 1, next->overlay,
                          declare_remedy(next, looks_like), "does not record the format of its backing file %s",
                          next->name);
}

/* What the image names beside its backing file, as in `parent "C:\\base.vhd"`; owned by the caller. */
static char *other_words(const VpProbe *probe)
{
    g_autofree char *name = vp_text_escape(probe->other_file, -1);
    return g_strdup_printf("%s%s%s%s", probe->other_role, name[0] ? " \"" : "", name, name[0] ? "\"" : "");
}

PbFinding *vp_not_opened(const char *path, guint32 depth, const VpProbe *probe)
{
    g_autofree char *other = other_words(probe);
    return vp_finding_new(
        PB_FINDING_CODE_UNSUPPORTED_REFERENCE, PB_SEVERITY_ERROR, depth, path,
        g_strdup("make one file of it, with the program that made it or, where QEMU knows how and "
                 "you trust the image, with qemu-img convert -O qcow2"),
        "its data is not in this file alone: it names its %s, and QEMU would open that by itself or not "
        "at all",
        other);
}

static void add(GPtrArray *findings, PbFinding *finding)
{
    g_ptr_array_add(findings, finding);
}

static void add_issues(const VpNext *next, const VpProbe *probe, GPtrArray *findings)
{
    for (guint i = 0; i < probe->n_issues; i++) {
        add(findings, vp_finding_from_issue(&probe->issues[i], probe->format, next->depth, next->path));
    }
}

static void add_unsupported(const VpNext *next, PbImageFormat format, GPtrArray *findings)
{
    g_autofree char *word = vp_text_shell(next->path);
    add(findings,
        vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_FORMAT, PB_SEVERITY_ERROR, next->depth, next->path,
                       g_strdup_printf("qemu-img convert -f %s -O qcow2 %s %s.qcow2",
                                       vp_format_qemu_name(format) ? vp_format_qemu_name(format) : "raw", word, word),
                       "its format is %s, which is recognised but not read by this version", vp_format_words(format)));
}

static gboolean judge_declared(const VpNext *next, const VpProbe *probe, GPtrArray *findings)
{
    if (!probe->readable) {
        add_unsupported(next, probe->format, findings);
        return FALSE;
    }
    if (!probe->format_matches) {
        g_autofree char *matches = vp_matches_words(probe->matches);
        add(findings,
            vp_finding_new(PB_FINDING_CODE_FORMAT_MISMATCH, PB_SEVERITY_ERROR, next->depth, next->path,
                           declare_remedy(next, probe->looks_like), "was declared to be %s, but looks like %s",
                           vp_format_words(probe->format), matches[0] ? matches : "raw"));
        return FALSE;
    }
    if (probe->format == PB_IMAGE_FORMAT_RAW && probe->looks_like != PB_IMAGE_FORMAT_RAW) {
        g_autofree char *matches = vp_matches_words(probe->matches);
        add(findings,
            vp_finding_new(PB_FINDING_CODE_FORMAT_MISMATCH, PB_SEVERITY_WARNING, next->depth, next->path,
                           g_strdup("nothing, if a guest wrote that into its own raw disk; otherwise declare the true "
                                    "format"),
                           "was declared to be raw and is used as raw, but looks like %s", matches));
    }
    add_issues(next, probe, findings);
    if (probe->well_formed && probe->other_role) {
        add(findings, vp_not_opened(next->path, next->depth, probe));
    }
    return probe->well_formed && !probe->other_role;
}

static gboolean judge_probed(const VpNext *next, const VpProbe *probe, GPtrArray *findings)
{
    gboolean refused = FALSE;

    add(findings, vp_not_declared(next, probe->looks_like));
    if (probe->looks_like == PB_IMAGE_FORMAT_UNSPECIFIED) {
        g_autofree char *matches = vp_matches_words(probe->matches);
        add(findings, vp_finding_new(PB_FINDING_CODE_AMBIGUOUS_FORMAT, PB_SEVERITY_ERROR, next->depth, next->path,
                                     declare_remedy(next, PB_IMAGE_FORMAT_UNSPECIFIED),
                                     "nobody declared its format, and it looks like several at once: %s", matches));
        return FALSE;
    }
    if (!probe->readable) {
        add_unsupported(next, probe->format, findings);
        return FALSE;
    }
    add_issues(next, probe, findings);
    if (!probe->well_formed) {
        add(findings,
            vp_finding_new(PB_FINDING_CODE_PROBE_FAILED, PB_SEVERITY_ERROR, next->depth, next->path,
                           declare_remedy(next, PB_IMAGE_FORMAT_UNSPECIFIED),
                           "nobody declared its format; it has the mark of %s, but is not a sound one, so that "
                           "the probe proves nothing",
                           vp_format_words(probe->looks_like)));
        return FALSE;
    }
    if (probe->other_role) {
        g_autofree char *other = other_words(probe);
        add(findings,
            vp_finding_new(
                PB_FINDING_CODE_PROBE_REFUSED_OTHER_FILE, PB_SEVERITY_ERROR, next->depth, next->path,
                declare_remedy(next, PB_IMAGE_FORMAT_UNSPECIFIED),
                "nobody declared its format; it looks like %s and names its %s, and a guest that writes to a raw "
                "disk could have made it look so",
                vp_format_words(probe->looks_like), other));
        refused = TRUE;
    }
    if (probe->backing_path.size > 0) {
        g_autofree char *name = vp_text_escape(probe->backing_path.bytes, (gssize)probe->backing_path.size);
        add(findings,
            vp_finding_new(
                probe->format == PB_IMAGE_FORMAT_VMDK ? PB_FINDING_CODE_PROBE_REFUSED_OTHER_FILE
                                                      : PB_FINDING_CODE_PROBE_REFUSED_BACKING_FILE,
                PB_SEVERITY_ERROR, next->depth, next->path, declare_remedy(next, probe->looks_like),
                "nobody declared its format; it looks like %s with the backing file %s, and a guest that writes to a "
                "raw disk could have made it look so. Declare the format if you know that this image is no "
                "guest's raw disk",
                vp_format_words(probe->looks_like), name));
        refused = TRUE;
    }
    if (probe->data_file.size > 0 || probe->uses_data_file) {
        g_autofree char *name = vp_text_escape(probe->data_file.bytes, (gssize)probe->data_file.size);
        add(findings,
            vp_finding_new(
                PB_FINDING_CODE_PROBE_REFUSED_DATA_FILE, PB_SEVERITY_ERROR, next->depth, next->path,
                declare_remedy(next, probe->looks_like),
                "nobody declared its format; it looks like %s with its data in the file %s, and a guest that writes "
                "to a raw disk could have made it look so. Declare the format if you know that this image is no "
                "guest's raw disk",
                vp_format_words(probe->looks_like), name));
        refused = TRUE;
    }
    if (!refused) {
        const char *inside = probe->content != PB_IMAGE_FORMAT_UNSPECIFIED ? vp_format_words(probe->content) : NULL;
        add(findings,
            vp_finding_new(PB_FINDING_CODE_PROBE_USED, PB_SEVERITY_INFO, next->depth, next->path, NULL,
                           "nobody declared its format; it is used as %s%s%s%s, which it looks like and which names "
                           "no other file",
                           vp_format_words(probe->looks_like), inside ? " (with " : "", inside ? inside : "",
                           inside ? " in it)" : ""));
    }
    return !refused;
}

gboolean vp_judge_layer(const VpNext *next, const VpProbe *probe, PbImageLayer *layer, GPtrArray *findings)
{
    if (next->format != PB_IMAGE_FORMAT_UNSPECIFIED) {
        layer->format = probe->format;
        layer->format_source = next->source;
        return judge_declared(next, probe, findings);
    }
    if (!judge_probed(next, probe, findings)) {
        return FALSE;
    }
    layer->format = probe->format;
    layer->format_source = PB_FORMAT_SOURCE_PROBED;
    return TRUE;
}
