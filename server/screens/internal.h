/* Inside server/screens: listeners, their connections, and the bounds of both. */
#pragma once

#include <openssl/ssl.h>
#include <pthread.h>

#include "server/screens/screens.h"
#include "server/services/access_visit.h"
#include "server/services/line.h"

/* Those that were let in, of one screen: SPICE makes a connection for each of its channels. */
#define VP_SCREEN_MOST_OPEN 32
/* Those whose hands are not shaken yet; for one more the oldest goes, so that those who do nothing shut nobody out. */
#define VP_SCREEN_MOST_SHAKING 16
/* Those that were let in, of all screens together, and never more than an eighth of the descriptors of the process: each takes two. */
#define VP_SCREENS_MOST_OPEN 512
/*
 * Strangers: those that were not let in yet, or are on their way out. So many of all screens together, and never more than a sixteenth of the descriptors: for
 * one more the oldest goes. They are counted apart, so that those who were never let in take no place of those who are.
 */
#define VP_SCREENS_MOST_STRANGERS 128
#define VP_SCREEN_HANDSHAKE_MS 10000
/* A viewer that takes nothing for so long is let go, as a stream of a call is. */
#define VP_SCREEN_STALLED_MS 120000
/* And one with which nothing has gone in either direction for so long. */
#define VP_SCREEN_IDLE_MS (12 * 60 * 60 * 1000)
/* How long the end waits for the other one to see it. */
#define VP_SCREEN_LINGER_MS 1000

typedef struct VpScreenListener VpScreenListener;
typedef struct VpViewer VpViewer;
typedef struct VpScreenTls VpScreenTls;

struct VpScreens {
    VpScreenHost host;
    VpLoop *loop; /* NULL: without certificates */
    gboolean tls;

    /* Set by vp_screens_start(), the loop's. */
    VpScreensOptions options;
    VpLines *lines;
    VpScreenTls *certificates;
    VpAccounts *accounts; /* set by vp_screens_serve() */
    gboolean serving;
    guint open; /* viewers that were let in */
    guint most_open;
    GPtrArray *strangers; /* of VpViewer, borrowed: in the order in which they came, or began to leave */
    guint most_strangers;
    gint64 refusals_us; /* vp_refusal_is_told() */
    guint64 left_out;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t idle;
    GHashTable *listeners; /* "UID DEVICE" to VpScreenListener, a reference each */
    guint live;            /* listeners and connections that are not freed yet */
    gboolean stopping;
};

/* ---- address.c ---- */

/* What a spec's address means: "127.0.0.1" if it is empty. */
const char *vp_screen_address_or_default(const char *address);
/* Listens at an IP address; port 0: one that is free. FAILED_PRECONDITION, reason ADDRESS_IN_USE or ADDRESS_UNUSABLE. */
VpError *vp_screen_address_listen(const char *address, guint port, int *ret_fd, guint *ret_port);
/* "ipv4:192.0.2.1:40112". Owned by the caller. */
char *vp_screen_address_text(const struct sockaddr *address, socklen_t length);

/* ---- tls.c: on the loop's thread ---- */

/* `source` is borrowed. */
VpScreenTls *vp_screen_tls_new(const VpRpcTls *source);
void vp_screen_tls_free(VpScreenTls *tls);
/* The server's end of a connection, with the certificates as they are now; NULL: these cannot be used. */
SSL *vp_screen_tls_accept(VpScreenTls *tls, int fd, gboolean need_certificate);
/* What the client has shown, as PEM; `ret_chain` what it sent along. FALSE: nothing. */
gboolean vp_screen_tls_shown(SSL *ssl, char **ret_certificate, char **ret_chain);

/* ---- listener.c ---- */

struct VpScreenListener {
    gint refs;
    VpScreens *screens;
    char *key;
    char *uid;
    char *device;
    char *address;
    guint port;
    gboolean counted;
    gboolean taken; /* for a start that is under way; under the mutex */
    int fd;         /* -1: the address was not to be had; set under the mutex */
    gint closed;    /* atomic */

    /* The loop's. */
    uv_poll_t poll;
    uv_timer_t timer;
    guint handles;
    gboolean told;          /* that the address is not to be had */
    GPtrArray *connections; /* of VpViewer, borrowed: in the order in which they came */
};

/* Owned by the caller; the loop takes it up by vp_screen_listener_open(). `fd` may be -1. */
VpScreenListener *vp_screen_listener_new(VpScreens *screens, const char *uid, const char *device, const char *address,
                                         guint port, int fd);
VpScreenListener *vp_screen_listener_ref(VpScreenListener *listener);
void vp_screen_listener_unref(VpScreenListener *listener);
/* Any thread: nobody can connect any more once this returns. */
void vp_screen_listener_close(VpScreenListener *listener);
/* Any thread. */
void vp_screen_listener_open(VpScreenListener *listener);
/* On the loop's: takes connections, if the screens are being served. */
void vp_screen_listener_serve(VpScreenListener *listener);

/* ---- viewer.c: on the loop's thread ---- */

/* Takes `fd`. Until it is let in it is a stranger. It is in the listener's list until it ends. */
void vp_viewer_new(VpScreenListener *listener, int fd, const char *peer);
/* Its hands are not shaken yet. */
gboolean vp_viewer_is_shaking(const VpViewer *viewer);
/* Ends it; `why` is owned by the callee. */
void vp_viewer_end(VpViewer *viewer, VpError *why);
void vp_viewer_recheck(VpViewer *viewer);

/* ---- strangers.c: on the loop's thread ---- */

/* For one more there is room, after the oldest of them may have gone. */
void vp_strangers_make_room(VpScreens *screens);
/* The newest of them, for whom there is room afterwards. */
void vp_strangers_add(VpScreens *screens, VpViewer *viewer);
void vp_strangers_remove(VpScreens *screens, VpViewer *viewer);
/* RESOURCE_EXHAUSTED, reason TOO_MANY_VIEWERS: one more of those who are let in is too many, of the screen or of all. */
VpError *vp_strangers_check_open(const VpScreenListener *listener);
/* Whether the refusal of somebody unknown is written down: they come as they like, and some are enough. What is not is counted in `left_out`. */
gboolean vp_refusal_is_told(VpScreens *screens);

/* ---- screens.c ---- */

void vp_screens_count(VpScreens *screens, gint change);
