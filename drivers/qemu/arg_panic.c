/* What QEMU does at a guest's end, and the device by which the guest tells of a panic. See arguments.h. */
#include "arguments.h"
#include "layout.h"

const char *vp_action_of_reboot(const PbDomainSpec *spec)
{
    return spec->on_reboot == PB_LIFECYCLE_ACTION_POWER_OFF ? "shutdown" : "reset";
}

static const char *action_of_panic(const PbDomainSpec *spec)
{
    switch (spec->on_panic) {
    case PB_LIFECYCLE_ACTION_PAUSE:
        return "panic=pause";
    case PB_LIFECYCLE_ACTION_IGNORE:
        return "panic=none";
    default: /* a restart is a new process */
        return "panic=shutdown";
    }
}

void vp_args_actions(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;

    if (spec->on_reboot == PB_LIFECYCLE_ACTION_POWER_OFF)
        vp_args_add(args, "-action", "reboot=shutdown");
    if (spec->on_panic)
        vp_args_add(args, "-action", action_of_panic(spec));
}

void vp_args_panic(VpArguments *args)
{
    const PbPanicModel model = args->line->spec->panic;

    if (model == PB_PANIC_MODEL_PCI) {
        json_t *device = json_pack("{s:s, s:s}", "driver", "pvpanic-pci", "id", "panic0");

        vp_args_address(args, device, VP_SLOT_PANIC);
        vp_args_json(args, "-device", device);
    } else if (model == PB_PANIC_MODEL_ISA || (model == PB_PANIC_MODEL_UNSPECIFIED && vp_args_is_x86(args))) {
        vp_args_add(args, "-device", "pvpanic");
    }
}
