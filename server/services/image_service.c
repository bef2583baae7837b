/* virtplane.v1.ImageService: looks at images on worker threads. */
#include "base/pb.h"
#include "server/services/services.h"
#include "storage/chain/chain.h"
#include "storage/chain/folder.h"
#include "virtplane/v1/image_service.pb-c.h"

static void probe_image(VpCall *call, const void *message, void *context)
{
    const PbProbeImageRequest *request = message;
    const VpServices *services = context;
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
    PbImageLayer *layer = NULL;

    VpError *error = vp_image_probe(request->path, services->images, &layer, findings);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    vp_pb_auto PbImageLayer *owned = layer;
    PbProbeImageResponse response = PB_PROBE_IMAGE_RESPONSE__INIT;
    response.layer = owned;
    response.n_findings = findings->len;
    response.findings = (PbFinding **)findings->pdata;
    vp_call_reply(call, &response);
}

static gboolean send_layer(void *data, const PbImageLayer *layer)
{
    PbInspectChainResponse response = PB_INSPECT_CHAIN_RESPONSE__INIT;

    response.payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER;
    response.layer = (PbImageLayer *)layer;
    return vp_call_write_wait(data, &response);
}

static gboolean send_finding(void *data, const PbFinding *finding)
{
    PbInspectChainResponse response = PB_INSPECT_CHAIN_RESPONSE__INIT;

    response.payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_FINDING;
    response.finding = (PbFinding *)finding;
    return vp_call_write_wait(data, &response);
}

static void inspect_chain(VpCall *call, const void *message, void *context)
{
    const PbInspectChainRequest *request = message;
    const VpServices *services = context;
    const VpChainOptions options = {
        .format = request->format,
        .max_depth = request->max_depth,
        .policy = services->images,
        .look_only = TRUE,
    };
    const VpChainSink sink = {.layer = send_layer, .finding = send_finding, .data = call};
    g_autoptr(VpChain) chain = NULL;

    VpError *error = vp_chain_walk(request->path, &options, &sink, &chain);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    PbInspectChainResponse response = PB_INSPECT_CHAIN_RESPONSE__INIT;
    response.payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_SUMMARY;
    response.summary = chain->summary;
    /* Without its summary a chain that was not told to its end would look like one. */
    if (vp_call_write_wait(call, &response))
        vp_call_finish(call);
    else
        vp_call_fail(call, vp_error_new(VP_CANCELLED, "READER_GONE",
                                        "the walk of the chain was stopped by its reader, who takes nothing"));
}

/* ---- InspectPath ---- */

#define DOMAINS_A_PAGE 500

/* What the domains say of a file that one of them has as a disk. */
typedef struct DiskUse {
    GPtrArray *domains;   /* their names */
    PbImageFormat format; /* declared; UNSPECIFIED if they differ */
} DiskUse;

typedef struct Inspection {
    VpCall *call;
    GHashTable *disks; /* path -> DiskUse; not changed while walks are under way */
} Inspection;

static void disk_use_free(gpointer data)
{
    DiskUse *use = data;

    g_ptr_array_unref(use->domains);
    g_free(use);
}

static void note_disk(GHashTable *disks, const PbDomain *domain, const PbDisk *disk, gboolean seen)
{
    DiskUse *use = g_hash_table_lookup(disks, disk->path);

    if (!use) {
        use = g_new0(DiskUse, 1);
        use->domains = g_ptr_array_new_with_free_func(g_free);
        use->format = disk->format;
        g_hash_table_insert(disks, g_strdup(disk->path), use);
    } else if (use->format != disk->format)
        use->format = PB_IMAGE_FORMAT_UNSPECIFIED;
    /* What it declares counts in any case; its name is for those who may know of it. */
    if (seen)
        g_ptr_array_add(use->domains, g_strdup(domain->name));
}

static GHashTable *list_disks(VpDomains *domains, const VpSight *sight)
{
    GHashTable *disks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, disk_use_free);
    g_autofree char *after = NULL;
    gboolean more = TRUE;

    while (more) {
        g_autoptr(GPtrArray) views = vp_domains_list(domains, NULL, after, DOMAINS_A_PAGE, &more);

        for (guint i = 0; i < views->len; i++) {
            const PbDomain *domain = ((VpDomainView *)g_ptr_array_index(views, i))->domain;

            for (size_t d = 0; domain->spec && d < domain->spec->n_disks; d++)
                note_disk(disks, domain, domain->spec->disks[d], vp_sight_sees_domain(sight, domain));
            if (i + 1 == views->len) {
                g_free(after);
                after = g_strdup(domain->name);
            }
        }
        more = more && views->len > 0;
    }
    return disks;
}

