/* The walk itself: one layer after the other, until the chain ends or is refused. See chain.h. */
#include "storage/chain/chain.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/reference.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

static void next_clear(VpNext *next)
{
    g_free(next->path);
    g_free(next->overlay);
    g_free(next->name);
    *next = (VpNext){0};
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpNext, next_clear)

void vp_walk_find(VpWalk *walk, PbFinding *finding)
{
    PbChainSummary *summary = walk->chain->summary;
    summary->errors += finding->severity == PB_SEVERITY_ERROR;
    summary->warnings += finding->severity == PB_SEVERITY_WARNING;
    g_ptr_array_add(walk->chain->findings, finding);
    if (walk->sink && walk->sink->finding && !walk->gone) {
        walk->gone = !walk->sink->finding(walk->sink->data, finding);
    }
}

void vp_walk_tell_layer(VpWalk *walk, const PbImageLayer *layer)
{
    if (walk->sink && walk->sink->layer && !walk->gone) {
        walk->gone = !walk->sink->layer(walk->sink->data, layer);
    }
}

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

static VpShareKey key_of(const VpNext *next, const VpOpened *file)
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

/* Opens a file of the chain and sees that it is new to it. `ret->fd` stays -1 if it was refused, which has been told then. */
static VpError *open_file(VpWalk *walk, const VpNext *next, gboolean write, VpOpened *ret)
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
        g_free(refusal.why);
        return NULL;
    }
    gboolean ok = narrow(walk, next, ret);
    VpShareKey key = key_of(next, ret);
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

/* An overlay must not be a way to a file that its owner may not read. */
static void check_owner(VpWalk *walk, const VpNext *next, const struct stat *st)
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

/* Nor a disk what everybody may write. */
static void check_ownership(VpWalk *walk, const VpNext *next, const struct stat *st)
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
    check_owner(walk, next, st);
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

static void compare_sizes(VpWalk *walk, const VpNext *next, guint64 size)
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

static void refuse_reference(VpWalk *walk, const VpNext *at, const char *name, const VpReference *reference)
{
    vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_REFERENCE, PB_SEVERITY_ERROR, at->depth + 1, name,
                                      vp_remedy_rebase(at->path), "is %s; %s names it, and it was not opened",
                                      reference->why, at->path));
}

/* Why a remote layer may not be part of the chain; NULL: it may. */
static char *remote_obstacle(const VpWalk *walk, const VpReference *reference, PbImageFormat format)
{
    if (!vp_image_policy_allows_protocol(walk->policy, reference->protocol)) {
        return g_strdup("protocols in the daemon's [images] settings does not name that");
    }
    if (format == PB_IMAGE_FORMAT_UNSPECIFIED) {
        return g_strdup("nobody declared its format, and it cannot be probed");
    }
    if (format != PB_IMAGE_FORMAT_RAW) {
        return g_strdup_printf("its format is %s, and what its header names cannot be seen; a raw one may be used",
                               vp_format_words(format));
    }
    return NULL;
}

/* A remote layer ends the walk: it is told, and never opened. */
static void visit_remote(VpWalk *walk, const VpNext *at, const char *name, const VpReference *reference,
                         PbImageFormat format)
{
    PbImageLayer *layer = vp_pb_new(&pb_image_layer__descriptor);
    g_autofree char *shown = vp_text_utf8(name, -1);
    g_autofree char *obstacle = remote_obstacle(walk, reference, format);
    VpChainFile file = {.layer = layer, .fd = -1, .data_fd = -1};
    VpWalkTrace trace = {0};

    vp_pb_set(&layer->path, shown);
    vp_pb_set(&layer->protocol, reference->protocol);
    layer->depth = at->depth + 1;
    layer->is_remote = TRUE;
    layer->format = format;
    layer->format_source = format ? PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY : PB_FORMAT_SOURCE_UNSPECIFIED;
    walk->chain->summary->depth++;
    g_array_append_val(walk->chain->files, file);
    g_array_append_val(walk->traces, trace);
    vp_walk_tell_layer(walk, layer);
    vp_walk_find(walk,
                 vp_finding_new(PB_FINDING_CODE_REMOTE_BACKING, obstacle ? PB_SEVERITY_ERROR : PB_SEVERITY_WARNING,
                                layer->depth, name, obstacle ? vp_remedy_rebase(at->path) : NULL,
                                "is reached over a network by %s; %s names it, and it was not opened%s%s",
                                reference->protocol, at->path, obstacle ? ": " : "", obstacle ? obstacle : ""));
}

