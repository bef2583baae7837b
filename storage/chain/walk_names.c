/* What a layer names: its backing file, here or remote, and its external data file. See walk.h. */
#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

static void refuse_reference(VpWalk *walk, const VpNext *at, const char *name, const VpReference *reference)
{
    vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_REFERENCE, PB_SEVERITY_ERROR, at->depth + 1, name,
                                      vp_remedy_rebase(at->path), "is %s; %s names it, and it was not opened",
                                      reference->why, at->path));
}

/* Why a remote layer may not be part of the chain; NULL: it may. */
static char *remote_obstacle(VpWalk *walk, const VpReference *reference, PbImageFormat format)
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
    if (reference->nbd && reference->nbd->socket && !vp_opener_allows_socket(&walk->opener, reference->nbd->socket)) {
        return g_strdup("its socket is not there, or lies outside the folders that images may come from");
    }
    return NULL;
}

/* A remote layer ends the walk: it is told, and never opened. */
static void visit_remote(VpWalk *walk, const VpNext *at, const char *name, VpReference *reference, PbImageFormat format)
{
    PbImageLayer *layer = vp_pb_new(&pb_image_layer__descriptor);
    g_autofree char *shown = vp_text_utf8(name, -1);
    g_autofree char *obstacle = remote_obstacle(walk, reference, format);
    VpChainFile file = {.layer = layer, .fd = -1, .data_fd = -1, .nbd = g_steal_pointer(&reference->nbd)};
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

VpError *vp_walk_data_file(VpWalk *walk, const VpNext *next, const struct stat *image, const char *name,
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
    VpError *error = vp_walk_open(walk, &data, walk->options->write_top && next->depth == 0, &opened);
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
    trace->data_key = vp_walk_key(&data, &opened);
    vp_walk_tell_layer(walk, layer);
    vp_walk_check_file(walk, &data, &opened.st);
    *ret_ok = TRUE;
    return NULL;
}

void vp_walk_follow(VpWalk *walk, const VpNext *at, const struct stat *st, const VpProbe *probe, VpNext *ret_next)
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
