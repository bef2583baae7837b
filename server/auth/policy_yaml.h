/* Reading the policy's YAML: a document whose nodes know their lines. Inside the policy. */
#pragma once

#include <yaml.h>

#include "server/auth/policy_rules.h"

typedef struct VpPolicyReader {
    VpPolicy *policy;
    const char *path;
    const GArray *methods;
    yaml_document_t *document;
    guint texts; /* read so far: what an anchor names once is read as often as it is named */
} VpPolicyReader;

/* POLICY_INVALID with the file and the node's line. */
VpError *vp_policy_wrong(const VpPolicyReader *reader, const yaml_node_t *node, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

yaml_node_t *vp_policy_node(const VpPolicyReader *reader, int index);

/* A string, not empty; borrowed. */
VpError *vp_policy_text(VpPolicyReader *reader, const yaml_node_t *node, const char *what, const char **ret_text);

/* A list of strings, not empty, appended to `texts` (of copies). */
VpError *vp_policy_texts(VpPolicyReader *reader, const yaml_node_t *node, const char *what, GPtrArray *texts);

/* One key of a map and what reads its value. */
typedef struct VpPolicyKey {
    const char *name;
    VpError *(*read)(VpPolicyReader *reader, const yaml_node_t *value, void *data);
} VpPolicyKey;

/* A map of these keys (the last has no name), each at most once, and no others. */
VpError *vp_policy_map(VpPolicyReader *reader, const yaml_node_t *node, const char *what, const VpPolicyKey *keys,
                       void *data);

/* A list of subjects, each as it is matched, appended to `subjects`. Asks the user database. policy_subjects.c */
VpError *vp_policy_subjects(VpPolicyReader *reader, const yaml_node_t *node, GPtrArray *subjects);

/* The list `limits`. policy_limits.c */
VpError *vp_policy_read_limits(VpPolicyReader *reader, const yaml_node_t *node, void *data);
