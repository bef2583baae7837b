/* vpctl domain create and update: a domain from options and a file. */
#include "base/pb.h"
#include "clients/cli/device_option.h"
#include "clients/cli/document.h"
#include "clients/cli/domain.h"
#include "clients/cli/lifecycle_option.h"
#include "clients/cli/limit_option.h"
#include "clients/cli/machine_option.h"
#include "clients/cli/message.h"
#include "clients/cli/scope_option.h"
#include "clients/cli/screen_option.h"
#include "clients/cli/text.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* What the options say. */
typedef struct Wish {
    char *driver;
    int vcpus; /* NOT_GIVEN */
    char *memory;
    char **disks;
    char **interfaces;
    char **labels;
    char **unlabels;
    char *description;
    char *machine;
    char *cpu;
    char *firmware;
    char **cdroms;
    char **limits;
    char **shares;
    char **host_devices;
    gboolean vsock;
    char **pins;
    char *kernel;
    char *initrd;
    char *append;
    gboolean vnc;
    char *vnc_tls;
    char *spice_tls;
    gboolean guest_agent;
    VpLifecycleWish lifecycle;
    gboolean autostart;
    char *file;
    gboolean start;
    gboolean dry_run;
} Wish;

enum {
    NOT_GIVEN = G_MININT,
};

static void wish_clear(Wish *wish)
{
    vp_lifecycle_wish_clear(&wish->lifecycle);
    g_free(wish->driver);
    g_free(wish->memory);
    g_strfreev(wish->disks);
    g_strfreev(wish->interfaces);
    g_strfreev(wish->labels);
    g_strfreev(wish->unlabels);
    g_free(wish->description);
    g_free(wish->machine);
    g_free(wish->cpu);
    g_free(wish->firmware);
    g_strfreev(wish->cdroms);
    g_strfreev(wish->limits);
    g_strfreev(wish->shares);
    g_strfreev(wish->host_devices);
    g_strfreev(wish->pins);
    g_free(wish->kernel);
    g_free(wish->initrd);
    g_free(wish->append);
    g_free(wish->vnc_tls);
    g_free(wish->spice_tls);
    g_free(wish->file);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Wish, wish_clear)

static VpError *apply_sizes(PbDomainSpec *spec, const Wish *wish)
{
    if (wish->vcpus != NOT_GIVEN && wish->vcpus < 1)
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--vcpus is a number from 1 on, not %d", wish->vcpus);
    if (wish->vcpus != NOT_GIVEN)
        spec->vcpus = (guint32)wish->vcpus;
    /* 0 means the default in the contract; who types it does not mean that. */
    if (wish->memory && (!vp_text_parse_size(wish->memory, &spec->memory_bytes) || spec->memory_bytes == 0))
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--memory is a size like 512M or 2GiB, not \"%s\"",
                            wish->memory);
    return NULL;
}

static VpError *apply_devices(PbDomainSpec *spec, const Wish *wish)
{
    g_autofree char *folder = g_get_current_dir();
    VpError *error = NULL;

    for (char **disk = wish->disks; disk && *disk; disk++) {
        PbDisk *parsed = vp_disk_parse(*disk, folder, &error);
        if (!parsed)
            return error;
        vp_pb_append(&spec->n_disks, &spec->disks, parsed);
    }
    for (char **cdrom = wish->cdroms; cdrom && *cdrom; cdrom++)
        vp_cdrom_add(spec, *cdrom, folder);
    vp_disk_name_targets(spec);
    for (char **interface = wish->interfaces; interface && *interface; interface++) {
        PbInterface *parsed = vp_interface_parse(*interface, &error);
        if (!parsed)
            return error;
        vp_pb_append(&spec->n_interfaces, &spec->interfaces, parsed);
    }
    return NULL;
}

