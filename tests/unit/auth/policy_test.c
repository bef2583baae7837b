/* The policy: what its file may say, and what it answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/pb.h"
#include "server/auth/policy.h"
#include "virtplane/v1/domain.pb-c.h"

static VpContract *contract;
static char *folder;
static char *file;

static int setup(void **state)
{
    VpError *error = NULL;

    (void)state;
    contract = vp_contract_new(&error);
    folder = g_dir_make_tmp("vp-auth-XXXXXX", NULL);
    file = g_build_filename(folder, "policy.yaml", NULL);
    return contract ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    g_unlink(file);
    g_rmdir(folder);
    g_free(file);
    g_free(folder);
    vp_contract_free(contract);
    return 0;
}

static VpPolicy *load(const char *text, VpError **error)
{
    const VpPolicyOptions options = {.path = file, .methods = vp_contract_methods(contract)};

    assert_true(g_file_set_contents(file, text, -1, NULL));
    g_chmod(file, 0600);
    return vp_policy_new(&options, error);
}

static VpPolicy *loaded(const char *text)
{
    VpError *error = NULL;
    VpPolicy *policy = load(text, &error);

    if (!policy)
        fail_msg("%s", error->message);
    return policy;
}

static void is_refused(const char *text, const char *line, const char *words)
{
    g_autoptr(VpError) error = NULL;
    g_autofree char *place = g_strdup_printf("%s:%s: ", file, line);

    assert_null(load(text, &error));
    assert_string_equal(error->reason, "POLICY_INVALID");
    if (!g_str_has_prefix(error->message, place) || !strstr(error->message, words))
        fail_msg("\"%s\" is refused with \"%s\", not at %s with \"%s\"", text, error->message, place, words);
}

static const VpMethod *method(const char *name)
{
    const GArray *methods = vp_contract_methods(contract);

    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *entry = &g_array_index(methods, VpMethod, i);

        if (g_str_has_suffix(entry->method, name) && g_str_has_prefix(entry->method, "virtplane."))
            return entry;
    }
    fail_msg("there is no method %s", name);
    return NULL;
}

static gboolean may(const VpPolicy *policy, const char *who, const char *method_name, const VpResource *resource)
{
    g_autoptr(VpIdentity) identity = vp_identity_new(PB_IDENTITY_KIND_LOCAL, who, NULL, G_MAXINT64);
    const VpMethod *asked = method(method_name);
    const gboolean allowed = vp_policy_allows(policy, identity, asked, resource);
    vp_pb_auto PbCheckAccessResponse *response = vp_pb_new(&pb_check_access_response__descriptor);

    /* What is explained is what is done; and what is not allowed at all is not allowed on anything. */
    vp_policy_explain(policy, identity, asked, resource, response);
    assert_int_equal(response->allowed, allowed);
    if (allowed)
        assert_true(vp_policy_may_call(policy, identity, asked));
    if (vp_policy_allows_all(policy, identity, asked))
        assert_true(allowed);
    return allowed;
}

static const VpResource web = {.type = "domain", .name = "web1", .driver = "qemu"};
static const VpResource database = {.type = "domain", .name = "db1", .driver = "test"};

static void without_a_file_root_alone_is_admin(void **state)
{
    const VpPolicyOptions options = {.methods = vp_contract_methods(contract)};
    VpError *error = NULL;
    g_autoptr(VpPolicy) policy = vp_policy_new(&options, &error);

    (void)state;
    assert_non_null(policy);
    assert_true(may(policy, "uid:0", "/DeleteDomain", &web));
    assert_true(may(policy, "uid:0", "/BackupStore", NULL));
    assert_false(may(policy, "uid:1", "/GetDomain", &web));
    assert_false(may(policy, "uid:00", "/GetDomain", &web));
    assert_false(may(policy, "anonymous", "/GetDomain", &web));
    assert_false(may(policy, "anonymous", "/GetHost", NULL));
    assert_false(may(policy, "cn:uid:0", "/GetDomain", &web));
    assert_true(may(policy, "anonymous", "/GetIdentity", NULL));
}

static void anonymous_is_root_only_where_that_was_asked_for(void **state)
{
    const VpPolicyOptions options = {.methods = vp_contract_methods(contract), .anonymous_is_root = TRUE};
    VpError *error = NULL;
    g_autoptr(VpPolicy) policy = vp_policy_new(&options, &error);

    (void)state;
    assert_true(may(policy, "anonymous", "/DeleteDomain", &web));
    assert_false(may(policy, "uid:1", "/DeleteDomain", &web));
}

