/*
 * See open.h. The file is first opened with O_PATH, which reads nothing, blocks on nothing and wakes no driver; fstat and fstatfs then tell what
 * it is; only then is that same inode opened for reading, through /proc/self/fd. So no FIFO is joined, no tape rewound, and no swap of the
 * name in between has any effect.
 */
#include "storage/chain/open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

void vp_opener_init(VpOpener *opener, const VpImagePolicy *policy)
{
    *opener = (VpOpener){.policy = policy, .fds = -1};
    if (!policy->roots) {
        return;
    }
    opener->roots = g_ptr_array_new_with_free_func(free);
    for (char **root = policy->roots; *root; root++) {
        /* A root that does not exist admits nothing. */
        char *real = realpath(*root, NULL);
        if (real) {
            g_ptr_array_add(opener->roots, real);
        }
    }
}

void vp_opener_clear(VpOpener *opener)
{
    g_clear_pointer(&opener->roots, g_ptr_array_unref);
    if (opener->policy && opener->fds >= 0) {
        close(opener->fds);
    }
}

static void refuse(VpOpenRefusal *refusal, PbFindingCode code, const char *why)
{
    *refusal = (VpOpenRefusal){.code = code, .why = g_strdup(why)};
}

/* An error means that the walk cannot go on; else the refusal says what is wrong with this file. */
static VpError *judge_errno(int errnum, const char *what, VpOpenRefusal *refusal)
{
    if (errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM) {
        return vp_error_errno(errnum, "OUT_OF_DESCRIPTORS", "cannot open image files");
    }
    PbFindingCode code = PB_FINDING_CODE_IO_ERROR;
    if (errnum == ENOENT || errnum == ENOTDIR) {
        code = PB_FINDING_CODE_FILE_MISSING;
    } else if (errnum == EACCES || errnum == EPERM || errnum == EROFS) {
        code = PB_FINDING_CODE_PERMISSION_DENIED;
    }
    *refusal =
        (VpOpenRefusal){.code = code, .why = g_strdup_printf("%s: %s", what, g_strerror(errnum)), .errnum = errnum};
    return NULL;
}

static int open_path(const char *path, guint64 resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    if (fd < 0 && errno == ENOSYS) {
        fd = open(path, O_PATH | O_CLOEXEC);
    }
    return fd;
}

/* The links in /proc that lead to other processes' files look like names of the files that they lead to; they are not followed. */
static VpError *open_name(const char *path, int *ret_fd, VpOpenRefusal *refusal)
{
    int fd = open_path(path, RESOLVE_NO_MAGICLINKS);
    if (fd >= 0) {
        *ret_fd = fd;
        return NULL;
    }
    int errnum = errno;
    if (errnum == ELOOP) {
        fd = open_path(path, 0);
        if (fd >= 0) {
            close(fd);
            refuse(refusal, PB_FINDING_CODE_NOT_REGULAR_FILE,
                   "is reached through a link in /proc, which is not followed");
            return NULL;
        }
    }
    return judge_errno(errnum, "cannot be opened", refusal);
}

static const char *odd_kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "is a directory";
    case S_IFIFO:
        return "is a FIFO";
    case S_IFSOCK:
        return "is a socket";
    case S_IFCHR:
        return "is a character device";
    default:
        return "is not a regular file";
    }
}

static gboolean is_kernel_file_system(long type)
{
    switch ((guint32)type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case BPF_FS_MAGIC:
    case EFIVARFS_MAGIC:
    case PSTOREFS_MAGIC:
    case SELINUX_MAGIC:
    case SMACK_MAGIC:
    case NSFS_MAGIC:
    case HUGETLBFS_MAGIC:
    case BINFMTFS_MAGIC:
    case 0x19800202: /* POSIX message queues */
    case 0x62656570: /* configfs */
    case 0x65735543: /* fuse's control files */
        return TRUE;
    default:
        return FALSE;
    }
}

