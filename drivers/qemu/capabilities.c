/* What QEMU and KVM can do here: see capabilities.h. */
#include "capabilities.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "process.h"

#define VERSION_TIMEOUT_US (5 * G_USEC_PER_SEC)

struct VpQemuProbe {
    char *configured; /* [qemu] binary=, or NULL */
    char *cpu;        /* [qemu] cpu=, or NULL */
    PbAccelerator accelerator;
    char *machine;   /* uname -m */
    gboolean nested; /* this host is a virtual machine itself */

    pthread_mutex_t mutex; /* guards what follows */
    struct stat seen;      /* the binary whose version is known */
    char *version;
};

static gboolean host_is_virtual(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL) &&
           g_regex_match_simple("^flags.* hypervisor\\b", text, G_REGEX_MULTILINE, 0);
}

VpQemuProbe *vp_qemu_probe_new(GKeyFile *config)
{
    VpQemuProbe *probe = g_new0(VpQemuProbe, 1);
    struct utsname host;

    pthread_mutex_init(&probe->mutex, NULL);
    probe->machine = g_strdup(uname(&host) == 0 ? host.machine : "x86_64");
    probe->nested = host_is_virtual();
    if (!config)
        return probe;
    g_autofree char *accelerator = g_key_file_get_string(config, "qemu", "accelerator", NULL);
    if (g_strcmp0(accelerator, "kvm") == 0)
        probe->accelerator = PB_ACCELERATOR_KVM;
    if (g_strcmp0(accelerator, "tcg") == 0)
        probe->accelerator = PB_ACCELERATOR_TCG;
    probe->configured = g_key_file_get_string(config, "qemu", "binary", NULL);
    probe->cpu = g_key_file_get_string(config, "qemu", "cpu", NULL);
    return probe;
}

void vp_qemu_probe_free(VpQemuProbe *probe)
{
    if (!probe)
        return;
    pthread_mutex_destroy(&probe->mutex);
    g_free(probe->configured);
    g_free(probe->cpu);
    g_free(probe->machine);
    g_free(probe->version);
    g_free(probe);
}

/* ---- the binary ---- */

static VpError *find_binary(const VpQemuProbe *probe, char **ret_path)
{
    const gboolean arm = strcmp(probe->machine, "aarch64") == 0;
    g_autofree char *name = g_strdup_printf("qemu-system-%s", probe->machine);
    g_autofree char *found = g_find_program_in_path(probe->configured ? probe->configured : name);

    if (found) {
        *ret_path = g_steal_pointer(&found);
        return NULL;
    }
    if (probe->configured)
        return vp_error_new(VP_FAILED_PRECONDITION, "QEMU_NOT_FOUND",
                            "there is no QEMU at %s, which binary= in the daemon's [qemu] settings names; correct the "
                            "setting, or install it: "
                            "apt-get install %s",
                            probe->configured, arm ? "qemu-system-arm" : "qemu-system-x86");
    return vp_error_new(VP_FAILED_PRECONDITION, "QEMU_NOT_FOUND",
                        "there is no %s in the daemon's PATH; install it: apt-get install %s", name,
                        arm ? "qemu-system-arm" : "qemu-system-x86");
}

/* The guests' architecture, from the binary's name; the host's where that does not tell. */
static const char *architecture_of(const VpQemuProbe *probe, const char *binary)
{
    const char *name = strrchr(binary, '/');

    name = name ? name + 1 : binary;
    if (g_str_has_prefix(name, "qemu-system-"))
        return name + strlen("qemu-system-");
    return probe->machine;
}

/* ---- KVM ---- */

/* Why KVM cannot be used, or NULL. */
static char *kvm_obstacle(const VpQemuProbe *probe, const char *binary)
{
    if (strcmp(architecture_of(probe, binary), probe->machine) != 0)
        return g_strdup_printf("%s is for another architecture than this host", binary);
    const int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return g_strdup_printf("/dev/kvm: %s", g_strerror(errno));
    close(fd);
    return NULL;
}

/* The host's own model under KVM. Within a virtual machine its host may refuse the registers that go with arch-capabilities, and QEMU
 * aborts then. */
static const char *cpu_model(const VpQemuProbe *probe, const char *architecture, PbAccelerator accelerator)
{
    if (probe->cpu)
        return probe->cpu;
    if (accelerator != PB_ACCELERATOR_KVM)
        return "max";
    return probe->nested && strcmp(architecture, "x86_64") == 0 ? "host,arch-capabilities=off" : "host";
}

