/* A chain as its callers have it: walked, refused or let go. See chain.h. */
#include "storage/chain/chain.h"

#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/walk.h"

static void file_clear(gpointer data)
{
    VpChainFile *file = data;
    vp_pb_free(file->layer);
    vp_pb_free(file->data_layer);
    vp_nbd_free(file->nbd);
    if (file->fd >= 0) {
        close(file->fd);
    }
    if (file->data_fd >= 0) {
        close(file->data_fd);
    }
}

VpChain *vp_chain_empty(VpChain *chain)
{
    if (chain) {
        g_array_set_size(chain->files, 0);
        g_ptr_array_set_size(chain->findings, 0);
        vp_pb_free(chain->summary);
        chain->summary = vp_pb_new(&pb_chain_summary__descriptor);
        return chain;
    }
    chain = g_new0(VpChain, 1);
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
    VpWalk walk;

    if (path[0] != '/') {
        return vp_error_new(VP_INVALID_ARGUMENT, "PATH_NOT_ABSOLUTE", "the path of an image has to be absolute");
    }
    vp_walk_init(&walk, options ? options : &defaults, sink);
    VpError *error = vp_walk_run(&walk, path, walk.options->format, NULL);
    if (!error) {
        *ret_chain = g_steal_pointer(&walk.chain);
    }
    vp_walk_clear(&walk);
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
