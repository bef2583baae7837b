/* How a running domain is changed over QMP: the commands for it, what takes them back, what is read of QEMU's answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "drivers/qemu/ids.h"
#include "drivers/qemu/live_commands.h"
#include "drivers/qemu/live_read.h"
#include "drivers/qemu/sizes.h"

static json_t *read_json(const char *text)
{
    json_error_t why;
    json_t *json = json_loads(text, JSON_DECODE_ANY, &why);

    if (!json)
        fail_msg("%s: %s", text, why.text);
    return json;
}

/* The commands' names, and what they are about. */
static void expect(json_t *commands, const char *wanted)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    json_t *command;
    size_t i;

    json_array_foreach(commands, i, command)
    {
        static const char *const keys[] = {"node-name", "id", "fdset-id", "fdname"};
        json_t *arguments = json_object_get(command, "arguments");

        g_string_append_printf(seen, "%s%s", i ? " " : "", json_string_value(json_object_get(command, "execute")));
        for (guint k = 0; k < G_N_ELEMENTS(keys); k++) {
            json_t *value = json_object_get(arguments, keys[k]);

            if (json_is_string(value))
                g_string_append_printf(seen, ":%s", json_string_value(value));
            else if (json_is_integer(value))
                g_string_append_printf(seen, ":%d", (int)json_integer_value(value));
        }
    }
    assert_string_equal(seen->str, wanted);
    json_decref(commands);
}

static PbDomainSpec *spec_with(PbDiskBus bus, guint slot)
{
    PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

    vp_pb_set(&disk->target, "vdb");
    vp_pb_set(&disk->path, "/images/b");
    disk->bus = bus;
    disk->slot = slot;
    vp_pb_append(&spec->n_disks, &spec->disks, disk);
    return spec;
}

static void disk_comes(void **state)
{
    const VpLayerFds layers[] = {{.format = PB_IMAGE_FORMAT_QCOW2, .fd = 40, .data_fd = 41, .encrypted = TRUE},
                                 {.format = PB_IMAGE_FORMAT_RAW, .fd = 42, .data_fd = -1}};
    VpDiskFds disks[] = {{.layers = layers, .n_layers = 2, .side = 0}};
    const int secrets[] = {43};
    vp_pb_auto PbDomainSpec *spec = spec_with(PB_DISK_BUS_VIRTIO, 3);
    const VpCommandLine line = {.uid = "uid", .spec = spec, .architecture = "", .disks = disks, .secret_fds = secrets};
    json_t *commands = NULL;

    (void)state;
    vp_pb_set(&spec->disks[0]->secret, "key");
    assert_null(vp_live_attach_disk(&line, 0, 7, &commands));
    json_t *last = json_array_get(commands, json_array_size(commands) - 1);
    json_t *device = json_object_get(last, "arguments");
    assert_string_equal(json_string_value(json_object_get(device, "bus")), "slot3");
    /* Its place in the order of boot may be taken. */
    assert_null(json_object_get(device, "bootindex"));
    /* The passphrase's descriptor comes first, and is in QEMU no longer than it has to be. */
    assert_int_equal(json_integer_value(json_object_get(json_array_get(commands, 0), "fd")), 43);
    assert_true(json_is_true(json_object_get(json_array_get(commands, 1), "file-of-fd")));
    expect(commands, "add-fd:8 object-add:secret-vdb remove-fd:8 add-fd:9 blockdev-add:pci3-1-file blockdev-add:pci3-1 "
                     "add-fd:10 blockdev-add:pci3-0-file add-fd:11 blockdev-add:pci3-0-data blockdev-add:pci3-0 "
                     "query-named-block-nodes device_add:disk-vdb");
    /* Of SCSI the controller is there. */
    spec->disks[0]->bus = PB_DISK_BUS_SCSI;
    vp_pb_set(&spec->disks[0]->secret, "");
    disks[0].n_layers = 0;
    assert_null(vp_live_attach_disk(&line, 0, 0, &commands));
    expect(commands, "query-named-block-nodes device_add:disk-vdb");
}

static void a_layer_that_would_cut_the_chain(void **state)
{
    const VpLayerFds layers[] = {{.format = PB_IMAGE_FORMAT_RAW, .fd = 40, .data_fd = -1},
                                 {.format = PB_IMAGE_FORMAT_RAW, .fd = 42, .data_fd = -1}};
    const VpDiskFds disks[] = {{.layers = layers, .n_layers = 2, .side = 0}};
    vp_pb_auto PbDomainSpec *spec = spec_with(PB_DISK_BUS_VIRTIO, 3);
    const VpCommandLine line = {.uid = "uid", .spec = spec, .architecture = "", .disks = disks};
    json_t *commands = NULL;

    (void)state;
    g_autoptr(VpError) error = vp_live_attach_disk(&line, 0, 0, &commands);
    assert_string_equal(error->reason, "UNSUPPORTED_FORMAT");
    assert_null(commands);
}

