/* The walk itself: one layer after the other, until the chain ends or is refused. See chain.h. */
#include "storage/chain/chain.h"

#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/reference.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

typedef struct FileId {
    dev_t device;
    ino_t inode;
} FileId;

static guint file_id_hash(gconstpointer key)
{
    const FileId *id = key;
    return (guint)(id->inode * 2654435761u ^ id->device);
}

static gboolean file_id_equal(gconstpointer a, gconstpointer b)
{
    const FileId *left = a;
    const FileId *right = b;
    return left->device == right->device && left->inode == right->inode;
}

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

/* FALSE: that file is in the chain already. */
static gboolean note_seen(VpWalk *walk, const struct stat *st)
{
    FileId *id = g_new(FileId, 1);
    *id = (FileId){st->st_dev, st->st_ino};
    return g_hash_table_add(walk->seen, id);
}

/* Opens a file of the chain and sees that it is new to it. `ret->fd` stays -1 if it was refused, which has been told then. */
static VpError *open_file(VpWalk *walk, const VpNext *next, gboolean write, VpOpened *ret)
{
    VpOpenRefusal refusal;
    ret->fd = -1;
    VpError *error = vp_opener_open(&walk->opener, next->path, write, ret, &refusal);
    if (error) {
        return error;
    }
    if (refusal.code != PB_FINDING_CODE_UNSPECIFIED) {
        g_autofree char *why = refusal.why;
        char *remedy =
            next->overlay && refusal.code == PB_FINDING_CODE_FILE_MISSING ? vp_remedy_rebase(next->overlay) : NULL;
        if (next->overlay) {
            vp_walk_find(walk, vp_finding_new(refusal.code, PB_SEVERITY_ERROR, next->depth, next->path, remedy,
                                              "%s; %s names it as %s", why, next->overlay, next->name));
        } else {
            vp_walk_find(walk,
                         vp_finding_new(refusal.code, PB_SEVERITY_ERROR, next->depth, next->path, remedy, "%s", why));
        }
        return NULL;
    }
    if (!note_seen(walk, &ret->st)) {
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_LOOP, PB_SEVERITY_ERROR, next->depth, next->path,
                                          vp_remedy_rebase(next->overlay),
                                          "is in this chain already, and %s names it again as %s: the chain has no end",
                                          next->overlay, next->name));
        close(ret->fd);
        ret->fd = -1;
    }
    return NULL;
}

static void compare_sizes(VpWalk *walk, const VpNext *next, guint64 size)
{
    if (!next->overlay || size == next->overlay_size) {
        return;
    }
    gboolean larger = size > next->overlay_size;
    vp_walk_find(walk,
                 vp_finding_new(larger ? PB_FINDING_CODE_BACKING_LARGER : PB_FINDING_CODE_BACKING_SMALLER,
                                larger ? PB_SEVERITY_WARNING : PB_SEVERITY_INFO, next->depth, next->path, NULL,
                                "has %" G_GUINT64_FORMAT " bytes and its overlay %s has %" G_GUINT64_FORMAT ": %s",
                                size, next->overlay, next->overlay_size,
                                larger ? "the guest does not see what is beyond" : "the rest reads as zeroes"));
}

static void refuse_reference(VpWalk *walk, const VpNext *at, const char *name, guint32 depth,
                             const VpReference *reference)
{
    gboolean remote = reference->kind == VP_REFERENCE_REMOTE;
    vp_walk_find(walk, vp_finding_new(remote ? PB_FINDING_CODE_REMOTE_BACKING : PB_FINDING_CODE_UNSUPPORTED_REFERENCE,
                                      PB_SEVERITY_ERROR, depth, name, vp_remedy_rebase(at->path),
                                      "%s%s; %s names it, and it was not opened",
                                      remote ? "is reached over a network by " : "is ", reference->why, at->path));
}

