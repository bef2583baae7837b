/* vpctl domain list and show: what is there, and how it is. */
#include <string.h>

#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/domain_service.pb-c.h"

static char *state_text(const PbDomain *domain)
{
    return vp_text_enum(&pb_domain_state__descriptor, domain->status ? (int)domain->status->state : 0);
}

char *vp_domain_state_line(const PbDomain *domain)
{
    g_autofree char *state = state_text(domain);
    g_autofree char *reason = vp_text_escape(domain->status ? domain->status->reason : "");
    g_autofree char *shown_reason = g_ascii_strdown(g_strdelimit(reason, "_", ' '), -1);
    GString *out = g_string_new(*state ? state : "unknown");

    if (*shown_reason)
        g_string_append_printf(out, " (%s)", shown_reason);
    if (domain->status && domain->status->pid)
        g_string_append_printf(out, ", pid %d", domain->status->pid);
    if (domain->status && domain->status->accelerator) {
        g_autofree char *accelerator = vp_text_enum(&pb_accelerator__descriptor, (int)domain->status->accelerator);
        g_string_append_printf(out, ", %s", accelerator);
    }
    return g_string_free(out, FALSE);
}

static char *labels_text(const PbDomain *domain)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (size_t i = 0; i < domain->n_labels; i++)
        g_string_append_printf(out, "%s%s=%s", i ? "," : "", domain->labels[i]->key, domain->labels[i]->value);
    return g_strdup(out->str);
}

/* ---- list ---- */

static void add_row(VpTable *table, const PbDomain *domain, gboolean wide)
{
    const PbDomainSpec empty = PB_DOMAIN_SPEC__INIT;
    const PbDomainSpec *spec = domain->spec ? domain->spec : &empty;
    const PbDomainStatus *status = domain->status;
    g_autofree char *state = state_text(domain);
    g_autofree char *vcpus = g_strdup_printf("%u", spec->vcpus ? spec->vcpus : 1);
    g_autofree char *memory = vp_text_size(spec->memory_bytes);
    g_autofree char *disks = g_strdup_printf("%zu", spec->n_disks);

    if (!wide) {
        vp_table_add(table, domain->name, state, vcpus, spec->memory_bytes ? memory : "", disks, spec->driver,
                     status && status->job ? status->job->type : "");
        return;
    }
    g_autofree char *pid = status && status->pid ? g_strdup_printf("%d", status->pid) : NULL;
    g_autofree char *accelerator = vp_text_enum(&pb_accelerator__descriptor, status ? (int)status->accelerator : 0);
    g_autofree char *created = vp_text_time(domain->create_time, /* fraction= */ FALSE);
    g_autofree char *revision = g_strdup_printf("%" G_GINT64_FORMAT, domain->revision);
    g_autofree char *labels = labels_text(domain);
    vp_table_add(table, domain->name, state, vcpus, spec->memory_bytes ? memory : "", disks, spec->driver,
                 status && status->job ? status->job->type : "", status ? status->reason : "", pid, accelerator,
                 created, revision, domain->uid, labels);
}

static void print_domains(VpCli *cli, const PbListDomainsResponse *answer, gboolean wide)
{
    static const char *const few[] = {"NAME", "STATE", ">VCPUS", ">MEMORY", ">DISKS", "DRIVER", "JOB", NULL};
    static const char *const every[] = {"NAME", "STATE", ">VCPUS",  ">MEMORY",   ">DISKS", "DRIVER", "JOB", "REASON",
                                        ">PID", "ACCEL", "CREATED", ">REVISION", "UID",    "LABELS", NULL};

    if (answer->n_domains == 0) {
        /* Not on stdout: who reads that wants domains. */
        fprintf(stderr, "no domains\n");
        return;
    }
    VpTable *table = vp_table_new(cli, wide ? every : few);
    for (size_t i = 0; i < answer->n_domains; i++)
        add_row(table, answer->domains[i], wide);
    vp_table_print(table);
}

