/*
 * Users of domains: numbers of a range that no user has, one a domain, kept in its folder for as long as it is. Two guests are two users to the kernel, and
 * neither is one that owns anything. Any thread.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"

typedef struct VpUsers VpUsers;

/* Numbers from `first` to `last` for the domains whose folders are in `state_dir`. */
VpUsers *vp_users_new(uid_t first, uid_t last, const char *state_dir);
void vp_users_free(VpUsers *users);

/* The number of the domain `uid`, whose folder exists; a new one is written down before it is told. Blocks on the disk. RESOURCE_EXHAUSTED, reason
 * NO_USER_LEFT, if all are taken. */
VpError *vp_users_take(VpUsers *users, const char *uid, uid_t *ret_user);

/* The domain is gone, with its folder. */
void vp_users_release(VpUsers *users, const char *uid);
