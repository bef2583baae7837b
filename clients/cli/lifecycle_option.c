/* See lifecycle_option.h. */
#include "clients/cli/lifecycle_option.h"

#include "clients/cli/text.h"

void vp_lifecycle_wish_clear(VpLifecycleWish *wish)
{
    g_free(wish->on_poweroff);
    g_free(wish->on_reboot);
    g_free(wish->on_panic);
    g_free(wish->on_crash);
    g_free(wish->panic_device);
}

static VpError *parse(const ProtobufCEnumDescriptor *descriptor, const char *option, const char *text, int *value)
{
    VpError *error = text ? vp_text_parse_enum(descriptor, text, value) : NULL;

    return error ? vp_error_prefix(error, "%s", option) : NULL;
}

VpError *vp_lifecycle_apply(PbDomainSpec *spec, const VpLifecycleWish *wish)
{
    const struct {
        const char *option;
        const char *text;
        PbLifecycleAction *action;
    } actions[] = {
        {"--on-poweroff", wish->on_poweroff, &spec->on_poweroff},
        {"--on-reboot", wish->on_reboot, &spec->on_reboot},
        {"--on-panic", wish->on_panic, &spec->on_panic},
        {"--on-crash", wish->on_crash, &spec->on_crash},
    };
    int panic = (int)spec->panic;
    VpError *error = parse(&pb_panic_model__descriptor, "--panic-device", wish->panic_device, &panic);

    spec->panic = (PbPanicModel)panic;
    for (gsize i = 0; i < G_N_ELEMENTS(actions) && !error; i++) {
        int value = (int)*actions[i].action;

        error = parse(&pb_lifecycle_action__descriptor, actions[i].option, actions[i].text, &value);
        *actions[i].action = (PbLifecycleAction)value;
    }
    return error;
}
