/* See confine.h. Async-signal-safe calls only: the child of a process with many threads. */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT_OPTIONS "mode=0755,size=1m,nr_inodes=256"
#define LAST_CAPABILITY 63

static int write_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    const ssize_t n = write(fd, text, strlen(text));
    const int errnum = errno;
    close(fd);
    errno = errnum;
    return n < 0 ? -1 : 0;
}

/* ---- the root folder; the working folder is its top ---- */

static int make_place(const VpViewEntry *entry)
{
    if (!entry->is_file)
        return mkdir(entry->target, 0755);
    const int fd = open(entry->target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : close(fd);
}

/* What is mounted below it comes along; the attributes are added to those that each has. */
static int show(const VpViewEntry *entry, guint64 attributes)
{
    struct mount_attr attr = {.attr_set = attributes};

    if (make_place(entry) < 0 || mount(entry->source, entry->target, NULL, MS_BIND | MS_REC, NULL) < 0)
        return -1;
    return mount_setattr(AT_FDCWD, entry->target, AT_RECURSIVE, &attr, sizeof(attr));
}

/* Its own node is for its user alone. Where none can be made the host's is shown, with the host's rights. */
static int make_device(const VpConfine *confine, const VpViewEntry *entry)
{
    if (mknod(entry->target, S_IFCHR | 0600, entry->device) == 0) {
        /* In a user namespace nodes can be made and not be opened. */
        const int fd = open(entry->target, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

        if (fd >= 0) {
            close(fd);
            return confine->change_user ? chown(entry->target, confine->uid, confine->gid) : 0;
        }
        unlink(entry->target);
    }
    return show(entry, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
}

static int make_entry(const VpConfine *confine, const VpViewEntry *entry)
{
    switch (entry->kind) {
    case VP_VIEW_FOLDER:
        return mkdir(entry->target, 0755);
    case VP_VIEW_LINK:
        return symlink(entry->source, entry->target);
    case VP_VIEW_SHOWN:
        return show(entry, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    case VP_VIEW_WRITABLE:
        return show(entry, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    case VP_VIEW_DEVICE:
        return make_device(confine, entry);
    }
    errno = EINVAL;
    return -1;
}

static const char *make_root(const VpConfine *confine)
{
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID};

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return "a mount namespace of its own";
    if (mount("virtplane", confine->root, "tmpfs", MS_NOSUID, ROOT_OPTIONS) < 0 || chdir(confine->root) < 0)
        return "a root folder of its own";
    for (guint i = 0; i < confine->n_view; i++) {
        if (make_entry(confine, &confine->view[i]) < 0)
            return confine->view[i].source ? confine->view[i].source : confine->view[i].target;
    }
    /* The old root is put on top of the new one, and taken away. */
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return "the change to a root folder of its own";
    if (mount_setattr(AT_FDCWD, "/", 0, &read_only, sizeof(read_only)) < 0)
        return "a root folder that cannot be written";
    return NULL;
}

/* ---- before it is let go ---- */

static int map_user(const VpConfine *confine)
{
    if (!(confine->namespaces & CLONE_NEWUSER))
        return 0;
    if (write_text("/proc/self/setgroups", "deny") < 0 || write_text("/proc/self/uid_map", confine->uid_map) < 0)
        return -1;
    return write_text("/proc/self/gid_map", confine->gid_map);
}

static int set_profile(const char *profile)
{
    static const char *const paths[] = {"/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"};
    char text[128] = "exec ";

    strncat(text, profile, sizeof(text) - sizeof("exec "));
    if (access(paths[0], F_OK) == 0)
        return write_text(paths[0], text);
    return write_text(paths[1], text);
}

const char *vp_confine_separate(const VpConfine *confine)
{
    /* While the host's /proc can be reached. */
    if (confine->apparmor && set_profile(confine->apparmor) < 0)
        return confine->apparmor;
    if (confine->namespaces && unshare(confine->namespaces) < 0)
        return "namespaces of its own";
    if (map_user(confine) < 0)
        return "a user namespace of its own";
    umask(0);
    const char *step = confine->root ? make_root(confine) : NULL;
    umask(077);
    return step;
}

/* ---- before its exec ---- */

static int drop_bounding_set(void)
{
    for (int i = 0; i <= LAST_CAPABILITY; i++) {
        /* EINVAL: there are no more of them. EPERM: one without the right to, for whom no_new_privs has to do. */
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
            return -1;
    }
    return 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return -1;
    return (int)syscall(SYS_capset, &header, none);
}

static int change_user(const VpConfine *confine)
{
    if (!confine->change_user)
        return 0;
    if (setgroups(confine->n_groups, confine->groups) < 0)
        return -1;
    if (setresgid(confine->gid, confine->gid, confine->gid) < 0)
        return -1;
    return setresuid(confine->uid, confine->uid, confine->uid);
}

const char *vp_confine_drop(const VpConfine *confine)
{
    const struct rlimit no_core = {0, 0};

    umask(077);
    if (setrlimit(RLIMIT_CORE, &no_core) < 0)
        return "no core dumps";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return "no_new_privs";
    if (confine->drop_capabilities && drop_bounding_set() < 0)
        return "no capabilities";
    if (change_user(confine) < 0)
        return "a user of its own";
    if (confine->drop_capabilities && drop_capabilities() < 0)
        return "no capabilities";
    if (confine->filter && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, confine->filter, 0, 0) < 0)
        return "a filter of system calls";
    return NULL;
}
