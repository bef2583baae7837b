/* What is read of a domain's counters: QEMU's answers as they were heard, answers that are none, processes and tap devices as the host shows them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/pb.h"
#include "drivers/qemu/stats_host.h"

static json_t *read_json(const char *text)
{
    json_error_t why;
    json_t *json = json_loads(text, JSON_DECODE_ANY, &why);

    if (!json)
        fail_msg("%s", why.text);
    return json;
}

static PbDomainStats *new_stats(void)
{
    PbDomainStats *stats = vp_pb_new(&pb_domain_stats__descriptor);

    stats->memory = vp_pb_new(&pb_memory_stats__descriptor);
    return stats;
}

static PbDomainSpec *spec_of(const char *const *targets)
{
    PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);

    for (; *targets; targets++) {
        PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

        vp_pb_set(&disk->target, *targets);
        vp_pb_append(&spec->n_disks, &spec->disks, disk);
    }
    return spec;
}
#define TARGETS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void disks(void **state)
{
    json_t *answer = read_json(
        "[{\"device\":\"\",\"qdev\":\"/machine/peripheral/disk-vdb/virtio-backend\",\"node-name\":\"pci2-0\",\"stats\":"
        "{\"rd_bytes\":512,\"wr_bytes\":1024,\"rd_operations\":1,\"wr_operations\":2,\"flush_operations\":3,"
        "\"rd_total_time_ns\":4,\"wr_total_time_ns\":5,\"flush_total_time_ns\":6,\"failed_rd_operations\":7,"
        "\"invalid_wr_operations\":8,\"wr_highest_offset\":1},\"parent\":{\"stats\":{\"wr_highest_offset\":4096}}},"
        "{\"qdev\":\"disk-vda\",\"stats\":{\"rd_bytes\":1}},{\"qdev\":\"other\",\"stats\":{\"rd_bytes\":9}},"
        "{\"stats\":{\"rd_bytes\":9}},7,null]");
    vp_pb_auto PbDomainSpec *spec = spec_of(TARGETS("vda", "vd", "vdb"));
    vp_pb_auto PbDomainStats *stats = new_stats();

    (void)state;
    vp_stats_read_blocks(answer, spec, stats);
    /* "vd" begins like the others and is none of them. */
    assert_int_equal(stats->n_disks, 2);
    assert_string_equal(stats->disks[0]->target, "vda");
    assert_int_equal(stats->disks[0]->read_bytes, 1);
    const PbDiskStats *disk = stats->disks[1];
    assert_string_equal(disk->target, "vdb");
    assert_int_equal(disk->read_bytes, 512);
    assert_int_equal(disk->write_bytes, 1024);
    assert_int_equal(disk->read_requests, 1);
    assert_int_equal(disk->write_requests, 2);
    assert_int_equal(disk->flush_requests, 3);
    assert_int_equal(disk->read_time_ns, 4);
    assert_int_equal(disk->write_time_ns, 5);
    assert_int_equal(disk->flush_time_ns, 6);
    assert_int_equal(disk->errors, 15);
    assert_int_equal(disk->allocation_bytes, 4096);
    json_decref(answer);
}

static void memory(void **state)
{
    /* As the QMP client reads a line with numbers that have no sign. */
    json_error_t why;
    json_t *untold = json_loads("{\"stats\":{\"stat-total-memory\":18446744073709551615},\"last-update\":0}",
                                JSON_DECODE_INT_AS_REAL, &why);
    json_t *told = json_loads("{\"stats\":{\"stat-total-memory\":123456789,\"stat-free-memory\":18446744073709551615,"
                              "\"stat-swap-in\":7},\"last-update\":1700000000}",
                              JSON_DECODE_INT_AS_REAL, &why);
    json_t *size = read_json("{\"base-memory\":1000,\"plugged-memory\":24}");
    json_t *balloon = read_json("{\"actual\":4096}");
    vp_pb_auto PbDomainStats *stats = new_stats();

    (void)state;
    vp_stats_read_guest(untold, stats);
    assert_null(stats->memory->guest_time);
    assert_int_equal(stats->memory->guest_total_bytes, 0);
    vp_stats_read_guest(told, stats);
    assert_int_equal(stats->memory->guest_time->seconds, 1700000000);
    assert_int_equal(stats->memory->guest_total_bytes, 123456789);
    assert_int_equal(stats->memory->guest_unused_bytes, 0);
    assert_int_equal(stats->memory->guest_swap_in_bytes, 7);
    vp_stats_read_memory_size(size, stats);
    assert_int_equal(stats->memory->actual_bytes, 1024);
    vp_stats_read_balloon(balloon, stats);
    assert_int_equal(stats->memory->actual_bytes, 4096);
    json_decref(untold);
    json_decref(told);
    json_decref(size);
    json_decref(balloon);
}

