/* The subjects of the policy's rules: names of users and groups become the numbers that the kernel tells. */
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "server/auth/policy_yaml.h"

#define MAX_LOOKUP_BYTES (1024 * 1024)

/* Names become numbers when the file is read: the kernel tells numbers. */
static VpError *find_user(VpPolicyReader *reader, const yaml_node_t *node, const char *name, char **ret_subject)
{
    g_autofree char *buffer = g_malloc(MAX_LOOKUP_BYTES);
    struct passwd entry;
    struct passwd *found = NULL;

    const int r = getpwnam_r(name, &entry, buffer, MAX_LOOKUP_BYTES, &found);
    if (!found)
        return vp_policy_wrong(reader, node, "there is no user \"%s\" on this host%s%s", name, r ? ": " : "",
                               r ? g_strerror(r) : "");
    *ret_subject = g_strdup_printf("uid:%u", entry.pw_uid);
    return NULL;
}

static VpError *find_group(VpPolicyReader *reader, const yaml_node_t *node, const char *name, char **ret_subject)
{
    g_autofree char *buffer = g_malloc(MAX_LOOKUP_BYTES);
    struct group entry;
    struct group *found = NULL;

    const int r = getgrnam_r(name, &entry, buffer, MAX_LOOKUP_BYTES, &found);
    if (!found)
        return vp_policy_wrong(reader, node, "there is no group \"%s\" on this host%s%s", name, r ? ": " : "",
                               r ? g_strerror(r) : "");
    *ret_subject = g_strdup_printf("gid:%u", entry.gr_gid);
    return NULL;
}

static VpError *read_subject(VpPolicyReader *reader, const yaml_node_t *node, const char *subject, char **ret_subject)
{
    static const char *const numbers[] = {"uid", "gid", NULL};
    static const char *const texts[] = {"uri", "dns", "cn", "token", "token-group", NULL};
    const char *colon = strchr(subject, ':');

    if (g_str_equal(subject, VP_ANONYMOUS)) {
        *ret_subject = g_strdup(subject);
        return NULL;
    }
    g_autofree char *kind = colon && colon[1] ? g_strndup(subject, (gsize)(colon - subject)) : g_strdup("");
    if (g_str_equal(kind, "user"))
        return find_user(reader, node, colon + 1, ret_subject);
    if (g_str_equal(kind, "group"))
        return find_group(reader, node, colon + 1, ret_subject);
    if (g_strv_contains(numbers, kind)) {
        guint64 number;

        if (!g_ascii_string_to_unsigned(colon + 1, 10, 0, G_MAXUINT32 - 1, &number, NULL))
            return vp_policy_wrong(reader, node, "\"%s\" is no number", colon + 1);
        *ret_subject = g_strdup_printf("%s:%" G_GUINT64_FORMAT, kind, number);
        return NULL;
    }
    if (!g_strv_contains(texts, kind))
        return vp_policy_wrong(
            reader, node,
            "\"%s\" is no subject: user:NAME, group:NAME, uid:N, gid:N, uri:URI, dns:NAME, cn:NAME, token:NAME, "
            "token-group:NAME and anonymous are",
            subject);
    *ret_subject = g_strdup(subject);
    return NULL;
}

VpError *vp_policy_subjects(VpPolicyReader *reader, const yaml_node_t *node, GPtrArray *subjects)
{
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);

    VpError *error = vp_policy_texts(reader, node, "subjects", texts);
    for (guint i = 0; !error && i < texts->len; i++) {
        char *subject = NULL;

        error = read_subject(reader, node, texts->pdata[i], &subject);
        if (!error)
            g_ptr_array_add(subjects, subject);
    }
    return error;
}