static void each_role_has_what_the_ones_before_it_have(void **state)
{
    g_autoptr(VpPolicy) policy = loaded("bindings:\n"
                                        "  - {role: viewer, subjects: [\"cn:v\"]}\n"
                                        "  - {role: operator, subjects: [\"cn:o\"]}\n"
                                        "  - {role: admin, subjects: [\"cn:a\"]}\n");
    const struct {
        const char *method;
        const char *who; /* who may */
    } cases[] = {
        {"/GetDomain", "voa"},    {"/ListDomains", "voa"}, {"/StartDomain", "oa"}, {"/OpenConsole", "oa"},
        {"/CreateDomain", "a"},   {"/DeleteDomain", "a"},  {"/BackupStore", "a"},  {"/GetHost", "voa"},
        {"/GetIdentity", "voax"}, {"/ProbeImage", "oa"},
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (const char *who = "voax"; *who; who++) {
            g_autofree char *name = g_strdup_printf("cn:%c", *who);
            assert_int_equal(may(policy, name, cases[i].method, &web), strchr(cases[i].who, *who) != NULL);
        }
    }
}

static void own_roles_have_their_methods(void **state)
{
    g_autoptr(VpPolicy) policy = loaded("bindings:\n"
                                        "  - {role: restarter, subjects: [\"token:bot\"]}\n"
                                        "  - {role: more, subjects: [\"token:more\"]}\n"
                                        "roles:\n"
                                        "  restarter: {methods: [RebootDomain, DomainService/GetDomain]}\n"
                                        "  more: {includes: viewer, methods: [\"OperationService/*\"]}\n");

    (void)state;
    assert_true(may(policy, "token:bot", "/RebootDomain", &web));
    assert_true(may(policy, "token:bot", "/GetDomain", &web));
    assert_false(may(policy, "token:bot", "/ListDomains", &web));
    assert_false(may(policy, "token:bot", "/ResetDomain", &web));
    assert_false(may(policy, "token:bot", "/GetOperation", &web));
    assert_true(may(policy, "token:more", "/ListDomains", &web));
    assert_true(may(policy, "token:more", "/CancelOperation", &web));
    assert_false(may(policy, "token:more", "/StartDomain", &web));
}

static void selectors_cover_what_matches_all_of_them(void **state)
{
    g_autoptr(VpPolicy) policy =
        loaded("bindings:\n"
               "  - {role: operator, subjects: [\"cn:names\"], where: {names: [\"web*\", mail]}}\n"
               "  - {role: operator, subjects: [\"cn:driver\"], where: {drivers: [test]}}\n"
               "  - {role: operator, subjects: [\"cn:both\"], where: {drivers: [test], names: [\"web*\"]}}\n"
               "  - {role: operator, subjects: [\"cn:labels\"], where: {labels: {tenant: blue, tier: front}}}\n"
               "  - {role: admin, subjects: [\"cn:pool\"], where: {pools: [\"fast-*\"]}}\n"
               "  - {role: admin, subjects: [\"cn:types\"], where: {resources: [volume]}}\n");
    PbDomain__LabelsEntry tenant = PB_DOMAIN__LABELS_ENTRY__INIT;
    PbDomain__LabelsEntry tier = PB_DOMAIN__LABELS_ENTRY__INIT;
    PbDomain__LabelsEntry other = PB_DOMAIN__LABELS_ENTRY__INIT;
    void *labels[] = {&tenant, &tier, &other};
    VpResource labelled = {.type = "domain", .name = "x", .n_labels = 1, .labels = labels};
    const VpResource volume = {.type = "volume", .name = "web1", .pool = "fast-1"};

    (void)state;
    tenant.key = (char *)"tenant";
    tenant.value = (char *)"blue";
    tier.key = (char *)"tier";
    tier.value = (char *)"front";
    other.key = (char *)"tenant";
    other.value = (char *)"red";

    assert_true(may(policy, "cn:names", "/StartDomain", &web));
    assert_false(may(policy, "cn:names", "/StartDomain", &database));
    assert_true(may(policy, "cn:driver", "/StartDomain", &database));
    assert_false(may(policy, "cn:driver", "/StartDomain", &web));
    assert_false(may(policy, "cn:both", "/StartDomain", &database));
    assert_false(may(policy, "cn:labels", "/StartDomain", &labelled));
    labelled.n_labels = 2;
    assert_true(may(policy, "cn:labels", "/StartDomain", &labelled));
    /* Of two entries with one key the last one counts, as for the store. */
    labelled.n_labels = 3;
    assert_false(may(policy, "cn:labels", "/StartDomain", &labelled));
    assert_true(may(policy, "cn:pool", "/DeleteVolume", &volume));
    assert_false(may(policy, "cn:pool", "/DeleteDomain", &web));
    assert_true(may(policy, "cn:types", "/DeleteVolume", &volume));
    assert_false(may(policy, "cn:types", "/DeleteDomain", &web));
    assert_false(may(policy, "cn:types", "/StartDomain", NULL));

    /* What concerns the whole host needs a binding without selectors; what everyone needs does not. */
    assert_false(may(policy, "cn:pool", "/BackupStore", NULL));
    assert_false(may(policy, "cn:types", "/BackupStore", NULL));
    assert_false(may(policy, "cn:types", "/ListConnections", NULL));
    assert_true(may(policy, "cn:names", "/GetCapabilities", NULL));
    assert_true(may(policy, "cn:names", "/ListDomains", NULL));
    assert_true(may(policy, "cn:types", "/WatchEvents", NULL));
    assert_false(may(policy, "cn:types", "/ListDomains", NULL));
}

