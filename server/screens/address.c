/* Addresses of listeners and of clients: see internal.h. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "server/screens/internal.h"

/* Clients that wait to be taken. */
#define BACKLOG 16

static VpError *unusable(const char *address, guint port, int errnum)
{
    if (errnum == EADDRINUSE)
        return vp_error_new(VP_FAILED_PRECONDITION, "ADDRESS_IN_USE",
                            "%s, port %u: somebody listens there already; choose another port, or 0 for one that is "
                            "free",
                            address, port);
    return vp_error_new(VP_FAILED_PRECONDITION, "ADDRESS_UNUSABLE",
                        "%s, port %u: cannot listen there: %s; choose an address that the host has", address, port,
                        g_strerror(errnum));
}

typedef union Address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
} Address;

static int listen_at(const Address *address, Address *ret_bound)
{
    const int yes = 1;
    const int family = address->any.sa_family;
    socklen_t length = sizeof(*ret_bound);
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    /* Connections of before that are not quite over are no reason to refuse a listener. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
        bind(fd, &address->any, family == AF_INET6 ? sizeof(address->six) : sizeof(address->four)) == 0 &&
        listen(fd, BACKLOG) == 0) {
        if (getsockname(fd, &ret_bound->any, &length) == 0)
            return fd;
    }
    const int errnum = errno;
    close(fd);
    errno = errnum;
    return -1;
}

const char *vp_screen_address_or_default(const char *address)
{
    return address[0] ? address : "127.0.0.1";
}

VpError *vp_screen_address_listen(const char *address, guint port, int *ret_fd, guint *ret_port)
{
    Address at = {0};
    Address bound = {0};

    if (uv_ip4_addr(address, (int)port, &at.four) < 0 && uv_ip6_addr(address, (int)port, &at.six) < 0)
        return unusable(address, port, EADDRNOTAVAIL);
    const int fd = listen_at(&at, &bound);
    if (fd < 0)
        return unusable(address, port, errno);
    *ret_fd = fd;
    *ret_port = ntohs(at.any.sa_family == AF_INET6 ? bound.six.sin6_port : bound.four.sin_port);
    return NULL;
}

char *vp_screen_address_text(const struct sockaddr *address, socklen_t length)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (getnameinfo(address, length, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return g_strdup("unknown");
    return address->sa_family == AF_INET6 ? g_strdup_printf("ipv6:[%s]:%s", host, port)
                                          : g_strdup_printf("ipv4:%s:%s", host, port);
}
