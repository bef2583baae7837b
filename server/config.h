/* The daemon's settings: defaults for who runs it, then the configuration file, then the command line. */
#pragma once

#include "base/error.h"
#include "server/auth/auth.h"
#include "storage/chain/policy.h"

/* Who may come in, and how: the groups [auth], [tls], [tokens], [audit], and the socket's part of [daemon]. */
typedef struct VpSecurityConfig {
    VpAuthOptions auth; /* its strings are those that follow */
    char *policy;
    char *certificate;
    char *key;
    char *ca;
    char *crl;
    char **identity_kinds;
    char *jwks;
    char *issuer;
    char *audience;
    char *groups;
    char *audit_file; /* NULL: none */
    gboolean audit_journal;
    guint64 audit_max_bytes;
    guint audit_keep;
    char *secrets_key; /* the file; NULL: a systemd credential, or one in the state folder */
    guint socket_mode;
    gint64 socket_group; /* 0: the daemon's own */
} VpSecurityConfig;

typedef struct VpConfig {
    char *state_dir;
    char *run_dir;
    char **listen; /* addresses, NULL at the end */
    int *sockets;  /* that the daemon was started with, -1 at the end */
    VpSecurityConfig security;
    VpImagePolicy images;
    /* [events]: how much of the journal is kept, and what of it in any case (docs/store.md). 0: no such limit. */
    guint64 events_max_count;
    guint64 events_max_bytes;
    guint64 events_max_age_s;
    guint64 events_keep_count;
    guint64 events_keep_age_s;
    guint64 events_clients; /* not 0: clients that come in are told in the journal */
    guint rpc_threads;      /* 0: cores/2 */
    guint drain_ms;         /* how long running calls may take after SIGTERM */
    /* Of all clients together; 0: as server/rpc/rpc.h says, or no limit. */
    guint max_connections;
    guint max_calls;
    guint max_streams;
    guint max_calls_per_second;
    guint max_message_bytes;
    guint max_domains;
    guint max_secrets;
    guint autostart_parallel;        /* domains that are started at a time with the host; 0: none are */
    gint64 limits[VP_POLICY_LIMITS]; /* [limits]: of each identity; -1: not set */
    gboolean sandbox;                /* sandbox.h */
    GKeyFile *file;                  /* the whole configuration, for the drivers' groups */
} VpConfig;

/* What the command line says; NULL: not given. */
typedef struct VpConfigArguments {
    const char *config;
    const char *state_dir;
    char **listen;
    const int *sockets; /* listening ones, -1 at the end */
    gboolean insecure_tcp;
} VpConfigArguments;

/* Settings for this user; the folders are made. */
VpConfig *vp_config_new(const VpConfigArguments *arguments, VpError **error);
void vp_config_free(VpConfig *config);

/* INVALID_ARGUMENT: a setting that cannot be used. */
VpError *vp_config_wrong(const char *group, const char *key, const char *what);
/* A setting that is not there is left as it is. */
VpError *vp_config_read_number(const VpConfig *config, const char *group, const char *key, guint64 most,
                               guint64 *setting);
VpError *vp_config_read_boolean(const VpConfig *config, const char *group, const char *key, gboolean *setting);

/* config_security.c; after the folders are known. */
VpError *vp_config_read_security(VpConfig *config, const VpConfigArguments *arguments, const char *path);
/* config_limits.c: the limits of all clients together, and [limits]. */
VpError *vp_config_read_limits(VpConfig *config);
void vp_config_clear_security(VpSecurityConfig *security);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpConfig, vp_config_free)