/* /dev has a file system of its own nearly everywhere; plain files in it are no images. */
static gboolean is_dev(const struct stat *st)
{
    struct stat dev;
    struct stat root;
    return stat("/dev", &dev) == 0 && stat("/", &root) == 0 && dev.st_dev != root.st_dev && dev.st_dev == st->st_dev;
}

static gboolean check_file_system(VpOpener *opener, int fd, const struct stat *st, VpOpenRefusal *refusal)
{
    struct statfs fs;
    for (guint i = 0; i < opener->n_checked; i++) {
        if (opener->checked[i] == st->st_dev) {
            return TRUE;
        }
    }
    if (fstatfs(fd, &fs) < 0) {
        refuse(refusal, PB_FINDING_CODE_IO_ERROR, "is on a file system that cannot be told");
        return FALSE;
    }
    if (is_kernel_file_system(fs.f_type) || is_dev(st)) {
        refuse(refusal, PB_FINDING_CODE_NOT_REGULAR_FILE,
               "is a file of the kernel's own (/proc, /sys, /dev and the like)");
        return FALSE;
    }
    if (opener->n_checked < G_N_ELEMENTS(opener->checked)) {
        opener->checked[opener->n_checked++] = st->st_dev;
    }
    return TRUE;
}

static gboolean is_below(const char *path, const char *root)
{
    gsize length = strlen(root);
    if (length == 1) {
        return TRUE;
    }
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* The name that the kernel has for an open file. FALSE: none that fits. */
static gboolean real_path(int fd, char *real, gsize room)
{
    char link[32];
    g_snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, real, room - 1);
    if (size <= 0 || (gsize)size >= room - 1) {
        return FALSE;
    }
    real[size] = '\0';
    return TRUE;
}

static gboolean check_roots(const VpOpener *opener, int fd, VpOpenRefusal *refusal)
{
    char real[PATH_MAX];
    if (!opener->roots) {
        return TRUE;
    }
    if (real_path(fd, real, sizeof(real))) {
        for (guint i = 0; i < opener->roots->len; i++) {
            if (is_below(real, g_ptr_array_index(opener->roots, i))) {
                return TRUE;
            }
        }
    }
    refuse(refusal, PB_FINDING_CODE_OUTSIDE_ALLOWED_ROOTS, "lies outside the folders that images may come from");
    return FALSE;
}

/* A block device that the policy names lies below the roots by that. */
static gboolean check_device(const VpOpener *opener, const char *path, int fd, VpOpenRefusal *refusal)
{
    char real[PATH_MAX];
    if (real_path(fd, real, sizeof(real)) && vp_image_policy_allows_device(opener->policy, path, real)) {
        return TRUE;
    }
    refuse(refusal, PB_FINDING_CODE_NOT_REGULAR_FILE,
           "is a block device that block_devices in the daemon's [images] settings does not name");
    return FALSE;
}

gboolean vp_opener_allows(VpOpener *opener, int fd, const struct stat *st, VpOpenRefusal *refusal)
{
    *refusal = (VpOpenRefusal){0};
    return check_file_system(opener, fd, st, refusal) && check_roots(opener, fd, refusal);
}