/* The external data file of a declared image: checked and kept open, as a layer beside its own. FALSE in `ret_ok`: refused. */
static VpError *visit_data_file(VpWalk *walk, const VpNext *next, const struct stat *image, const char *name,
                                VpChainFile *file, gboolean *ret_ok)
{
    g_auto(VpReference) reference = {0};
    *ret_ok = FALSE;
    /* QEMU takes a relative name from its working directory, not from the image's folder: it is not taken here. */
    vp_reference_parse(name, NULL, &reference);
    if (reference.kind == VP_REFERENCE_FILE &&
        (reference.is_window ||
         (reference.format != PB_IMAGE_FORMAT_UNSPECIFIED && reference.format != PB_IMAGE_FORMAT_RAW))) {
        vp_reference_clear(&reference);
        reference = (VpReference){.kind = VP_REFERENCE_UNSUPPORTED,
                                  .why = g_strdup("a data file that is not raw, or a window of one")};
    }
    if (reference.kind != VP_REFERENCE_FILE) {
        gboolean remote = reference.kind == VP_REFERENCE_REMOTE;
        g_autofree char *word = vp_text_shell(next->path);
        vp_walk_find(
            walk, vp_finding_new(remote ? PB_FINDING_CODE_REMOTE_BACKING : PB_FINDING_CODE_UNSUPPORTED_REFERENCE,
                                 PB_SEVERITY_ERROR, next->depth, name,
                                 g_strdup_printf("name the data file by an absolute path: qemu-img amend -f qcow2 -o "
                                                 "data_file=PATH %s",
                                                 word),
                                 "is %s%s; %s names it as its data file, and it was not opened",
                                 remote ? "reached over a network by " : "",
                                 remote ? reference.protocol : reference.why, next->path));
        return NULL;
    }

    VpNext data = {
        .path = reference.path,
        .depth = next->depth,
        .overlay = next->path,
        .name = (char *)name,
        .is_device = reference.is_device,
        .overlay_uid = image->st_uid,
        .overlay_gid = image->st_gid,
    };
    VpOpened opened;
    VpError *error = open_file(walk, &data, walk->options->write_top && next->depth == 0, &opened);
    if (error || opened.fd < 0) {
        return error;
    }
    VpProbe probe = {.looks_like = PB_IMAGE_FORMAT_UNSPECIFIED, .virtual_size = opened.size};
    PbImageLayer *layer = vp_layer_new(reference.path, next->depth, &opened, &probe);
    layer->format = PB_IMAGE_FORMAT_RAW;
    layer->format_source = PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY;
    layer->is_data_file = TRUE;
    vp_layer_round_size(layer);
    file->data_fd = opened.fd;
    file->data_layer = layer;
    VpWalkTrace *trace = &g_array_index(walk->traces, VpWalkTrace, walk->traces->len - 1);
    trace->has_data_key = TRUE;
    trace->data_key = key_of(&data, &opened);
    vp_walk_tell_layer(walk, layer);
    check_ownership(walk, &data, &opened.st);
    *ret_ok = TRUE;
    return NULL;
}

