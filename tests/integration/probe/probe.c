/*
 * A program in QEMU's place that tries to get out: test_containment.py has it run as [qemu] binary= and reads from the domain's log what it got. It says a line
 * for each attempt, "NAME ok" or "NAME ERRNO", and its open descriptors. STATE, SOCKET, OTHER, PORT and ABSTRACT are told when it is compiled.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static void say(const char *name, long result)
{
    if (result < 0)
        dprintf(2, "%s %s\n", name, strerrorname_np(errno));
    else
        dprintf(2, "%s ok\n", name);
}

#define TRY(call) say(#call, (long)(call))

static void try_path(const char *what, const char *path, int flags)
{
    char name[4200];

    snprintf(name, sizeof(name), "%s %s", what, path);
    say(name, open(path, flags | O_CLOEXEC, 0600));
}

static void try_unix(const char *what, const char *path, int abstract)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path + abstract, path, sizeof(address.sun_path) - 1 - (size_t)abstract);
    say(what, connect(fd, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract + strlen(path))));
    close(fd);
}

static void try_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    say("connect tcp", connect(fd, (struct sockaddr *)&address, sizeof(address)));
    close(fd);
}

static void list_descriptors(void)
{
    DIR *fds = opendir("/dev/fd");
    struct dirent *entry;

    while (fds && (entry = readdir(fds))) {
        char path[300];
        char target[4096] = "";
        struct stat status;
        const int fd = atoi(entry->d_name);

        if (entry->d_name[0] == '.' || fd == dirfd(fds) || fstat(fd, &status) < 0)
            continue;
        snprintf(path, sizeof(path), "/dev/fd/%d", fd);
        if (readlink(path, target, sizeof(target) - 1) < 0)
            strcpy(target, "?");
        dprintf(2, "descriptor %d %s%s\n", fd, S_ISDIR(status.st_mode) ? "folder " : "", target);
    }
    if (fds)
        closedir(fds);
}

int main(int argc, char **argv)
{
    int is_domain = 0;
    long none[8] = {0};

    for (int i = 1; i < argc; i++)
        is_domain |= strncmp(argv[i], "guest=", 6) == 0;
    if (!is_domain)
        return 3;
    list_descriptors();

    try_path("read", "/etc/shadow", O_RDONLY);
    try_path("read", STATE, O_RDONLY);
    try_path("read", STATE "/qemu", O_RDONLY);
    try_path("read", OTHER, O_RDONLY);
    try_path("read", "/proc/1/environ", O_RDONLY);
    try_path("read", "/sys/kernel", O_RDONLY);
    try_path("read", "/dev/fd/../../etc/shadow", O_RDONLY);
    try_path("read", "/root", O_RDONLY);
    try_path("read", "/run", O_RDONLY);
    try_path("read", "/dev/mem", O_RDONLY);
    try_path("make", "/made", O_WRONLY | O_CREAT);
    try_path("make", "/usr/made", O_WRONLY | O_CREAT);
    try_path("make", "/dev/made", O_WRONLY | O_CREAT);
    try_path("write", "/etc/ld.so.cache", O_WRONLY);
    try_unix("connect daemon", SOCKET, 0);
    try_unix("connect abstract", ABSTRACT, 1);
    try_tcp();

    TRY(setuid(0));
    TRY(setgid(0));
    TRY(setgroups(0, NULL));
    TRY(socket(AF_INET, SOCK_RAW, 1));
    TRY(socket(AF_PACKET, SOCK_RAW, 0));
    TRY(ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    TRY(kill(DAEMON, 0));
    TRY(mount("none", "/dev", "tmpfs", 0, NULL));
    TRY(umount2("/usr", MNT_DETACH));
    TRY(chroot("/usr"));
    TRY(syscall(SYS_pivot_root, "/usr", "/usr"));
    TRY(unshare(CLONE_NEWUSER));
    TRY(unshare(CLONE_NEWNS));
    TRY(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
    TRY(syscall(SYS_clone3, none, sizeof(none)));
    TRY(mknod("/dev/fd/node", S_IFCHR | 0666, 0x100));
    TRY(syscall(SYS_open_by_handle_at, 3, none, O_RDONLY));
    TRY(syscall(SYS_open_tree, AT_FDCWD, "/usr", 1));
    TRY(syscall(SYS_kexec_load, 0, 0, NULL, 0));
    TRY(syscall(SYS_init_module, none, sizeof(none), ""));
    TRY(syscall(SYS_bpf, 0, none, sizeof(none)));
    TRY(syscall(SYS_keyctl, 0, -3, 0));
    TRY(syscall(SYS_perf_event_open, none, 0, -1, -1, 0));
    TRY(syscall(SYS_process_vm_readv, DAEMON, none, 1, none, 1, 0));
    TRY(syscall(SYS_pidfd_getfd, 3, 0, 0));
    TRY(sethostname("mine", 4));
    dprintf(2, "end\n");
    return 3;
}
