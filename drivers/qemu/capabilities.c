/* What QEMU and KVM can do here: see capabilities.h. */
#include "capabilities.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"

struct VpQemuProbe {
    char *configured; /* [qemu] binary=, or NULL */
    char *cpu;        /* [qemu] cpu=, or NULL */
    PbAccelerator accelerator;
    char *machine;   /* uname -m */
    gboolean nested; /* this host is a virtual machine itself */
    char *memory;    /* the file that keeps what QEMU told */

    pthread_mutex_t mutex; /* guards what follows */
    struct stat seen;      /* the binary that is known */
    VpQemuKnown *known;
};

static gboolean host_is_virtual(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL) &&
           g_regex_match_simple("^flags.* hypervisor\\b", text, G_REGEX_MULTILINE, 0);
}

VpQemuProbe *vp_qemu_probe_new(GKeyFile *config, const char *memory)
{
    VpQemuProbe *probe = g_new0(VpQemuProbe, 1);
    struct utsname host;

    pthread_mutex_init(&probe->mutex, NULL);
    probe->machine = g_strdup(uname(&host) == 0 ? host.machine : "x86_64");
    probe->nested = host_is_virtual();
    probe->memory = g_strdup(memory);
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
    g_free(probe->memory);
    vp_qemu_known_unref(probe->known);
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

/* ---- what it can do ---- */

static gboolean same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static VpQemuKnown *known_of(VpQemuProbe *probe, const struct stat *now)
{
    VP_LOCK(&probe->mutex);
    return probe->known && same_file(&probe->seen, now) ? vp_qemu_known_ref(probe->known) : NULL;
}

/* What tells one binary from another, and what was asked of it from what is asked now. */
#define QUESTIONS 2

static char *mark_of(const char *binary, const struct stat *seen)
{
    return g_strdup_printf("%d %s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT ".%09ld", QUESTIONS,
                           binary, (guint64)seen->st_ino, (guint64)seen->st_size, (guint64)seen->st_mtim.tv_sec,
                           seen->st_mtim.tv_nsec);
}

VpError *vp_qemu_probe_ask(VpQemuProbe *probe, const char *binary, VpQemuKnown **ret_known)
{
    VpQemuKnown *known = NULL;
    struct stat now;

    if (stat(binary, &now) < 0)
        return vp_error_errno(errno, "QEMU_UNUSABLE", "cannot look at %s", binary);
    *ret_known = known_of(probe, &now);
    if (*ret_known)
        return NULL;
    g_autofree char *mark = mark_of(binary, &now);
    known = vp_qemu_known_load(probe->memory, mark);
    if (!known) {
        /* Several may ask at once: no lock is held meanwhile, and all hear the same. */
        VpError *error = vp_qemu_ask(binary, &known);
        if (error)
            return error;
        vp_qemu_known_save(known, probe->memory, mark);
    }
    *ret_known = vp_qemu_known_ref(known);
    VP_LOCK(&probe->mutex);
    vp_qemu_known_unref(probe->known);
    probe->known = known;
    probe->seen = now;
    return NULL;
}

VpError *vp_qemu_probe_fit(VpQemuProbe *probe, const VpQemuFound *found, PbDomainSpec *spec)
{
    g_autoptr(VpQemuKnown) known = NULL;
    g_autoptr(VpError) error = vp_qemu_probe_ask(probe, found->binary, &known);

    /* One that does not tell what it can do will tell better at the start itself what is wrong with it. */
    if (error)
        return NULL;
    vp_qemu_known_set_machine(known, found->architecture, spec);
    return vp_qemu_known_check(known, found->architecture, found->accelerator, spec);
}

void vp_qemu_probe_set_machine(VpQemuProbe *probe, PbDomainSpec *spec)
{
    g_autofree char *binary = NULL;
    g_autoptr(VpQemuKnown) known = NULL;
    g_autoptr(VpError) error = find_binary(probe, &binary);

    if (!error)
        error = vp_qemu_probe_ask(probe, binary, &known);
    /* A domain may be defined where there is no QEMU yet; its start will tell. */
    if (!error)
        vp_qemu_known_set_machine(known, architecture_of(probe, binary), spec);
}

void vp_qemu_probe_capabilities(VpQemuProbe *probe, PbDriverCapabilities *capabilities)
{
    g_autofree char *binary = NULL;
    g_autoptr(VpQemuKnown) known = NULL;
    g_autoptr(VpError) error = find_binary(probe, &binary);

    if (!error)
        error = vp_qemu_probe_ask(probe, binary, &known);
    vp_pb_set(&capabilities->binary, binary);
    if (!known) {
        vp_pb_set(&capabilities->detail, error ? error->message : NULL);
        return;
    }
    capabilities->available = TRUE;
    vp_pb_set(&capabilities->version, known->version);

    g_autofree char *obstacle = kvm_obstacle(probe, binary);
    capabilities->accelerators = g_new0(PbAccelerator, 2);
    if (!obstacle)
        capabilities->accelerators[capabilities->n_accelerators++] = PB_ACCELERATOR_KVM;
    capabilities->accelerators[capabilities->n_accelerators++] = PB_ACCELERATOR_TCG;
    if (obstacle)
        vp_pb_printf(&capabilities->detail, "no KVM: %s", obstacle);
}