static void interface_comes(void **state)
{
    const VpNicFds nics[] = {{.n_queues = 2, .tap_fds = {30, 31}, .vhost_fds = {32, 33}, .stream_fd = -1}};
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);
    const VpCommandLine line = {.spec = spec, .architecture = "", .nics = nics};

    (void)state;
    interface->slot = 4;
    interface->type = PB_INTERFACE_TYPE_BRIDGE;
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
    json_t *commands = vp_live_attach_interface(&line, 0);
    json_t *netdev = json_object_get(json_array_get(commands, 4), "arguments");
    assert_string_equal(json_string_value(json_object_get(netdev, "vhostfds")), "net4-vhost0:net4-vhost1");
    expect(commands, "getfd:net4-tap0 getfd:net4-tap1 getfd:net4-vhost0 getfd:net4-vhost1 netdev_add:net4 "
                     "device_add:nic4");
}

static void media(void **state)
{
    vp_pb_auto PbDomainSpec *spec = spec_with(PB_DISK_BUS_SATA, 2);
    json_t *commands = vp_live_swap_medium(spec->disks[0], 0, 1, TRUE);

    (void)state;
    json_t *undo = vp_live_undo(json_array_get(commands, 1));
    assert_string_equal(json_string_value(json_object_get(json_object_get(undo, "arguments"), "node-name")), "sata2-0");
    json_decref(undo);
    expect(commands, "blockdev-open-tray:disk-vdb blockdev-remove-medium:disk-vdb "
                     "blockdev-insert-medium:sata2b-0:disk-vdb blockdev-close-tray:disk-vdb");
    expect(vp_live_swap_medium(spec->disks[0], 1, -1, FALSE),
           "blockdev-open-tray:disk-vdb blockdev-remove-medium:disk-vdb blockdev-close-tray:disk-vdb");
    assert_int_equal(vp_id_disk_side(spec->disks[0], "sata2b-0"), 1);
    assert_int_equal(vp_id_disk_side(spec->disks[0], "sata2-0"), 0);
    assert_ptr_equal(vp_id_disk_of_node(spec, "sata2b-0-file"), spec->disks[0]);
}

static void what_takes_back(void **state)
{
    static const char *const pairs[][2] = {
        {"{\"execute\":\"blockdev-add\",\"arguments\":{\"node-name\":\"a\"}}", "blockdev-del:a"},
        {"{\"execute\":\"object-add\",\"arguments\":{\"id\":\"a\"}}", "object-del:a"},
        {"{\"execute\":\"netdev_add\",\"arguments\":{\"id\":\"a\"}}", "netdev_del:a"},
        {"{\"execute\":\"device_add\",\"arguments\":{\"id\":\"a\"}}", "device_del:a"},
        {"{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":3,\"opaque\":\"a\"}}", "remove-fd:3"},
        {"{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"a\"}}", "closefd:a"},
    };
    json_t *other = read_json("{\"execute\":\"query-status\"}");

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(pairs); i++) {
        json_t *command = read_json(pairs[i][0]);
        json_t *commands = json_array();

        json_array_append_new(commands, vp_live_undo(command));
        expect(commands, pairs[i][1]);
        json_decref(command);
    }
    assert_null(vp_live_undo(other));
    json_decref(other);
}

/* The top goes first, a format before what it lies on; and nothing of another slot, whose name only begins alike. */
static void nodes_go(void **state)
{
    json_t *nodes =
        read_json("[{\"node-name\":\"pci1-1-file\"},{\"node-name\":\"pci1-0-file\"},{\"node-name\":\"pci10-0\"},"
                  "{\"node-name\":\"pci1-1\"},{\"node-name\":\"pci1-0-data\"},{\"node-name\":\"pci1-0\"},"
                  "{\"node-name\":\"pci1b-0\"},{\"node-name\":\"pci1-0-window\"},{\"node-name\":\"#block1\"},{}]");
    json_t *sets = read_json(
        "[{\"fdset-id\":2,\"fds\":[{\"fd\":9,\"opaque\":\"pci1-0-file\"}]},"
        "{\"fdset-id\":12,\"fds\":[{\"fd\":10,\"opaque\":\"pci10-0-file\"}]},{\"fdset-id\":3,\"fds\":[{\"fd\":1}]}]");

    (void)state;
    expect(vp_live_remove_nodes(nodes, sets, "pci1"),
           "blockdev-del:pci1-0 blockdev-del:pci1-0-window blockdev-del:pci1-0-data blockdev-del:pci1-0-file "
           "blockdev-del:pci1-1 blockdev-del:pci1-1-file remove-fd:2");
    assert_int_equal(vp_live_last_fd_set(sets), 12);
    assert_int_equal(vp_live_last_fd_set(NULL), 0);
    json_decref(nodes);
    json_decref(sets);
}

