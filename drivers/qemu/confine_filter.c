/*
 * See confine_filter.h. A list of what is refused: QEMU and its libraries change with every version, and what they need of the ordinary calls is not ours to
 * say. What is listed is of no use to a guest's machine, and is what ways out of a container have been made of.
 */
#include "confine_filter.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILTER_BYTES (sizeof(struct sock_filter) * BPF_MAXINSNS)
#define NEW_NAMESPACES                                                                                                 \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)

static const int refused[] = {
    /* Another view of the host's files, and of its namespaces. */
    SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(umount), SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(move_mount),
    SCMP_SYS(open_tree), SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount), SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at), SCMP_SYS(fanotify_init), SCMP_SYS(quotactl), SCMP_SYS(mknod), SCMP_SYS(mknodat),
    /* Other processes. */
    SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp),
    SCMP_SYS(process_madvise), SCMP_SYS(perf_event_open),
    /* Keys, which belong to a user and not to a process. */
    SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key),
    /* The kernel itself. */
    SCMP_SYS(bpf), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load), SCMP_SYS(reboot), SCMP_SYS(syslog), SCMP_SYS(lookup_dcookie), SCMP_SYS(uselib),
    SCMP_SYS(nfsservctl), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(modify_ldt), SCMP_SYS(vm86), SCMP_SYS(vm86old),
    /* The host as a whole. */
    SCMP_SYS(acct), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(sethostname), SCMP_SYS(setdomainname),
    SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(clock_adjtime), SCMP_SYS(adjtimex), SCMP_SYS(stime),
    SCMP_SYS(vhangup)};

static int fill(scmp_filter_ctx context)
{
    for (gsize i = 0; i < G_N_ELEMENTS(refused); i++) {
        /* -EDOM: this architecture has no such call. */
        const int r = seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), refused[i], 0);

        if (r < 0 && r != -EDOM)
            return r;
    }
    /* Threads and processes are made, namespaces are not. What clone3 is told cannot be looked at: the C library does with clone where there is none. */
    for (guint64 bit = 1; bit <= (guint64)NEW_NAMESPACES; bit <<= 1) {
        if (!(bit & NEW_NAMESPACES))
            continue;
        const int r =
            seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit));
        if (r < 0)
            return r;
    }
    return seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* As a program for the kernel, to be loaded by a child that can call no library. */
static int export_to(scmp_filter_ctx context, int fd, struct sock_fprog **ret_filter)
{
    struct stat status;
    int r = seccomp_export_bpf(context, fd);

    if (r < 0)
        return r;
    if (fstat(fd, &status) < 0 || status.st_size <= 0 || status.st_size > (off_t)MAX_FILTER_BYTES)
        return -EIO;
    g_autofree struct sock_filter *code = g_malloc((gsize)status.st_size);
    if (pread(fd, code, (size_t)status.st_size, 0) != status.st_size)
        return -EIO;
    *ret_filter = g_new0(struct sock_fprog, 1);
    (*ret_filter)->len = (unsigned short)((gsize)status.st_size / sizeof(struct sock_filter));
    (*ret_filter)->filter = g_steal_pointer(&code);
    return 0;
}

static int make(scmp_filter_ctx context, struct sock_fprog **ret_filter)
{
    const int fd = memfd_create("filter", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = fill(context);
    if (r == 0)
        r = export_to(context, fd, ret_filter);
    close(fd);
    return r;
}

VpError *vp_confine_filter_new(struct sock_fprog **ret_filter)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
    const int r = context ? make(context, ret_filter) : -ENOMEM;

    if (context)
        seccomp_release(context);
    return r < 0 ? vp_error_errno(-r, "CONTAINMENT", "cannot make a filter of system calls") : NULL;
}

void vp_confine_filter_free(struct sock_fprog *filter)
{
    if (!filter)
        return;
    g_free(filter->filter);
    g_free(filter);
}
