/*
 * See vmdk_descriptor.h. The text has `key=value` lines and extent lines: `RW 8388608 SPARSE "disk-s001.vmdk"`. QEMU looks for the parent's name
 * anywhere in the text, a comment included, and whatever parentCID says; so does this.
 */
#include "storage/probe/vmdk_descriptor.h"

#include <string.h>

#define PARENT_HINT "parentFileNameHint"

typedef struct Line {
    const char *at;
    gsize left;
} Line;

static void set_error(VpVmdkDescriptor *descriptor, const char *error)
{
    if (!descriptor->error) {
        descriptor->error = error;
    }
}

static void skip_blanks(Line *line)
{
    while (line->left > 0 && (*line->at == ' ' || *line->at == '\t')) {
        line->at++;
        line->left--;
    }
}

/* Up to the next blank, or what stands in quotes. FALSE: nothing is left, or a quote has no end. */
static gboolean take_word(Line *line, VpProbeText *ret)
{
    gsize size = 0;
    skip_blanks(line);
    if (line->left == 0) {
        return FALSE;
    }
    if (*line->at == '"') {
        const char *end = memchr(line->at + 1, '"', line->left - 1);
        if (!end) {
            return FALSE;
        }
        *ret = (VpProbeText){line->at + 1, (gsize)(end - line->at) - 1};
        size = ret->size + 2;
    } else {
        while (size < line->left && line->at[size] != ' ' && line->at[size] != '\t') {
            size++;
        }
        *ret = (VpProbeText){line->at, size};
    }
    line->at += size;
    line->left -= size;
    return TRUE;
}

static gboolean text_is(VpProbeText text, const char *word)
{
    return text.size == strlen(word) && g_ascii_strncasecmp(text.bytes, word, text.size) == 0;
}

static gboolean take_number(VpProbeText text, guint64 *ret)
{
    guint64 value = 0;
    for (gsize i = 0; i < text.size; i++) {
        if (!g_ascii_isdigit(text.bytes[i]) || value > ((guint64)G_MAXINT64 - 9) / 10) {
            return FALSE;
        }
        value = value * 10 + (guint64)(text.bytes[i] - '0');
    }
    *ret = value;
    return text.size > 0;
}

static void take_extent(Line line, VpVmdkDescriptor *descriptor)
{
    VpProbeText sectors;
    VpProbeText kind;
    VpProbeText name = {NULL, 0};
    guint64 count;

    if (!take_word(&line, &sectors) || !take_number(sectors, &count) || !take_word(&line, &kind)) {
        set_error(descriptor, "has an extent without a size or a kind");
        return;
    }
    if (!take_word(&line, &name) && !text_is(kind, "ZERO")) {
        set_error(descriptor, "has an extent without a file name");
        return;
    }
    descriptor->extents++;
    descriptor->sparse_extents += text_is(kind, "SPARSE");
    if (descriptor->first_extent.size == 0) {
        descriptor->first_extent = name;
    }
    if (count > (guint64)G_MAXINT64 / 512 - descriptor->sectors) {
        set_error(descriptor, "has extents of more bytes than a disk can have");
        return;
    }
    descriptor->sectors += count;
}

static gboolean cid_is_none(VpProbeText value)
{
    return text_is(value, "ffffffff") || text_is(value, "4294967295");
}

static void take_setting(VpProbeText key, Line line, VpVmdkDescriptor *descriptor)
{
    VpProbeText value = {NULL, 0};
    if (!take_word(&line, &value)) {
        return;
    }
    if (text_is(key, "version")) {
        descriptor->has_version = TRUE;
    } else if (text_is(key, "CID")) {
        descriptor->has_cid = TRUE;
    } else if (text_is(key, "parentCID")) {
        if (descriptor->has_parent_cid && descriptor->parent_cid_is_none != cid_is_none(value)) {
            set_error(descriptor, "contradicts itself about its parent");
        }
        descriptor->has_parent_cid = TRUE;
        descriptor->parent_cid_is_none = cid_is_none(value);
    } else if (text_is(key, "createType")) {
        if (descriptor->create_type.size > 0) {
            set_error(descriptor, "names its type twice");
        }
        descriptor->create_type = value;
    }
}

static void take_line(Line line, VpVmdkDescriptor *descriptor)
{
    skip_blanks(&line);
    while (line.left > 0 && (line.at[line.left - 1] == ' ' || line.at[line.left - 1] == '\t')) {
        line.left--;
    }
    if (line.left == 0 || *line.at == '#') {
        return;
    }
    const char *equals = memchr(line.at, '=', line.left);
    Line rest = line;
    VpProbeText access;
    if (take_word(&rest, &access) &&
        (text_is(access, "RW") || text_is(access, "RDONLY") || text_is(access, "NOACCESS"))) {
        take_extent(rest, descriptor);
        return;
    }
    if (!equals) {
        return; /* an extension; what matters has one of the two forms */
    }
    gsize key_size = (gsize)(equals - line.at);
    Line value = {equals + 1, line.left - key_size - 1};
    while (key_size > 0 && (line.at[key_size - 1] == ' ' || line.at[key_size - 1] == '\t')) {
        key_size--;
    }
    take_setting((VpProbeText){line.at, key_size}, value, descriptor);
}

/* As QEMU does it: the first place of that word, then whatever stands up to the next quote. */
static void take_parent_hint(const char *text, gsize size, VpVmdkDescriptor *descriptor)
{
    const char *found = memmem(text, size, PARENT_HINT, sizeof(PARENT_HINT) - 1);
    if (!found) {
        return;
    }
    const char *end = text + size;
    const char *after = found + sizeof(PARENT_HINT) - 1;
    if (end - after < 2 || after[0] != '=' || after[1] != '"') {
        set_error(descriptor, "names a parent in a way that programs read differently");
        return;
    }
    const char *name = after + 2;
    const char *quote = memchr(name, '"', (gsize)(end - name));
    if (!quote || quote == name || memchr(name, '\n', (gsize)(quote - name))) {
        set_error(descriptor, "names a parent without a name");
        return;
    }
    descriptor->parent_hint = (VpProbeText){name, (gsize)(quote - name)};
    if (memmem(quote, (gsize)(end - quote), PARENT_HINT, sizeof(PARENT_HINT) - 1)) {
        set_error(descriptor, "names its parent twice");
    }
}

void vp_vmdk_descriptor_read(const char *text, gsize size, VpVmdkDescriptor *ret)
{
    *ret = (VpVmdkDescriptor){0};
    const char *nul = memchr(text, 0, size);
    const gsize length = nul ? (gsize)(nul - text) : size;
    const char *end = text + length;
    for (const char *at = text; at < end;) {
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r') {
            stop++;
        }
        take_line((Line){at, (gsize)(stop - at)}, ret);
        at = stop + 1;
    }
    take_parent_hint(text, length, ret);
    if (!ret->error && ret->parent_hint.size == 0 && ret->has_parent_cid && !ret->parent_cid_is_none) {
        ret->error = "says that it has a parent, but does not name it";
    }
}
