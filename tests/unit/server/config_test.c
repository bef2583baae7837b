/* The settings: what holds without any, what the file and the command line say, and that nothing that is not understood passes in silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/config.h"

typedef struct Bench {
    char *dir;
    char *file;
    char *state;
} Bench;

static int setup(void **state)
{
    Bench *bench = g_new0(Bench, 1);

    bench->dir = g_dir_make_tmp("vp-config-XXXXXX", NULL);
    bench->file = g_build_filename(bench->dir, "conf", NULL);
    bench->state = g_build_filename(bench->dir, "state", NULL);
    *state = bench;
    return 0;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        remove_tree(child);
    }
    g_remove(path);
}

static int teardown(void **state)
{
    Bench *bench = *state;

    remove_tree(bench->dir);
    g_free(bench->dir);
    g_free(bench->file);
    g_free(bench->state);
    g_free(bench);
    return 0;
}

static VpConfig *load(Bench *bench, const char *text, const VpConfigArguments *arguments, VpError **error)
{
    VpConfigArguments with_file = *arguments;

    if (text) {
        assert_true(g_file_set_contents(bench->file, text, -1, NULL));
        with_file.config = bench->file;
    }
    return vp_config_new(&with_file, error);
}

static VpConfig *loads(Bench *bench, const char *text, const VpConfigArguments *arguments)
{
    VpError *error = NULL;
    VpConfig *config = load(bench, text, arguments, &error);

    if (!config)
        fail_msg("%s", error->message);
    return config;
}

/* Refused, and the message says `words`. */
static void is_refused(Bench *bench, const char *text, const char *words)
{
    const VpConfigArguments arguments = {.state_dir = bench->state};
    g_autoptr(VpError) error = NULL;

    assert_null(load(bench, text, &arguments, &error));
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "CONFIG");
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
}

static void defaults(void **state)
{
    Bench *bench = *state;
    const VpConfigArguments arguments = {.state_dir = bench->state};
    g_autoptr(VpConfig) config = loads(bench, NULL, &arguments);
    g_autofree char *run = g_build_filename(bench->state, "run", NULL);
    g_autofree char *address = g_strdup_printf("unix:%s/virtplaned.sock", run);
    struct stat status;

    assert_string_equal(config->state_dir, bench->state);
    assert_string_equal(config->run_dir, run);
    assert_int_equal(g_strv_length(config->listen), 1);
    assert_string_equal(config->listen[0], address);
    assert_int_equal(config->rpc_threads, 0);
    assert_int_equal(config->drain_ms, 10000);
    /* The folders are made, for nobody else. */
    assert_int_equal(stat(bench->state, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(run, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
}

static void the_file(void **state)
{
    Bench *bench = *state;
    g_autofree char *text =
        g_strdup_printf("[daemon]\nstate_dir=%s\nlisten=unix:/a;127.0.0.1:0\nrpc_threads=3\ndrain_ms=0\n"
                        "[test]\nanything=is the driver's\n",
                        bench->state);
    const VpConfigArguments arguments = {0};
    g_autoptr(VpConfig) config = loads(bench, text, &arguments);
    g_autofree char *drivers = g_key_file_get_string(config->file, "test", "anything", NULL);

    assert_string_equal(config->state_dir, bench->state);
    assert_int_equal(g_strv_length(config->listen), 2);
    assert_string_equal(config->listen[1], "127.0.0.1:0");
    assert_int_equal(config->rpc_threads, 3);
    assert_int_equal(config->drain_ms, 0);
    assert_string_equal(drivers, "is the driver's");
}

static void the_command_line_comes_before_the_file(void **state)
{
    Bench *bench = *state;
    char *listen[] = {(char *)"unix:/b", NULL};
    const VpConfigArguments arguments = {.state_dir = bench->state, .listen = listen};
    g_autoptr(VpConfig) config = loads(bench, "[daemon]\nstate_dir=/nonexistent/x\nlisten=unix:/a\n", &arguments);

    assert_string_equal(config->state_dir, bench->state);
    assert_string_equal(config->listen[0], "unix:/b");
    assert_null(config->listen[1]);
}

static void what_is_not_understood_is_refused(void **state)
{
    Bench *bench = *state;

    is_refused(bench, "[daemon]\nlisten_on=unix:/a\n", "listen_on");
    is_refused(bench, "[deamon]\ndrain_ms=5\n", "[deamon]");
    is_refused(bench, "[daemon]\nrpc_threads=many\n", "rpc_threads");
    is_refused(bench, "[daemon]\nrpc_threads=65\n", "rpc_threads");
    is_refused(bench, "[daemon]\nrpc_threads=-1\n", "rpc_threads");
    is_refused(bench, "[daemon]\ndrain_ms=600001\n", "drain_ms");
    is_refused(bench, "[daemon]\ndrain_ms=99999999999999999999\n", "drain_ms");
    is_refused(bench, "[daemon]\ndrain_ms=5s\n", "drain_ms");
    is_refused(bench, "[daemon]\ndrain_ms=\n", "drain_ms");
    is_refused(bench, "listen=unix:/a\n", bench->file);
    is_refused(bench, "[daemon\n", bench->file);
    /* A daemon that nobody could reach. */
    is_refused(bench, "[daemon]\nlisten=\n", "listen");
}

/* A folder that depends on where the daemon was started from is not one to keep state in. */
static void folders(void **state)
{
    Bench *bench = *state;
    g_autoptr(VpError) relative = NULL;
    g_autoptr(VpError) empty = NULL;
    g_autoptr(VpError) no_folder = NULL;
    g_autoptr(VpError) no_file = NULL;
    const VpConfigArguments nothing = {0};
    const VpConfigArguments empty_flag = {.state_dir = ""};
    g_autofree char *below_a_file = g_build_filename(bench->file, "state", NULL);
    const VpConfigArguments bad_folder = {.state_dir = below_a_file};
    const VpConfigArguments bad_file = {.config = "/nonexistent/conf", .state_dir = bench->state};

    assert_null(load(bench, "[daemon]\nstate_dir=relative\n", &nothing, &relative));
    assert_int_equal(relative->code, VP_INVALID_ARGUMENT);
    assert_false(g_file_test("relative", G_FILE_TEST_EXISTS));
    assert_null(load(bench, NULL, &empty_flag, &empty));
    assert_int_equal(empty->code, VP_INVALID_ARGUMENT);
    assert_null(load(bench, NULL, &bad_folder, &no_folder));
    assert_string_equal(no_folder->reason, "STATE_DIR");
    assert_null(vp_config_new(&bad_file, &no_file));
    assert_non_null(strstr(no_file->message, "/nonexistent/conf"));
    /* On the command line one may type a relative path, as everywhere. */
    assert_int_equal(chdir(bench->dir), 0);
    const VpConfigArguments typed = {.state_dir = "./a/../state"};
    g_autoptr(VpConfig) config = loads(bench, NULL, &typed);
    assert_string_equal(config->state_dir, bench->state);
    assert_int_equal(chdir("/"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(the_command_line_comes_before_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_understood_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(folders, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