static VpError *apply_machine(PbDomainSpec *spec, const Wish *wish)
{
    g_autofree char *folder = g_get_current_dir();
    VpError *error = NULL;

    if (wish->machine)
        vp_pb_set(&spec->machine, wish->machine);
    if (wish->vnc)
        vp_graphics_add(spec, PB_GRAPHICS_TYPE_VNC);
    if (wish->vnc_tls)
        error = vp_tls_screen_parse(spec, PB_GRAPHICS_TYPE_VNC, "vnc-tls", wish->vnc_tls);
    if (!error && wish->spice_tls)
        error = vp_tls_screen_parse(spec, PB_GRAPHICS_TYPE_SPICE, "spice-tls", wish->spice_tls);
    if (error)
        return error;
    spec->guest_agent = spec->guest_agent || wish->guest_agent;
    vp_kernel_set(spec, wish->kernel, wish->initrd, wish->append, folder);
    error = vp_lifecycle_apply(spec, &wish->lifecycle);
    if (!error && wish->cpu)
        error = vp_cpu_parse(spec, wish->cpu);
    if (!error && wish->firmware)
        error = vp_firmware_parse(spec, wish->firmware);
    for (char **limit = wish->limits; limit && *limit && !error; limit++)
        error = vp_limit_parse(spec, *limit);
    for (char **share = wish->shares; share && *share && !error; share++)
        error = vp_share_parse(spec, *share, folder);
    for (char **device = wish->host_devices; device && *device; device++)
        vp_host_device_add(spec, *device);
    if (wish->vsock && !spec->vsock)
        spec->vsock = vp_pb_new(&pb_vsock__descriptor);
    for (char **pin = wish->pins; pin && *pin && !error; pin++)
        error = vp_pin_parse(spec, *pin);
    return error;
}

static VpError *apply_labels(PbDomain *domain, const Wish *wish)
{
    VpError *error = NULL;

    for (char **label = wish->unlabels; label && *label; label++)
        vp_label_remove(domain, *label);
    for (char **label = wish->labels; label && *label && !error; label++)
        error = vp_label_parse(domain, *label);
    return error;
}

/* Puts the options over what the file said. */
static VpError *apply(PbDomain *domain, const Wish *wish)
{
    if (!domain->spec)
        domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    if (wish->driver)
        vp_pb_set(&domain->spec->driver, wish->driver);
    else if (!*domain->spec->driver)
        vp_pb_set(&domain->spec->driver, "qemu");
    if (wish->description)
        vp_pb_set(&domain->spec->description, wish->description);
    domain->autostart = domain->autostart || wish->autostart;

    VpError *error = apply_machine(domain->spec, wish);
    if (!error)
        error = apply_sizes(domain->spec, wish);
    if (!error)
        error = apply_devices(domain->spec, wish);
    if (!error)
        error = apply_labels(domain, wish);
    return error;
}

static void tell_created(VpCli *cli, const PbCreateDomainResponse *answer, const char *name, gboolean dry_run)
{
    g_autofree char *safe = vp_text_escape(name);

    if (cli->output == VP_OUTPUT_NAME)
        puts(safe);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE))
        printf("domain \"%s\" %s\n", safe, dry_run ? "could be created" : "created");
}

/* One answer is printed for the two calls: the start's, which holds the domain as well. */
static int start_created(VpCli *cli, const PbCreateDomainResponse *created, const char *name)
{
    vp_pb_auto PbStartDomainRequest *request = vp_pb_new(&pb_start_domain_request__descriptor);
    g_autofree char *safe = vp_text_escape(name);
    VpError *error = NULL;

    vp_pb_set(&request->name, name);
    vp_pb_auto PbStartDomainResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "StartDomain", request, &error);
    if (!answer) {
        tell_created(cli, created, name, /* dry_run= */ FALSE);
        return vp_cli_fail(cli, error, "start domain \"%s\" (it was created)", name);
    }
    g_autofree char *state = answer->domain ? vp_domain_state_line(answer->domain) : g_strdup("started");
    if (cli->output == VP_OUTPUT_NAME)
        puts(safe);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE))
        printf("domain \"%s\" created, %s\n", safe, state);
    return VP_EXIT_DONE;
}

