/*
 * The core accepts connections by TCP itself, and tells nobody: it would take as many as come, and where the process has no descriptor for one more it stops
 * listening for good. So accept4(), by which it does, is defined here over that of the C library (a program's own definition goes before a library's),
 * and asks.
 */
#pragma once

#include <glib.h>
#include <sys/socket.h>

/* From now on `admit(data, fd, peer)` is asked about each connection by TCP that is accepted in this process: FALSE, and it is closed. On threads of the
 * core, one at a time. One asks at a time: the last. */
void vp_accept_watch(gboolean (*admit)(void *data, int fd, const struct sockaddr *peer), void *data);

/* No more; it is not being asked any more then either. */
void vp_accept_unwatch(const void *data);
