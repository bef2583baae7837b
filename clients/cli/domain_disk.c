/* vpctl domain change-media, eject, throttle: one disk of a domain is changed, in what is stored and in what runs. */
#include "base/pb.h"
#include "clients/cli/device_option.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"
#include "clients/cli/scope_option.h"

/* Changes the disk, or says why not. */
typedef VpError *(*Edit)(PbDisk *disk, void *data);

/* One change, of what is stored, of what runs or of both. */
typedef struct Change {
    VpCli *cli;
    const char *who;
    const char *target;
    Edit edit;
    void *data;
    gboolean force;
    PbUpdateDomainResponse *answer; /* the last one */
} Change;

static PbDisk *find_disk(const PbDomainSpec *spec, const char *target)
{
    for (size_t i = 0; spec && i < spec->n_disks; i++) {
        if (g_str_equal(spec->disks[i]->target, target))
            return spec->disks[i];
    }
    return NULL;
}

/* The list of disks is replaced as a whole: by that of `spec`, which is changed. */
static VpError *send_update(Change *change, const PbDomain *domain, PbDomainSpec *spec, PbChangeScope scope)
{
    vp_pb_auto PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);
    PbDisk *disk = find_disk(spec, change->target);
    VpError *error = NULL;

    if (!disk)
        return vp_error_new(VP_NOT_FOUND, "DEVICE_NOT_FOUND", "the domain has no disk %s", change->target);
    error = change->edit(disk, change->data);
    if (error)
        return error;
    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    request->update_mask = vp_pb_new(&google__protobuf__field_mask__descriptor);
    request->domain->revision = change->answer ? 0 : domain->revision;
    request->domain->spec->n_disks = spec->n_disks;
    request->domain->spec->disks = g_steal_pointer(&spec->disks);
    spec->n_disks = 0;
    vp_pb_append(&request->update_mask->n_paths, &request->update_mask->paths, g_strdup("spec.disks"));
    vp_message_set_who(request->domain, change->who);
    request->scope = scope;
    request->force = change->force;
    request->timeout = vp_scope_job_timeout(change->cli);
    vp_pb_free(change->answer);
    change->answer = vp_cli_call(change->cli, &pb_domain_service__descriptor, "UpdateDomain", request, &error);
    return change->answer ? NULL : error;
}

/* Where what runs is not what is stored, each keeps what the other does not have. */
static VpError *apply(Change *change, PbChangeScope scope)
{
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(change->cli, change->who, &error);
    if (!answer)
        return error;
    PbDomain *domain = answer->domain;
    PbDomainSpec *live = domain->status ? domain->status->live_spec : NULL;
    const gboolean both = scope == PB_CHANGE_SCOPE_UNSPECIFIED || scope == PB_CHANGE_SCOPE_BOTH;
    if (!live || !both)
        return send_update(change, domain, live && scope == PB_CHANGE_SCOPE_LIVE ? live : domain->spec, scope);
    const gboolean stored = find_disk(domain->spec, change->target) != NULL;
    if (find_disk(live, change->target) || !stored)
        error = send_update(change, domain, live, PB_CHANGE_SCOPE_LIVE);
    if (!error && stored)
        error = send_update(change, domain, domain->spec, PB_CHANGE_SCOPE_STORED);
    return error;
}

static int finish(Change *change, VpError *error, const char *doing, const char *done)
{
    vp_pb_auto PbUpdateDomainResponse *answer = g_steal_pointer(&change->answer);

    if (error)
        return vp_cli_fail(change->cli, error, "%s of domain \"%s\"", doing, change->who);
    vp_scope_tell(change->cli, answer, change->who, done, NULL);
    return VP_EXIT_DONE;
}

/* ---- media ---- */

/* The new medium; without a path the drive is emptied. */
static VpError *set_medium(PbDisk *disk, void *data)
{
    const PbDisk *medium = data;

    if (disk->device != PB_DISK_DEVICE_CDROM)
        return vp_error_new(VP_FAILED_PRECONDITION, "NO_DRIVE", "%s is no cd-rom drive", disk->target);
    vp_pb_set(&disk->path, medium->path);
    disk->format = medium->format;
    return NULL;
}

int vp_domain_medium(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *scope_text = NULL;
    gboolean force = FALSE;
    const GOptionEntry entries[] = {
        VP_SCOPE_ENTRY(&scope_text),
        {"force", 0, 0, G_OPTION_ARG_NONE, &force, "Even if the guest has locked the tray", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    const gboolean eject = g_str_equal(command->name, "eject");
    g_autofree char *folder = g_get_current_dir();
    vp_pb_auto PbDisk *medium = NULL;
    VpError *error = NULL;
    PbChangeScope scope;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    medium = eject ? vp_pb_new(&pb_disk__descriptor) : vp_disk_parse(argv[3], folder, &error);
    if (!error)
        error = vp_scope_parse(scope_text, &scope);
    if (error)
        return vp_cli_usage_error(command, error);
    g_autofree char *doing = g_strdup_printf("%s the medium in %s", eject ? "eject" : "change", argv[2]);
    g_autofree char *done = g_strdup_printf("%s %s", argv[2], eject ? "ejected" : "has the new medium");
    Change change = {.cli = cli, .who = argv[1], .target = argv[2], .edit = set_medium, .data = medium, .force = force};
    return finish(&change, apply(&change, scope), doing, done);
}

/* ---- limits ---- */

static VpError *set_limits(PbDisk *disk, void *data)
{
    char **limits = data;
    VpError *error = NULL;

    for (; *limits && !error; limits++)
        error = vp_throttle_parse(disk, *limits);
    return error;
}

int vp_domain_throttle(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *scope_text = NULL;
    const GOptionEntry entries[] = {
        VP_SCOPE_ENTRY(&scope_text),
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    vp_pb_auto PbDisk *tried = vp_pb_new(&pb_disk__descriptor);
    PbChangeScope scope;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    VpError *error = vp_scope_parse(scope_text, &scope);
    if (!error)
        error = set_limits(tried, argv + 3);
    if (error)
        return vp_cli_usage_error(command, error);
    g_autofree char *doing = g_strdup_printf("change the limits of %s", argv[2]);
    g_autofree char *done = g_strdup_printf("%s has other limits", argv[2]);
    Change change = {.cli = cli, .who = argv[1], .target = argv[2], .edit = set_limits, .data = argv + 3};
    return finish(&change, apply(&change, scope), doing, done);
}
