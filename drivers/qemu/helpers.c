/* See helpers.h. */
#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "process.h"

#define MAX_COPY_BYTES (64UL * 1024 * 1024)
#define SWTPM_TIMEOUT_MS 5000

/* ---- tap ---- */

static VpError *join_bridge(const char *tap, const char *bridge)
{
    struct ifreq request = {0};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    VpError *error = NULL;

    if (fd < 0)
        return vp_error_errno(errno, "BRIDGE", "cannot make a socket");
    request.ifr_ifindex = (int)if_nametoindex(tap);
    g_strlcpy(request.ifr_name, bridge, sizeof(request.ifr_name));
    if (if_nametoindex(bridge) == 0)
        error = vp_error_new(VP_NOT_FOUND, "BRIDGE", "there is no bridge %s on the daemon's host", bridge);
    else if (ioctl(fd, SIOCBRADDIF, &request) < 0)
        error = vp_error_errno(errno, "BRIDGE", "cannot put %s on the bridge %s", tap, bridge);
    memset(&request, 0, sizeof(request));
    g_strlcpy(request.ifr_name, tap, sizeof(request.ifr_name));
    if (!error && ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
            error = vp_error_errno(errno, "BRIDGE", "cannot bring %s up", tap);
    }
    close(fd);
    return error;
}

VpError *vp_tap_open(const char *bridge, int *ret_fd)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "vptap%d"};
    const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return vp_error_errno(errno, "TAP", "cannot open /dev/net/tun");
    VpError *error = NULL;
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        error = vp_error_errno(errno, "TAP", "cannot make a tap device");
    if (!error)
        error = join_bridge(request.ifr_name, bridge);
    if (error) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return NULL;
}

/* ---- swtpm ---- */

static VpError *nothing_to_record(void *data, pid_t pid, guint64 start_ticks)
{
    (void)data;
    (void)pid;
    (void)start_ticks;
    return NULL;
}

/* swtpm --daemon: the process that is made here ends once the one that it made is ready. */
static VpError *run_swtpm(const char *binary, const char *state, const char *log, int fd)
{
    g_autofree char *tpm_state = g_strdup_printf("dir=%s,mode=0600", state);
    g_autofree char *tpm_log = g_strdup_printf("file=%s", log);
    const char *const argv[] = {
        binary,  "socket", "--tpm2",      "--tpmstate", tpm_state, "--ctrl", "type=unixio,clientfd=3",
        "--log", tpm_log,  "--terminate", "--daemon",   NULL,
    };
    const int output_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const VpProcessSpec spec = {.argv = argv,
                                .fds = &fd,
                                .n_fds = 1,
                                .output_fd = output_fd,
                                .record = nothing_to_record};
    VpProcess process;

    if (output_fd < 0)
        return vp_error_errno(errno, "SWTPM", "cannot open /dev/null");
    VpError *error = vp_process_spawn(&spec, &process);
    close(output_fd);
    if (error)
        return error;
    struct pollfd ended = {.fd = process.pidfd, .events = POLLIN};
    if (poll(&ended, 1, SWTPM_TIMEOUT_MS) <= 0)
        vp_error_free(vp_process_kill(&process, SIGKILL));
    poll(&ended, 1, 1000);
    g_autofree char *how = vp_process_reap(&process);
    vp_process_clear(&process);
    if (strcmp(how, "exited with status 0") == 0)
        return NULL;
    return vp_error_new(VP_FAILED_PRECONDITION, "SWTPM", "swtpm %s; see %s", how, log);
}

VpError *vp_swtpm_start(const char *dir, int *ret_fd)
{
    g_autofree char *binary = g_find_program_in_path("swtpm");
    g_autofree char *state = g_build_filename(dir, "tpm", NULL);
    g_autofree char *log = g_build_filename(dir, "swtpm.log", NULL);
    int sockets[2];

    if (!binary)
        return vp_error_violation(vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                                               "domain.spec.tpm: there is no swtpm in the daemon's PATH; install it: "
                                               "apt-get install swtpm"),
                                  "domain.spec.tpm", "swtpm is not installed");
    if (mkdir(state, 0700) < 0 && errno != EEXIST)
        return vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", state);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return vp_error_errno(errno, "SWTPM", "cannot make sockets for swtpm");
    VpError *error = run_swtpm(binary, state, log, sockets[1]);
    close(sockets[1]);
    if (error) {
        close(sockets[0]);
        return error;
    }
    *ret_fd = sockets[0];
    return NULL;
}

/* ---- files ---- */

VpError *vp_copy_file(int fd, const char *path)
{
    struct stat status;
    g_autoptr(GError) failure = NULL;

    if (fstat(fd, &status) < 0 || status.st_size > (off_t)MAX_COPY_BYTES)
        return vp_error_new(VP_FAILED_PRECONDITION, "FIRMWARE", "what is to be copied to %s is too large", path);
    g_autofree char *data = g_malloc((gsize)status.st_size + 1);
    const ssize_t n = pread(fd, data, (gsize)status.st_size, 0);
    if (n < 0)
        return vp_error_errno(errno, "FIRMWARE", "cannot read what is to be copied to %s", path);
    if (!g_file_set_contents_full(path, data, n, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &failure))
        return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                            "cannot make %s: %s", path, failure->message);
    return NULL;
}
