/* A layer's file: opened, narrowed to the window that the overlay names, and new to the chain. See walk.h. */
#include <unistd.h>

#include "storage/chain/finding.h"
#include "storage/chain/walk.h"

static gboolean ends_before(const VpShareKey *a, const VpShareKey *b)
{
    return a->size > 0 && a->start + a->size <= b->start;
}

/* Two windows of a file may be two layers, as long as they have no byte in common. */
static gboolean overlap(const VpShareKey *a, const VpShareKey *b)
{
    return a->inode == b->inode && a->device == b->device && !ends_before(a, b) && !ends_before(b, a);
}

/* FALSE: that file, or a part of it, is in the chain already. */
static gboolean is_new(const VpWalk *walk, const VpShareKey *key)
{
    for (guint i = 0; i < walk->traces->len; i++) {
        const VpWalkTrace *trace = &g_array_index(walk->traces, VpWalkTrace, i);
        if ((trace->has_key && overlap(&trace->key, key)) || (trace->has_data_key && overlap(&trace->data_key, key))) {
            return FALSE;
        }
    }
    return TRUE;
}

VpShareKey vp_walk_key(const VpNext *next, const VpOpened *file)
{
    const gboolean device = S_ISBLK(file->st.st_mode);
    return (VpShareKey){
        .device = device ? file->st.st_rdev : file->st.st_dev,
        .inode = device ? 0 : file->st.st_ino, /* a device may have many names; no file has this number */
        .start = file->start,
        .size = next->is_window ? file->size : 0,
        .format = next->format,
    };
}

static void tell_refusal(VpWalk *walk, const VpNext *next, const VpOpenRefusal *refusal)
{
    char *remedy =
        next->overlay && refusal->code == PB_FINDING_CODE_FILE_MISSING ? vp_remedy_rebase(next->overlay) : NULL;
    if (next->overlay) {
        vp_walk_find(walk, vp_finding_new(refusal->code, PB_SEVERITY_ERROR, next->depth, next->path, remedy,
                                          "%s; %s names it as %s", refusal->why, next->overlay, next->name));
    } else {
        vp_walk_find(walk, vp_finding_new(refusal->code, PB_SEVERITY_ERROR, next->depth, next->path, remedy, "%s",
                                          refusal->why));
    }
}

/* Narrows the file to the window that the overlay names. FALSE: it has none there, which has been told. */
static gboolean narrow(VpWalk *walk, const VpNext *next, VpOpened *file)
{
    if (next->is_device && !S_ISBLK(file->st.st_mode)) {
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_NOT_REGULAR_FILE, PB_SEVERITY_ERROR, next->depth, next->path,
                                          NULL, "is no block device, and %s names it as one", next->overlay));
        return FALSE;
    }
    if (!next->is_window) {
        return TRUE;
    }
    if (next->offset > file->size || next->size > file->size - next->offset) {
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_TRUNCATED, PB_SEVERITY_ERROR, next->depth, next->path,
                                          vp_remedy_rebase(next->overlay),
                                          "has %" G_GUINT64_FORMAT
                                          " bytes, and %s names a window of it that ends at %" G_GUINT64_FORMAT,
                                          file->size, next->overlay, next->offset + next->size));
        return FALSE;
    }
    file->start = next->offset;
    file->size = next->size ? next->size : file->size - next->offset;
    return TRUE;
}

VpError *vp_walk_open(VpWalk *walk, const VpNext *next, gboolean write, VpOpened *ret)
{
    VpOpenRefusal refusal;
    *ret = (VpOpened){.fd = -1};
    if (next->listed && next->listed->is_regular &&
        vp_opener_open_entry(&walk->opener, next->listed->folder->fd, next->listed->name, ret)) {
        return NULL;
    }
    VpError *error = vp_opener_open(&walk->opener, next->path, write, ret, &refusal);
    if (error) {
        return error;
    }
    if (refusal.code != PB_FINDING_CODE_UNSPECIFIED) {
        tell_refusal(walk, next, &refusal);
        ret->st.st_mode = refusal.kind;
        g_free(refusal.why);
        return NULL;
    }
    gboolean ok = narrow(walk, next, ret);
    VpShareKey key = vp_walk_key(next, ret);
    if (ok && !is_new(walk, &key)) {
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_LOOP, PB_SEVERITY_ERROR, next->depth, next->path,
                                          vp_remedy_rebase(next->overlay),
                                          "is in this chain already, all of it or a part, and %s names it again as %s",
                                          next->overlay, next->name));
        ok = FALSE;
    }
    if (!ok) {
        close(ret->fd);
        ret->fd = -1;
    }
    return NULL;
}
