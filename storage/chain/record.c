/*
 * ImageService.RecordBackingFormat: adds the backing format to the header of a qcow2 overlay that nobody uses. Everything is read and decided under
 * QEMU's own locks; the order of the writes is record_plan.h's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/record_plan.h"
#include "storage/chain/reference.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"
#include "storage/probe/qcow2.h"

/* QEMU's file driver holds a read lock on byte 100 + N for a permission that it has and on 200 + N for one that it does not share. */
#define LOCK_HAS 100
#define LOCK_NOT_SHARED 200
#define LOCK_RANGE 64

/* One call under way. */
typedef struct Record {
    const char *path;
    const VpImagePolicy *policy;
    PbImageFormat format; /* asked for, then settled */
    VpOpened file;
    VpHeadBuffer buffer;
    VpProbe probe;
    char *backing; /* as the header names it */
} Record;

static void record_clear(Record *record)
{
    if (record->file.fd >= 0) {
        close(record->file.fd); /* with the locks */
    }
    vp_head_buffer_clear(&record->buffer);
    g_free(record->backing);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Record, record_clear)

static VpError *refuse(const Record *record, const char *reason, const char *why)
{
    g_autofree char *shown = vp_text_escape(record->path, -1);
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, reason, "%s: %s", shown, why), "path", shown);
}

/* A refusal with the command that does what we do not. */
static VpError *refuse_with_command(const Record *record, const char *reason, const char *why)
{
    g_autofree char *command = vp_remedy_rebase_to(record->path, record->backing, record->format);
    g_autofree char *remedy = g_strdup_printf("%s  # when no program uses it", command);
    g_autofree char *text = g_strdup_printf("%s. Remedy: %s", why, remedy);
    return vp_error_with(refuse(record, reason, text), "remedy", remedy);
}

static gboolean has_other_locks(int fd, off_t start, int *ret_errno)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = LOCK_RANGE};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) {
        *ret_errno = errno;
        return TRUE;
    }
    return lock.l_type != F_UNLCK;
}

/* Says to QEMU that we use all and share nothing, then sees that nobody else has said anything. Readers count too: a QEMU that has the image open
 * may write its own idea of the header over ours. The locks go when the descriptor is closed. */
static VpError *lock_image(const Record *record)
{
    static const off_t starts[] = {LOCK_HAS, LOCK_NOT_SHARED};
    int errnum = 0;
    gboolean busy = FALSE;

    for (gsize i = 0; i < G_N_ELEMENTS(starts) && !busy; i++) {
        struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = starts[i], .l_len = LOCK_RANGE};
        if (fcntl(record->file.fd, F_OFD_SETLK, &lock) < 0) {
            busy = TRUE;
            errnum = errno == EAGAIN || errno == EACCES ? 0 : errno;
        }
    }
    for (gsize i = 0; i < G_N_ELEMENTS(starts) && !busy; i++) {
        busy = has_other_locks(record->file.fd, starts[i], &errnum);
    }
    if (errnum) {
        g_autofree char *shown = vp_text_escape(record->path, -1);
        return vp_error_errno(errnum, "LOCK_FAILED",
                              "%s: cannot be locked, so that it is not known whether it is in use", shown);
    }
    return busy ? refuse(record, "IMAGE_IN_USE",
                         "a program has it open; shut that down first (a domain that runs on it, or "
                         "on an overlay of it, a backup, qemu-img)")
                : NULL;
}

/* The head of the file as it is now, the whole first cluster of it, and what it says. */
static VpError *read_overlay(Record *record)
{
    struct stat st;
    if (fstat(record->file.fd, &st) < 0) {
        return vp_image_read_error(record->path, errno);
    }
    record->file.size = S_ISREG(st.st_mode) ? (guint64)st.st_size : record->file.size;
    int errnum = vp_read_and_probe(&record->file, PB_IMAGE_FORMAT_QCOW2, &record->buffer, &record->probe);
    if (errnum) {
        return vp_image_read_error(record->path, errnum);
    }
    if (!record->probe.format_matches) {
        return refuse(record, "NOT_QCOW2", "it is no qcow2 image, and only those record a backing format");
    }
    if (!record->probe.well_formed) {
        for (guint i = 0; i < record->probe.n_issues; i++) {
            if (record->probe.issues[i].severity == PB_SEVERITY_ERROR) {
                g_autofree char *text = vp_text_escape(record->probe.issues[i].text, -1);
                const char *code = vp_pb_enum_name(&pb_finding_code__descriptor, (int)record->probe.issues[i].code);
                return refuse(record, code + strlen("FINDING_CODE_"), text);
            }
        }
    }
    if (record->probe.backing_path.size == 0) {
        return refuse(record, "NO_BACKING_FILE", "it has no backing file");
    }
    record->backing = g_strndup(record->probe.backing_path.bytes, record->probe.backing_path.size);
    return NULL;
}

