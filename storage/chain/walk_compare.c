/* A layer beside its overlay: who may read and write it, and how large it is. See walk.h. */
#include "storage/chain/finding.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

/* By the bits of the file alone, as the owner of the overlay: the user who made it name this file. */
static gboolean owner_may_read(const VpNext *next, const struct stat *st)
{
    if (next->overlay_uid == 0 || next->overlay_uid == st->st_uid) {
        return next->overlay_uid == 0 || (st->st_mode & S_IRUSR);
    }
    return st->st_mode & (next->overlay_gid == st->st_gid ? S_IRGRP : S_IROTH);
}

static PbSeverity ownership_severity(const VpWalk *walk)
{
    return walk->policy->ownership == VP_OWNERSHIP_REFUSE ? PB_SEVERITY_ERROR : PB_SEVERITY_WARNING;
}

void vp_walk_check_owner(VpWalk *walk, const VpNext *next, const struct stat *st)
{
    if (!next->overlay || walk->policy->ownership == VP_OWNERSHIP_IGNORE || owner_may_read(next, st)) {
        return;
    }
    vp_walk_find(walk,
                 vp_finding_new(PB_FINDING_CODE_OWNER_MAY_NOT_READ, ownership_severity(walk), next->depth, next->path,
                                g_strdup("let the owner of the overlay read it (chgrp, chmod), or give the overlay "
                                         "to one who may"),
                                "belongs to user %u and its mode is %04o: user %u, who owns %s, may not read it",
                                st->st_uid, (guint)st->st_mode & 07777u, next->overlay_uid, next->overlay));
}

void vp_walk_check_file(VpWalk *walk, const VpNext *next, const struct stat *st)
{
    if (walk->policy->ownership == VP_OWNERSHIP_IGNORE) {
        return;
    }
    if (st->st_mode & S_IWOTH) {
        g_autofree char *word = vp_text_shell(next->path);
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_WRITABLE_BY_OTHERS, ownership_severity(walk), next->depth,
                                          next->path, g_strdup_printf("chmod o-w %s", word),
                                          "every user of this host may write to it (its mode is %04o)",
                                          (guint)st->st_mode & 07777u));
    }
    vp_walk_check_owner(walk, next, st);
}

/* The overlay as large as its backing file, where its format lets that be done. */
static char *resize_remedy(const VpNext *next, guint64 size)
{
    if (next->overlay_format != PB_IMAGE_FORMAT_QCOW2 && next->overlay_format != PB_IMAGE_FORMAT_QED) {
        return NULL;
    }
    g_autofree char *word = vp_text_shell(next->overlay);
    return g_strdup_printf("qemu-img resize -f %s %s %" G_GUINT64_FORMAT
                           "  # if the guest is to see all of it, and no program uses the overlay",
                           vp_format_qemu_name(next->overlay_format), word, size);
}

void vp_walk_compare_sizes(VpWalk *walk, const VpNext *next, guint64 size)
{
    if (!next->overlay || size == next->overlay_size) {
        return;
    }
    gboolean larger = size > next->overlay_size;
    vp_walk_find(walk,
                 vp_finding_new(larger ? PB_FINDING_CODE_BACKING_LARGER : PB_FINDING_CODE_BACKING_SMALLER,
                                larger ? PB_SEVERITY_WARNING : PB_SEVERITY_INFO, next->depth, next->path,
                                larger ? resize_remedy(next, size) : NULL,
                                "has %" G_GUINT64_FORMAT " bytes and its overlay %s has %" G_GUINT64_FORMAT ": %s",
                                size, next->overlay, next->overlay_size,
                                larger ? "the guest does not see what is beyond" : "the rest reads as zeroes"));
}
