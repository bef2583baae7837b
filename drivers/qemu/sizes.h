/* How many CPUs and how much memory a QEMU has, out of its answers, and what makes them more or less. Pure. */
#pragma once

#include <glib.h>
#include <jansson.h>

/* Of query-hotpluggable-cpus. */
guint vp_sizes_vcpus(json_t *cpus);
/* The entries that are free, and the QOM paths of those that are to go: lowest and highest first. Borrowed: the array is to be freed before the answer. */
GPtrArray *vp_sizes_free_vcpus(json_t *cpus, guint n);
GPtrArray *vp_sizes_last_vcpus(json_t *cpus, guint n);

/* Memory in bytes: at the start, and attached since. Of query-memory-size-summary. */
guint64 vp_sizes_memory(json_t *summary);

/* The lowest number that no attached memory has, and how many pieces there are. Of query-memory-devices. */
guint vp_sizes_free_dimm(json_t *devices, guint *ret_n);
/* The names of those that can go, of `bytes` at most in all, the last first; and their size. Borrowed as above. */
GPtrArray *vp_sizes_leaving_dimms(json_t *devices, guint64 bytes, guint64 *ret_bytes);
