/* The verdict: which formats match, whether that is one, and what its parser says. See probe.h. */
#include "storage/probe/probe.h"

#include <stdarg.h>
#include <stdio.h>

#include "storage/probe/formats.h"
#include "storage/probe/parse.h"
#include "storage/probe/qcow2.h"
#include "storage/probe/recognise.h"

#define RAW_CONTENT                                                                                                    \
    (1u << PB_IMAGE_FORMAT_ISO | 1u << PB_IMAGE_FORMAT_GPT | 1u << PB_IMAGE_FORMAT_MBR | 1u << PB_IMAGE_FORMAT_FAT)

/* How much of a text is looked at for the line that makes it a vmdk. */
#define VP_PROBE_COMMENTS 4096u

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

const guint8 *vp_probe_find(const VpProbeInput *input, guint64 offset, gsize size)
{
    if (offset <= input->head_size && size <= input->head_size - offset) {
        return input->head + offset;
    }
    for (guint i = 0; i < input->n_windows; i++) {
        const VpProbeWindow *window = &input->windows[i];
        if (offset >= window->offset && offset - window->offset <= window->size &&
            size <= window->size - (offset - window->offset)) {
            return window->bytes + (offset - window->offset);
        }
    }
    return NULL;
}

gboolean vp_probe_holds(const VpProbeInput *input, VpProbe *probe, guint64 offset, guint64 size, const char *what)
{
    if (offset <= input->file_size && size <= input->file_size - offset) {
        return TRUE;
    }
    TRUNCATED(probe, "the file has %" PRIu64 " bytes and ends before %s does (%" PRIu64 " bytes at %" PRIu64 ")",
              input->file_size, what, size, offset);
    return FALSE;
}

const guint8 *vp_probe_at(const VpProbeInput *input, VpProbe *probe, guint64 offset, gsize size, const char *what)
{
    if (!vp_probe_holds(input, probe, offset, size, what)) {
        return NULL;
    }
    const guint8 *bytes = vp_probe_find(input, offset, size);
    if (bytes) {
        return bytes;
    }
    if (size > VP_PROBE_WINDOW_MAX || input->n_windows == VP_PROBE_WINDOWS_MAX) {
        /* A parser keeps to these bounds; if one should not, that is no reason to trust the image. */
        vp_probe_note(probe, PB_FINDING_CODE_PROBE_FAILED, PB_SEVERITY_ERROR, "reading %s needs more than is allowed",
                      what);
        return NULL;
    }
    probe->need = offset == 0 ? (VpProbeRange){0, MAX(size, input->head_size + 1)} : (VpProbeRange){offset, size};
    return NULL;
}

void vp_probe_backing_at(const VpProbeInput *input, VpProbe *probe, guint64 offset, guint64 size)
{
    static const char what[] = "the name of its backing file";
    if (size == 0 || size > VP_BACKING_NAME_MAX) {
        CORRUPT(probe, "%s has %" PRIu64 " bytes; 1 to 1023 are allowed", what, size);
        return;
    }
    const guint8 *name = vp_probe_at(input, probe, offset, (gsize)size, what);
    if (name && memchr(name, 0, (gsize)size)) {
        CORRUPT(probe, "%s contains a NUL byte", what);
    } else if (name) {
        probe->backing_path = (VpProbeText){(const char *)name, (gsize)size};
    }
}

void vp_probe_other(VpProbe *probe, const char *role, const char *name, gsize size)
{
    gsize used = 0;
    if (probe->other_file[0]) {
        return;
    }
    probe->other_role = role;
    for (gsize i = 0; i < size && name[i] && used < sizeof(probe->other_file) - 1; i++) {
        probe->other_file[used++] = name[i];
    }
    probe->other_file[used] = '\0';
}

void vp_probe_other_utf16(VpProbe *probe, const char *role, const guint8 *name, gsize size, gboolean big_endian)
{
    char text[sizeof(probe->other_file)];
    gsize used = 0;
    for (gsize i = 0; i + 1 < size && used + 6 < sizeof(text); i += 2) {
        gunichar c = big_endian ? vp_be16(name + i) : vp_le16(name + i);
        if (c == 0) {
            break;
        }
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < size) {
            gunichar low = big_endian ? vp_be16(name + i + 2) : vp_le16(name + i + 2);
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        used += (gsize)g_unichar_to_utf8(g_unichar_validate(c) ? c : 0xfffd, text + used);
    }
    vp_probe_other(probe, role, text, used);
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

/*
 * Content of a raw disk may come several at once (a bootable ISO has an MBR too): that is one raw disk. Beside the mark of a format it makes the
 * file a polyglot, but for a fixed VHD, which is a disk with a footer: the content lies at the same place, whatever it is taken for.
 */
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
    } else if (content && formats != (by_tail & 1u << PB_IMAGE_FORMAT_VPC)) {
        probe->looks_like = PB_IMAGE_FORMAT_UNSPECIFIED;
    } else {
        probe->looks_like = only_one(formats);
    }
}

static void parse_qcow2(const VpProbeInput *input, VpProbe *probe)
{
    probe->need = (VpProbeRange){0, vp_qcow2_parse(input, probe)};
}