static VpError *first_refusal(const GPtrArray *findings)
{
    VpChain view = {.findings = (GPtrArray *)findings};
    return vp_chain_refusal(&view);
}

/* Settles the format: the one asked for, if the backing file does not contradict it, or the probed one by the rule. */
static VpError *settle_format(Record *record)
{
    g_auto(VpReference) reference = {0};
    g_auto(VpHeadBuffer) buffer = {0};
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
    gboolean asked = record->format != PB_IMAGE_FORMAT_UNSPECIFIED;
    VpOpened file = {.fd = -1};
    VpProbe probe;

    vp_reference_parse(record->backing, record->path, &reference);
    if (reference.kind != VP_REFERENCE_FILE || reference.is_window) {
        return asked
                   ? NULL
                   : refuse(
                         record, "UNSUPPORTED_REFERENCE",
                         "its backing file is not a whole file of this host, so that its format cannot be probed; name "
                         "the format");
    }
    VpError *error = vp_image_open(reference.path, record->policy, /* write= */ FALSE, &file);
    if (error && asked) {
        /* Who names the format need not have the file at hand. */
        g_clear_pointer(&error, vp_error_free);
        return NULL;
    }
    if (error) {
        return vp_error_prefix(error, "the backing file cannot be probed");
    }
    int errnum = vp_read_and_probe(&file, record->format, &buffer, &probe);
    close(file.fd);
    if (errnum) {
        return vp_image_read_error(reference.path, errnum);
    }
    VpNext next = {
        .path = reference.path,
        .format = record->format,
        .source = PB_FORMAT_SOURCE_DECLARED_BY_CALLER,
        .depth = 1,
        .overlay = (char *)record->path,
        .overlay_format = PB_IMAGE_FORMAT_QCOW2,
        .name = record->backing,
    };
    if (asked && !probe.readable) {
        /* A format that this version does not read may be recorded all the same; its mark has to be there. */
        return probe.format_matches ? NULL
                                    : refuse(record, "FORMAT_MISMATCH", "its backing file is not of that format");
    }
    vp_pb_auto PbImageLayer *layer = vp_layer_new(reference.path, 1, &file, &probe);
    if (!vp_judge_layer(&next, &probe, layer, findings)) {
        return first_refusal(findings);
    }
    record->format = layer->format;
    return NULL;
}

static VpError *write_error(const Record *record, int errnum)
{
    g_autofree char *shown = vp_text_escape(record->path, -1);
    return vp_error_errno(errnum, "IO_ERROR", "%s: its header cannot be written", shown);
}

static VpError *write_all(const Record *record, const VpHeaderWrite *write)
{
    gsize size;
    const guint8 *bytes = g_bytes_get_data(write->bytes, &size);
    gsize done = 0;
    while (done < size) {
        ssize_t put = pwrite(record->file.fd, bytes + done, size - done, (off_t)(write->offset + done));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return write_error(record, put < 0 ? errno : EIO);
        }
        done += (gsize)put;
    }
    return fdatasync(record->file.fd) < 0 ? write_error(record, errno) : NULL;
}

static VpError *perform(Record *record, const VpRecordPlan *plan)
{
    if (fdatasync(record->file.fd) < 0) {
        return write_error(record, errno);
    }
    for (guint i = 0; i < plan->n_writes; i++) {
        VpError *error = write_all(record, &plan->writes[i]);
        if (error) {
            return error;
        }
    }
    int errnum = vp_read_and_probe(&record->file, PB_IMAGE_FORMAT_QCOW2, &record->buffer, &record->probe);
    if (errnum) {
        return vp_image_read_error(record->path, errnum);
    }
    if (!record->probe.well_formed || record->probe.backing_format.size == 0) {
        g_autofree char *shown = vp_text_escape(record->path, -1);
        return vp_error_new(VP_DATA_LOSS, "VERIFY_FAILED",
                            "%s: its header reads back differently from what was written", shown);
    }
    return NULL;
}

