/* A domain's folder: see folder.h. */
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgroup.h"
#include "process.h"

#define GROUP "process"
#define TAIL_BYTES 4096
#define QMP_SOCKET "qmp.sock"
#define LOG "qemu.log"
#define INTENT "change"

static void remove_file(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);

    unlink(path);
}

/* Removes those files whose names end so. */
static void remove_files(const char *dir, const char *suffix)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);

    for (const char *name = entries ? g_dir_read_name(entries) : NULL; name; name = g_dir_read_name(entries)) {
        if (g_str_has_suffix(name, suffix))
            remove_file(dir, name);
    }
}

void vp_folder_ended(const char *dir)
{
    g_autofree char *screen = g_build_filename(dir, "screen", NULL);

    remove_files(dir, ".sock");
    remove_files(screen, "");
    remove_file(dir, "process");
    remove_file(dir, INTENT);
    vp_cgroup_remove(dir);
}

pid_t vp_folder_running(const char *dir)
{
    VpProcess process;
    VpRecord record = {0};
    g_autoptr(VpError) error = vp_folder_read_record(dir, &record);

    if (!error)
        error = vp_process_open(record.pid, record.start_ticks, &process);
    if (!error) {
        vp_process_clear(&process);
        return record.pid;
    }
    /* What cannot be looked at is taken for alive. */
    return error->code == VP_NOT_FOUND ? 0 : record.pid;
}

static VpError *check_ended(const char *dir)
{
    const pid_t pid = vp_folder_running(dir);

    if (pid == 0)
        return NULL;
    g_autofree char *text = g_strdup_printf("%d", pid);
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "PROCESS_ALIVE",
                                      "process %d of an earlier run still lives (%s/process tells of it); power the "
                                      "domain off, which ends it, and try again",
                                      pid, dir),
                         "pid", text);
}

VpError *vp_folder_make(const char *dir)
{
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", dir);
    VpError *error = check_ended(dir);
    if (!error)
        vp_folder_ended(dir);
    return error;
}

VpError *vp_folder_remove(const char *dir)
{
    VpError *error = check_ended(dir);

    if (error)
        return error;
    static const char *const folders[] = {"tpm", "screen"};
    for (gsize i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *folder = g_build_filename(dir, folders[i], NULL);

        remove_files(folder, "");
        rmdir(folder);
    }
    remove_files(dir, "");
    rmdir(dir);
    return NULL;
}

/* ---- the record ---- */

/* Start times count from the host's start, so that a record says which one. */
static char *boot_id(void)
{
    char *text = NULL;

    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL, NULL))
        return g_strdup("unknown");
    return g_strstrip(text);
}

/* Writes the text aside and renames it into place: it is there whole or not at all. Not waited for by the disk, which costs a start more than all else: it has
 * to outlive the daemon, not the host, and what is left of it after that is of another boot, or no record. 0, or what errno says. */
static int write_aside(const char *path, const char *text)
{
    g_autofree char *aside = g_strconcat(path, ".new", NULL);
    const ssize_t length = (ssize_t)strlen(text);

    const int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    const ssize_t n = write(fd, text, (size_t)length);
    int errnum = n == length ? 0 : n < 0 ? errno : ENOSPC;
    if (close(fd) < 0 && !errnum)
        errnum = errno;
    if (!errnum && rename(aside, path) < 0)
        errnum = errno;
    if (errnum)
        unlink(aside);
    return errnum;
}

VpError *vp_folder_write_record(const char *dir, const VpRecord *record)
{
    g_autofree char *path = g_build_filename(dir, "process", NULL);
    g_autofree char *boot = boot_id();
    g_autofree char *text = g_strdup_printf("[" GROUP "]\npid=%d\nstart_ticks=%" G_GUINT64_FORMAT
                                            "\nboot_id=%s\npaused=%s\naccelerator=%d\nrestore=%d\n",
                                            record->pid, record->start_ticks, boot, record->paused ? "true" : "false",
                                            record->accelerator, record->restore);

    const int errnum = write_aside(path, text);
    if (errnum == 0)
        return NULL;
    return vp_error_new(errnum == ENOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                        "cannot write down the process of the domain in %s: %s", path, g_strerror(errnum));
}

VpError *vp_folder_read_record(const char *dir, VpRecord *ret_record)
{
    g_autofree char *path = g_build_filename(dir, "process", NULL);
    g_autofree char *now = boot_id();
    g_autoptr(GKeyFile) file = g_key_file_new();

    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL))
        return vp_error_new(VP_NOT_FOUND, "PROCESS_GONE", "no process is written down in %s", path);
    g_autofree char *boot = g_key_file_get_string(file, GROUP, "boot_id", NULL);
    if (g_strcmp0(boot, now) != 0)
        return vp_error_new(VP_NOT_FOUND, "PROCESS_GONE", "the host was restarted");
    ret_record->pid = g_key_file_get_integer(file, GROUP, "pid", NULL);
    ret_record->start_ticks = g_key_file_get_uint64(file, GROUP, "start_ticks", NULL);
    ret_record->paused = g_key_file_get_boolean(file, GROUP, "paused", NULL);
    ret_record->accelerator = (PbAccelerator)g_key_file_get_integer(file, GROUP, "accelerator", NULL);
    ret_record->restore = (VpRestorePhase)g_key_file_get_integer(file, GROUP, "restore", NULL);
    return NULL;
}

static gboolean sync_folder(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const gboolean synced = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0)
        close(fd);
    return synced;
}