/* All pages as one answer. Its revision is the first page's: who watches from there on misses nothing. */
PbListDomainsResponse *vp_domain_list_all(VpCli *cli, PbListDomainsRequest *request, VpError **error)
{
    vp_pb_auto PbListDomainsResponse *whole = NULL;

    request->page_size = 1000;
    for (;;) {
        vp_pb_auto PbListDomainsResponse *page =
            vp_cli_call(cli, &pb_domain_service__descriptor, "ListDomains", request, error);
        if (!page)
            return NULL;
        vp_pb_set(&request->page_token, page->next_page_token);
        const gboolean last = !*page->next_page_token;
        vp_pb_set(&page->next_page_token, "");
        if (!whole) {
            whole = g_steal_pointer(&page);
        } else {
            for (size_t i = 0; i < page->n_domains; i++)
                vp_pb_append(&whole->n_domains, &whole->domains, g_steal_pointer(&page->domains[i]));
            page->n_domains = 0;
        }
        if (last)
            return g_steal_pointer(&whole);
    }
}

static VpError *set_filter(PbDomainFilter *filter, char **states, char **drivers, char **labels)
{
    for (char **text = states; text && *text; text++) {
        int value = 0;
        VpError *error = vp_text_parse_enum(&pb_domain_state__descriptor, *text, &value);
        if (error)
            return vp_error_prefix(error, "--state");
        filter->states = g_realloc_n(filter->states, filter->n_states + 1, sizeof(*filter->states));
        filter->states[filter->n_states++] = (PbDomainState)value;
    }
    for (char **text = drivers; text && *text; text++)
        vp_pb_append(&filter->n_drivers, &filter->drivers, g_strdup(*text));
    for (char **text = labels; text && *text; text++) {
        g_auto(GStrv) pair = g_strsplit(*text, "=", 2);
        if (!pair[0] || !*pair[0] || !pair[1])
            return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--label is KEY=VALUE, not \"%s\"", *text);

        PbDomainFilter__LabelsEntry *entry = vp_pb_new(&pb_domain_filter__labels_entry__descriptor);
        vp_pb_set(&entry->key, pair[0]);
        vp_pb_set(&entry->value, pair[1]);
        vp_pb_append(&filter->n_labels, &filter->labels, entry);
    }
    return NULL;
}

int vp_domain_list(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_auto(GStrv) states = NULL;
    g_auto(GStrv) drivers = NULL;
    g_auto(GStrv) labels = NULL;
    gboolean all = FALSE;
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &all, "As in virsh: domains in any state, which are listed anyhow", NULL},
        {"state", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &states, "Only domains in this state; may be given again",
         "STATE"},
        {"driver", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &drivers, "Only domains of this driver", "DRIVER"},
        {"label", 'l', 0, G_OPTION_ARG_FILENAME_ARRAY, &labels, "Only domains with this label", "KEY=VALUE"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);
    request->filter = vp_pb_new(&pb_domain_filter__descriptor);
    for (int i = 1; i < argc; i++)
        vp_pb_append(&request->filter->n_names, &request->filter->names, g_strdup(argv[i]));
    VpError *error = set_filter(request->filter, states, drivers, labels);
    if (error)
        return vp_cli_usage_error(command, error);

    vp_pb_auto PbListDomainsResponse *answer = vp_domain_list_all(cli, request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "list domains");
    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_TABLE) {
        print_domains(cli, answer, cli->wide);
        return VP_EXIT_DONE;
    }
    for (size_t i = 0; i < answer->n_domains; i++) {
        g_autofree char *safe = vp_text_escape(answer->domains[i]->name);
        puts(safe);
    }
    return VP_EXIT_DONE;
}

/* ---- show ---- */

