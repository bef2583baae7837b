/* What a transaction holds, for the engines of this folder. Built by server/services through store.h, read by the writer. */
#pragma once

#include "server/store/store.h"

#define VP_STORE_KEY_MAX 1024u
#define VP_STORE_VALUE_MAX (4u << 20)
#define VP_STORE_EVENT_MAX (64u << 10)
#define VP_STORE_TXN_MAX_PARTS 4096u
#define VP_STORE_TXN_MAX_BYTES (32u << 20)

typedef struct VpTxnCompare {
    char *key;
    gint64 mod_revision;
} VpTxnCompare;

typedef struct VpTxnChange {
    char *key;
    GBytes *value; /* NULL: delete */
} VpTxnChange;

struct VpTxn {
    GArray *compares;  /* of VpTxnCompare */
    GArray *changes;   /* of VpTxnChange, in the order of the calls */
    GPtrArray *events; /* of PbEvent */
    gsize bytes;       /* about what it keeps in memory */
    VpError *error;    /* the first thing in it that is out of bounds; told when it is committed */
};

/* Whether `key` may be one: UTF-8, 1 to 1,024 bytes. */
gboolean vp_store_key_valid(const char *key);
