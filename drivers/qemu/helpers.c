/* See helpers.h. */
#include "helpers.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helper_process.h"

#define MAX_COPY_BYTES (64UL * 1024 * 1024)
#define SWTPM_TIMEOUT_MS 5000

/* ---- swtpm ---- */

/* swtpm --daemon: the process that is made here ends once the one that it made is ready. */
static VpError *run_swtpm(const char *binary, const char *dir, const VpContainment *containment, int fd)
{
    g_autoptr(VpConfinement) confinement = vp_containment_helper(containment, binary, "tpm");
    g_autofree char *state = vp_containment_path(containment, "tpm");
    g_autofree char *tpm_state = g_strdup_printf("dir=%s,mode=0600", state);
    g_autofree char *tpm_log = g_strdup_printf("file=%s/swtpm.log", state);
    const char *const argv[] = {
        binary,  "socket", "--tpm2",      "--tpmstate", tpm_state, "--ctrl", "type=unixio,clientfd=3",
        "--log", tpm_log,  "--terminate", "--daemon",   NULL,
    };
    VpError *error = vp_helper_run(argv, fd, &confinement->confine, SWTPM_TIMEOUT_MS, "SWTPM");

    return error ? vp_error_prefix(error, "see %s/tpm/swtpm.log", dir) : NULL;
}

VpError *vp_swtpm_start(const char *dir, const VpContainment *containment, int *ret_fd)
{
    g_autofree char *binary = g_find_program_in_path("swtpm");
    int sockets[2];

    if (!binary)
        return vp_error_violation(vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                                               "domain.spec.tpm: there is no swtpm in the daemon's PATH; install it: "
                                               "apt-get install swtpm"),
                                  "domain.spec.tpm", "swtpm is not installed");
    VpError *error = vp_containment_make_folder(containment, "tpm", /* for_helper= */ TRUE);
    if (error)
        return error;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return vp_error_errno(errno, "SWTPM", "cannot make sockets for swtpm");
    error = run_swtpm(binary, dir, containment, sockets[1]);
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