static void line(const char *key, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void line(const char *key, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *safe = vp_text_escape(text);
    if (*safe)
        printf("%-14s%s\n", key, safe);
}

/* "user 2000000017; own root folder, mnt, net, ipc, uts; no capabilities, system calls filtered". */
static void show_containment(const PbContainment *containment)
{
    g_autoptr(GString) out = g_string_new(NULL);

    if (!containment)
        return;
    g_string_append_printf(out, "user %u; %s", containment->uid,
                           containment->own_root ? "own root folder" : "the host's root folder");
    for (size_t i = 0; i < containment->n_namespaces; i++)
        g_string_append_printf(out, ", %s", containment->namespaces[i]);
    g_string_append(out, containment->capabilities ? "; capabilities" : "; no capabilities");
    if (containment->seccomp)
        g_string_append(out, ", system calls filtered");
    if (*containment->apparmor_profile)
        g_string_append_printf(out, ", %s", containment->apparmor_profile);
    line("contained", "%s", out->str);
    for (size_t i = 0; i < containment->n_missing; i++)
        line("not had", "%s", containment->missing[i]);
}

static const PbDiskStatus *disk_status(const PbDomain *domain, const char *target)
{
    for (size_t i = 0; domain->status && i < domain->status->n_disks; i++) {
        if (g_str_equal(domain->status->disks[i]->target, target))
            return domain->status->disks[i];
    }
    return NULL;
}

static void show_disk(const PbDomain *domain, const PbDisk *disk)
{
    g_autofree char *key = g_strdup_printf("disk %s", disk->target);
    g_autofree char *safe_key = vp_text_escape(key);
    g_autofree char *format = vp_text_enum(&pb_image_format__descriptor, (int)disk->format);
    g_autofree char *bus = vp_text_enum(&pb_disk_bus__descriptor, (int)disk->bus);
    const PbDiskStatus *status = disk_status(domain, disk->target);

    line(safe_key, "%s (%s, %s%s)", disk->path, *format ? format : "format not declared", *bus ? bus : "virtio",
         disk->read_only ? ", read-only" : "");
    for (size_t i = 1; status && i < status->n_layers; i++) {
        g_autofree char *layer_format = vp_text_enum(&pb_image_format__descriptor, (int)status->layers[i]->format);
        line("", "%s %s (%s)", status->layers[i]->is_data_file ? "data file" : "on", status->layers[i]->path,
             layer_format);
    }
}

/* What is done at its ends, where that was chosen. */
static void show_actions(const PbDomainSpec *spec)
{
    const struct {
        const char *key;
        PbLifecycleAction action;
    } actions[] = {
        {"on poweroff", spec->on_poweroff},
        {"on reboot", spec->on_reboot},
        {"on panic", spec->on_panic},
        {"on crash", spec->on_crash},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(actions); i++) {
        g_autofree char *action = vp_text_enum(&pb_lifecycle_action__descriptor, (int)actions[i].action);
        line(actions[i].key, "%s", action);
    }
}

static void show_spec(const PbDomain *domain)
{
    const PbDomainSpec *spec = domain->spec;
    g_autofree char *memory = vp_text_size(spec->memory_bytes);

    line("driver", "%s", spec->driver);
    line("vcpus", "%u", spec->vcpus ? spec->vcpus : 1);
    line("memory", "%s", spec->memory_bytes ? memory : "the default");
    line("machine", "%s", spec->machine);
    show_actions(spec);
    line("description", "%s", spec->description);
    for (size_t i = 0; i < spec->n_disks; i++)
        show_disk(domain, spec->disks[i]);
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        g_autofree char *type = vp_text_enum(&pb_interface_type__descriptor, (int)spec->interfaces[i]->type);
        g_autofree char *model = vp_text_enum(&pb_interface_model__descriptor, (int)spec->interfaces[i]->model);
        line("interface", "%s (%s)%s%s", *type ? type : "user", *model ? model : "virtio",
             *spec->interfaces[i]->mac ? " " : "", spec->interfaces[i]->mac);
    }
}

/* Where a screen is served by TCP. */
static void show_screens(const PbDomainStatus *status)
{
    for (size_t i = 0; i < status->n_endpoints; i++) {
        const PbDomainEndpoint *endpoint = status->endpoints[i];
        const gboolean six = strchr(endpoint->tls_address, ':') != NULL;

        if (endpoint->tls_port)
            line("screen", "%s by TLS at %s%s%s:%u", endpoint->device, six ? "[" : "", endpoint->tls_address,
                 six ? "]" : "", endpoint->tls_port);
    }
}

