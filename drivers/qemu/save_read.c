/* See save_read.h. */
#include "save_read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/open.h"

void vp_save_reader_clear(VpSaveReader *reader)
{
    if (reader->fd >= 0)
        close(reader->fd);
    reader->fd = -1;
    g_clear_pointer(&reader->head, vp_pb_free);
}

/* ---- opening ---- */

static VpError *refused(const char *path, const char *why)
{
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_REFUSED", "%s %s", path, why), "path", path);
}

/* QEMU takes the stream for what it is: nobody but the daemon may have written to it. */
static VpError *check_owner(const char *path, const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return refused(path, "is not a regular file");
    if ((st->st_uid != geteuid() && st->st_uid != 0) || (st->st_mode & (S_IWGRP | S_IWOTH)))
        return refused(path, "can be written by others; let it belong to the daemon's user alone (chown, chmod 600)");
    return NULL;
}

VpError *vp_save_reader_open(VpSaveReader *reader, const char *path, const char *dir, const VpImagePolicy *policy)
{
    g_autofree char *folder = g_path_get_dirname(path);
    g_auto(VpOpener) opener;
    VpOpenRefusal refusal = {0};
    VpOpened opened = {.fd = -1};

    vp_opener_init(&opener, strcmp(folder, dir) == 0 || !policy ? &vp_image_policy_default : policy);
    VpError *error = vp_opener_open(&opener, path, /* write= */ FALSE, &opened, &refusal);
    if (!error && opened.fd < 0 && refusal.errnum == ENOENT)
        error = vp_error_with(vp_error_new(VP_NOT_FOUND, "SAVE_FILE_MISSING",
                                           "%s is not there; restore from where it is now, or give the saved state up "
                                           "(DiscardSavedState)",
                                           path),
                              "path", path);
    else if (!error && opened.fd < 0)
        error = refused(path, refusal.why ? refusal.why : "cannot be opened");
    g_free(refusal.why);
    if (error)
        return error;
    reader->fd = opened.fd;
    return check_owner(path, &opened.st);
}

/* ---- the head ---- */

/* As many bytes as there are, at most `size`. */
static VpError *read_at(int fd, guint8 *bytes, gsize size, off_t at, gsize *ret_length)
{
    gsize length = 0;

    while (length < size) {
        const ssize_t n = pread(fd, bytes + length, size - length, at + (off_t)length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vp_error_errno(errno, "SAVE_FILE_IO", "it cannot be read");
        if (n == 0)
            break;
        length += (gsize)n;
    }
    *ret_length = length;
    return NULL;
}

VpError *vp_save_reader_read(VpSaveReader *reader, const guint8 *key)
{
    guint8 frame[VP_SAVE_FRAME_BYTES];
    struct stat st;
    gsize length = 0;

    if (fstat(reader->fd, &st) < 0)
        return vp_error_errno(errno, "SAVE_FILE_IO", "it cannot be looked at");
    VpError *error = read_at(reader->fd, frame, sizeof(frame), 0, &length);
    if (!error)
        error = vp_save_file_read_frame(frame, length, (guint64)st.st_size, &reader->frame);
    if (error)
        return error;
    g_autofree guint8 *head = g_malloc(reader->frame.head_bytes);
    error = read_at(reader->fd, head, reader->frame.head_bytes, VP_SAVE_FRAME_BYTES, &length);
    if (!error && length < reader->frame.head_bytes)
        error = vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_TRUNCATED", "it is cut short within its head");
    if (!error)
        error = vp_save_file_read_head(frame, head, reader->frame.head_bytes, key, &reader->head);
    if (!error && lseek(reader->fd, (off_t)reader->frame.stream_offset, SEEK_SET) < 0)
        error = vp_error_errno(errno, "SAVE_FILE_IO", "it cannot be read");
    return error;
}

/* ---- the disks ---- */

static PbSavedFile *add_file(PbSaveFileHead *head, const char *target, const PbImageLayer *layer)
{
    PbSavedFile *file = vp_pb_new(&pb_saved_file__descriptor);

    vp_pb_set(&file->target, target);
    if (layer) {
        vp_pb_set(&file->path, layer->path);
        file->format = layer->format;
    }
    vp_pb_append(&head->n_files, &head->files, file);
    return file;
}

static void set_numbers(PbSavedFile *file, const struct stat *st)
{
    file->inode = S_ISBLK(st->st_mode) ? (guint64)st->st_rdev : (guint64)st->st_ino;
    if (!S_ISREG(st->st_mode))
        return;
    file->size_bytes = (guint64)st->st_size;
    file->write_time_ns = (guint64)st->st_mtim.tv_sec * 1000000000U + (guint64)st->st_mtim.tv_nsec;
}

static void list_chain(PbSaveFileHead *head, const char *target, const VpChain *chain)
{
    struct stat st;

    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);
        PbSavedFile *layer = add_file(head, target, file->layer);

        if (file->fd >= 0 && fstat(file->fd, &st) == 0)
            set_numbers(layer, &st);
        if (file->data_fd < 0)
            continue;
        PbSavedFile *data = add_file(head, target, file->data_layer);
        if (fstat(file->data_fd, &st) == 0)
            set_numbers(data, &st);
    }
}