static PbImageFormat declared_by_domain(void *data, const char *path)
{
    const Inspection *inspection = data;
    const DiskUse *use = g_hash_table_lookup(inspection->disks, path);

    return use ? use->format : PB_IMAGE_FORMAT_UNSPECIFIED;
}

static gboolean send_images(void *data, PbInspectPathResponse *message)
{
    const Inspection *inspection = data;

    for (size_t i = 0; i < message->n_images; i++) {
        PbInspectedImage *image = message->images[i];
        const DiskUse *use = g_hash_table_lookup(inspection->disks, image->path);

        for (guint d = 0; use && d < use->domains->len; d++)
            vp_pb_append(&image->n_domains, &image->domains, g_strdup(g_ptr_array_index(use->domains, d)));
    }
    return !vp_call_cancelled(inspection->call) && vp_call_write_wait(inspection->call, message);
}

static void inspect_path(VpCall *call, const void *message, void *context)
{
    const PbInspectPathRequest *request = message;
    VpServices *services = context;

    VpError *error = vp_slow_enter(&services->inspecting, VP_MAX_INSPECTING, "folders are being inspected");
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    g_auto(VpSight) sight = {0};
    vp_sight_take(call, "DomainService/GetDomain", &sight);
    g_autoptr(GHashTable) disks = list_disks(services->domains, &sight);
    Inspection inspection = {.call = call, .disks = disks};
    const VpFolderOptions options = {
        .policy = services->images,
        .alike = request->format,
        .max_depth = request->max_depth,
        .flat = request->flat,
        .declared = declared_by_domain,
        .declared_data = &inspection,
    };
    error = vp_folder_inspect(request->path, &options, send_images, &inspection);

    vp_slow_leave(&services->inspecting);
    if (error)
        vp_call_fail(call, error);
    else
        vp_call_finish(call);
}

/* ---- RecordBackingFormat ---- */

static void record_backing_format(VpCall *call, const void *message, void *context)
{
    const PbRecordBackingFormatRequest *request = message;
    const VpServices *services = context;
    PbImageLayer *layer = NULL;
    PbImageFormat format = PB_IMAGE_FORMAT_UNSPECIFIED;
    gboolean changed = FALSE;
    g_autofree char *undo = NULL;

    VpError *error = vp_image_record_backing_format(request->path, request->backing_format, request->validate_only,
                                                    services->images, &layer, &format, &changed, &undo);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    vp_pb_auto PbImageLayer *owned = layer;
    if (changed && !request->validate_only) {
        PbEvent event = PB_EVENT__INIT;
        VpTxn *txn = vp_txn_new();

        event.type = PB_EVENT_TYPE_BACKING_FORMAT_RECORDED;
        event.resource_type = (char *)"image";
        event.name = request->path;
        event.reason = (char *)"REQUESTED";
        event.detail = (char *)vp_pb_enum_name(&pb_image_format__descriptor, (int)format);
        vp_txn_event(txn, &event);
        vp_store_commit_wait(services->store, txn, &error);
        if (error) {
            /* The image is changed in any case; that the journal could not be told is what the client must know. */
            vp_call_fail(call,
                         vp_error_prefix(error, "the format was recorded in %s, but the journal could not be told",
                                         request->path));
            return;
        }
    }
    PbRecordBackingFormatResponse response = PB_RECORD_BACKING_FORMAT_RESPONSE__INIT;
    response.layer = owned;
    response.backing_format = format;
    response.changed = changed;
    if (undo)
        response.undo_command = undo;
    vp_call_reply(call, &response);
}

const VpMethodHandler vp_image_handlers[] = {
    {"virtplane.v1.ImageService/ProbeImage", probe_image, VP_RPC_WORKER},
    {"virtplane.v1.ImageService/InspectChain", inspect_chain, VP_RPC_SLOW},
    {"virtplane.v1.ImageService/InspectPath", inspect_path, VP_RPC_SLOW},
    {"virtplane.v1.ImageService/RecordBackingFormat", record_backing_format, VP_RPC_WORKER},
    {0},
};
