/*
 * Opens an image file without side effects: nothing but a regular file or block device is ever opened for reading, and what is judged is the
 * descriptor, never the name. Used by the walk, the probe and the header edit.
 */
#pragma once

#include <sys/stat.h>

#include "base/error.h"
#include "storage/chain/policy.h"
#include "virtplane/v1/image.pb-c.h"

/* What holds for all files of one walk. */
typedef struct VpOpener {
    const VpImagePolicy *policy;
    GPtrArray *roots; /* of char *, resolved; NULL: any place */
    int fds;          /* /proc/self/fd, opened when first needed: a look-up in it is much shorter than by its path */
    dev_t checked[4]; /* file systems found fit; a chain seldom spans more */
    guint n_checked;
} VpOpener;

typedef struct VpOpened {
    int fd;
    struct stat st;
    guint64 start; /* where the layer begins: not 0 for a window of a file */
    guint64 size;  /* from there on; of a block device its real size */
} VpOpened;

/* Why a file was not opened. */
typedef struct VpOpenRefusal {
    PbFindingCode code;
    char *why;   /* "is a FIFO": goes on after the path; owned by the caller */
    int errnum;  /* 0: not an error of the system */
    mode_t kind; /* of the file, where that is why (S_IFDIR, ...); else 0 */
} VpOpenRefusal;

/* `policy` outlives the opener. */
void vp_opener_init(VpOpener *opener, const VpImagePolicy *policy);
void vp_opener_clear(VpOpener *opener);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpOpener, vp_opener_clear)

/* Whether the open descriptor (O_PATH will do) lies where images may: below a root, and not in a file system of the kernel's own. */
gboolean vp_opener_allows(VpOpener *opener, int fd, const struct stat *st, VpOpenRefusal *refusal);

/* Whether that is a socket, and below a root. It is not connected to. */
gboolean vp_opener_allows_socket(VpOpener *opener, const char *path);

/* Opens a folder for listing; as vp_opener_open() otherwise: `*ret_fd` is set if it was opened. */
VpError *vp_opener_open_folder(VpOpener *opener, const char *path, int *ret_fd, VpOpenRefusal *refusal);

/*
 * The short way for a file that the listing of a folder (vp_opener_open_folder()) has just told to be regular: opened by its name in there, without
 * following links. FALSE: not to be had so; vp_opener_open() tells why. Should the file have been swapped for a FIFO meanwhile, it is opened without
 * blocking, and closed.
 */
gboolean vp_opener_open_entry(VpOpener *opener, int folder_fd, const char *name, VpOpened *ret);

/* NULL: opened. `refusal` is set if the file is not to be had (code not UNSPECIFIED), `ret` if it is. An error: out of descriptors or memory. */
VpError *vp_opener_open(VpOpener *opener, const char *path, gboolean write, VpOpened *ret, VpOpenRefusal *refusal);
