/* Page tokens: where a list goes on, bound to the method and the filter that it was made for, and signed, so that no other is taken. */
#pragma once

#include "base/error.h"

/* The key that signs; a new one at each start of the daemon, so tokens do not survive it. */
typedef struct VpPageKey {
    guint8 bytes[32];
} VpPageKey;

VpError *vp_page_key_init(VpPageKey *key);

/* A token for going on after `position`; `scope` is the method and its packed filter. Owned by the caller. */
char *vp_page_token_new(const VpPageKey *key, const char *method, const void *filter, const char *position);

/* The position of a token (owned by the caller; NULL for the empty token). INVALID_ARGUMENT, reason INVALID_PAGE_TOKEN, if it is not one of ours for this
 * method and filter. `filter` is a protobuf-c message or NULL. */
VpError *vp_page_token_read(const VpPageKey *key, const char *method, const void *filter, const char *token,
                            char **ret_position);