/* Reading a header is no use of the image: its access time stays, where we may say so. */
static int reopen(VpOpener *opener, int path_fd, gboolean write)
{
    char number[16];
    int flags = (write ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    if (opener->fds < 0) {
        opener->fds = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (opener->fds < 0) {
        return -1;
    }
    g_snprintf(number, sizeof(number), "%d", path_fd);
    int fd = openat(opener->fds, number, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM) {
        fd = openat(opener->fds, number, flags);
    }
    return fd;
}

static VpError *open_checked(VpOpener *opener, const char *path, int path_fd, gboolean write, VpOpened *ret,
                             VpOpenRefusal *refusal)
{
    VpOpened opened = {.fd = -1};
    if (fstat(path_fd, &opened.st) < 0) {
        return judge_errno(errno, "cannot be looked at", refusal);
    }
    if (!S_ISREG(opened.st.st_mode) && !S_ISBLK(opened.st.st_mode)) {
        refuse(refusal, PB_FINDING_CODE_NOT_REGULAR_FILE, odd_kind(opened.st.st_mode));
        refusal->kind = opened.st.st_mode & S_IFMT;
        return NULL;
    }
    if (S_ISBLK(opened.st.st_mode) ? !check_device(opener, path, path_fd, refusal)
                                   : !vp_opener_allows(opener, path_fd, &opened.st, refusal)) {
        return NULL;
    }
    opened.fd = reopen(opener, path_fd, write);
    if (opened.fd < 0) {
        return judge_errno(errno, write ? "cannot be opened for writing" : "cannot be read", refusal);
    }
    opened.size = (guint64)opened.st.st_size;
    if (S_ISBLK(opened.st.st_mode)) {
        off_t end = lseek(opened.fd, 0, SEEK_END);
        if (end < 0) {
            int errnum = errno;
            close(opened.fd);
            return judge_errno(errnum, "has no size", refusal);
        }
        opened.size = (guint64)end;
    }
    *ret = opened;
    return NULL;
}

VpError *vp_opener_open(VpOpener *opener, const char *path, gboolean write, VpOpened *ret, VpOpenRefusal *refusal)
{
    int path_fd = -1;
    *refusal = (VpOpenRefusal){0};
    VpError *error = open_name(path, &path_fd, refusal);
    if (error || path_fd < 0) {
        return error;
    }
    error = open_checked(opener, path, path_fd, write, ret, refusal);
    close(path_fd);
    return error;
}

gboolean vp_opener_allows_socket(VpOpener *opener, const char *path)
{
    VpOpenRefusal refusal = {0};
    struct stat st;
    int fd = open_path(path, RESOLVE_NO_MAGICLINKS);
    if (fd < 0) {
        return FALSE;
    }
    gboolean allowed = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && check_roots(opener, fd, &refusal);
    g_free(refusal.why);
    close(fd);
    return allowed;
}

VpError *vp_opener_open_folder(VpOpener *opener, const char *path, int *ret_fd, VpOpenRefusal *refusal)
{
    struct stat st;
    char link[32];
    int path_fd = -1;
    *refusal = (VpOpenRefusal){0};
    VpError *error = open_name(path, &path_fd, refusal);
    if (error || path_fd < 0) {
        return error;
    }
    if (fstat(path_fd, &st) < 0) {
        error = judge_errno(errno, "cannot be looked at", refusal);
    } else if (!S_ISDIR(st.st_mode)) {
        refuse(refusal, PB_FINDING_CODE_NOT_REGULAR_FILE, "is not a folder");
    } else if (vp_opener_allows(opener, path_fd, &st, refusal)) {
        g_snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
        int fd = open(link, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            error = judge_errno(errno, "cannot be read", refusal);
        } else {
            *ret_fd = fd;
        }
    }
    close(path_fd);
    return error;
}

/* `name` has no slash: what is not followed is the name itself. */
static int open_entry(int folder_fd, const char *name, int flags)
{
    return openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | flags);
}

gboolean vp_opener_open_entry(VpOpener *opener, int folder_fd, const char *name, VpOpened *ret)
{
    VpOpened opened = {.fd = open_entry(folder_fd, name, O_NOATIME)};
    VpOpenRefusal refusal = {0};
    if (opened.fd < 0 && errno == EPERM) {
        opened.fd = open_entry(folder_fd, name, 0);
    }
    if (opened.fd < 0) {
        return FALSE;
    }
    /* Below the folder, which lies below a root. */
    if (fstat(opened.fd, &opened.st) < 0 || !S_ISREG(opened.st.st_mode) ||
        !check_file_system(opener, opened.fd, &opened.st, &refusal)) {
        g_free(refusal.why);
        close(opened.fd);
        return FALSE;
    }
    opened.size = (guint64)opened.st.st_size;
    *ret = opened;
    return TRUE;
}
