/* LUKS, versions 1 and 2. QEMU opens version 1, with a secret. */
#include "storage/probe/parse.h"

#define V1_HEADER_SIZE 592u
#define V2_HEADER_SIZE 4096u
#define V2_MAX_HEADER (4u << 20)
#define SLOT_ACTIVE 0x00ac71f3u
#define SLOT_INACTIVE 0x0000deadu
#define MIN_STRIPES 4000u

static void parse_v1(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, V1_HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 payload = (guint64)vp_be32(header + 104) * 512;
    for (guint i = 8; i <= 72; i += 32) {
        if (header[i] == 0 || !memchr(header + i, 0, 32)) {
            CORRUPT(probe, "the name of its cipher, mode or hash has no end");
            return;
        }
    }
    if (payload < V1_HEADER_SIZE) {
        CORRUPT(probe, "its payload is said to begin at %" PRIu64, payload);
        return;
    }
    for (guint i = 0; i < 8; i++) {
        const guint8 *slot = header + 208 + 48 * i;
        if (vp_be32(slot) != SLOT_ACTIVE && vp_be32(slot) != SLOT_INACTIVE) {
            CORRUPT(probe, "its key slot %u is neither in use nor free", i);
            return;
        }
    }
    if (payload > input->file_size) {
        TRUNCATED(probe, "the file has %" PRIu64 " bytes and ends before its payload at %" PRIu64, input->file_size,
                  payload);
        return;
    }
    /* As with a raw disk, QEMU shows a part of a sector as a whole one. */
    probe->virtual_size = (input->file_size - payload + 511) & ~(guint64)511;
}

static gboolean skip_to(const char **at, const char *end, const char *word)
{
    const char *found = memmem(*at, (gsize)(end - *at), word, strlen(word));
    *at = found ? found + strlen(word) : end;
    return found != NULL;
}

/* Where the data begins: the offset of the first segment, in the JSON behind the binary header. 0: it does not say. */
static guint64 find_data(const guint8 *json, gsize size)
{
    const char *at = (const char *)json;
    const char *end = at + strnlen(at, size);
    guint64 offset = 0;

    if (!skip_to(&at, end, "\"segments\"") || !skip_to(&at, end, "\"offset\"") || !skip_to(&at, end, "\"")) {
        return 0;
    }
    while (at < end && g_ascii_isdigit(*at) && offset < (guint64)G_MAXINT64 / 10 - 1) {
        offset = offset * 10 + (guint64)(*at++ - '0');
    }
    return at < end && *at == '"' ? offset : 0;
}

static void parse_v2(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, V2_HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 size = vp_be64(header + 8);
    guint64 offset = vp_be64(header + 256);
    if (!vp_is_power_of_2(size) || size < 4 * V2_HEADER_SIZE || size > V2_MAX_HEADER || offset != 0) {
        CORRUPT(probe, "its header is said to have %" PRIu64 " bytes at %" PRIu64, size, offset);
        return;
    }
    /* Two headers of that size, one after the other. */
    vp_probe_holds(input, probe, 0, 2 * size, "its second header");
    gsize json_size = (gsize)MIN(size - V2_HEADER_SIZE, (guint64)VP_PROBE_WINDOW_MAX);
    const guint8 *json = vp_probe_at(input, probe, V2_HEADER_SIZE, json_size, "its JSON");
    if (!json) {
        return;
    }
    if (json[0] != '{') {
        CORRUPT(probe, "there is no JSON behind its header");
        return;
    }
    guint64 data = find_data(json, json_size);
    if (data % 512 != 0 || (data > 0 && data < 2 * size)) {
        CORRUPT(probe, "its data is said to begin at %" PRIu64, data);
    } else if (data > 0 && vp_probe_holds(input, probe, data, 0, "its headers")) {
        probe->virtual_size = (input->file_size - data + 511) & ~(guint64)511;
    }
    UNSUPPORTED(probe,
                "it is LUKS of version 2, which QEMU does not open; declared as raw, the guest sees it encrypted");
}

void vp_luks_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *mark = vp_probe_at(input, probe, 0, 8, "its header");
    if (!mark) {
        return;
    }
    probe->version = vp_be16(mark + 6);
    probe->encrypted = TRUE;
    vp_probe_feature(probe, "luks");
    if (probe->version == 1) {
        parse_v1(input, probe);
    } else if (probe->version == 2) {
        parse_v2(input, probe);
    } else {
        UNKNOWN_FEATURE(probe, "it is LUKS of version %" PRIu32 "; 1 and 2 are known here", probe->version);
        return;
    }
    vp_probe_note(probe, PB_FINDING_CODE_ENCRYPTED, PB_SEVERITY_INFO, "its content is encrypted with LUKS");
}
