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

static int listen_at(const struct sockaddr_storage *address, struct sockaddr_storage *ret_bound)
{
    const int yes = 1;
    socklen_t length =
        address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : (socklen_t)sizeof(struct sockaddr_in);
    const int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    /* Connections of before that are not quite over are no reason to refuse a listener. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
        bind(fd, (const struct sockaddr *)address, length) == 0 && listen(fd, BACKLOG) == 0) {
        length = sizeof(*ret_bound);
        if (getsockname(fd, (struct sockaddr *)ret_bound, &length) == 0)
            return fd;
    }
    const int errnum = errno;
    close(fd);
    errno = errnum;
    return -1;
}

VpError *vp_screen_address_listen(const char *address, guint port, int *ret_fd, guint *ret_port)
{
    const char *where = address[0] ? address : "127.0.0.1";
    struct sockaddr_storage at = {0};
    struct sockaddr_storage bound = {0};

    if (uv_ip4_addr(where, (int)port, (struct sockaddr_in *)&at) < 0 &&
        uv_ip6_addr(where, (int)port, (struct sockaddr_in6 *)&at) < 0)
        return unusable(where, port, EADDRNOTAVAIL);
    const int fd = listen_at(&at, &bound);
    if (fd < 0)
        return unusable(where, port, errno);
    *ret_fd = fd;
    *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)&bound)->sin_port);
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
