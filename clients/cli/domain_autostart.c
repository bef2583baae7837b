/* vpctl domain autostart: whether a domain is started with the host, and when among the others. */
#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"

enum {
    NOT_GIVEN = -1,
};

static void add_path(PbUpdateDomainRequest *request, const char *path)
{
    vp_pb_append(&request->update_mask->n_paths, &request->update_mask->paths, g_strdup(path));
}

int vp_domain_autostart(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int order = NOT_GIVEN;
    const GOptionEntry entries[] = {
        {"order", 0, 0, G_OPTION_ARG_INT, &order, "Its place: smaller ones are started first (default 0)", "N"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    const gboolean on = g_str_equal(argv[2], "on");
    if (!on && !g_str_equal(argv[2], "off"))
        return vp_cli_usage(command, "say \"on\" or \"off\", not \"%s\"", argv[2]);
    if (order < NOT_GIVEN)
        return vp_cli_usage(command, "--order is a number from 0 on");
    vp_pb_auto PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);
    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->update_mask = vp_pb_new(&google__protobuf__field_mask__descriptor);
    vp_message_set_who(request->domain, argv[1]);
    request->domain->autostart = on;
    add_path(request, "autostart");
    if (order != NOT_GIVEN) {
        request->domain->autostart_order = (guint32)order;
        add_path(request, "autostart_order");
    }

    vp_pb_auto PbUpdateDomainResponse *answer =
        vp_cli_call(cli, &pb_domain_service__descriptor, "UpdateDomain", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "update domain \"%s\"", argv[1]);
    g_autofree char *name = vp_text_escape(argv[1]);
    if (cli->output == VP_OUTPUT_NAME)
        puts(name);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE))
        printf("domain \"%s\" %s with the host\n", name, on ? "is started" : "is not started");
    return VP_EXIT_DONE;
}
