/* A load of unary calls on one connection of the bare C core, from one thread: what the server's figures are taken with. */
#pragma once

#include <glib.h>

typedef struct LoadResult {
    gdouble calls_per_second;
    gdouble p50_us;
    gdouble p99_us;
} LoadResult;

/* Keeps `in_flight` calls of `method` ("/package.Service/Method") with the packed `request` under way for `duration_ms`. Every answer must be OK. */
LoadResult load_run(const char *address, const char *method, GBytes *request, guint in_flight, guint duration_ms);

/* Makes calls until next(data) answers NULL; each has the packed request that it answers, which the callee owns. Nothing is left out as warm-up. */
LoadResult load_each(const char *address, const char *method, GBytes *(*next)(void *data), void *data, guint in_flight);

/* Opens `count` streams of `method` on `connections` connections, waits for the first message of each, calls `hold(data)`, and closes them. */
void load_streams(const char *address, const char *method, GBytes *request, guint count, guint connections,
                  void (*hold)(void *data), void *data);