static void what_is_no_answer(void **state)
{
    static const char *const texts[] = {"null", "7",       "[]",
                                        "{}",   "[[],{}]", "{\"stats\":3,\"actual\":\"x\",\"last-update\":-4}"};
    vp_pb_auto PbDomainSpec *spec = spec_of(TARGETS("vda"));
    g_autoptr(GArray) threads = g_array_new(FALSE, FALSE, sizeof(VpVcpuThread));
    const VpVcpuThread thread = {.index = 0, .tid = 5};

    (void)state;
    g_array_append_val(threads, thread);
    for (gsize i = 0; i <= G_N_ELEMENTS(texts); i++) {
        json_t *answer = i < G_N_ELEMENTS(texts) ? read_json(texts[i]) : NULL;
        vp_pb_auto PbDomainStats *stats = new_stats();

        vp_stats_read_blocks(answer, spec, stats);
        vp_stats_read_balloon(answer, stats);
        vp_stats_read_guest(answer, stats);
        vp_stats_read_memory_size(answer, stats);
        assert_int_equal(stats->n_disks, 0);
        assert_int_equal(stats->memory->actual_bytes, 0);
        assert_null(stats->memory->guest_time);
        if (!json_is_array(answer))
            vp_stats_read_cpus(answer, threads);
        json_decref(answer);
    }
    /* The threads of before are better than none. */
    assert_int_equal(threads->len, 1);
}

static void threads_of_cpus(void **state)
{
    g_autoptr(GArray) threads = g_array_new(FALSE, FALSE, sizeof(VpVcpuThread));
    json_t *answer =
        read_json("[{\"cpu-index\":1,\"thread-id\":42},{\"cpu-index\":3},{\"cpu-index\":2,\"thread-id\":43}]");
    json_t *many = json_array();

    (void)state;
    vp_stats_read_cpus(answer, threads);
    assert_int_equal(threads->len, 2);
    assert_int_equal(g_array_index(threads, VpVcpuThread, 0).index, 1);
    assert_int_equal(g_array_index(threads, VpVcpuThread, 1).tid, 43);
    for (int i = 0; i < 3 * VP_STATS_MAX_VCPUS; i++)
        json_array_append_new(many, json_pack("{s:i, s:i}", "cpu-index", i, "thread-id", i + 1));
    vp_stats_read_cpus(many, threads);
    assert_int_equal(threads->len, VP_STATS_MAX_VCPUS);
    json_decref(answer);
    json_decref(many);
}