VpError *vp_qemu_probe_find(VpQemuProbe *probe, PbAccelerator wish, VpQemuFound *ret_found)
{
    g_autofree char *binary = NULL;
    VpError *error = find_binary(probe, &binary);

    if (error)
        return error;
    if (wish == PB_ACCELERATOR_UNSPECIFIED)
        wish = probe->accelerator;
    g_autofree char *obstacle = wish == PB_ACCELERATOR_TCG ? NULL : kvm_obstacle(probe, binary);
    if (wish == PB_ACCELERATOR_KVM && obstacle)
        return vp_error_new(VP_FAILED_PRECONDITION, "KVM_UNAVAILABLE", "KVM is asked for and cannot be used here: %s",
                            obstacle);

    ret_found->accelerator = wish == PB_ACCELERATOR_TCG || obstacle ? PB_ACCELERATOR_TCG : PB_ACCELERATOR_KVM;
    ret_found->architecture = g_strdup(architecture_of(probe, binary));
    ret_found->cpu = g_strdup(cpu_model(probe, ret_found->architecture, ret_found->accelerator));
    ret_found->binary = g_steal_pointer(&binary);
    return NULL;
}

void vp_qemu_found_clear(VpQemuFound *found)
{
    g_clear_pointer(&found->binary, g_free);
    g_clear_pointer(&found->architecture, g_free);
    g_clear_pointer(&found->cpu, g_free);
}

/* ---- the version ---- */

static VpError *nothing_to_record(void *data, pid_t pid, guint64 start_ticks)
{
    (void)data;
    (void)pid;
    (void)start_ticks;
    return NULL;
}

/* Reads until the end, a full buffer or the deadline. */
static void read_until(int fd, char *text, gsize size, gint64 deadline_us)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    gsize length = 0;

    while (length + 1 < size) {
        const gint64 left_ms = (deadline_us - vp_now_us()) / 1000;

        if (left_ms <= 0 || poll(&poll_fd, 1, (int)left_ms) <= 0)
            break;
        const ssize_t n = read(fd, text + length, size - 1 - length);
        if (n <= 0)
            break;
        length += (gsize)n;
    }
    text[length] = '\0';
}

/* What `QEMU --version` prints, at most 4 KiB of it. */
static VpError *ask_version(const char *binary, char *text, gsize size)
{
    const char *const argv[] = {binary, "--version", NULL};
    VpProcess process;
    int output[2];

    if (pipe2(output, O_CLOEXEC) < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot start %s", binary);
    const VpProcessSpec spec = {.argv = argv, .output_fd = output[1], .record = nothing_to_record};
    VpError *error = vp_process_spawn(&spec, &process);
    close(output[1]);
    if (!error) {
        struct pollfd ended = {.events = POLLIN};

        read_until(output[0], text, size, vp_now_us() + VERSION_TIMEOUT_US);
        ended.fd = process.pidfd;
        vp_error_free(vp_process_kill(&process, SIGKILL));
        poll(&ended, 1, 1000);
        g_free(vp_process_reap(&process));
        vp_process_clear(&process);
    }
    close(output[0]);
    return error;
}

static VpError *find_version(const char *binary, char **ret_version)
{
    char text[4096] = "";
    VpError *error = ask_version(binary, text, sizeof(text));
    const char *mark = "version ";

    if (error)
        return error;
    const char *start = strstr(text, mark);
    if (!start)
        return vp_error_new(VP_FAILED_PRECONDITION, "QEMU_UNUSABLE", "%s does not tell its version; is it QEMU?",
                            binary);
    start += strlen(mark);
    *ret_version = g_strndup(start, strcspn(start, " \n("));
    return NULL;
}

static gboolean same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static char *known_version(VpQemuProbe *probe, const struct stat *now)
{
    VP_LOCK(&probe->mutex);
    return probe->version && same_file(&probe->seen, now) ? g_strdup(probe->version) : NULL;
}

static VpError *version_of(VpQemuProbe *probe, const char *binary, char **ret_version)
{
    struct stat now;

    if (stat(binary, &now) < 0)
        return vp_error_errno(errno, "QEMU_UNUSABLE", "cannot look at %s", binary);
    *ret_version = known_version(probe, &now);
    if (*ret_version)
        return NULL;
    VpError *error = find_version(binary, ret_version);
    if (error)
        return error;
    VP_LOCK(&probe->mutex);
    g_free(probe->version);
    probe->version = g_strdup(*ret_version);
    probe->seen = now;
    return NULL;
}

void vp_qemu_probe_capabilities(VpQemuProbe *probe, PbDriverCapabilities *capabilities)
{
    g_autofree char *binary = NULL;
    g_autofree char *version = NULL;
    g_autoptr(VpError) error = find_binary(probe, &binary);

    if (!error)
        error = version_of(probe, binary, &version);
    vp_pb_set(&capabilities->binary, binary);
    if (error) {
        vp_pb_set(&capabilities->detail, error->message);
        return;
    }
    capabilities->available = TRUE;
    vp_pb_set(&capabilities->version, version);

    g_autofree char *obstacle = kvm_obstacle(probe, binary);
    capabilities->accelerators = g_new0(PbAccelerator, 2);
    if (!obstacle)
        capabilities->accelerators[capabilities->n_accelerators++] = PB_ACCELERATOR_KVM;
    capabilities->accelerators[capabilities->n_accelerators++] = PB_ACCELERATOR_TCG;
    if (obstacle)
        vp_pb_printf(&capabilities->detail, "no KVM: %s", obstacle);
}