/* The external data file of a declared image: checked and kept open, as a layer beside its own. FALSE in `ret_ok`: refused. */
static VpError *visit_data_file(VpWalk *walk, const VpNext *next, const char *name, VpChainFile *file, gboolean *ret_ok)
{
    g_auto(VpReference) reference = {0};
    *ret_ok = FALSE;
    /* QEMU takes a relative name from its working directory, not from the image's folder: it is not taken here. */
    vp_reference_parse(name, NULL, &reference);
    if (reference.kind == VP_REFERENCE_FILE && reference.format != PB_IMAGE_FORMAT_UNSPECIFIED &&
        reference.format != PB_IMAGE_FORMAT_RAW) {
        vp_reference_clear(&reference);
        reference = (VpReference){.kind = VP_REFERENCE_UNSUPPORTED, .why = g_strdup("a data file that is not raw")};
    }
    if (reference.kind != VP_REFERENCE_FILE) {
        gboolean remote = reference.kind == VP_REFERENCE_REMOTE;
        g_autofree char *word = vp_text_shell(next->path);
        vp_walk_find(
            walk,
            vp_finding_new(remote ? PB_FINDING_CODE_REMOTE_BACKING : PB_FINDING_CODE_UNSUPPORTED_REFERENCE,
                           PB_SEVERITY_ERROR, next->depth, name,
                           g_strdup_printf("name the data file by an absolute path: qemu-img amend -f qcow2 -o "
                                           "data_file=PATH %s",
                                           word),
                           "is %s; %s names it as its data file, and it was not opened", reference.why, next->path));
        return NULL;
    }

    VpNext data = {.path = reference.path, .depth = next->depth, .overlay = next->path, .name = (char *)name};
    VpOpened opened;
    VpError *error = open_file(walk, &data, walk->options->write_top && next->depth == 0, &opened);
    if (error || opened.fd < 0) {
        return error;
    }
    VpProbe probe = {.looks_like = PB_IMAGE_FORMAT_UNSPECIFIED, .virtual_size = opened.size};
    vp_pb_auto PbImageLayer *layer = vp_layer_new(reference.path, next->depth, &opened, &probe);
    layer->format = PB_IMAGE_FORMAT_RAW;
    layer->format_source = PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY;
    layer->is_data_file = TRUE;
    file->data_fd = opened.fd;
    vp_walk_tell_layer(walk, layer);
    *ret_ok = TRUE;
    return NULL;
}

/* What the layer `at` names as its backing file. `ret_next->path` stays NULL if the chain ends there, refused or not. */
static void follow(VpWalk *walk, const VpNext *at, const VpProbe *probe, VpNext *ret_next)
{
    g_auto(VpReference) reference = {0};
    g_autofree char *name = g_strndup(probe->backing_path.bytes, probe->backing_path.size);
    PbImageFormat recorded = vp_format_from_qemu_name(probe->backing_format.bytes, probe->backing_format.size);

    vp_reference_parse(name, at->path, &reference);
    if (reference.kind != VP_REFERENCE_FILE) {
        refuse_reference(walk, at, name, at->depth + 1, &reference);
        return;
    }
    if (probe->backing_format.size > 0 && recorded == PB_IMAGE_FORMAT_UNSPECIFIED) {
        g_autofree char *format = vp_text_escape(probe->backing_format.bytes, (gssize)probe->backing_format.size);
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_FORMAT, PB_SEVERITY_ERROR, at->depth + 1,
                                          reference.path, vp_remedy_record(at->path, name, PB_IMAGE_FORMAT_UNSPECIFIED),
                                          "%s says that its format is \"%s\", which is not known", at->path, format));
        return;
    }
    if (recorded != PB_IMAGE_FORMAT_UNSPECIFIED && reference.format != PB_IMAGE_FORMAT_UNSPECIFIED &&
        recorded != reference.format) {
        vp_walk_find(walk, vp_finding_new(
                               PB_FINDING_CODE_UNSUPPORTED_REFERENCE, PB_SEVERITY_ERROR, at->depth + 1, reference.path,
                               vp_remedy_rebase(at->path),
                               "%s contradicts itself: it records the format %s and names the file with the format %s",
                               at->path, vp_format_qemu_name(recorded), vp_format_qemu_name(reference.format)));
        return;
    }
    PbImageFormat format = recorded != PB_IMAGE_FORMAT_UNSPECIFIED ? recorded : reference.format;
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

