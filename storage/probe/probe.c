/* The verdict: which formats match, whether that is one, and what its parser says. See probe.h. */
#include "storage/probe/probe.h"

#include <stdarg.h>
#include <stdio.h>

#include "storage/probe/formats.h"
#include "storage/probe/qcow2.h"
#include "storage/probe/recognise.h"

#define RAW_CONTENT                                                                                                    \
    (1u << PB_IMAGE_FORMAT_ISO | 1u << PB_IMAGE_FORMAT_GPT | 1u << PB_IMAGE_FORMAT_MBR | 1u << PB_IMAGE_FORMAT_FAT)

void vp_probe_note(VpProbe *probe, PbFindingCode code, PbSeverity severity, const char *format, ...)
{
    if (severity == PB_SEVERITY_ERROR) {
        probe->well_formed = FALSE;
    }
    if (probe->n_issues == VP_PROBE_ISSUES_MAX) {
        return;
    }
    VpProbeIssue *issue = &probe->issues[probe->n_issues++];
    va_list args;
    issue->code = code;
    issue->severity = severity;
    va_start(args, format);
    (void)vsnprintf(issue->text, sizeof(issue->text), format, args);
    va_end(args);
}

void vp_probe_feature(VpProbe *probe, const char *name)
{
    if (probe->n_features < VP_PROBE_FEATURES_MAX) {
        probe->features[probe->n_features++] = name;
    }
}

static PbImageFormat only_one(guint32 set)
{
    for (guint i = 1; i < 32; i++) {
        if (set == 1u << i) {
            return (PbImageFormat)i;
        }
    }
    return PB_IMAGE_FORMAT_UNSPECIFIED;
}

/* Content of a raw disk may come several at once (a bootable ISO has an MBR too): that is one raw disk. Beside the mark of a format at the
 * head it makes the file a polyglot; beside one at the end it does not: a fixed VHD is a disk with a footer. */
static void judge(VpProbe *probe, guint32 by_tail)
{
    guint32 formats = probe->matches & ~RAW_CONTENT;
    guint32 content = probe->matches & RAW_CONTENT;

    for (guint i = PB_IMAGE_FORMAT_ISO; content && i <= PB_IMAGE_FORMAT_FAT; i++) {
        if (content & 1u << i) {
            probe->content = (PbImageFormat)i;
            break;
        }
    }
    if (!formats) {
        probe->looks_like = PB_IMAGE_FORMAT_RAW;
    } else if ((formats & ~by_tail) && content) {
        probe->looks_like = PB_IMAGE_FORMAT_UNSPECIFIED;
    } else {
        probe->looks_like = only_one(formats);
    }
}

gsize vp_probe(const VpProbeInput *input, PbImageFormat declared, VpProbe *probe)
{
    guint32 by_tail = 0;
    gsize all = (gsize)MIN(input->file_size, (guint64)VP_PROBE_HEAD_ALL);

    *probe = (VpProbe){.well_formed = TRUE};
    if (declared == PB_IMAGE_FORMAT_UNSPECIFIED && input->head_size < all) {
        return all;
    }
    probe->matches = vp_recognise(input, &by_tail);
    judge(probe, by_tail);
    probe->format = declared != PB_IMAGE_FORMAT_UNSPECIFIED ? declared : probe->looks_like;

    if (probe->format == PB_IMAGE_FORMAT_RAW || vp_format_is_raw_content(probe->format)) {
        probe->format = PB_IMAGE_FORMAT_RAW;
        probe->format_matches = TRUE;
        probe->readable = TRUE;
        probe->virtual_size = input->file_size;
        return 0;
    }
    probe->format_matches = probe->format != PB_IMAGE_FORMAT_UNSPECIFIED && (probe->matches & 1u << probe->format);
    if (probe->format != PB_IMAGE_FORMAT_QCOW2) {
        return 0;
    }
    probe->readable = TRUE;
    return probe->format_matches ? vp_qcow2_parse(input, probe) : 0;
}