/* What the layer `at` names as its backing file. `ret_next->path` stays NULL if the chain ends there, refused or not. */
static void follow(VpWalk *walk, const VpNext *at, const struct stat *st, const VpProbe *probe, VpNext *ret_next)
{
    g_auto(VpReference) reference = {0};
    g_autofree char *name = g_strndup(probe->backing_path.bytes, probe->backing_path.size);
    PbImageFormat recorded = vp_format_from_qemu_name(probe->backing_format.bytes, probe->backing_format.size);

    vp_reference_parse(name, at->path, &reference);
    const char *shown = reference.path ? reference.path : name;
    if (reference.kind == VP_REFERENCE_UNSUPPORTED) {
        refuse_reference(walk, at, name, &reference);
        return;
    }
    if (probe->backing_format.size > 0 && recorded == PB_IMAGE_FORMAT_UNSPECIFIED) {
        g_autofree char *format = vp_text_escape(probe->backing_format.bytes, (gssize)probe->backing_format.size);
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_FORMAT, PB_SEVERITY_ERROR, at->depth + 1, shown,
                                          vp_remedy_record(at->path, name, PB_IMAGE_FORMAT_UNSPECIFIED),
                                          "%s says that its format is \"%s\", which is not known", at->path, format));
        return;
    }
    if (recorded != PB_IMAGE_FORMAT_UNSPECIFIED && reference.format != PB_IMAGE_FORMAT_UNSPECIFIED &&
        recorded != reference.format) {
        vp_walk_find(walk, vp_finding_new(
                               PB_FINDING_CODE_UNSUPPORTED_REFERENCE, PB_SEVERITY_ERROR, at->depth + 1, shown,
                               vp_remedy_rebase(at->path),
                               "%s contradicts itself: it records the format %s and names the file with the format %s",
                               at->path, vp_format_qemu_name(recorded), vp_format_qemu_name(reference.format)));
        return;
    }
    PbImageFormat format = recorded != PB_IMAGE_FORMAT_UNSPECIFIED ? recorded : reference.format;
    if (reference.kind == VP_REFERENCE_REMOTE) {
        visit_remote(walk, at, name, &reference, format);
        return;
    }
    *ret_next = (VpNext){
        .path = g_steal_pointer(&reference.path),
        .format = format,
        .source =
            format != PB_IMAGE_FORMAT_UNSPECIFIED ? PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY : PB_FORMAT_SOURCE_UNSPECIFIED,
        .depth = at->depth + 1,
        .overlay = g_strdup(at->path),
        .overlay_format = at->format,
        .name = g_steal_pointer(&name),
        .overlay_size = probe->virtual_size,
        .overlay_uid = st->st_uid,
        .overlay_gid = st->st_gid,
        .is_window = reference.is_window,
        .offset = reference.offset,
        .size = reference.size,
        .is_device = reference.is_device,
    };
}

static void tell_all(VpWalk *walk, GPtrArray *findings)
{
    g_ptr_array_set_free_func(findings, NULL);
    for (guint i = 0; i < findings->len; i++) {
        vp_walk_find(walk, g_ptr_array_index(findings, i));
    }
    g_ptr_array_set_size(findings, 0);
}

/* Whether another walk of this folder has told of the layer: then ours ends here, with what concerns the overlay above. */
static gboolean join(VpWalk *walk, const VpNext *next, const VpOpened *file)
{
    VpShareKey key = key_of(next, file);
    VpShareTail tail;
    guint32 max_depth = walk->max_depth;

    if (!walk->share || !vp_share_find(walk->share, &key, &tail)) {
        return FALSE;
    }
    if (tail.cut || next->depth + tail.depth - 1 > max_depth) {
        return FALSE;
    }
    /* The caller declared what looks like that: this top is another layer than the one that was told, which nobody had declared. */
    if (!next->overlay && next->format == PB_IMAGE_FORMAT_UNSPECIFIED && walk->alike != PB_IMAGE_FORMAT_UNSPECIFIED &&
        tail.looks_like == walk->alike) {
        return FALSE;
    }
    if (next->overlay && next->format == PB_IMAGE_FORMAT_UNSPECIFIED) {
        vp_walk_find(walk, vp_not_declared(next, tail.looks_like));
    }
    if (tail.errors == 0) {
        compare_sizes(walk, next, tail.virtual_size);
    }
    check_owner(walk, next, &file->st);
    walk->join = (VpWalkJoin){.joined = TRUE, .key = key, .tail = tail, .file_size = file->size};
    PbChainSummary *summary = walk->chain->summary;
    summary->depth += tail.depth;
    summary->errors += tail.errors;
    summary->warnings += tail.warnings;
    return TRUE;
}

/* In a folder, a top that names no other file is told by its layer alone: nobody could declare it, and nothing follows from that. */
static gboolean is_plain(const VpWalk *walk, const VpNext *next, const VpProbe *probe)
{
    return walk->share && !next->overlay && next->format == PB_IMAGE_FORMAT_UNSPECIFIED && probe->n_issues == 0 &&
           probe->readable && probe->well_formed &&
           (probe->looks_like == PB_IMAGE_FORMAT_RAW ||
            (probe->looks_like == PB_IMAGE_FORMAT_QCOW2 && probe->backing_path.size == 0 &&
             probe->data_file.size == 0 && !probe->uses_data_file));
}

