/* libFuzzer on the policy's file: whatever it says it is taken, or refused with its line, soon and within bounds; and what is taken answers. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/auth/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const VpContract *contract(void)
{
    static VpContract *made;
    VpError *error = NULL;

    if (!made)
        made = vp_contract_new(&error);
    if (!made)
        abort();
    return made;
}

static void ask(const VpPolicy *policy, const GArray *methods)
{
    const char *const groups[] = {"gid:100", "token-group:a", NULL};
    g_autoptr(VpIdentity) identity = vp_identity_new(PB_IDENTITY_KIND_LOCAL, "uid:1000", groups, G_MAXINT64);
    const VpResource resource = {.type = "domain", .name = "web", .driver = "test"};

    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, i);

        /* Who may call it on all may call it on this one, and who may on this one may call it. */
        const gboolean all = vp_policy_allows_all(policy, identity, method);
        const gboolean one = vp_policy_allows(policy, identity, method, &resource);
        if ((all && !one) || (one && method->scope != PB_METHOD_SCOPE_HOST && g_str_equal(method->resource, "domain") &&
                              !vp_policy_may_call(policy, identity, method)))
            abort();
    }
    for (VpPolicyLimit limit = 0; limit < VP_POLICY_LIMITS; limit++) {
        const gint64 value = vp_policy_limit(policy, identity, limit);

        if (value < -1 || value > VP_POLICY_MOST)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = memfd_create("policy", MFD_CLOEXEC);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    VpError *error = NULL;

    if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    const VpPolicyOptions options = {.path = path, .methods = vp_contract_methods(contract())};
    VpPolicy *policy = vp_policy_new(&options, &error);
    close(fd);
    if (!policy == !error || (error && !strstr(error->message, path)))
        abort();
    if (policy)
        ask(policy, options.methods);
    vp_policy_unref(policy);
    vp_error_free(error);
    return 0;
}
