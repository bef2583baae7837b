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
    size_t want = VP_PROBE_HEAD_FIRST;
    if (size >= VP_PROBE_TAIL && file_size == size) {
        input.tail = data + size - VP_PROBE_TAIL;
        input.tail_size = VP_PROBE_TAIL;
    }
    for (guint rounds = 0; want > 0; rounds++) {
        must(rounds < 4);
        if (want > size && file_size > size) {
            return; /* the walk would read on; there are no more bytes here */
        }
        input.head_size = MIN(want, size);
        want = vp_probe(&input, declared, &result);
        must(want == 0 || (want > input.head_size && want <= file_size && want <= VP_PROBE_HEAD_MAX));
    }
    must(within(result.backing_path, data, size) && within(result.backing_format, data, size) &&
         within(result.data_file, data, size));
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
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        probe(data, size, size, formats[i]);
        probe(data, size, size + (1ull << 40), formats[i]);
    }
    return 0;
}
