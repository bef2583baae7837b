/* virtplane.v1.ImageService: looks at images on worker threads. */
#include "base/pb.h"
#include "server/services/services.h"
#include "storage/chain/chain.h"
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
    vp_call_write_wait(call, &response);
    vp_call_finish(call);
}

static void record_backing_format(VpCall *call, const void *message, void *context)
{
    const PbRecordBackingFormatRequest *request = message;
    const VpServices *services = context;
    PbImageLayer *layer = NULL;
    PbImageFormat format = PB_IMAGE_FORMAT_UNSPECIFIED;
    gboolean changed = FALSE;
    g_autofree char *undo = NULL;

    VpError *error = vp_image_record_backing_format(request->path, request->backing_format, request->validate_only, services->images,
                                                    &layer, &format, &changed, &undo);
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
            vp_call_fail(call, vp_error_prefix(error, "the format was recorded in %s, but the journal could not be told", request->path));
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
    {"virtplane.v1.ImageService/InspectChain", inspect_chain, VP_RPC_WORKER},
    {"virtplane.v1.ImageService/RecordBackingFormat", record_backing_format, VP_RPC_WORKER},
    {0},
};
