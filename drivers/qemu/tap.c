/* See tap.h. */
#include "tap.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

char *vp_tap_name(const char *mac)
{
    g_auto(GStrv) parts = g_strsplit(mac, ":", -1);
    g_autofree char *digits = g_strjoinv("", parts);

    return g_strconcat("vp", digits, NULL);
}

char *vp_tap_alias(const char *uid)
{
    return g_strconcat("virtplane ", uid, NULL);
}

/* Made under another name first: to ask for the name of a device that is there would be to join it. */
static void rename_tap(char name[IFNAMSIZ], const char *wanted)
{
    struct ifreq request = {0};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return;
    g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
    g_strlcpy(request.ifr_newname, wanted, sizeof(request.ifr_newname));
    if (ioctl(fd, SIOCSIFNAME, &request) == 0)
        g_strlcpy(name, wanted, IFNAMSIZ);
    close(fd);
}

static void set_alias(const char *name, const char *uid)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/ifalias", name);
    g_autofree char *alias = vp_tap_alias(uid);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, alias, strlen(alias)) < 0)
        g_debug("the alias of %s cannot be set", name);
    close(fd);
}

void vp_tap_mark(char name[IFNAMSIZ], const char *mac, const char *uid)
{
    g_autofree char *wanted = vp_tap_name(mac);

    if (*mac)
        rename_tap(name, wanted);
    set_alias(name, uid);
}
