/* Addresses of daemons: which is the default, which are valid, and why nobody answers at one. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clients/c/internal.h"

static const char UNIX_PREFIX[] = "unix:";

char *vp_client_default_address(void)
{
    const char *runtime_dir = g_getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return g_strdup("unix:/run/virtplane/virtplaned.sock");
    if (!runtime_dir || !g_path_is_absolute(runtime_dir))
        return NULL;
    return g_strdup_printf("unix:%s/virtplane/virtplaned.sock", runtime_dir);
}

static VpError *bad_address(const char *address, const char *why)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "BAD_ADDRESS",
                        "\"%s\" is no address of a daemon: %s; use unix:PATH or HOST:PORT", address, why);
}

static char *normalize_path(const char *address, const char *path, VpError **error)
{
    if (!*path) {
        *error = bad_address(address, "the path is empty");
        return NULL;
    }
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        *error = bad_address(address, "the path of a unix socket has at most 107 bytes");
        return NULL;
    }
    return g_strconcat(UNIX_PREFIX, path, NULL);
}

char *vp_client_normalize_address(const char *address, VpError **error)
{
    guint64 port;

    if (g_str_has_prefix(address, UNIX_PREFIX))
        return normalize_path(address, address + strlen(UNIX_PREFIX), error);
    if (*address == '/')
        return normalize_path(address, address, error);

    const char *colon = strrchr(address, ':');
    if (!colon || colon == address) {
        *error = bad_address(address, "it has no port");
        return NULL;
    }
    if (!g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL)) {
        *error = bad_address(address, "the port is no number from 1 to 65535");
        return NULL;
    }
    /* Other names with a colon would be taken for URI schemes ("dns:", "xds:") by gRPC. */
    const gboolean ipv6 = address[0] == '[' && colon[-1] == ']';
    if (!ipv6 && memchr(address, ':', (size_t)(colon - address))) {
        *error = bad_address(address, "an IPv6 address needs brackets, as in [::1]:50051");
        return NULL;
    }
    return g_strconcat("dns:///", address, NULL);
}

/* Connects once more by hand: gRPC's own words bury the errno under several layers. */
static int connect_errno(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return errno;
    g_strlcpy(name.sun_path, path, sizeof(name.sun_path));
    const int failure = connect(fd, (const struct sockaddr *)&name, sizeof(name)) < 0 ? errno : 0;
    close(fd);
    return failure;
}

char *vp_client_why_unreachable(const char *address)
{
    if (!g_str_has_prefix(address, UNIX_PREFIX))
        return NULL;

    const char *path = address + strlen(UNIX_PREFIX);
    switch (connect_errno(path)) {
    case 0:
    case EAGAIN:
        return NULL;
    case ENOENT:
        return g_strdup("there is no such socket");
    case ECONNREFUSED:
        return g_strdup("the socket is left over, nobody listens on it");
    case EACCES:
    case EPERM:
        return g_strdup("this user may not connect to it");
    case ENOTSOCK:
        return g_strdup("this is no socket");
    default:
        return NULL;
    }
}
