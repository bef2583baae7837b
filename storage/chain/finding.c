/* See finding.h. */
#include "storage/chain/finding.h"

#include <stdarg.h>
#include <string.h>

#include "base/pb.h"
#include "storage/chain/text.h"
#include "storage/probe/formats.h"

PbFinding *vp_finding_new(PbFindingCode code, PbSeverity severity, guint32 depth, const char *path, char *remedy,
                          const char *format, ...)
{
    PbFinding *finding = vp_pb_new(&pb_finding__descriptor);
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *shown_text = vp_text_escape(text, -1);
    g_autofree char *shown_path = vp_text_escape(path, -1);
    g_autofree char *field = vp_text_utf8(path, -1);
    finding->code = code;
    finding->severity = severity;
    finding->depth = depth;
    vp_pb_set(&finding->path, field);
    vp_pb_printf(&finding->message, "%s: %s", shown_path, shown_text);
    vp_pb_set(&finding->remedy, remedy);
    g_free(remedy);
    return finding;
}

char *vp_remedy_rebase_to(const char *overlay, const char *backing, PbImageFormat format)
{
    g_autofree char *overlay_word = vp_text_shell(overlay);
    g_autofree char *backing_word = vp_text_shell(backing);
    return g_strdup_printf("qemu-img rebase -u -f qcow2 -F %s -b %s %s", vp_format_qemu_name(format), backing_word,
                           overlay_word);
}

char *vp_remedy_record(const char *overlay, const char *backing, PbImageFormat format)
{
    if (!vp_format_qemu_name(format)) {
        g_autofree char *as_raw = vp_remedy_rebase_to(overlay, backing, PB_IMAGE_FORMAT_RAW);
        return g_strdup_printf("find out the true format of the backing file, and record it; if it is raw: %s", as_raw);
    }
    g_autofree char *command = vp_remedy_rebase_to(overlay, backing, format);
    g_autofree char *word = vp_text_shell(overlay);
    return g_strdup_printf("%s  # or: vpctl image record-backing-format --backing-format %s %s", command,
                           vp_format_qemu_name(format), word);
}

/* As a value in a list of options, where a comma stands for itself only if it is doubled. */
static char *option_value(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, ",", -1);
    return g_strjoinv(",,", parts);
}

char *vp_remedy_convert(const char *overlay, PbImageFormat overlay_format, const char *backing, PbImageFormat format)
{
    const char *name = vp_format_qemu_name(format);
    g_autofree char *top = option_value(overlay);
    g_autofree char *base = option_value(backing);
    g_autofree char *options = g_strdup_printf("driver=%s,file.filename=%s,backing.driver=%s,backing.file.filename=%s",
                                               vp_format_qemu_name(overlay_format), top, name ? name : "raw", base);
    g_autofree char *word = vp_text_shell(options);
    g_autofree char *target = g_strdup_printf("%s.qcow2", overlay);
    g_autofree char *target_word = vp_text_shell(target);
    return g_strdup_printf("%sqemu-img convert --image-opts -O qcow2 %s %s",
                           name ? "" : "find out the true format of the backing file; if it is raw: ", word,
                           target_word);
}

char *vp_remedy_declare(const char *path, PbImageFormat format)
{
    const char *known = vp_format_qemu_name(format);
    const char *name = known ? known : "raw";
    g_autofree char *word = vp_text_shell(path);
    g_autofree char *value = option_value(path);
    g_autofree char *disk = g_strdup_printf("%s,format=%s", value, name);
    g_autofree char *disk_word = vp_text_shell(disk);
    return g_strdup_printf("%svpctl image inspect --format %s %s  # for a domain: --disk %s with vpctl domain create "
                           "or update",
                           known ? "" : "find out the true format; if it is raw: ", name, word, disk_word);
}

char *vp_remedy_rebase(const char *overlay)
{
    g_autofree char *word = vp_text_shell(overlay);
    return g_strdup_printf("put the file in its place, or name the right one: qemu-img rebase -u -f qcow2 -F FORMAT -b "
                           "BACKING %s",
                           word);
}

static char *issue_remedy(const VpProbeIssue *issue, PbImageFormat format, const char *path)
{
    g_autofree char *word = vp_text_shell(path);
    switch (issue->code) {
    case PB_FINDING_CODE_DIRTY:
        if (format == PB_IMAGE_FORMAT_VMDK || format == PB_IMAGE_FORMAT_VPC) {
            return g_strdup("nothing, if no program uses it; check it with the program that made it");
        }
        return g_strdup_printf("qemu-img check -f %s -r all %s  # if no program uses it", vp_format_qemu_name(format),
                               word);
    case PB_FINDING_CODE_HEADER_CORRUPT:
        if (format != PB_IMAGE_FORMAT_QCOW2) {
            return g_strdup_printf("restore %s from a copy", word);
        }
        return g_strdup_printf("restore %s from a copy; if it was marked as corrupt: qemu-img check -f qcow2 -r all %s",
                               word, word);
    case PB_FINDING_CODE_UNSUPPORTED_FORMAT:
        return g_strdup("convert it to qcow2 with the program that made it");
    case PB_FINDING_CODE_TRUNCATED:
        return g_strdup_printf("restore or copy %s again: a part of it is missing", word);
    case PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE:
        return g_strdup("convert it with the program that made it, to qcow2 version 3 without that feature");
    default:
        return NULL;
    }
}

PbFinding *vp_finding_from_issue(const VpProbeIssue *issue, PbImageFormat format, guint32 depth, const char *path)
{
    return vp_finding_new(issue->code, issue->severity, depth, path, issue_remedy(issue, format, path), "%s",
                          issue->text);
}
