/* See remote.h. */
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const VpNbd *nbd_of(const VpChain *chain, guint index)
{
    return g_array_index(chain->files, VpChainFile, index).nbd;
}

gboolean vp_remote_interface_needs_network(const PbInterface *interface)
{
    return interface->type != PB_INTERFACE_TYPE_NONE && interface->type != PB_INTERFACE_TYPE_BRIDGE &&
           interface->type != PB_INTERFACE_TYPE_PASST;
}

gboolean vp_remote_needs_network(const PbDomainSpec *spec, const GPtrArray *chains)
{
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (vp_remote_interface_needs_network(spec->interfaces[i]))
            return TRUE;
    }
    for (guint i = 0; i < chains->len; i++) {
        const VpChain *chain = g_ptr_array_index(chains, i);

        for (guint j = 0; chain && j < chain->files->len; j++) {
            if (nbd_of(chain, j) && nbd_of(chain, j)->host)
                return TRUE;
        }
    }
    return spec->n_arguments > 0;
}

static VpError *connect_to(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const gboolean fits = strlen(path) < sizeof(address.sun_path);
    const int fd = fits ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;

    if (!fits)
        errno = ENAMETOOLONG;
    memcpy(address.sun_path, path, fits ? strlen(path) : 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        *ret_fd = fd;
        return NULL;
    }
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "REMOTE_BACKING",
                                  "cannot connect to the NBD server at %s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return error;
}

static VpError *connect_chain(const VpChain *chain, GArray *fds)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpNbd *nbd = nbd_of(chain, i);
        int fd = -1;

        if (!nbd || nbd->host)
            continue;
        VpError *error = connect_to(nbd->socket, &fd);
        if (error)
            return error;
        g_array_append_val(fds, fd);
    }
    return NULL;
}

VpError *vp_remote_connect(const GPtrArray *chains, GArray *fds)
{
    VpError *error = NULL;

    for (guint i = 0; i < chains->len && !error; i++) {
        if (chains->pdata[i])
            error = connect_chain(chains->pdata[i], fds);
    }
    return error;
}

void vp_remote_give(const VpChain *chain, VpLayerFds *layers, const GArray *fds, guint *next,
                    int (*give)(void *data, int fd), void *data)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpNbd *nbd = nbd_of(chain, i);

        if (nbd && !nbd->host && *next < fds->len)
            layers[i].fd = give(data, g_array_index(fds, int, (*next)++));
    }
}
