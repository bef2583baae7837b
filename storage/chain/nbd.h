/*
 * Where an NBD export is, out of a reference: the one kind of remote layer that a driver can be told in full, so that it needs to take no name
 * apart by itself. Pure text.
 */
#pragma once

#include <glib.h>

typedef struct VpNbd {
    char *host;   /* NULL: it is reached by `socket` */
    char *port;   /* decimal */
    char *socket; /* an absolute path */
    char *name;   /* of the export; may be empty */
} VpNbd;

/* `nbd://`, `nbd+tcp://` and `nbd+unix://` URIs, and `nbd:HOST:PORT`, `nbd:unix:PATH` with or without `:exportname=NAME`. NULL for all else. */
VpNbd *vp_nbd_parse(const char *reference);

/* From the parts, each of which may be NULL; copies them. NULL if they do not say one place. */
VpNbd *vp_nbd_new(const char *host, const char *port, const char *socket, const char *name);

void vp_nbd_free(VpNbd *nbd);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpNbd, vp_nbd_free)