static gboolean judge(VpWalk *walk, const VpNext *next, const VpProbe *probe, PbImageLayer *layer)
{
    if (is_plain(walk, next, probe)) {
        layer->format = probe->looks_like;
        layer->format_source = PB_FORMAT_SOURCE_PROBED;
        vp_layer_round_size(layer);
        vp_walk_tell_layer(walk, layer);
        return TRUE;
    }
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
    gboolean ok = vp_judge_layer(next, probe, layer, findings);
    vp_layer_round_size(layer);
    vp_walk_tell_layer(walk, layer);
    tell_all(walk, findings);
    return ok;
}

static void tell_unreadable(VpWalk *walk, const VpNext *next, int errnum)
{
    if (errnum == EFBIG) {
        vp_walk_find(walk,
                     vp_finding_new(PB_FINDING_CODE_IO_ERROR, PB_SEVERITY_ERROR, next->depth, next->path, NULL,
                                    "its header is larger than max_header_bytes in the daemon's [images] settings"));
        return;
    }
    vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_IO_ERROR, PB_SEVERITY_ERROR, next->depth, next->path, NULL,
                                      "cannot be read: %s", g_strerror(errnum)));
}

static void close_fds(VpChainFile *file)
{
    close(file->fd);
    file->fd = -1;
    if (file->data_fd >= 0) {
        close(file->data_fd);
        file->data_fd = -1;
    }
}

/* Reads and judges an open layer, and what it names beside its backing file. */
static VpError *visit_open(VpWalk *walk, VpNext *next, VpOpened *opened, VpNext *ret_next)
{
    VpChainFile file = {.fd = opened->fd, .data_fd = -1};
    VpError *error = NULL;
    VpProbe probe;

    int errnum = vp_read_and_probe(opened, next->format, &walk->buffer, &probe);
    if (errnum) {
        tell_unreadable(walk, next, errnum);
        close(opened->fd);
        return NULL;
    }
    if (!next->overlay && next->format == PB_IMAGE_FORMAT_UNSPECIFIED && walk->alike != PB_IMAGE_FORMAT_UNSPECIFIED &&
        probe.looks_like == walk->alike) {
        next->format = walk->alike;
    }
    VpWalkTrace trace = {.has_key = TRUE, .key = key_of(next, opened), .looks_like = probe.looks_like};
    g_array_append_val(walk->traces, trace); /* before the data file, which may be this very file */
    file.layer = vp_layer_new(next->path, next->depth, opened, &probe);
    file.layer->is_window = next->is_window;
    file.layer->window_offset_bytes = opened->start;
    gboolean ok = judge(walk, next, &probe, file.layer);
    probe.virtual_size = file.layer->virtual_size_bytes;
    walk->chain->summary->depth++;
    check_ownership(walk, next, &opened->st);

    if (ok) {
        compare_sizes(walk, next, probe.virtual_size);
    }
    if (ok && probe.uses_data_file) {
        g_autofree char *name = g_strndup(probe.data_file.bytes, probe.data_file.size);
        error = visit_data_file(walk, next, &opened->st, name, &file, &ok);
    }
    if (!ok || walk->options->look_only) {
        close_fds(&file);
    }
    g_array_append_val(walk->chain->files, file);
    if (!error && ok && probe.backing_path.size > 0) {
        follow(walk, next, &opened->st, &probe, ret_next);
    }
    return error;
}

/* Visits one layer. `ret_next->path` is NULL if the walk ends with it. */
static VpError *visit(VpWalk *walk, VpNext *next, VpNext *ret_next)
{
    VpOpened opened;
    VpError *error = open_file(walk, next, walk->options->write_top && next->depth == 0, &opened);
    if (error || opened.fd < 0) {
        return error;
    }
    if (join(walk, next, &opened)) {
        close(opened.fd);
        return NULL;
    }
    return visit_open(walk, next, &opened, ret_next);
}

static VpError *walk_all(VpWalk *walk, const char *path, PbImageFormat format, const VpListed *listed)
{
    guint32 max_depth = walk->max_depth;
    g_auto(VpNext) next = {
        .path = g_strdup(path),
        .format = format,
        .source = PB_FORMAT_SOURCE_DECLARED_BY_CALLER,
        .listed = listed,
    };

    while (next.path) {
        VpNext below = {0};
        if (next.depth > max_depth) {
            vp_walk_find(walk,
                         vp_finding_new(PB_FINDING_CODE_DEPTH_EXCEEDED, PB_SEVERITY_ERROR, next.depth, next.path,
                                        g_strdup("shorten the chain: qemu-img commit or qemu-img convert merge layers"),
                                        "lies deeper than %u, the deepest layer allowed", max_depth));
            return NULL;
        }
        VpError *error = visit(walk, &next, &below);
        next_clear(&next);
        next = below;
        if (error || walk->gone) {
            g_autofree char *shown = vp_text_escape(path, -1);
            return error ? vp_error_prefix(error, "the chain of %s", shown)
                         : vp_error_new(VP_CANCELLED, "READER_GONE",
                                        "the walk of the chain of %s was stopped by its reader", shown);
        }
    }
    return NULL;
}

