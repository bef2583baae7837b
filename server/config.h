/* The daemon's settings: defaults for who runs it, then the configuration file, then the command line. */
#pragma once

#include "base/error.h"
#include "storage/chain/policy.h"

typedef struct VpConfig {
    char *state_dir;
    char *run_dir;
    char **listen; /* addresses, NULL at the end */
    VpImagePolicy images;
    /* [events]: how much of the journal is kept, and what of it in any case (docs/store.md). 0: no such limit. */
    guint64 events_max_count;
    guint64 events_max_bytes;
    guint64 events_max_age_s;
    guint64 events_keep_count;
    guint64 events_keep_age_s;
    guint rpc_threads; /* 0: cores/2 */
    guint drain_ms;    /* how long running calls may take after SIGTERM */
    GKeyFile *file;    /* the whole configuration, for the drivers' groups */
} VpConfig;

/* What the command line says; NULL: not given. */
typedef struct VpConfigArguments {
    const char *config;
    const char *state_dir;
    char **listen;
} VpConfigArguments;

/* Settings for this user; the folders are made. */
VpConfig *vp_config_new(const VpConfigArguments *arguments, VpError **error);
void vp_config_free(VpConfig *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpConfig, vp_config_free)
