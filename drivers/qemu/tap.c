/* See tap.h. */
#include "tap.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

/* IFALIASZ of the kernel, whose header cannot stand beside the C library's. */
#define ALIAS_BYTES 256

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

/* By rtnetlink(7), since /sys cannot be written to by a service that is kept from the kernel's settings. */
typedef struct AliasRequest {
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[RTA_LENGTH(ALIAS_BYTES)];
} AliasRequest;

typedef struct Acknowledgement {
    struct nlmsghdr header;
    struct nlmsgerr error;
} Acknowledgement;

static AliasRequest alias_request(const char *name, const char *alias)
{
    const gsize length = MIN(strlen(alias), ALIAS_BYTES - 1);
    AliasRequest request = {.header = {.nlmsg_len = (guint32)(NLMSG_LENGTH(sizeof(struct ifinfomsg)) +
                                                              RTA_ALIGN(RTA_LENGTH(length))),
                                       .nlmsg_type = RTM_SETLINK,
                                       .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
                            .link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(name)}};
    const struct rtattr attribute = {.rta_type = IFLA_IFALIAS, .rta_len = (unsigned short)RTA_LENGTH(length)};

    memcpy(request.attributes, &attribute, sizeof(attribute));
    memcpy(request.attributes + RTA_LENGTH(0), alias, length);
    return request;
}

/* 0, or the error's number. The kernel answers before send() returns. */
static int ask_kernel(const AliasRequest *request)
{
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    Acknowledgement answer = {0};

    if (fd < 0)
        return errno;
    const gboolean answered = send(fd, request, request->header.nlmsg_len, 0) >= 0 &&
                              recv(fd, &answer, sizeof(answer), MSG_DONTWAIT) >= (ssize_t)sizeof(answer.header);
    const int failed = answered ? -answer.error.error : errno;
    close(fd);
    return failed;
}

static void set_alias(const char *name, const char *uid)
{
    g_autofree char *alias = vp_tap_alias(uid);
    const AliasRequest request = alias_request(name, alias);
    const int failed = ask_kernel(&request);

    if (failed)
        vp_log(VP_LOG_WARNING, "%s cannot be marked as that of domain %s, so that its traffic is not counted: %s", name,
               uid, g_strerror(failed));
}

void vp_tap_mark(char name[IFNAMSIZ], const char *mac, const char *uid)
{
    g_autofree char *wanted = vp_tap_name(mac);

    if (*mac)
        rename_tap(name, wanted);
    set_alias(name, uid);
}
