/* ImageService.ProbeImage: one file, and nothing that it names. */
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "storage/chain/finding.h"
#include "storage/chain/text.h"
#include "storage/chain/walk.h"
#include "storage/probe/formats.h"

static VpError *refusal_error(const char *path, const VpOpenRefusal *refusal)
{
    g_autofree char *shown = vp_text_escape(path, -1);
    const char *name = vp_pb_enum_name(&pb_finding_code__descriptor, (int)refusal->code);
    VpCode code = refusal->code == PB_FINDING_CODE_FILE_MISSING            ? VP_NOT_FOUND
                  : refusal->code == PB_FINDING_CODE_PERMISSION_DENIED     ? VP_PERMISSION_DENIED
                  : refusal->code == PB_FINDING_CODE_OUTSIDE_ALLOWED_ROOTS ? VP_PERMISSION_DENIED
                                                                           : VP_FAILED_PRECONDITION;
    return vp_error_with(vp_error_new(code, name + strlen("FINDING_CODE_"), "%s: %s", shown, refusal->why), "path",
                         shown);
}

VpError *vp_image_open(const char *path, const VpImagePolicy *policy, gboolean write, VpOpened *ret)
{
    g_auto(VpOpener) opener = {0};
    VpOpenRefusal refusal;

    if (path[0] != '/') {
        return vp_error_new(VP_INVALID_ARGUMENT, "PATH_NOT_ABSOLUTE", "the path of an image has to be absolute");
    }
    vp_opener_init(&opener, policy ? policy : &vp_image_policy_default);
    VpError *error = vp_opener_open(&opener, path, write, ret, &refusal);
    if (!error && refusal.code != PB_FINDING_CODE_UNSPECIFIED) {
        error = refusal_error(path, &refusal);
        g_free(refusal.why);
    }
    return error;
}

VpError *vp_image_read_error(const char *path, int errnum)
{
    g_autofree char *shown = vp_text_escape(path, -1);
    return vp_error_errno(errnum, "IO_ERROR", "%s: cannot be read", shown);
}

static void tell(const char *path, const VpProbe *probe, GPtrArray *findings)
{
    g_autofree char *matches = vp_matches_words(probe->matches);

    if (probe->looks_like == PB_IMAGE_FORMAT_UNSPECIFIED) {
        g_ptr_array_add(findings, vp_finding_new(PB_FINDING_CODE_AMBIGUOUS_FORMAT, PB_SEVERITY_ERROR, 0, path,
                                                 vp_remedy_declare(path, PB_IMAGE_FORMAT_UNSPECIFIED),
                                                 "looks like several formats at once: %s", matches));
    } else if (!probe->readable) {
        g_ptr_array_add(findings,
                        vp_finding_new(PB_FINDING_CODE_UNSUPPORTED_FORMAT, PB_SEVERITY_WARNING, 0, path, NULL,
                                       "its format is %s, which is recognised but not read by this version", matches));
    }
    for (guint i = 0; i < probe->n_issues; i++) {
        g_ptr_array_add(findings, vp_finding_from_issue(&probe->issues[i], probe->format, 0, path));
    }
    if (probe->other_role) {
        g_ptr_array_add(findings, vp_not_opened(path, 0, probe));
    }
    if (probe->backing_path.size > 0 && probe->backing_format.size == 0) {
        g_autofree char *name = g_strndup(probe->backing_path.bytes, probe->backing_path.size);
        const PbImageFormat unknown = PB_IMAGE_FORMAT_UNSPECIFIED;
        g_ptr_array_add(findings, vp_finding_new(PB_FINDING_CODE_FORMAT_NOT_DECLARED, PB_SEVERITY_WARNING, 0, path,
                                                 probe->format == PB_IMAGE_FORMAT_QCOW2
                                                     ? vp_remedy_record(path, name, unknown)
                                                     : vp_remedy_convert(path, probe->format, name, unknown),
                                                 "does not record the format of its backing file %s", name));
    }
}

VpError *vp_image_probe(const char *path, const VpImagePolicy *policy, PbImageLayer **ret_layer, GPtrArray *findings)
{
    g_auto(VpHeadBuffer) buffer = {0};
    VpOpened file = {.fd = -1};
    VpProbe probe;

    buffer.most = policy ? policy->max_header_bytes : 0;
    VpError *error = vp_image_open(path, policy, /* write= */ FALSE, &file);
    if (error) {
        return error;
    }
    int errnum = vp_read_and_probe(&file, PB_IMAGE_FORMAT_UNSPECIFIED, &buffer, &probe);
    close(file.fd);
    if (errnum) {
        return vp_image_read_error(path, errnum);
    }
    PbImageLayer *layer = vp_layer_new(path, 0, &file, &probe);
    layer->format = probe.looks_like;
    if (layer->format != PB_IMAGE_FORMAT_UNSPECIFIED) {
        layer->format_source = PB_FORMAT_SOURCE_PROBED;
        vp_layer_round_size(layer);
    }
    tell(path, &probe, findings);
    *ret_layer = layer;
    return NULL;
}
