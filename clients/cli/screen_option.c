/* See screen_option.h. */
#include "clients/cli/screen_option.h"

#include <string.h>

#include "base/pb.h"

void vp_graphics_add(PbDomainSpec *spec, PbGraphicsType type)
{
    for (size_t i = 0; i < spec->n_graphics; i++) {
        if (spec->graphics[i] == type)
            return;
    }
    spec->graphics = g_renew(PbGraphicsType, spec->graphics, spec->n_graphics + 1);
    spec->graphics[spec->n_graphics++] = type;
}

/* That of a file is taken over by the option. */
static PbTlsScreen *tls_screen(PbDomainSpec *spec, PbGraphicsType type)
{
    for (size_t i = 0; i < spec->n_tls_screens; i++) {
        if (spec->tls_screens[i]->type == type)
            return spec->tls_screens[i];
    }
    PbTlsScreen *screen = vp_pb_new(&pb_tls_screen__descriptor);
    screen->type = type;
    vp_pb_append(&spec->n_tls_screens, &spec->tls_screens, screen);
    return screen;
}

VpError *vp_tls_screen_parse(PbDomainSpec *spec, PbGraphicsType type, const char *option, const char *text)
{
    const char *colon = strrchr(text, ':');
    g_autofree char *address = colon ? g_strndup(text, (gsize)(colon - text)) : g_strdup("");
    const gsize length = strlen(address);
    guint64 port = 0;

    if (length > 2 && address[0] == '[' && address[length - 1] == ']') {
        address[length - 1] = '\0';
        memmove(address, address + 1, length - 1);
    } else if (strchr(address, ':')) {
        colon = NULL;
        port = G_MAXUINT64;
    }
    if (port || !g_ascii_string_to_unsigned(colon ? colon + 1 : text, 10, 0, 65535, &port, NULL) ||
        (address[0] && !g_hostname_is_ip_address(address)))
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                            "--%s is PORT or ADDRESS:PORT as in 0, 0.0.0.0:5901 or [::1]:5901, not \"%s\"", option,
                            text);
    vp_graphics_add(spec, type);
    PbTlsScreen *screen = tls_screen(spec, type);
    vp_pb_set(&screen->address, address);
    screen->port = (guint32)port;
    return NULL;
}
