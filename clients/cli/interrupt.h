/*
 * Ctrl-C and SIGTERM as an orderly end, for commands that stay: the stream is cancelled and the command saves what
 * it has to. To be made before the first connection, so that gRPC's threads leave the signals alone.
 */
#pragma once

#include "clients/c/client.h"

typedef struct VpInterrupt VpInterrupt;

VpInterrupt *vp_interrupt_new(VpError **error);
/* The stream to cancel when a signal comes (at once if it has come), or NULL. Set NULL before the stream is freed. */
void vp_interrupt_watch(VpInterrupt *interrupt, VpClientStream *stream);
/* Whether a signal has come. */
gboolean vp_interrupt_came(VpInterrupt *interrupt);
/* Waits, at most until a signal comes. */
void vp_interrupt_sleep(VpInterrupt *interrupt, guint ms);
/* Gives the signals back their usual meaning. NULL is let pass. */
void vp_interrupt_free(VpInterrupt *interrupt);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpInterrupt, vp_interrupt_free)
