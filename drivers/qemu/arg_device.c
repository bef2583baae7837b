/* The arguments of small devices, of which there is one at most. See arguments.h. */
#include "arguments.h"
#include "layout.h"

void vp_args_tpm(VpArguments *args)
{
    g_autofree char *chardev = g_strdup_printf("socket,id=tpm,fd=%d", args->line->tpm_fd);
    const char *driver = args->line->spec->tpm == PB_TPM_MODEL_CRB ? "tpm-crb"
                         : vp_args_is_x86(args)                    ? "tpm-tis"
                                                                   : "tpm-tis-device";

    vp_args_add(args, "-chardev", chardev);
    vp_args_add(args, "-tpmdev", "emulator,id=tpm0,chardev=tpm");
    vp_args_json(args, "-device", json_pack("{s:s, s:s}", "driver", driver, "tpmdev", "tpm0"));
}

void vp_args_rng(VpArguments *args)
{
    const PbRng *rng = args->line->spec->rng;
    json_t *device = json_pack("{s:s, s:s, s:s}", "driver", "virtio-rng-pci", "id", "rng0", "rng", "entropy");

    vp_args_json(args, "-object", json_pack("{s:s, s:s}", "qom-type", "rng-builtin", "id", "entropy"));
    vp_args_address(args, device, VP_SLOT_RNG);
    if (rng->bytes_per_second) {
        json_object_set_new(device, "max-bytes", json_integer(rng->bytes_per_second));
        json_object_set_new(device, "period", json_integer(1000));
    }
    vp_args_json(args, "-device", device);
}

void vp_args_watchdog(VpArguments *args)
{
    static const char *const actions[] = {
        [PB_WATCHDOG_ACTION_UNSPECIFIED] = "reset", [PB_WATCHDOG_ACTION_RESET] = "reset",
        [PB_WATCHDOG_ACTION_SHUTDOWN] = "shutdown", [PB_WATCHDOG_ACTION_POWER_OFF] = "poweroff",
        [PB_WATCHDOG_ACTION_PAUSE] = "pause",       [PB_WATCHDOG_ACTION_NMI] = "inject-nmi",
        [PB_WATCHDOG_ACTION_NONE] = "none",
    };
    const PbWatchdog *watchdog = args->line->spec->watchdog;
    const gboolean isa = watchdog->model == PB_WATCHDOG_MODEL_IB700;
    g_autofree char *action = g_strdup_printf("watchdog=%s", actions[watchdog->action]);
    json_t *device = json_pack("{s:s, s:s}", "driver", isa ? "ib700" : "i6300esb", "id", "watchdog0");

    if (!isa)
        vp_args_address(args, device, VP_SLOT_WATCHDOG);
    vp_args_json(args, "-device", device);
    vp_args_add(args, "-action", action);
}

void vp_args_balloon(VpArguments *args)
{
    json_t *device = json_pack("{s:s, s:s}", "driver", "virtio-balloon-pci", "id", "balloon0");

    vp_args_address(args, device, VP_SLOT_BALLOON);
    json_object_set_new(device, "deflate-on-oom", json_true());
    vp_args_json(args, "-device", device);
}