/* Visits one layer. `ret_next->path` is NULL if the walk ends with it. */
static VpError *visit(VpWalk *walk, const VpNext *next, VpNext *ret_next)
{
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
    VpOpened opened;
    VpProbe probe;
    VpChainFile file = {.fd = -1, .data_fd = -1};
    gboolean ok = FALSE;

    VpError *error = open_file(walk, next, walk->options->write_top && next->depth == 0, &opened);
    if (error || opened.fd < 0) {
        return error;
    }
    int errnum = vp_read_and_probe(&opened, next->format, &walk->buffer, &probe);
    if (errnum) {
        vp_walk_find(walk, vp_finding_new(PB_FINDING_CODE_IO_ERROR, PB_SEVERITY_ERROR, next->depth, next->path, NULL,
                                          "cannot be read: %s", g_strerror(errnum)));
        close(opened.fd);
        return NULL;
    }
    file.layer = vp_layer_new(next->path, next->depth, &opened, &probe);
    file.fd = opened.fd;
    ok = vp_judge_layer(next, &probe, file.layer, findings);
    walk->chain->summary->depth++;
    vp_walk_tell_layer(walk, file.layer);
    tell_all(walk, findings);

    if (ok) {
        compare_sizes(walk, next, probe.virtual_size);
    }
    if (ok && probe.uses_data_file) {
        g_autofree char *name = g_strndup(probe.data_file.bytes, probe.data_file.size);
        error = visit_data_file(walk, next, name, &file, &ok);
    }
    if (!ok) {
        close(file.fd);
        file.fd = -1;
    }
    g_array_append_val(walk->chain->files, file);
    if (!error && ok && probe.backing_path.size > 0) {
        follow(walk, next, &probe, ret_next);
    }
    return error;
}

static VpError *walk_all(VpWalk *walk, const char *path)
{
    guint32 max_depth =
        walk->options->max_depth ? MIN(walk->options->max_depth, VP_CHAIN_MAX_DEPTH) : VP_CHAIN_MAX_DEPTH;
    g_auto(VpNext) next = {
        .path = g_strdup(path),
        .format = walk->options->format,
        .source = PB_FORMAT_SOURCE_DECLARED_BY_CALLER,
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

VpError *vp_chain_walk(const char *path, const VpChainOptions *options, const VpChainSink *sink, VpChain **ret_chain)
{
    static const VpChainOptions defaults = {0};
    g_autoptr(VpChain) chain = NULL;

    if (path[0] != '/') {
        return vp_error_new(VP_INVALID_ARGUMENT, "PATH_NOT_ABSOLUTE", "the path of an image has to be absolute");
    }
    chain = chain_new();
    VpWalk walk = {
        .options = options ? options : &defaults,
        .sink = sink,
        .chain = chain,
        .seen = g_hash_table_new_full(file_id_hash, file_id_equal, g_free, NULL),
    };
    vp_opener_init(&walk.opener, walk.options->allowed_roots);
    VpError *error = walk_all(&walk, path);
    vp_opener_clear(&walk.opener);
    vp_head_buffer_clear(&walk.buffer);
    g_hash_table_unref(walk.seen);
    if (error) {
        return error;
    }
    /* Every way to end the walk early tells a finding of severity ERROR. */
    chain->summary->safe = chain->summary->errors == 0;
    *ret_chain = g_steal_pointer(&chain);
    return NULL;
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
