/* See images.h. */
#include "tests/unit/storage/images.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"

int images_setup(void **state)
{
    const char *base = g_getenv("TEST_TMPDIR");
    g_autofree char *template = g_strdup_printf("%s/vp-images-XXXXXX", base ? base : g_get_tmp_dir());
    char *folder = realpath(mkdtemp(template), NULL);
    *state = folder;
    return folder && chdir(folder) == 0 ? 0 : -1;
}

int images_teardown(void **state)
{
    char *folder = *state;
    int status = -1;
    if (chdir("/") == 0) {
        g_autofree char *output = NULL;
        status = try_run(&output, "chmod -R u+w '%s'; rm -rf '%s'", folder, folder);
    }
    free(folder);
    return status;
}

static int run_command(const char *command, char **ret_output)
{
    g_autofree char *all = g_strdup_printf("( %s\n) 2>&1", command);
    char *argv[] = {"/bin/sh", "-c", all, NULL};
    int status = -1;
    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, ret_output, NULL, &status, NULL)) {
        fail_msg("cannot run %s", command);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int try_run(char **ret_output, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *command = g_strdup_vprintf(format, args);
    va_end(args);
    return run_command(command, ret_output);
}

char *run(const char *format, ...)
{
    char *output = NULL;
    va_list args;
    va_start(args, format);
    g_autofree char *command = g_strdup_vprintf(format, args);
    va_end(args);
    if (run_command(command, &output) != 0) {
        fail_msg("%s: %s", command, output);
    }
    return output;
}

char *path_of(const char *name)
{
    g_autofree char *folder = g_get_current_dir();
    return g_strdup_printf("%s/%s", folder, name);
}

VpChain *walk_with(const char *name, const VpChainOptions *options)
{
    g_autofree char *path = name[0] == '/' ? g_strdup(name) : path_of(name);
    VpChain *chain = NULL;
    g_autoptr(VpError) error = vp_chain_walk(path, options, NULL, &chain);
    if (error) {
        fail_msg("%s: %s", name, error->message);
    }
    return chain;
}

VpChain *walk(const char *name, PbImageFormat format)
{
    VpChainOptions options = {.format = format};
    return walk_with(name, &options);
}

const PbFinding *find(const VpChain *chain, PbFindingCode code)
{
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        if (finding->code == code) {
            return finding;
        }
    }
    return NULL;
}

static void print_findings(const VpChain *chain)
{
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        print_message("  %s: %s\n", vp_pb_enum_name(&pb_finding_code__descriptor, (int)finding->code),
                      finding->message);
    }
}

void assert_refused(const VpChain *chain, PbFindingCode code, guint32 depth)
{
    const char *name = vp_pb_enum_name(&pb_finding_code__descriptor, (int)code) + strlen("FINDING_CODE_");
    const PbFinding *finding = find(chain, code);
    g_autoptr(VpError) error = vp_chain_refusal(chain);
    if (!finding || !error || strcmp(error->reason, name) != 0 || finding->depth != depth) {
        print_findings(chain);
        fail_msg("not refused with %s at depth %u", name, depth);
    }
    assert_false(chain->summary->safe);
    assert_int_equal(finding->severity, PB_SEVERITY_ERROR);
    assert_int_equal(error->code, VP_FAILED_PRECONDITION);
    assert_string_equal(vp_error_get(error, "path"), finding->path);
    assert_string_equal(vp_error_get(error, "remedy"), finding->remedy);
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *any = g_ptr_array_index(chain->findings, i);
        assert_true(g_utf8_validate(any->message, -1, NULL) && g_utf8_validate(any->path, -1, NULL) &&
                    g_utf8_validate(any->remedy, -1, NULL));
    }
}

void assert_safe(const VpChain *chain, guint32 layers)
{
    g_autoptr(VpError) error = vp_chain_refusal(chain);
    if (!chain->summary->safe || error || chain->summary->depth != layers) {
        print_findings(chain);
        fail_msg("not safe, or %u layers", chain->summary->depth);
    }
    assert_int_equal(chain->summary->errors, 0);
    for (guint i = 0; i < chain->files->len; i++) {
        assert_true(file_at(chain, i)->fd >= 0);
    }
}