static void groups_and_patterns_are_subjects(void **state)
{
    g_autoptr(VpPolicy) policy =
        loaded("bindings:\n"
               "  - {role: viewer, subjects: [\"group:root\", \"uri:spiffe://example.org/ci/*\", \"user:root\"]}\n");
    static const char *const groups[] = {"gid:5", "gid:0", NULL};
    g_autoptr(VpIdentity) member = vp_identity_new(PB_IDENTITY_KIND_LOCAL, "uid:1000", groups, G_MAXINT64);

    (void)state;
    assert_true(vp_policy_allows(policy, member, method("/GetDomain"), &web));
    assert_true(may(policy, "uri:spiffe://example.org/ci/7", "/GetDomain", &web));
    assert_false(may(policy, "uri:spiffe://example.org/cd/7", "/GetDomain", &web));
    assert_false(may(policy, "dns:spiffe://example.org/ci/7", "/GetDomain", &web));
    g_autoptr(GPtrArray) roles = vp_policy_roles(policy, member);
    assert_int_equal(roles->len, 1);
    assert_string_equal(roles->pdata[0], "viewer");
}

static void what_is_not_understood_refuses_the_file_with_its_line(void **state)
{
    (void)state;
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"cn:a\"\n", "4", "");
    is_refused("bindings: 5\n", "1", "list");
    is_refused("bindings:\n  - role: viewer\n", "2", "needs a role and subjects");
    is_refused("bindings:\n  - role: king\n    subjects: [\"cn:a\"]\n", "2", "no role \"king\"");
    is_refused("bindings:\n  - role: viewer\n    subjects: []\n", "3", "not empty");
    is_refused("bindings:\n  - role: viewer\n    subjects: [alice]\n", "3", "is no subject");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"*\"]\n", "3", "is no subject");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"uid:root\"]\n", "3", "no number");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"user:nobody-of-this-name\"]\n", "3", "no user");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"cn:a\"]\n    were: {names: [a]}\n", "4", "\"were\"");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"cn:a\"]\n    where:\n      name: [a]\n", "5", "\"name\"");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"cn:a\"]\n    where: {names: []}\n", "4", "not empty");
    is_refused("bindings:\n  - role: viewer\n    subjects: [\"cn:a\"]\n    where: {labels: {}}\n", "4", "not empty");
    is_refused("bindings:\n  - role: viewer\n    role: admin\n    subjects: [\"cn:a\"]\n", "3", "twice");
    is_refused("bindings:\n  - {role: viewer, subjects: [\"cn:a\"], where: {resources: [domains]}}\n", "2", "domains");
    is_refused("roles:\n  viewer: {methods: [GetDomain]}\n", "2", "already");
    is_refused("roles:\n  x:\n    methods: [GetDomian]\n", "3", "GetDomian");
    is_refused("roles:\n  x:\n    includes: y\n", "3", "includes");
    is_refused("rules: {}\n", "1", "\"rules\"");
    is_refused("a: b: c\n", "1", "");
}

static void others_must_not_be_able_to_write_it(void **state)
{
    const VpPolicyOptions options = {.path = file, .methods = vp_contract_methods(contract)};
    g_autoptr(VpError) error = NULL;

    (void)state;
    assert_true(g_file_set_contents(file, "bindings: []\n", -1, NULL));
    g_chmod(file, 0620);
    assert_null(vp_policy_new(&options, &error));
    assert_int_equal(error->code, VP_FAILED_PRECONDITION);
    g_chmod(file, 0600);
    VpError *none = NULL;
    g_autoptr(VpPolicy) policy = vp_policy_new(&options, &none);
    assert_non_null(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_root_alone_is_admin),
        cmocka_unit_test(anonymous_is_root_only_where_that_was_asked_for),
        cmocka_unit_test(each_role_has_what_the_ones_before_it_have),
        cmocka_unit_test(own_roles_have_their_methods),
        cmocka_unit_test(selectors_cover_what_matches_all_of_them),
        cmocka_unit_test(groups_and_patterns_are_subjects),
        cmocka_unit_test(what_is_not_understood_refuses_the_file_with_its_line),
        cmocka_unit_test(others_must_not_be_able_to_write_it),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
