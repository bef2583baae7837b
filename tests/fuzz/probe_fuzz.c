/* libFuzzer on the probe: any bytes, as any format, with and without a tail; a size that the bytes are only the beginning of. */
#include <stdlib.h>
#include <string.h>

#include "storage/probe/probe.h"
#include "storage/probe/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(gboolean condition)
{
    if (!condition) {
        abort();
    }
}

static gboolean within(VpProbeText text, const uint8_t *data, size_t size)
{
    const uint8_t *start = (const uint8_t *)text.bytes;
    return text.size == 0 ||
           (start >= data && (size_t)(start - data) <= size && text.size <= size - (size_t)(start - data));
}

static void probe(const uint8_t *data, size_t size, guint64 file_size, PbImageFormat declared)
{
    VpProbeInput input = {.head = data, .file_size = file_size};
    VpProbe result;
    if (size < VP_PROBE_HEAD_FIRST && file_size > size) {
        return; /* the walk would read on; there are no more bytes here */
    }
    gboolean whole = declared == PB_IMAGE_FORMAT_UNSPECIFIED && file_size <= VP_PROBE_HEAD_ALL;
    input.head_size = MIN(size, whole ? VP_PROBE_HEAD_ALL : VP_PROBE_HEAD_FIRST);
    while (!vp_probe(&input, declared, &result)) {
        VpProbeRange need = result.need;
        must(need.size > 0 && need.offset <= file_size && need.size <= file_size - need.offset);
        must(need.offset ? need.size <= VP_PROBE_WINDOW_MAX && input.n_windows < VP_PROBE_WINDOWS_MAX
                         : need.size > input.head_size && need.size <= VP_PROBE_HEAD_MAX);
        if (need.offset > size || need.size > size - need.offset) {
            return;
        }
        if (need.offset) {
            input.windows[input.n_windows++] = (VpProbeWindow){need.offset, data + need.offset, need.size};
        } else {
            input.head_size = need.size;
        }
    }
    must(within(result.backing_path, data, size) && within(result.data_file, data, size));
    must(result.format != PB_IMAGE_FORMAT_QCOW2 || within(result.backing_format, data, size));
    must(result.backing_path.size <= VP_QCOW2_BACKING_NAME_MAX);
    for (guint i = 0; i < result.n_issues; i++) {
        must(strlen(result.issues[i].text) < sizeof(result.issues[i].text));
    }
    VpQcow2Layout layout;
    if (result.format == PB_IMAGE_FORMAT_QCOW2 && result.well_formed && vp_qcow2_layout(data, size, &layout)) {
        must(layout.extensions_end >= layout.header_end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const PbImageFormat formats[] = {PB_IMAGE_FORMAT_UNSPECIFIED, PB_IMAGE_FORMAT_QCOW2, PB_IMAGE_FORMAT_RAW,
                                            PB_IMAGE_FORMAT_VMDK};
    if (size == 0) {
        return 0;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        probe(data, size, size, formats[i]);
        probe(data, size, size + (1ull << 40), formats[i]);
    }
    return 0;
}