static int create(VpCli *cli, const Wish *wish, PbCreateDomainRequest *request)
{
    g_autofree char *request_id = g_uuid_string_random();
    VpError *error = NULL;

    vp_pb_set(&request->request_id, request_id);
    request->validate_only = wish->dry_run;
    vp_pb_auto PbCreateDomainResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "CreateDomain", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "create domain \"%s\"", request->domain->name);
    if (wish->start && !wish->dry_run)
        return start_created(cli, answer, request->domain->name);
    tell_created(cli, answer, request->domain->name, wish->dry_run);
    return VP_EXIT_DONE;
}

int vp_domain_create(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_auto(Wish) wish = {.vcpus = NOT_GIVEN};
    const GOptionEntry entries[] = {
        {"from-file", 'f', 0, G_OPTION_ARG_FILENAME, &wish.file,
         "Take the domain from a file in YAML or JSON (-: standard input)", "FILE"},
        {"driver", 0, 0, G_OPTION_ARG_FILENAME, &wish.driver, "The hypervisor's driver (default qemu)", "DRIVER"},
        {"vcpus", 0, 0, G_OPTION_ARG_INT, &wish.vcpus, "Virtual CPUs (default 1)", "N"},
        {"memory", 'm', 0, G_OPTION_ARG_FILENAME, &wish.memory, "Memory, as in 512M or 2GiB (default 512M)", "SIZE"},
        {"disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.disks,
         "A disk: PATH[,format=F][,target=T][,bus=B][,cache=C][,io=I][,secret=N][,serial=S][,write-threshold=SIZE]"
         "[,readonly]; a comma in a path is written twice",
         "DISK"},
        {"cdrom", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.cdroms, "A cd-rom drive with this image (\"\": empty)",
         "FILE"},
        {"interface", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.interfaces,
         "An interface: user|none|bridge|passt[,bridge=B][,model=M][,mac=A][,queues=N]", "INTERFACE"},
        {"label", 'l', 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.labels, "A label to find it by", "KEY=VALUE"},
        {"description", 0, 0, G_OPTION_ARG_FILENAME, &wish.description, "A note", "TEXT"},
        {"machine", 0, 0, G_OPTION_ARG_FILENAME, &wish.machine, "The machine type, as in q35", "TYPE"},
        {"cpu", 0, 0, G_OPTION_ARG_FILENAME, &wish.cpu,
         "The CPU: MODEL[,+FEATURE][,-FEATURE][,sockets=N][,cores=N][,threads=N][,max=N]", "CPU"},
        {"firmware", 0, 0, G_OPTION_ARG_FILENAME, &wish.firmware, "bios, uefi or uefi-secure", "FIRMWARE"},
        {"limit", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.limits,
         "A limit of the whole domain: cpu=1.5 (CPUs), cpu-weight=N, memory=SIZE, io-weight=N or processes=N", "LIMIT"},
        {"pin", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.pins,
         "The host's CPUs for threads: vcpuN=CPUS, iothreadN=CPUS or emulator=CPUS, as in vcpu0=2-3", "PIN"},
        {"share", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.shares,
         "A folder that the guest mounts by its tag (virtiofs): TAG=PATH", "SHARE"},
        {"vsock", 0, 0, G_OPTION_ARG_NONE, &wish.vsock, "Sockets between host and guest", NULL},
        {"host-device", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.host_devices,
         "A PCI device of the host, bound to vfio-pci: 0000:3b:00.0", "ADDRESS"},
        {"kernel", 0, 0, G_OPTION_ARG_FILENAME, &wish.kernel, "Boot this kernel", "FILE"},
        {"initrd", 0, 0, G_OPTION_ARG_FILENAME, &wish.initrd, "The kernel's initial file system", "FILE"},
        {"append", 0, 0, G_OPTION_ARG_FILENAME, &wish.append, "The kernel's command line", "TEXT"},
        {"vnc", 0, 0, G_OPTION_ARG_NONE, &wish.vnc, "A screen, on a unix socket that domain show tells", NULL},
        {"vnc-tls", 0, 0, G_OPTION_ARG_STRING, &wish.vnc_tls,
         "A VNC screen, by TCP with TLS as well (port 0: one that is free)", "[ADDRESS:]PORT"},
        {"spice-tls", 0, 0, G_OPTION_ARG_STRING, &wish.spice_tls, "The same with SPICE", "[ADDRESS:]PORT"},
        {"guest-agent", 0, 0, G_OPTION_ARG_NONE, &wish.guest_agent, "The channel of qemu-guest-agent", NULL},
        {"on-poweroff", 0, 0, G_OPTION_ARG_STRING, &wish.lifecycle.on_poweroff,
         "When the guest shuts down by itself: power-off or restart", "ACTION"},
        {"on-reboot", 0, 0, G_OPTION_ARG_STRING, &wish.lifecycle.on_reboot,
         "When the guest restarts by itself: restart or power-off", "ACTION"},
        {"on-panic", 0, 0, G_OPTION_ARG_STRING, &wish.lifecycle.on_panic,
         "When the guest has panicked: power-off, restart, pause or ignore", "ACTION"},
        {"on-crash", 0, 0, G_OPTION_ARG_STRING, &wish.lifecycle.on_crash,
         "When the hypervisor has ended unasked: power-off or restart", "ACTION"},
        {"panic-device", 0, 0, G_OPTION_ARG_STRING, &wish.lifecycle.panic_device,
         "How the guest tells of a panic: none, isa or pci", "DEVICE"},
        {"autostart", 0, 0, G_OPTION_ARG_NONE, &wish.autostart, "Start it with the host", NULL},
        {"start", 0, 0, G_OPTION_ARG_NONE, &wish.start, "Start it too", NULL},
        {"dry-run", 0, 0, G_OPTION_ARG_NONE, &wish.dry_run, "Only check; create nothing", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);
    request->domain = wish.file ? vp_document_read(wish.file, &pb_domain__descriptor, "domain", &error)
                                : vp_pb_new(&pb_domain__descriptor);
    if (!request->domain)
        return vp_cli_fail(cli, error, "create a domain");
    if (argc > 1)
        vp_pb_set(&request->domain->name, argv[1]);
    if (!*request->domain->name)
        return vp_cli_usage(command, "the domain's name is missing");
    error = apply(request->domain, &wish);
    if (error)
        return vp_cli_usage_error(command, error);
    return create(cli, &wish, request);
}

/* ---- update ---- */

/* Labels and disks are replaced as a whole by an update: the ones that stay, and the revision that they were read at,
 * come from the daemon. */
static VpError *fetch_lists(VpCli *cli, const char *who, PbChangeScope scope, PbDomain *domain)
{
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(cli, who, &error);
    if (!answer)
        return error;
    domain->revision = answer->domain->revision;
    domain->n_labels = answer->domain->n_labels;
    domain->labels = g_steal_pointer(&answer->domain->labels);
    answer->domain->n_labels = 0;
    PbDomainSpec *live = answer->domain->status ? answer->domain->status->live_spec : NULL;
    PbDomainSpec *spec = scope == PB_CHANGE_SCOPE_LIVE && live ? live : answer->domain->spec;
    if (spec) {
        domain->spec->n_disks = spec->n_disks;
        domain->spec->disks = g_steal_pointer(&spec->disks);
        spec->n_disks = 0;
    }
    return NULL;
}

/* A disk with the same target, or the same path where no target was named, takes the new one's place; a new one comes
 * last. */
static void put_disk(PbDomainSpec *spec, PbDisk *disk)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        PbDisk *old = spec->disks[i];

        if (!g_str_equal(*disk->target ? disk->target : disk->path, *disk->target ? old->target : old->path))
            continue;
        /* What the option does not say stays. On another bus it has another place. */
        if (disk->bus && disk->bus != old->bus) {
            old->bus = disk->bus;
            old->slot = 0;
        }
        vp_pb_set(&old->path, disk->path);
        if (*disk->serial)
            vp_pb_set(&old->serial, disk->serial);
        if (*disk->secret)
            vp_pb_set(&old->secret, disk->secret);
        old->format = disk->format ? disk->format : old->format;
        old->cache = disk->cache ? disk->cache : old->cache;
        old->io = disk->io ? disk->io : old->io;
        old->read_only = disk->read_only || old->read_only;
        if (disk->write_threshold_bytes)
            old->write_threshold_bytes = disk->write_threshold_bytes;
        vp_pb_free(disk);
        return;
    }
    vp_pb_append(&spec->n_disks, &spec->disks, disk);
}