static void limits(void **state)
{
    vp_pb_auto PbDomainSpec *before = spec_with(PB_DISK_BUS_VIRTIO, 1);
    vp_pb_auto PbDomainSpec *after = spec_with(PB_DISK_BUS_VIRTIO, 1);
    json_t *block =
        read_json("{\"qdev\":\"/machine/peripheral/disk-vdb/virtio-backend\",\"inserted\":{\"node-name\":\"pci1-0\","
                  "\"bps\":0,\"bps_rd\":5,\"bps_wr\":0,\"iops\":7,\"iops_rd\":0,\"iops_wr\":0,\"group\":\"g\"}}");
    json_t *blocks = json_pack("[{s:s}, O]", "qdev", "disk-vda", block);

    (void)state;
    after->disks[0]->throttle = vp_pb_new(&pb_throttle__descriptor);
    after->disks[0]->throttle->read_bytes_per_second = 5;
    after->disks[0]->throttle->total_requests_per_second = 7;
    expect(vp_live_throttle(before->disks[0], after->disks[0]),
           "block_set_io_throttle:/machine/peripheral/disk-vdb/virtio-backend");
    assert_ptr_equal(vp_live_find_block(blocks, after->disks[0]), block);
    assert_string_equal(vp_live_node(block), "pci1-0");
    assert_false(vp_live_same_throttle(block, after->disks[0]));
    vp_pb_set(&after->disks[0]->throttle->group, "g");
    assert_true(vp_live_same_throttle(block, after->disks[0]));
    /* Out of a group it goes by having no limits in between. */
    expect(vp_live_throttle(after->disks[0], before->disks[0]),
           "block_set_io_throttle:/machine/peripheral/disk-vdb/virtio-backend");
    vp_live_read_throttle(block, before->disks[0]);
    assert_true(vp_pb_equal(before->disks[0], after->disks[0]));
    vp_pb_set(&before->disks[0]->throttle->group, "");
    json_t *both = vp_live_throttle(after->disks[0], before->disks[0]);
    assert_int_equal(json_array_size(both), 2);
    json_decref(both);
    json_decref(blocks);
    json_decref(block);
}

static void sizes(void **state)
{
    json_t *cpus = read_json("[{\"vcpus-count\":1,\"props\":{\"core-id\":3},\"type\":\"t\"},"
                             "{\"vcpus-count\":1,\"props\":{\"core-id\":2},\"type\":\"t\"},"
                             "{\"vcpus-count\":1,\"props\":{\"core-id\":1},\"qom-path\":\"/b\"},"
                             "{\"vcpus-count\":1,\"props\":{\"core-id\":0},\"qom-path\":\"/a\"}]");
    json_t *dimms = read_json("[{\"type\":\"dimm\",\"data\":{\"id\":\"dimm0\",\"size\":100}},"
                              "{\"type\":\"dimm\",\"data\":{\"id\":\"dimm2\",\"size\":50}},"
                              "{\"type\":\"dimm\",\"data\":{\"id\":\"mine\",\"size\":50}}]");
    json_t *summary = read_json("{\"base-memory\":1000,\"plugged-memory\":200}");
    guint64 bytes = 0;
    guint n = 0;

    (void)state;
    assert_int_equal(vp_sizes_vcpus(cpus), 2);
    g_autoptr(GPtrArray) free_ones = vp_sizes_free_vcpus(cpus, 1);
    assert_int_equal(free_ones->len, 1);
    expect(vp_live_add_cpu(free_ones->pdata[0]), "device_add:cpu-core-id2");
    g_autoptr(GPtrArray) last = vp_sizes_last_vcpus(cpus, 1);
    assert_string_equal(last->pdata[0], "/b");
    assert_int_equal(vp_sizes_memory(summary), 1200);
    assert_int_equal(vp_sizes_free_dimm(dimms, &n), 1);
    assert_int_equal(n, 3);
    g_autoptr(GPtrArray) leaving = vp_sizes_leaving_dimms(dimms, 149, &bytes);
    assert_int_equal(leaving->len, 1);
    assert_string_equal(leaving->pdata[0], "dimm2");
    assert_int_equal(bytes, 50);
    g_autoptr(GPtrArray) both = vp_sizes_leaving_dimms(dimms, 150, &bytes);
    assert_int_equal(both->len, 2);
    g_autoptr(GPtrArray) none = vp_sizes_leaving_dimms(dimms, 49, &bytes);
    assert_int_equal(none->len, 0);
    json_decref(cpus);
    json_decref(dimms);
    json_decref(summary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_comes),      cmocka_unit_test(a_layer_that_would_cut_the_chain),
        cmocka_unit_test(interface_comes), cmocka_unit_test(media),
        cmocka_unit_test(what_takes_back), cmocka_unit_test(nodes_go),
        cmocka_unit_test(limits),          cmocka_unit_test(sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
