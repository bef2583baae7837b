/* See save_write.h. */
#include "save_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "save_read.h"
#include "storage/chain/open.h"

void vp_save_writer_clear(VpSaveWriter *writer)
{
    if (writer->has_proof)
        vp_proof_clear(&writer->proof, writer->host);
    if (writer->folder_fd >= 0)
        close(writer->folder_fd);
    if (writer->fd >= 0)
        close(writer->fd);
    writer->folder_fd = writer->fd = -1;
    vp_pb_free(writer->head);
    vp_pb_free(writer->saved);
    g_free(writer->dir);
    g_free(writer->path);
    g_free(writer->temporary);
}

static VpError *check_abort(const VpSaveWriter *writer)
{
    return g_atomic_int_get(writer->abort) ? vp_error_new(VP_CANCELLED, "CANCELLED", "the save was given up") : NULL;
}

static VpError *write_error(const VpSaveWriter *writer, int errnum)
{
    if (errnum == ENOSPC || errnum == EDQUOT)
        return vp_error_with(vp_error_new(VP_RESOURCE_EXHAUSTED, "SAVE_NO_SPACE",
                                          "there is no room for %s: %s; make some, or save to another disk",
                                          writer->path, g_strerror(errnum)),
                             "path", writer->path);
    return vp_error_errno(errnum, "SAVE_FILE_IO", "cannot write %s", writer->path);
}

/* ---- the disks ---- */

static VpError *prove(VpSaveWriter *writer)
{
    const PbDomainSpec *spec = writer->head->live_spec;

    vp_proof_init(&writer->proof, writer->host->images, writer->abort);
    writer->has_proof = TRUE;
    for (size_t i = 0; i < spec->n_disks; i++) {
        vp_pb_auto PbDisk *disk = vp_pb_dup(spec->disks[i]);
        VpError *error = check_abort(writer);

        /* It is looked at; QEMU has it for writing. */
        disk->read_only = TRUE;
        if (!error)
            error = vp_proof_disk(&writer->proof, disk);
        if (error)
            return vp_error_prefix(error, "it could not be restored");
    }
    return NULL;
}

static gboolean holds(const GArray *files, const struct stat *st)
{
    for (guint i = 0; i < files->len; i++) {
        const struct stat *held = &g_array_index(files, struct stat, i);

        if (held->st_ino == st->st_ino && held->st_dev == st->st_dev)
            return TRUE;
    }
    return FALSE;
}

/* The files that QEMU has open; NULL if that cannot be told. */
static GArray *files_of(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", pid);
    DIR *entries = opendir(path);

    if (!entries)
        return NULL;
    GArray *files = g_array_new(FALSE, FALSE, sizeof(struct stat));
    for (const struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
        struct stat st;

        if (fstatat(dirfd(entries), entry->d_name, &st, 0) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
            g_array_append_val(files, st);
    }
    closedir(entries);
    return files;
}

static VpError *check_held_chain(const GArray *files, const char *target, const VpChain *chain)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);
        struct stat st;

        if (file->fd < 0 || fstat(file->fd, &st) < 0 || holds(files, &st))
            continue;
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "DISK_REPLACED",
                                          "disk %s: %s is another file now than the one that the domain runs with: it "
                                          "could not be restored",
                                          target, file->layer->path),
                             "path", file->layer->path);
    }
    return NULL;
}

/* What lies at the paths of the disks has to be what QEMU has open. */
static VpError *check_held(const VpSaveWriter *writer)
{
    g_autoptr(GArray) files = files_of(writer->pid);
    VpError *error = NULL;

    for (guint i = 0; files && i < writer->proof.chains->len && !error; i++) {
        const VpChain *chain = writer->proof.chains->pdata[i];

        if (chain)
            error = check_held_chain(files, writer->head->live_spec->disks[i]->target, chain);
    }
    return error;
}

/* ---- the file ---- */

static VpError *open_folder(VpSaveWriter *writer)
{
    g_autofree char *folder = g_path_get_dirname(writer->path);
    const VpImagePolicy *policy = writer->host->images;
    VpOpenRefusal refusal = {0};
    g_auto(VpOpener) opener;

    /* The daemon's own folder is no place for images. */
    vp_opener_init(&opener, writer->managed || !policy ? &vp_image_policy_default : policy);
    VpError *error = vp_opener_open_folder(&opener, folder, &writer->folder_fd, &refusal);
    if (!error && writer->folder_fd < 0)
        error = vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_REFUSED",
                                           "cannot save to %s: the folder %s %s", writer->path, folder,
                                           refusal.why ? refusal.why : "cannot be opened"),
                              "path", writer->path);
    g_free(refusal.why);
    return error;
}

static VpError *file_exists(const VpSaveWriter *writer)
{
    return vp_error_with(vp_error_new(VP_ALREADY_EXISTS, "SAVE_FILE_EXISTS",
                                      "%s is there already, and is not written over", writer->path),
                         "path", writer->path);
}