static VpError *apply_disks(PbDomain *domain, char **disks)
{
    g_autofree char *folder = g_get_current_dir();
    VpError *error = NULL;

    for (char **disk = disks; disk && *disk; disk++) {
        PbDisk *parsed = vp_disk_parse(*disk, folder, &error);
        if (!parsed)
            return error;
        put_disk(domain->spec, parsed);
    }
    vp_disk_name_targets(domain->spec);
    return NULL;
}

static void add_path(PbUpdateDomainRequest *request, const char *path)
{
    vp_pb_append(&request->update_mask->n_paths, &request->update_mask->paths, g_strdup(path));
}

int vp_domain_update(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_auto(Wish) wish = {.vcpus = NOT_GIVEN};
    g_autofree char *scope = NULL;
    const GOptionEntry entries[] = {
        {"vcpus", 0, 0, G_OPTION_ARG_INT, &wish.vcpus, "Virtual CPUs", "N"},
        {"memory", 'm', 0, G_OPTION_ARG_FILENAME, &wish.memory, "Memory, as in 512M or 2GiB", "SIZE"},
        {"disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.disks,
         "Add a disk, or change the one of that path: PATH[,format=F][,target=T][,bus=B][,readonly]", "DISK"},
        {"label", 'l', 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.labels, "Set a label", "KEY=VALUE"},
        {"remove-label", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &wish.unlabels, "Take a label away", "KEY"},
        {"description", 0, 0, G_OPTION_ARG_FILENAME, &wish.description, "A note", "TEXT"},
        VP_SCOPE_ENTRY(&scope),
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);
    VpError *error = vp_scope_parse(scope, &request->scope);
    if (error)
        return vp_cli_usage_error(command, error);
    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    request->update_mask = vp_pb_new(&google__protobuf__field_mask__descriptor);
    vp_message_set_who(request->domain, argv[1]);

    error = apply_sizes(request->domain->spec, &wish);
    if (error)
        return vp_cli_usage_error(command, error);
    if (wish.vcpus != NOT_GIVEN)
        add_path(request, "spec.vcpus");
    if (wish.memory)
        add_path(request, "spec.memory_bytes");
    if (wish.description) {
        vp_pb_set(&request->domain->spec->description, wish.description);
        add_path(request, "spec.description");
    }
    if (wish.labels || wish.unlabels || wish.disks) {
        error = fetch_lists(cli, argv[1], request->scope, request->domain);
        if (error)
            return vp_cli_fail(cli, error, "update domain \"%s\"", argv[1]);
        error = apply_labels(request->domain, &wish);
        if (!error)
            error = apply_disks(request->domain, wish.disks);
        if (error)
            return vp_cli_usage_error(command, error);
        if (wish.disks)
            add_path(request, "spec.disks");
        if (wish.labels || wish.unlabels)
            add_path(request, "labels");
    }
    if (request->update_mask->n_paths == 0)
        return vp_cli_usage(command, "nothing to change was named");
    request->timeout = vp_scope_job_timeout(cli);

    vp_pb_auto PbUpdateDomainResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "UpdateDomain", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "update domain \"%s\"", argv[1]);
    if (cli->output == VP_OUTPUT_NAME)
        puts(argv[1]);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE))
        printf("domain \"%s\" updated\n", argv[1]);
    return VP_EXIT_DONE;
}
