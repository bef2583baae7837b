/*
 * A line: what goes between clients and a unix socket at which a port of a domain ends (DomainStatus.endpoints), whatever the driver. One relay serves
 * consoles, where clients share a connection of which one may type, and screens, where each has a connection of its own. What a client is made of, a stream
 * of a call or a connection by TLS, is told by its end. Everything of a line happens on the loop's thread, but where it is said; nothing here blocks.
 */
#pragma once

#include "base/loop.h"
#include "base/pool.h"
#include "server/domains/domains.h"

typedef struct VpLines VpLines;
typedef struct VpLineClient VpLineClient;

/* All that is given outlives it. `pool` is for reading logs. */
VpLines *vp_lines_new(VpDomains *domains, VpLoop *loop, VpPool *pool);
VpDomains *vp_lines_domains(VpLines *lines);

/* When no client comes any more; waits for the last of them. NULL is let pass. */
void vp_lines_free(VpLines *lines);

/* The far end of a client. */
typedef struct VpLineEnd {
    /* The line is there, and so many bytes of the log come first. As write(), of 0 bytes. */
    gboolean (*opened)(void *end, const char *device, guint32 scrollback);
    /* Takes the bytes (borrowed), and tells vp_line_client_written() once they are on their way: later, not within this. FALSE: it is broken. */
    gboolean (*write)(void *end, const guint8 *bytes, gsize size);
    /* There is room: the next vp_line_client_got() may come, or vp_line_client_half_close(). Perhaps within this. */
    void (*read_next)(void *end);
    /* It is over; `error` is owned by the callee, NULL: well. */
    void (*finish)(void *end, VpError *error);
    /* Whether nobody is there any more. */
    gboolean (*gone)(void *end);
    /* Who it is, for people. Owned by the caller. */
    char *(*caller)(void *end);
    /* With the client's last reference. Any thread. */
    void (*unref)(void *end);
} VpLineEnd;

/* Which port. */
typedef struct VpLineTarget {
    char *device;
    char *socket_path;
    char *log_path; /* NULL: none */
    char *key;      /* "UID DEVICE" */
    char *domain_name;
} VpLineTarget;

/* `device` empty: the first console, or screen. FAILED_PRECONDITION if the domain does not run, or has none. Any thread. */
VpError *vp_line_target_find(VpDomains *domains, const char *name, const char *uid, const char *device, gboolean screen,
                             VpLineTarget *ret_target);
void vp_line_target_clear(VpLineTarget *target);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpLineTarget, vp_line_target_clear)

typedef struct VpLineOptions {
    gboolean screen;
    gboolean read_only;
    gboolean force;
    guint32 scrollback;
} VpLineOptions;

/* Takes `end`. Any thread, as the counting. */
VpLineClient *vp_line_client_new(VpLines *lines, const VpLineEnd *ops, void *end);
VpLineClient *vp_line_client_ref(VpLineClient *client);
/* NULL is let pass. */
void vp_line_client_unref(VpLineClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpLineClient, vp_line_client_unref)
VpLoop *vp_line_client_loop(const VpLineClient *client);

/* Connects, soon; the end is told that it is open, or finished. Takes what is in `target`. Any thread. */
void vp_line_client_open(VpLineClient *client, const VpLineOptions *options, VpLineTarget *target);

/* ---- by the end, on the loop's thread ---- */

void vp_line_client_written(VpLineClient *client, gsize size);
void vp_line_client_got(VpLineClient *client, const guint8 *bytes, gsize size);
/* It sends nothing more: it is finished once the guest has what it sent. */
void vp_line_client_half_close(VpLineClient *client);
/* Finishes it; `error` is consumed, NULL: well. */
void vp_line_client_end(VpLineClient *client, VpError *error);
/* It has gone: lets go of the line, and says nothing to the end. */
void vp_line_client_leave(VpLineClient *client);
gboolean vp_line_client_is_open(const VpLineClient *client);