static VpError *write_note(const VpSaveWriter *writer, const char *name)
{
    g_autofree char *folder = g_path_get_dirname(writer->path);
    g_autofree char *temporary = g_build_filename(folder, name, NULL);
    const VpSaveNote note = {
        .id = writer->head->id,
        .path = writer->path,
        .temporary = temporary,
        .was_running = writer->was_running,
    };

    return vp_save_note_write(writer->dir, &note);
}

static VpError *make_file(VpSaveWriter *writer)
{
    g_autofree char *name = g_path_get_basename(writer->path);
    struct stat st;

    if (fstatat(writer->folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return file_exists(writer);
    g_autofree char *temporary = g_strdup_printf(".%.60s.%.8s.saving", name, writer->head->id);
    /* First, so that a later daemon knows of it. */
    VpError *error = write_note(writer, temporary);
    if (error)
        return error;
    writer->fd = openat(writer->folder_fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (writer->fd < 0)
        return write_error(writer, errno);
    writer->temporary = g_steal_pointer(&temporary);
    if (lseek(writer->fd, (off_t)writer->stream_offset, SEEK_SET) < 0)
        return write_error(writer, errno);
    return NULL;
}

VpError *vp_save_writer_open(VpSaveWriter *writer)
{
    VpError *error = vp_save_key(writer->host->state_dir, writer->key);

    writer->managed = !writer->path;
    if (writer->managed) {
        writer->path = vp_save_kept_path(writer->dir);
        /* Of an earlier run, which the domain has long gone on from. */
        vp_save_remove_all(writer->dir);
    }
    if (!error)
        error = prove(writer);
    if (!error)
        error = check_held(writer);
    if (!error) {
        vp_save_list_files(writer->head, writer->head->live_spec, &writer->proof, writer->dir);
        error = vp_save_file_room(writer->head, &writer->stream_offset);
    }
    if (!error)
        error = open_folder(writer);
    if (!error)
        error = make_file(writer);
    return error;
}

/* ---- the end ---- */

static VpError *write_head(VpSaveWriter *writer, guint64 stream_bytes)
{
    g_autoptr(GBytes) head = vp_save_file_pack(writer->head, writer->stream_offset, stream_bytes, writer->key);
    gsize size = 0;
    const char *bytes = g_bytes_get_data(head, &size);

    for (gsize done = 0; done < size;) {
        const ssize_t n = pwrite(writer->fd, bytes + done, size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return write_error(writer, errno);
        done += (gsize)n;
    }
    return NULL;
}

/* Not over a file that has come meanwhile. */
static VpError *give_name(VpSaveWriter *writer)
{
    g_autofree char *name = g_path_get_basename(writer->path);
    int r = renameat2(writer->folder_fd, writer->temporary, writer->folder_fd, name, RENAME_NOREPLACE);

    /* There are file systems that cannot. */
    if (r < 0 && errno == EINVAL) {
        r = linkat(writer->folder_fd, writer->temporary, writer->folder_fd, name, 0);
        if (r == 0)
            unlinkat(writer->folder_fd, writer->temporary, 0);
    }
    if (r < 0)
        return errno == EEXIST ? file_exists(writer) : write_error(writer, errno);
    g_clear_pointer(&writer->temporary, g_free);
    return fsync(writer->folder_fd) < 0 ? write_error(writer, errno) : NULL;
}

static VpError *make_durable(VpSaveWriter *writer)
{
    struct stat st;

    if (fstat(writer->fd, &st) < 0)
        return write_error(writer, errno);
    const guint64 size = (guint64)st.st_size;
    if (size <= writer->stream_offset)
        return vp_error_new(VP_INTERNAL, "SAVE_FILE_IO", "QEMU wrote nothing to %s", writer->path);
    vp_save_list_files(writer->head, writer->head->live_spec, &writer->proof, writer->dir);
    VpError *error = write_head(writer, size - writer->stream_offset);
    if (!error && fsync(writer->fd) < 0)
        error = write_error(writer, errno);
    if (!error)
        error = check_abort(writer);
    if (!error)
        error = give_name(writer);
    if (!error)
        writer->saved = vp_saved_state_new(writer->path, writer->managed, writer->head, size);
    return error;
}

VpError *vp_save_writer_finish(VpSaveWriter *writer)
{
    VpError *error = check_abort(writer);

    return error ? error : make_durable(writer);
}

void vp_save_writer_drop(VpSaveWriter *writer)
{
    g_autofree char *name = writer->path ? g_path_get_basename(writer->path) : NULL;

    if (writer->temporary)
        unlinkat(writer->folder_fd, writer->temporary, 0);
    else if (writer->fd >= 0 && !writer->saved && name)
        unlinkat(writer->folder_fd, name, 0); /* it has its name, but that may not last */
    vp_save_note_drop(writer->dir);
}
