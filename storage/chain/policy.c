/* See policy.h. */
#include "storage/chain/policy.h"

#include <fnmatch.h>
#include <string.h>

#include "storage/chain/reference.h"

#define GROUP "images"
#define MIN_HEADER_BYTES 65536u /* below, marks that make a format ambiguous would not be seen */
#define MAX_HEADER_BYTES (2u << 20)

const VpImagePolicy vp_image_policy_default = {0};

static VpError *bad(const char *key, const char *why)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "[" GROUP "] %s: %s", key, why);
}

static VpError *read_list(GKeyFile *file, const char *key, char ***ret)
{
    g_autoptr(GError) why = NULL;
    if (!g_key_file_has_key(file, GROUP, key, NULL)) {
        return NULL;
    }
    char **list = g_key_file_get_string_list(file, GROUP, key, NULL, &why);
    if (!list) {
        return bad(key, why->message);
    }
    for (char **item = list; *item; item++) {
        g_strstrip(*item);
    }
    *ret = list;
    return NULL;
}

static VpError *read_number(GKeyFile *file, const char *key, guint least, guint most, guint32 *ret)
{
    g_autoptr(GError) why = NULL;
    if (!g_key_file_has_key(file, GROUP, key, NULL)) {
        return NULL;
    }
    guint64 value = g_key_file_get_uint64(file, GROUP, key, &why);
    if (why) {
        return bad(key, why->message);
    }
    if (value < least || value > most) {
        g_autofree char *range = g_strdup_printf("has to be from %u to %u", least, most);
        return bad(key, range);
    }
    *ret = (guint32)value;
    return NULL;
}

static VpError *read_ownership(GKeyFile *file, VpOwnership *ret)
{
    static const char *const words[] = {"warn", "ignore", "refuse"};
    g_autofree char *word = g_key_file_get_string(file, GROUP, "ownership", NULL);
    if (!word) {
        return NULL;
    }
    for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret = (VpOwnership)i;
            return NULL;
        }
    }
    return bad("ownership", "has to be warn, refuse or ignore");
}

static VpError *check_keys(GKeyFile *file)
{
    static const char *const known[] = {"roots",     "protocols", "block_devices",
                                        "max_depth", "ownership", "max_header_bytes",
                                        NULL};
    g_auto(GStrv) keys = g_key_file_get_keys(file, GROUP, NULL, NULL);
    for (char **key = keys; key && *key; key++) {
        if (!g_strv_contains(known, *key)) {
            return bad(*key, "there is no such setting");
        }
    }
    return NULL;
}

static VpError *check_lists(const VpImagePolicy *policy)
{
    for (char **root = policy->roots; root && *root; root++) {
        if ((*root)[0] != '/') {
            return bad("roots", "each has to be an absolute path");
        }
    }
    for (char **name = policy->protocols; name && *name; name++) {
        const char *known = vp_reference_protocol(*name, strlen(*name));
        if (!known || strcmp(known, *name) != 0) {
            return bad("protocols", "each has to be one of nbd, rbd, iscsi, gluster, ssh, http, https, ftp, ftps, nfs");
        }
    }
    for (char **pattern = policy->block_devices; pattern && *pattern; pattern++) {
        if (!g_str_has_prefix(*pattern, "/dev/")) {
            return bad("block_devices", "each has to begin with /dev/");
        }
    }
    return NULL;
}

VpError *vp_image_policy_read(GKeyFile *file, VpImagePolicy *ret_policy)
{
    g_auto(VpImagePolicy) policy = {0};
    VpError *error = file ? check_keys(file) : NULL;
    if (file && !error) {
        error = read_list(file, "roots", &policy.roots);
    }
    if (file && !error) {
        error = read_list(file, "protocols", &policy.protocols);
    }
    if (file && !error) {
        error = read_list(file, "block_devices", &policy.block_devices);
    }
    if (file && !error) {
        error = read_number(file, "max_depth", 1, VP_CHAIN_MAX_DEPTH, &policy.max_depth);
    }
    if (file && !error) {
        error = read_number(file, "max_header_bytes", MIN_HEADER_BYTES, MAX_HEADER_BYTES, &policy.max_header_bytes);
    }
    if (file && !error) {
        error = read_ownership(file, &policy.ownership);
    }
    if (!error) {
        error = check_lists(&policy);
    }
    if (error) {
        return error;
    }
    *ret_policy = policy;
    policy = (VpImagePolicy){0};
    return NULL;
}

void vp_image_policy_clear(VpImagePolicy *policy)
{
    g_clear_pointer(&policy->roots, g_strfreev);
    g_clear_pointer(&policy->protocols, g_strfreev);
    g_clear_pointer(&policy->block_devices, g_strfreev);
}

gboolean vp_image_policy_allows_protocol(const VpImagePolicy *policy, const char *protocol)
{
    return policy->protocols && g_strv_contains((const char *const *)policy->protocols, protocol);
}

gboolean vp_image_policy_allows_device(const VpImagePolicy *policy, const char *path, const char *real)
{
    g_autofree char *plain = g_canonicalize_filename(path, "/");
    for (char **pattern = policy->block_devices; pattern && *pattern; pattern++) {
        if (fnmatch(*pattern, plain, FNM_PATHNAME) == 0 || fnmatch(*pattern, real, FNM_PATHNAME) == 0) {
            return TRUE;
        }
    }
    return FALSE;
}
