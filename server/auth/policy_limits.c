/* The policy's limits: what single identities and groups may use, where it is not what [limits] of the settings says. */
#include "server/auth/policy_yaml.h"

#define MAX_RULES 1000

static const struct {
    const char *key;
    VpPolicyLimit limit;
} known[] = {
    {"connections", VP_POLICY_CONNECTIONS},
    {"calls", VP_POLICY_CALLS},
    {"streams", VP_POLICY_STREAMS},
    {"calls_per_second", VP_POLICY_CALLS_PER_SECOND},
    {"message_bytes", VP_POLICY_MESSAGE_BYTES},
    {"domains", VP_POLICY_DOMAINS},
    {"secrets", VP_POLICY_SECRETS},
};

static VpError *read_number(VpPolicyReader *reader, const yaml_node_t *node, VpPolicyLimits *rule, VpPolicyLimit limit)
{
    const char *text = NULL;
    guint64 number = 0;

    VpError *error = vp_policy_text(reader, node, "a limit", &text);
    if (error)
        return error;
    if (!g_ascii_string_to_unsigned(text, 10, 0, VP_POLICY_MOST, &number, NULL))
        return vp_policy_wrong(reader, node, "\"%s\" is no number from 0 (no limit) to %d", text, VP_POLICY_MOST);
    rule->values[limit] = (gint64)number;
    return NULL;
}

static VpError *read_rule(VpPolicyReader *reader, const yaml_node_t *node, VpPolicyLimits *rule)
{
    if (node->type != YAML_MAPPING_NODE)
        return vp_policy_wrong(reader, node, "a limit must be a map of keys and values");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = vp_policy_node(reader, pair->key);
        const yaml_node_t *value = vp_policy_node(reader, pair->value);
        const char *name = NULL;
        gsize i = 0;

        VpError *error = vp_policy_text(reader, key_node, "a key", &name);
        if (error)
            return error;
        while (i < G_N_ELEMENTS(known) && !g_str_equal(known[i].key, name))
            i++;
        if (g_str_equal(name, "subjects") ? rule->subjects->len > 0
                                          : i < G_N_ELEMENTS(known) && rule->values[known[i].limit] >= 0)
            return vp_policy_wrong(reader, key_node, "a limit has \"%s\" twice", name);
        if (g_str_equal(name, "subjects"))
            error = vp_policy_subjects(reader, value, rule->subjects);
        else if (i == G_N_ELEMENTS(known))
            error = vp_policy_wrong(reader, key_node, "a limit has no \"%s\"", name);
        else
            error = read_number(reader, value, rule, known[i].limit);
        if (error)
            return error;
    }
    return rule->subjects->len ? NULL : vp_policy_wrong(reader, node, "a limit needs subjects");
}

VpError *vp_policy_read_limits(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    (void)data;
    if (node->type != YAML_SEQUENCE_NODE)
        return vp_policy_wrong(reader, node, "limits must be a list");
    if (node->data.sequence.items.top - node->data.sequence.items.start > MAX_RULES)
        return vp_policy_wrong(reader, node, "there are more than %d limits", MAX_RULES);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        VpError *error = read_rule(reader, vp_policy_node(reader, *item), vp_policy_add_limits(reader->policy));

        if (error)
            return error;
    }
    return NULL;
}
