/* Control groups: what is read of the host, and what is written where. The folders are plain ones, so that both versions can be tried on any host. */
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pb.h"
#include "drivers/qemu/cgroup.h"
#include "drivers/qemu/pinning.h"
#include "tests/unit/drivers/bench.h"

#define UID "11111111-2222-3333-4444-555555555555"
#define GROUP "vms/blue/virtplane-" UID

static void test_mounts(void **state)
{
    g_auto(VpCgroupHost) host = {0};

    (void)state;
    vp_cgroup_host_read("26 20 0:24 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw\n"
                        "27 26 0:25 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n"
                        "28 26 0:26 / /sys/fs/cgroup/cpu rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
                        "nonsense\n",
                        &host);
    assert_string_equal(host.unified, "/sys/fs/cgroup/uni fied");
    assert_string_equal(g_hash_table_lookup(host.legacy, "cpu"), "/sys/fs/cgroup/cpu");
    assert_null(g_hash_table_lookup(host.legacy, "memory"));
}

/* The kernel would make the files with the folder. */
static void make_files(const char *root, const char *folder, const char *const *files)
{
    g_autofree char *path = g_build_filename(root, folder, NULL);

    assert_int_equal(g_mkdir_with_parents(path, 0755), 0);
    for (; *files; files++) {
        g_autofree char *file = g_build_filename(path, *files, NULL);

        assert_true(g_file_set_contents(file, "", -1, NULL));
    }
}

static void expect(const char *root, const char *folder, const char *file, const char *wanted)
{
    g_autofree char *path = g_build_filename(root, folder, file, NULL);
    g_autofree char *text = NULL;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    assert_string_equal(text, wanted);
}

static void remove_trees(const char *root, const char *dir)
{
    const char *const argv[] = {"rm", "-r", root, dir, NULL};

    assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
}

static PbResourceLimits *all_limits(void)
{
    PbResourceLimits *limits = vp_pb_new(&pb_resource_limits__descriptor);

    limits->cpu_weight = 200;
    limits->cpu_millis = 1500;
    limits->memory_bytes = 1 << 30;
    limits->io_weight = 50;
    limits->processes = 99;
    return limits;
}

static void test_version_2(void **state)
{
    static const char *const here[] = {"cgroup.controllers", "cgroup.subtree_control", NULL};
    static const char *const files[] = {"cpu.weight", "cpu.max",      "memory.max", "io.weight",
                                        "pids.max",   "cgroup.procs", NULL};
    g_autofree char *root = g_dir_make_tmp("vp-cgroup-XXXXXX", NULL);
    g_autofree char *dir = g_dir_make_tmp("vp-cgroup-XXXXXX", NULL);
    g_auto(VpCgroupHost) host = {0};
    vp_pb_auto PbResourceLimits *limits = all_limits();

    (void)state;
    make_files(root, ".", here);
    make_files(root, "vms", here);
    make_files(root, "vms/blue", here);
    make_files(root, GROUP, files);
    g_autofree char *controllers = g_build_filename(root, "cgroup.controllers", NULL);
    assert_true(g_file_set_contents(controllers, "cpu io memory pids\n", -1, NULL));
    vp_cgroup_host_read("", &host);
    host.unified = g_strdup(root);
    g_autoptr(VpError) error = vp_cgroup_make(&host, "/vms/blue", UID, limits, dir);
    assert_null(error);
    expect(root, GROUP, "cpu.weight", "200");
    expect(root, GROUP, "cpu.max", "150000 100000");
    expect(root, GROUP, "memory.max", "1073741824");
    expect(root, GROUP, "io.weight", "50");
    expect(root, GROUP, "pids.max", "99");
    expect(root, "vms", "cgroup.subtree_control", "+pids");
    assert_null(vp_cgroup_enter(dir, 1234));
    expect(root, GROUP, "cgroup.procs", "1234");
    vp_cgroup_remove(dir);
    remove_trees(root, dir);
}

static void test_version_1_and_what_is_missing(void **state)
{
    static const char *const cpu[] = {"cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cgroup.procs", NULL};
    g_autofree char *root = g_dir_make_tmp("vp-cgroup-XXXXXX", NULL);
    g_autofree char *dir = g_dir_make_tmp("vp-cgroup-XXXXXX", NULL);
    g_auto(VpCgroupHost) host = {0};
    vp_pb_auto PbResourceLimits *limits = all_limits();

    (void)state;
    make_files(root, GROUP, cpu);
    vp_cgroup_host_read("", &host);
    g_hash_table_insert(host.legacy, g_strdup("cpu"), g_strdup(root));
    g_autoptr(VpError) refused = vp_cgroup_make(&host, "vms/blue", UID, limits, dir);
    check_error(refused, VP_FAILED_PRECONDITION, "CGROUP");
    assert_int_equal(refused->violations->len, 3);
    make_files(root, GROUP, cpu);
    limits->memory_bytes = 0;
    limits->io_weight = 0;
    limits->processes = 0;
    g_autoptr(VpError) error = vp_cgroup_make(&host, "vms/blue", UID, limits, dir);
    assert_null(error);
    expect(root, GROUP, "cpu.shares", "2048");
    expect(root, GROUP, "cpu.cfs_quota_us", "150000");
    remove_trees(root, dir);
}

static void test_sets_of_cpus(void **state)
{
    static const char *const wrong[] = {"", "a", "3-1", "1-2-3", "1,,2", "-1", "1024", "0-1024", "1 2", "+1"};
    cpu_set_t set;

    (void)state;
    assert_true(vp_cpu_set_parse("0-3,8", &set));
    assert_int_equal(CPU_COUNT(&set), 5);
    assert_true(CPU_ISSET(8, &set) && CPU_ISSET(3, &set) && !CPU_ISSET(4, &set));
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++)
        assert_false(vp_cpu_set_parse(wrong[i], &set));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mounts),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_1_and_what_is_missing),
        cmocka_unit_test(test_sets_of_cpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