typedef void (*Parser)(const VpProbeInput *input, VpProbe *probe);

static const Parser parsers[] = {
    [PB_IMAGE_FORMAT_QCOW] = vp_qcow_parse,   [PB_IMAGE_FORMAT_QCOW2] = parse_qcow2,
    [PB_IMAGE_FORMAT_QED] = vp_qed_parse,     [PB_IMAGE_FORMAT_VMDK] = vp_vmdk_parse,
    [PB_IMAGE_FORMAT_VDI] = vp_vdi_parse,     [PB_IMAGE_FORMAT_VPC] = vp_vpc_parse,
    [PB_IMAGE_FORMAT_VHDX] = vp_vhdx_parse,   [PB_IMAGE_FORMAT_DMG] = vp_dmg_parse,
    [PB_IMAGE_FORMAT_BOCHS] = vp_bochs_parse, [PB_IMAGE_FORMAT_CLOOP] = vp_cloop_parse,
    [PB_IMAGE_FORMAT_LUKS] = vp_luks_parse,   [PB_IMAGE_FORMAT_PARALLELS] = vp_parallels_parse,
};

static Parser parser_of(PbImageFormat format)
{
    return (guint)format < G_N_ELEMENTS(parsers) ? parsers[format] : NULL;
}

gboolean vp_probe_reads(PbImageFormat format)
{
    return format == PB_IMAGE_FORMAT_RAW || parser_of(format) != NULL;
}

static gboolean lacks(const VpProbeInput *input, guint64 offset, gsize size, VpProbeRange *ret)
{
    *ret = (VpProbeRange){offset, size};
    return !vp_probe_find(input, offset, size);
}

/* What else is there to be read of a long file whose format nobody declared, by what was read already. FALSE: nothing. */
static gboolean needed_for_content(const VpProbeInput *input, VpProbeRange *ret)
{
    const guint8 *content = vp_probe_find(input, VP_PROBE_CONTENT, VP_PROBE_MARK);

    /* The text of a vmdk begins with comments. */
    if (input->head[0] == '#' && input->head_size < VP_PROBE_COMMENTS) {
        *ret = (VpProbeRange){0, VP_PROBE_COMMENTS};
        return TRUE;
    }
    /* A disk with sectors of 4 KiB has its partition table in the second. */
    if (vp_be16(input->head + 510) == 0x55aa && lacks(input, 4096, 512, ret)) {
        return TRUE;
    }
    return (memcmp(content + 1, "CD001", 5) == 0 || memcmp(content + 1, "BEA01", 5) == 0) &&
           lacks(input, VP_PROBE_CONTENT, VP_PROBE_CONTENT_SIZE, ret);
}

/* What the marks are looked for in. A declared format needs its own mark alone. */
static VpProbeRange needed_for_marks(const VpProbeInput *input, PbImageFormat declared)
{
    gboolean undeclared = declared == PB_IMAGE_FORMAT_UNSPECIFIED;
    gboolean whole = input->file_size <= VP_PROBE_HEAD_ALL;
    gsize marks = !undeclared ? 512 : whole ? VP_PROBE_HEAD_ALL : VP_PROBE_HEAD_FIRST;
    gsize all = (gsize)MIN(input->file_size, (guint64)marks);
    gboolean by_tail = undeclared || declared == PB_IMAGE_FORMAT_VPC || declared == PB_IMAGE_FORMAT_DMG;
    VpProbeRange need;

    if (input->head_size < all) {
        return (VpProbeRange){0, all};
    }
    if (undeclared && !whole && lacks(input, VP_PROBE_CONTENT, VP_PROBE_MARK, &need)) {
        return need;
    }
    if (by_tail && input->file_size >= VP_PROBE_TAIL &&
        lacks(input, input->file_size - VP_PROBE_TAIL, VP_PROBE_MARK, &need)) {
        return need;
    }
    if (undeclared && !whole && needed_for_content(input, &need)) {
        return need;
    }
    return (VpProbeRange){0, 0};
}

gboolean vp_probe(const VpProbeInput *input, PbImageFormat declared, VpProbe *probe)
{
    guint32 by_tail = 0;

    *probe = (VpProbe){.well_formed = TRUE, .need = needed_for_marks(input, declared)};
    if (probe->need.size > 0) {
        return FALSE;
    }
    probe->matches = vp_recognise(input, &by_tail);
    judge(probe, by_tail);
    probe->format = declared != PB_IMAGE_FORMAT_UNSPECIFIED ? declared : probe->looks_like;

    if (probe->format == PB_IMAGE_FORMAT_RAW || vp_format_is_raw_content(probe->format)) {
        probe->format = PB_IMAGE_FORMAT_RAW;
        probe->format_matches = TRUE;
        probe->readable = TRUE;
        probe->virtual_size = input->file_size;
        if (probe->matches & RAW_CONTENT) {
            vp_content_parse(input, probe);
        }
        return TRUE;
    }
    Parser parse = parser_of(probe->format);
    probe->readable = parse != NULL;
    probe->format_matches = parse && (probe->matches & 1u << probe->format);
    if (probe->format_matches) {
        parse(input, probe);
    }
    return probe->need.size == 0;
}
