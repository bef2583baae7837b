/* What QEMU is told before the guest runs: see command_line.h. */
#include "command_line.h"
#include "ids.h"

static void take_link_down(json_t *commands, const PbInterface *interface)
{
    g_autofree char *id = vp_id_nic(interface);

    json_array_append_new(commands,
                          json_pack("{s:s, s:{s:s, s:b}}", "execute", "set_link", "arguments", "name", id, "up", 0));
}

void vp_commands_for_interface(json_t *commands, const PbInterface *interface)
{
    if (interface->type == PB_INTERFACE_TYPE_NONE)
        take_link_down(commands, interface);
}

void vp_commands_for_disk(json_t *commands, const PbDisk *disk)
{
    if (!disk->throttle)
        return;
    const PbThrottle *t = disk->throttle;
    g_autofree char *id = vp_id_disk_backend(disk);
    json_t *arguments =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", id, "bps", (json_int_t)t->total_bytes_per_second,
                  "bps_rd", (json_int_t)t->read_bytes_per_second, "bps_wr", (json_int_t)t->write_bytes_per_second,
                  "iops", (json_int_t)t->total_requests_per_second, "iops_rd", (json_int_t)t->read_requests_per_second,
                  "iops_wr", (json_int_t)t->write_requests_per_second);

    if (t->group[0])
        json_object_set_new(arguments, "group", json_string(t->group));
    json_array_append_new(commands,
                          json_pack("{s:s, s:o}", "execute", "block_set_io_throttle", "arguments", arguments));
}

json_t *vp_commands_before_run(const PbDomainSpec *spec)
{
    json_t *commands = json_array();

    for (size_t i = 0; i < spec->n_interfaces; i++)
        vp_commands_for_interface(commands, spec->interfaces[i]);
    for (size_t i = 0; i < spec->n_disks; i++)
        vp_commands_for_disk(commands, spec->disks[i]);
    return commands;
}