void vp_save_list_files(PbSaveFileHead *head, const PbDomainSpec *spec, const VpProof *proof, const char *dir)
{
    struct stat st;

    for (size_t i = 0; i < head->n_files; i++)
        vp_pb_free(head->files[i]);
    g_clear_pointer(&head->files, g_free);
    head->n_files = 0;
    for (guint i = 0; i < proof->chains->len; i++) {
        const VpChain *chain = proof->chains->pdata[i];

        if (chain)
            list_chain(head, spec->disks[i]->target, chain);
    }
    if (spec->firmware && spec->firmware->type == PB_FIRMWARE_TYPE_UEFI) {
        PbSavedFile *variables = add_file(head, "firmware", NULL);

        vp_pb_printf(&variables->path, "%s/variables.fd", dir);
        if (stat(variables->path, &st) == 0)
            set_numbers(variables, &st);
    }
}

static VpError *changed(const PbSavedFile *file, const char *how)
{
    VpError *error =
        vp_error_new(VP_FAILED_PRECONDITION, "DISK_CHANGED",
                     "%s: %s %s since the domain was saved: what is in memory does not fit it any more, and "
                     "to go on would damage it; put back what was there, or boot afresh (StartDomain with "
                     "discard_saved)",
                     file->target, file->path, how);

    return vp_error_with(vp_error_with(error, "disk", file->target), "path", file->path);
}

static VpError *compare(const PbSavedFile *then, const PbSavedFile *now)
{
    if (strcmp(then->path, now->path) != 0)
        return changed(then, "has another name, or another file in its place,");
    if (then->inode != now->inode)
        return changed(then, "was replaced");
    if (then->format != now->format)
        return changed(then, "has another format");
    if (then->size_bytes != now->size_bytes || then->write_time_ns != now->write_time_ns)
        return changed(then, "was written to");
    return NULL;
}

VpError *vp_save_check_files(const PbSaveFileHead *head, const PbDomainSpec *spec, const VpProof *proof,
                             const char *dir)
{
    vp_pb_auto PbSaveFileHead *now = vp_pb_new(&pb_save_file_head__descriptor);
    VpError *error = NULL;

    vp_save_list_files(now, spec, proof, dir);
    for (size_t i = 0; i < MIN(head->n_files, now->n_files) && !error; i++)
        error = compare(head->files[i], now->files[i]);
    if (!error && head->n_files != now->n_files)
        error = vp_error_new(VP_FAILED_PRECONDITION, "DISK_CHANGED",
                             "the disks had %zu files when the domain was saved, now they have %zu", head->n_files,
                             now->n_files);
    return error;
}
