/* A long run of events through a store in this process, with a journal that is kept short. A part of the benchmarks store and events. */
#pragma once

#include <glib.h>

/* What it runs to, unless another number is asked for. */
#define SOAK_EVENTS 1000000

/* Prints the figures soak_N, soak_N_files and soak_N_compaction_longest; `folder` is the benchmark's own. */
void soak_run(const char *folder, guint events);