static void file_clear(gpointer data)
{
    VpChainFile *file = data;
    vp_pb_free(file->layer);
    vp_pb_free(file->data_layer);
    if (file->fd >= 0) {
        close(file->fd);
    }
    if (file->data_fd >= 0) {
        close(file->data_fd);
    }
}

static VpChain *chain_new(void)
{
    VpChain *chain = g_new0(VpChain, 1);
    chain->files = g_array_new(FALSE, FALSE, sizeof(VpChainFile));
    g_array_set_clear_func(chain->files, file_clear);
    chain->findings = g_ptr_array_new_with_free_func(vp_pb_free);
    chain->summary = vp_pb_new(&pb_chain_summary__descriptor);
    return chain;
}

void vp_chain_free(VpChain *chain)
{
    if (!chain) {
        return;
    }
    g_array_unref(chain->files);
    g_ptr_array_unref(chain->findings);
    vp_pb_free(chain->summary);
    g_free(chain);
}

void vp_walk_init(VpWalk *walk, const VpChainOptions *options, const VpChainSink *sink)
{
    *walk = (VpWalk){
        .options = options,
        .policy = options->policy ? options->policy : &vp_image_policy_default,
        .sink = sink,
        .traces = g_array_new(FALSE, FALSE, sizeof(VpWalkTrace)),
    };
    guint32 most = walk->policy->max_depth ? walk->policy->max_depth : VP_CHAIN_MAX_DEPTH;
    walk->max_depth = options->max_depth ? MIN(options->max_depth, most) : most;
    walk->buffer.most = walk->policy->max_header_bytes;
    vp_opener_init(&walk->opener, walk->policy);
}

void vp_walk_clear(VpWalk *walk)
{
    vp_opener_clear(&walk->opener);
    vp_head_buffer_clear(&walk->buffer);
    g_array_unref(walk->traces);
}

VpError *vp_walk_run(VpWalk *walk, const char *path, PbImageFormat format, const VpListed *listed)
{
    walk->chain = chain_new();
    walk->join = (VpWalkJoin){0};
    g_array_set_size(walk->traces, 0);
    VpError *error = walk_all(walk, path, format, listed);
    if (error) {
        g_clear_pointer(&walk->chain, vp_chain_free);
        return error;
    }
    /* Every way to end the walk early tells a finding of severity ERROR. */
    walk->chain->summary->safe = walk->chain->summary->errors == 0;
    return NULL;
}

VpError *vp_chain_walk(const char *path, const VpChainOptions *options, const VpChainSink *sink, VpChain **ret_chain)
{
    static const VpChainOptions defaults = {0};
    VpWalk walk;

    if (path[0] != '/') {
        return vp_error_new(VP_INVALID_ARGUMENT, "PATH_NOT_ABSOLUTE", "the path of an image has to be absolute");
    }
    vp_walk_init(&walk, options ? options : &defaults, sink);
    VpError *error = vp_walk_run(&walk, path, walk.options->format, NULL);
    vp_walk_clear(&walk);
    if (!error) {
        *ret_chain = walk.chain;
    }
    return error;
}

static VpError *refusal_of(const PbFinding *finding)
{
    const char *name = vp_pb_enum_name(&pb_finding_code__descriptor, (int)finding->code);
    g_autofree char *depth = g_strdup_printf("%u", finding->depth);
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, name + strlen("FINDING_CODE_"), "%s%s%s", finding->message,
                                  finding->remedy[0] ? ". Remedy: " : "", finding->remedy);
    vp_error_with(error, "path", finding->path);
    vp_error_with(error, "depth", depth);
    return vp_error_with(error, "remedy", finding->remedy);
}

VpError *vp_chain_refusal(const VpChain *chain)
{
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        if (finding->severity == PB_SEVERITY_ERROR) {
            return refusal_of(finding);
        }
    }
    return NULL;
}
