/* The walk itself: one layer after the other, until the chain ends or is refused. See walk.h. */
#include "storage/chain/walk.h"

#include <errno.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/text.h"

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
    VpShareKey key = vp_walk_key(next, file);
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
        vp_walk_compare_sizes(walk, next, tail.virtual_size);
    }
    vp_walk_check_owner(walk, next, &file->st);
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
    VpWalkTrace trace = {.has_key = TRUE, .key = vp_walk_key(next, opened), .looks_like = probe.looks_like};
    g_array_append_val(walk->traces, trace); /* before the data file, which may be this very file */
    file.layer = vp_layer_new(next->path, next->depth, opened, &probe);
    file.layer->is_window = next->is_window;
    file.layer->window_offset_bytes = opened->start;
    gboolean ok = judge(walk, next, &probe, file.layer);
    probe.virtual_size = file.layer->virtual_size_bytes;
    walk->chain->summary->depth++;
    vp_walk_check_file(walk, next, &opened->st);

    if (ok) {
        vp_walk_compare_sizes(walk, next, probe.virtual_size);
    }
    if (ok && probe.uses_data_file) {
        g_autofree char *name = g_strndup(probe.data_file.bytes, probe.data_file.size);
        error = vp_walk_data_file(walk, next, &opened->st, name, &file, &ok);
    }
    if (!ok || walk->options->look_only) {
        close_fds(&file);
    }
    g_array_append_val(walk->chain->files, file);
    if (!error && ok && probe.backing_path.size > 0) {
        vp_walk_follow(walk, next, &opened->st, &probe, ret_next);
    }
    return error;
}

/* A folder in the place of an image is a layer too, though none that can be opened. */
static void tell_directory(VpWalk *walk, const VpNext *next)
{
    const VpOpened nothing = {.fd = -1};
    const VpProbe probe = {.looks_like = PB_IMAGE_FORMAT_DIRECTORY};
    const VpWalkTrace trace = {0};
    VpChainFile file = {.layer = vp_layer_new(next->path, next->depth, &nothing, &probe), .fd = -1, .data_fd = -1};

    walk->chain->summary->depth++;
    g_array_append_val(walk->chain->files, file);
    g_array_append_val(walk->traces, trace);
    vp_walk_tell_layer(walk, file.layer);
}

/* Visits one layer. `ret_next->path` is NULL if the walk ends with it. */
static VpError *visit(VpWalk *walk, VpNext *next, VpNext *ret_next)
{
    VpOpened opened;
    VpError *error = vp_walk_open(walk, next, walk->options->write_top && next->depth == 0, &opened);
    if (!error && S_ISDIR(opened.st.st_mode) && opened.fd < 0) {
        tell_directory(walk, next);
    }
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
    vp_chain_free(walk->chain);
}

VpError *vp_walk_run(VpWalk *walk, const char *path, PbImageFormat format, const VpListed *listed)
{
    walk->chain = vp_chain_empty(walk->chain);
    walk->join = (VpWalkJoin){0};
    g_array_set_size(walk->traces, 0);
    VpError *error = walk_all(walk, path, format, listed);
    if (error) {
        return error;
    }
    /* Every way to end the walk early tells a finding of severity ERROR. */
    walk->chain->summary->safe = walk->chain->summary->errors == 0;
    return NULL;
}
