/* See screen.h. */
#include "drivers/screen.h"

guint vp_spec_screens(const PbDomainSpec *spec)
{
    switch (spec->video) {
    case PB_VIDEO_MODEL_NONE:
        return 0;
    case PB_VIDEO_MODEL_UNSPECIFIED:
        return spec->n_graphics > 0 ? 1 : 0;
    default:
        return 1;
    }
}

VpError *vp_spec_check_screen(const PbDomainSpec *spec, const char *name, guint screen)
{
    const guint screens = vp_spec_screens(spec);

    if (screens == 0)
        return vp_error_new(VP_FAILED_PRECONDITION, "NO_SCREEN",
                            "domain %s has no screen: give it a graphics adapter (video) or graphics", name);
    if (screen >= screens)
        return vp_error_new(VP_OUT_OF_RANGE, "NO_SUCH_SCREEN",
                            "domain %s has no screen %u: it has %u, and they are counted from 0", name, screen,
                            screens);
    return NULL;
}