static void a_process(void **state)
{
    const VpProcess process = {.pid = getpid(), .pidfd = -1};
    const VpProcess nobody = {.pid = 0x7ffffff0, .pidfd = -1};
    g_autoptr(GArray) threads = g_array_new(FALSE, FALSE, sizeof(VpVcpuThread));
    const VpVcpuThread mine = {.index = 0, .tid = (pid_t)syscall(SYS_gettid)};
    const VpVcpuThread none = {.index = 1, .tid = 0x7ffffff0};
    vp_pb_auto PbDomainSpec *spec = spec_of(TARGETS(NULL));
    vp_pb_auto PbDomainStats *stats = new_stats();
    vp_pb_auto PbDomainStats *of_nobody = vp_pb_new(&pb_domain_stats__descriptor);
    struct timespec before;
    struct timespec after;

    (void)state;
    g_array_append_val(threads, mine);
    g_array_append_val(threads, none);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    while (clock() < 30 * CLOCKS_PER_SEC / 1000)
        ;
    vp_stats_host(&process, threads, spec, "", stats);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    assert_in_range(stats->cpu_time_ns, (guint64)before.tv_sec * 1000000000 + (guint64)before.tv_nsec,
                    (guint64)after.tv_sec * 1000000000 + (guint64)after.tv_nsec);
    assert_in_range(stats->memory->resident_bytes, 100000, G_MAXINT32);
    assert_int_equal(stats->n_vcpus, 2);
    assert_in_range(stats->vcpus[0]->cpu_time_ns, 1000000, stats->cpu_time_ns + 1000000000);
    assert_int_equal(stats->vcpus[1]->index, 1);
    assert_int_equal(stats->vcpus[1]->cpu_time_ns, 0);
    vp_stats_host(&nobody, threads, spec, "", of_nobody);
    assert_int_equal(of_nobody->cpu_time_ns, 0);
    assert_int_equal(of_nobody->memory->resident_bytes, 0);
}

static void write_at(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *folder = g_path_get_dirname(path);

    g_mkdir_with_parents(folder, 0700);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void add_interface(PbDomainSpec *spec, PbInterfaceType type, const char *mac)
{
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);

    interface->type = type;
    vp_pb_set(&interface->mac, mac);
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
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

static void interfaces(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("vp-stats-XXXXXX", NULL);
    vp_pb_auto PbDomainSpec *spec = spec_of(TARGETS(NULL));
    vp_pb_auto PbDomainStats *stats = vp_pb_new(&pb_domain_stats__descriptor);

    (void)state;
    write_at(dir, "vp525400000001/ifalias", "virtplane uid-1\n");
    write_at(dir, "vp525400000001/statistics/rx_bytes", "100\n");
    write_at(dir, "vp525400000001/statistics/tx_bytes", "200\n");
    write_at(dir, "vp525400000001/statistics/rx_packets", "3\n");
    write_at(dir, "vp525400000001/statistics/tx_packets", "4\n");
    write_at(dir, "vp525400000001/statistics/rx_dropped", "5\n");
    write_at(dir, "vp525400000001/statistics/tx_errors", "6\n");
    write_at(dir, "vp525400000002/ifalias", "virtplane uid-2\n");
    write_at(dir, "vp525400000002/statistics/rx_bytes", "100\n");
    add_interface(spec, PB_INTERFACE_TYPE_BRIDGE, "52:54:00:00:00:01");
    add_interface(spec, PB_INTERFACE_TYPE_BRIDGE, "52:54:00:00:00:02");
    add_interface(spec, PB_INTERFACE_TYPE_BRIDGE, "52:54:00:00:00:03");
    add_interface(spec, PB_INTERFACE_TYPE_USER, "52:54:00:00:00:01");
    vp_stats_interfaces(dir, spec, "uid-1", stats);
    remove_tree(dir);
    assert_int_equal(stats->n_interfaces, 4);
    const PbInterfaceStats *interface = stats->interfaces[0];
    assert_string_equal(interface->mac, "52:54:00:00:00:01");
    assert_true(interface->counted);
    assert_int_equal(interface->receive_bytes, 200);
    assert_int_equal(interface->transmit_bytes, 100);
    assert_int_equal(interface->receive_packets, 4);
    assert_int_equal(interface->transmit_packets, 3);
    assert_int_equal(interface->transmit_drops, 5);
    assert_int_equal(interface->receive_errors, 6);
    for (size_t i = 1; i < 4; i++) {
        /* Another domain's, none, and one that has no device of the host's. */
        assert_false(stats->interfaces[i]->counted);
        assert_int_equal(stats->interfaces[i]->transmit_bytes, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks),           cmocka_unit_test(memory),    cmocka_unit_test(what_is_no_answer),
        cmocka_unit_test(threads_of_cpus), cmocka_unit_test(a_process), cmocka_unit_test(interfaces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