static VpError *edit(Record *record, gboolean validate_only, guint64 *ret_extension)
{
    g_auto(VpRecordPlan) plan = {0};
    g_autofree guint8 *head = NULL;
    VpQcow2Layout layout;
    gsize size = (gsize)MIN(record->file.size, record->probe.cluster_size);

    head = g_malloc(size);
    if (vp_read_at(record->file.fd, head, size, 0) != (gssize)size) {
        return vp_image_read_error(record->path, EIO);
    }
    if (!vp_qcow2_layout(head, size, &layout)) {
        return refuse_with_command(record, "NO_ROOM", "its header cannot be followed to its end");
    }
    if (layout.autoclear & ~VP_QCOW2_AUTOCLEAR_KNOWN) {
        return refuse_with_command(
            record, "UNKNOWN_AUTOCLEAR_FEATURE",
            "it has a feature that is lost when a program that does not know it writes to the image");
    }
    const char *why = vp_record_plan(head, size, vp_format_qemu_name(record->format), &plan);
    if (why) {
        return refuse_with_command(record, "NO_ROOM", why);
    }
    *ret_extension = plan.extension_offset;
    return validate_only ? NULL : perform(record, &plan);
}

static void answer(const Record *record, PbImageLayer **ret_layer, PbImageFormat *ret_format)
{
    PbImageLayer *layer = vp_layer_new(record->path, 0, &record->file, &record->probe);
    layer->format = PB_IMAGE_FORMAT_QCOW2;
    layer->format_source = PB_FORMAT_SOURCE_DECLARED_BY_CALLER;
    layer->backing_format = record->format;
    *ret_layer = layer;
    *ret_format = record->format;
}

VpError *vp_image_record_backing_format(const char *path, PbImageFormat format, gboolean validate_only,
                                        const VpImagePolicy *policy, PbImageLayer **ret_layer,
                                        PbImageFormat *ret_format, gboolean *ret_changed, char **ret_undo)
{
    g_auto(Record) record = {
        .path = path,
        .policy = policy,
        .format = vp_format_is_raw_content(format) ? PB_IMAGE_FORMAT_RAW : format,
        .file = {.fd = -1},
    };
    guint64 extension = 0;

    if (format != PB_IMAGE_FORMAT_UNSPECIFIED && !vp_format_qemu_name(format)) {
        return vp_error_new(VP_INVALID_ARGUMENT, "FORMAT_NOT_RECORDABLE", "that is no format of a backing file");
    }
    VpError *error = vp_image_open(path, policy, !validate_only, &record.file);
    if (!error) {
        error = lock_image(&record);
    }
    if (!error) {
        error = read_overlay(&record);
    }
    if (error) {
        return error;
    }
    if (record.probe.backing_format.size > 0) {
        VpProbeText text = record.probe.backing_format;
        PbImageFormat recorded = vp_format_from_qemu_name(text.bytes, text.size);
        if (record.format != PB_IMAGE_FORMAT_UNSPECIFIED && record.format != recorded) {
            return refuse_with_command(&record, "OTHER_FORMAT_RECORDED", "it records another format already");
        }
        record.format = recorded;
        answer(&record, ret_layer, ret_format);
        *ret_changed = FALSE;
        return NULL;
    }
    error = settle_format(&record);
    if (!error) {
        error = edit(&record, validate_only, &extension);
    }
    if (error) {
        return error;
    }
    answer(&record, ret_layer, ret_format);
    *ret_changed = TRUE;
    if (ret_undo) {
        g_autofree char *word = vp_text_shell(path);
        *ret_undo = g_strdup_printf("dd if=/dev/zero of=%s bs=1 seek=%" G_GUINT64_FORMAT " count=8 conv=notrunc", word,
                                    extension);
    }
    return NULL;
}