VpError *vp_folder_note_loaded(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "process", NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) failure = NULL;

    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL))
        return vp_error_new(VP_INTERNAL, "STATE_DIR", "%s cannot be read", path);
    g_key_file_set_integer(file, GROUP, "restore", VP_RESTORE_LOADED);
    g_autofree char *text = g_key_file_to_data(file, NULL, NULL);
    if (g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600,
                                 &failure) &&
        sync_folder(dir))
        return NULL;
    if (!failure)
        return vp_error_errno(errno, "STATE_DIR", "cannot write the folder %s to the disk", dir);
    return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                        "cannot write down that the domain is restored: %s", failure->message);
}

VpRestorePhase vp_folder_restore_phase(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "process", NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();

    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL))
        return VP_RESTORE_NONE;
    return (VpRestorePhase)g_key_file_get_integer(file, GROUP, "restore", NULL);
}

VpError *vp_folder_write_intent(const char *dir, GBytes *bytes)
{
    g_autofree char *path = g_build_filename(dir, INTENT, NULL);
    g_autoptr(GError) failure = NULL;
    gsize length = 0;
    const char *text = g_bytes_get_data(bytes, &length);

    if (!g_file_set_contents_full(path, text, (gssize)length, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &failure))
        return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                            "cannot write down the change: %s", failure->message);
    return NULL;
}

GBytes *vp_folder_read_intent(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, INTENT, NULL);
    char *text = NULL;
    gsize length = 0;

    return g_file_get_contents(path, &text, &length, NULL) ? g_bytes_new_take(text, length) : NULL;
}

/* ---- the socket ---- */

/* bind() or connect() by way of an open folder: a path below /proc/self/fd is short, however long the folder's is. */
static VpError *socket_at(const char *dir, const char *name, int (*call)(int, const struct sockaddr *, socklen_t),
                          const char *what, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (dir_fd < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot open the folder %s", dir);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int r = fd < 0 ? -1 : call(fd, (struct sockaddr *)&address, sizeof(address));
    const int errnum = errno;
    close(dir_fd);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return vp_error_errno(errnum, "QMP_SOCKET", "cannot %s the socket %s/%s", what, dir, name);
    }
    *ret_fd = fd;
    return NULL;
}

VpError *vp_folder_listen_at(const char *dir, const char *name, int *ret_fd)
{
    VpError *error = socket_at(dir, name, bind, "bind", ret_fd);

    if (error)
        return error;
    if (listen(*ret_fd, 8) == 0)
        return NULL;
    error = vp_error_errno(errno, "QMP_SOCKET", "cannot listen on %s/%s", dir, name);
    close(*ret_fd);
    return error;
}

VpError *vp_folder_connect_to(const char *dir, const char *name, int *ret_fd)
{
    return socket_at(dir, name, connect, "connect to", ret_fd);
}

VpError *vp_folder_listen(const char *dir, int *ret_fd)
{
    return vp_folder_listen_at(dir, QMP_SOCKET, ret_fd);
}

VpError *vp_folder_connect(const char *dir, int *ret_fd)
{
    return vp_folder_connect_to(dir, QMP_SOCKET, ret_fd);
}

/* ---- the logs ---- */

VpError *vp_folder_open_log_at(const char *dir, const char *name, int *ret_fd)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);

    if (rename(path, old) < 0 && errno != ENOENT)
        return vp_error_errno(errno, "STATE_DIR", "cannot put aside %s", path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot make %s", path);
    *ret_fd = fd;
    return NULL;
}

VpError *vp_folder_open_log(const char *dir, int *ret_fd)
{
    return vp_folder_open_log_at(dir, LOG, ret_fd);
}

/* The last `size` bytes of a file, NUL-terminated; NULL if it cannot be read. */
static char *read_end(int fd, gsize size, gsize *ret_length)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return NULL;
    const off_t start = status.st_size > (off_t)size ? status.st_size - (off_t)size : 0;
    char *text = g_malloc(size + 1);
    const ssize_t n = pread(fd, text, size, start);
    if (n < 0) {
        g_free(text);
        return NULL;
    }
    text[n] = '\0';
    *ret_length = (gsize)n;
    return text;
}

static void bound_one(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    struct stat status;
    gsize length;

    const int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && status.st_size > VP_LOG_MAX_BYTES) {
        g_autofree char *end = read_end(fd, VP_LOG_MAX_BYTES / 2, &length);

        /* The process appends, so that it goes on at the new end. */
        if (end && g_file_set_contents_full(old, end, (gssize)length, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL) &&
            ftruncate(fd, 0) < 0)
            unlink(old);
    }
    close(fd);
}

void vp_folder_bound_log(const char *dir)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);

    for (const char *name = entries ? g_dir_read_name(entries) : NULL; name; name = g_dir_read_name(entries)) {
        if (g_str_has_suffix(name, ".log"))
            bound_one(dir, name);
    }
}

/* Cuts "2026-01-02T03:04:05.678901Z " off the front. */
static const char *without_timestamp(const char *line)
{
    return strlen(line) > 28 && line[4] == '-' && line[10] == 'T' && line[26] == 'Z' && line[27] == ' ' ? line + 28
                                                                                                        : line;
}

char *vp_folder_log_tail(const char *dir, guint max_lines)
{
    g_autofree char *path = g_build_filename(dir, LOG, NULL);
    gsize length = 0;

    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    g_autofree char *end = read_end(fd, TAIL_BYTES, &length);
    close(fd);
    if (!end)
        return NULL;

    g_autofree char *text = g_utf8_make_valid(end, (gssize)length);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);
    const guint count = g_strv_length(lines);
    GString *tail = g_string_new(NULL);
    for (guint i = count > max_lines ? count - max_lines : 0; i < count; i++) {
        if (tail->len > 0)
            g_string_append(tail, "; ");
        g_string_append(tail, without_timestamp(lines[i]));
    }
    const gboolean empty = tail->len == 0;
    return g_string_free(tail, empty);
}
