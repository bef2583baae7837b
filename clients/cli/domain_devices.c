/* vpctl domain attach-disk, attach-interface, detach: one device that comes or goes. */
#include <string.h>

#include "base/pb.h"
#include "clients/cli/device_option.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"
#include "clients/cli/scope_option.h"
#include "clients/cli/text.h"

typedef struct Options {
    char *scope;
    gboolean no_wait;
    gboolean dry_run;
} Options;

static void options_clear(Options *options)
{
    g_free(options->scope);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

/* ---- attach ---- */

static void take_targets(PbDomainSpec *spec, const PbDomainSpec *from)
{
    for (size_t i = 0; from && i < from->n_disks; i++)
        vp_pb_append(&spec->n_disks, &spec->disks, vp_pb_dup(from->disks[i]));
}

/* The first target that is free both in what is stored and in what runs. */
static VpError *name_target(VpCli *cli, const char *who, PbDisk *disk)
{
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(cli, who, &error);
    if (!answer)
        return error;
    take_targets(spec, answer->domain->spec);
    if (answer->domain->status)
        take_targets(spec, answer->domain->status->live_spec);
    vp_pb_append(&spec->n_disks, &spec->disks, vp_pb_dup(disk));
    vp_disk_name_targets(spec);
    vp_pb_set(&disk->target, spec->disks[spec->n_disks - 1]->target);
    return NULL;
}

static int attach(VpCli *cli, const Options *options, PbChangeScope scope, const char *who, PbDevice *device)
{
    vp_pb_auto PbAttachDeviceRequest *request = vp_pb_new(&pb_attach_device_request__descriptor);
    g_autofree char *request_id = g_uuid_string_random();
    const gboolean is_disk = device->device_case == PB_DEVICE_DISK;
    VpError *error = NULL;

    request->timeout = vp_scope_job_timeout(cli);
    request->device = device;
    request->scope = scope;
    request->no_wait = options->no_wait;
    request->validate_only = options->dry_run;
    vp_message_set_who(request, who);
    vp_pb_set(&request->request_id, request_id);
    vp_pb_auto PbAttachDeviceResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "AttachDevice", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "attach the %s to domain \"%s\"", is_disk ? "disk" : "interface", who);
    g_autofree char *what =
        g_strdup_printf("%s%s%s", is_disk ? "disk " : "an interface", is_disk ? device->disk->target : "",
                        options->dry_run ? " could be attached" : " attached");
    vp_scope_tell(cli, answer, who, what, answer->operation);
    return VP_EXIT_DONE;
}

int vp_domain_attach(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_auto(Options) options = {0};
    const GOptionEntry entries[] = {
        VP_SCOPE_ENTRY(&options.scope),
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &options.no_wait, "Do not wait until it is done; tell the operation",
         NULL},
        {"dry-run", 0, 0, G_OPTION_ARG_NONE, &options.dry_run, "Only check; attach nothing", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autofree char *folder = g_get_current_dir();
    VpError *error = NULL;
    PbChangeScope scope;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    PbDevice *device = vp_pb_new(&pb_device__descriptor);
    if (g_str_equal(command->name, "attach-disk")) {
        device->device_case = PB_DEVICE_DISK;
        device->disk = vp_disk_parse(argv[2], folder, &error);
    } else {
        device->device_case = PB_DEVICE_INTERFACE;
        device->interface = vp_interface_parse(argv[2], &error);
    }
    if (!error)
        error = vp_scope_parse(options.scope, &scope);
    if (error) {
        vp_pb_free(device);
        return vp_cli_usage_error(command, error);
    }
    if (device->device_case == PB_DEVICE_DISK && !*device->disk->target)
        error = name_target(cli, argv[1], device->disk);
    if (error) {
        vp_pb_free(device);
        return vp_cli_fail(cli, error, "attach the disk to domain \"%s\"", argv[1]);
    }
    return attach(cli, &options, scope, argv[1], device);
}

/* ---- detach ---- */

int vp_domain_detach(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_auto(Options) options = {0};
    const GOptionEntry entries[] = {
        VP_SCOPE_ENTRY(&options.scope),
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &options.no_wait, "Do not wait for the guest; tell the operation", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    PbChangeScope scope;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    VpError *error = vp_scope_parse(options.scope, &scope);
    if (error)
        return vp_cli_usage_error(command, error);
    vp_pb_auto PbDetachDeviceRequest *request = vp_pb_new(&pb_detach_device_request__descriptor);
    g_autofree char *request_id = g_uuid_string_random();
    g_autofree char *what = g_strdup_printf("%s detached", argv[2]);

    request->timeout = vp_scope_job_timeout(cli);
    request->scope = scope;
    request->no_wait = options.no_wait;
    vp_message_set_who(request, argv[1]);
    vp_pb_set(&request->request_id, request_id);
    /* No target has a colon, every MAC address has. */
    if (strchr(argv[2], ':')) {
        request->device_case = PB_DETACH_DEVICE_REQUEST__DEVICE_INTERFACE_MAC;
        vp_pb_set(&request->interface_mac, argv[2]);
    } else {
        request->device_case = PB_DETACH_DEVICE_REQUEST__DEVICE_DISK_TARGET;
        vp_pb_set(&request->disk_target, argv[2]);
    }
    vp_pb_auto PbDetachDeviceResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "DetachDevice", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "detach %s from domain \"%s\"", argv[2], argv[1]);
    vp_scope_tell(cli, answer, argv[1], what, answer->operation);
    return VP_EXIT_DONE;
}
