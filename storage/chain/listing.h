/* The files below a folder, some at a time. Private to storage/chain; one thread. */
#pragma once

#include "storage/chain/open.h"

typedef struct VpListing VpListing;

/* An open folder, shared by the files that were found in it. */
typedef struct VpFolderHandle {
    gint refs;
    int fd;
} VpFolderHandle;

/* One file. */
typedef struct VpListed {
    char *path;
    const char *name; /* its end */
    VpFolderHandle *folder;
    gboolean is_regular; /* so the folder says */
} VpListed;

/* An error if the folder itself cannot be read. */
VpError *vp_listing_new(const char *path, const VpImagePolicy *policy, gboolean flat, VpListing **ret);
void vp_listing_free(VpListing *listing);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpListing, vp_listing_free)

/* A folder that could not be read. */
typedef struct VpUnread {
    char *path;
    PbFindingCode code;
    char *why;
} VpUnread;

/* An array for vp_listing_next(), which owns what is in it. */
GArray *vp_listed_array(guint room);

/* Adds at most `most` files to `files` (of VpListed). FALSE: there are no more. Folders that could not be read are added to
 * `unread` (of VpUnread, whose texts the caller frees). */
gboolean vp_listing_next(VpListing *listing, guint most, GArray *files, GArray *unread);