static void show_shutdown(const PbPendingShutdown *shutdown)
{
    g_autofree char *mode = vp_text_enum(&pb_shutdown_mode__descriptor, (int)shutdown->mode);
    g_autofree char *asked = vp_text_time(shutdown->request_time, /* fraction= */ FALSE);
    g_autofree char *fallback = vp_text_time(shutdown->fallback_time, /* fraction= */ FALSE);

    line(shutdown->reboot ? "reboot" : "shutdown", "asked for at %s (%s)%s%s%s", asked, mode,
         shutdown->fallback_time ? shutdown->reboot ? ", reset at " : ", powered off at " : "",
         shutdown->fallback_time ? fallback : "", shutdown->fallback_time ? " if it has not done it" : "");
}

static void show_restart(const PbRestartStatus *restart)
{
    g_autofree char *first = vp_text_time(restart->first_time, /* fraction= */ FALSE);
    g_autofree char *next = vp_text_time(restart->next_time, /* fraction= */ FALSE);

    line("restarts", "%u since %s (%s)%s%s", restart->count, first, restart->cause,
         restart->next_time ? ", the next at " : "", restart->next_time ? next : "");
}

static void show_domain(const PbDomain *domain)
{
    g_autofree char *state = vp_domain_state_line(domain);
    g_autofree char *since = vp_text_time(domain->status ? domain->status->state_time : NULL, /* fraction= */ FALSE);
    g_autofree char *created = vp_text_time(domain->create_time, /* fraction= */ FALSE);
    g_autofree char *labels = labels_text(domain);

    line("name", "%s", domain->name);
    line("uid", "%s", domain->uid);
    line("state", "%s%s%s", state, domain->status && domain->status->state_time ? ", since " : "",
         domain->status && domain->status->state_time ? since : "");
    if (domain->status) {
        g_auto(GStrv) details = g_strsplit(domain->status->detail, "\n", -1);
        for (char **detail = details; *detail; detail++)
            line(detail == details ? "detail" : "", "%s", *detail);
    }
    if (domain->autostart)
        line("autostart", "with the host, order %u", domain->autostart_order);
    if (domain->status && domain->status->restart)
        show_restart(domain->status->restart);
    if (domain->status && domain->status->shutdown)
        show_shutdown(domain->status->shutdown);
    if (domain->status)
        show_containment(domain->status->containment);
    if (domain->status)
        show_screens(domain->status);
    if (domain->status && domain->status->job) {
        const PbDomainJob *job = domain->status->job;
        g_autofree char *started = vp_text_time(job->start_time, /* fraction= */ FALSE);
        line("job", "%s by %s since %s, operation %s, %u waiting", job->type, job->caller, started, job->operation_uid,
             job->waiting);
    }
    if (domain->spec)
        show_spec(domain);
    line("labels", "%s", labels);
    line("created", "%s", created);
    line("revision", "%" G_GINT64_FORMAT, domain->revision);
}

PbGetDomainResponse *vp_domain_fetch(VpCli *cli, const char *who, VpError **error)
{
    vp_pb_auto PbGetDomainRequest *request = vp_pb_new(&pb_get_domain_request__descriptor);

    vp_message_set_who(request, who);
    vp_pb_auto PbGetDomainResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "GetDomain", request, error);
    if (answer && !answer->domain) {
        *error = vp_error_new(VP_INTERNAL, VP_CLIENT_BAD_ANSWER, "the answer holds no domain");
        return NULL;
    }
    return g_steal_pointer(&answer);
}

int vp_domain_show(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    for (int i = 1; i < argc; i++) {
        VpError *error = NULL;
        vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(cli, argv[i], &error);
        if (!answer) {
            code = vp_cli_fail(cli, error, "show domain \"%s\"", argv[i]);
            continue;
        }
        if (vp_cli_print(cli, answer, /* stream= */ argc > 2))
            continue;
        if (cli->output == VP_OUTPUT_NAME) {
            g_autofree char *safe = vp_text_escape(answer->domain->name);
            puts(safe);
            continue;
        }
        if (i > 1)
            puts("");
        show_domain(answer->domain);
    }
    return code;
}
