/* What is read of a guest's answers: those of qemu-guest-agent as they were heard, and those of a guest that lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "drivers/qemu/guest_read.h"

static json_t *read_json(const char *text)
{
    json_error_t why;
    json_t *json = json_loads(text, JSON_DECODE_ANY, &why);

    if (!json)
        fail_msg("%s", why.text);
    return json;
}

/* ---- programs and files ---- */

static void test_programs(void **state)
{
    json_auto_t *running = read_json("{\"exited\": false}");
    json_auto_t *ended =
        read_json("{\"exited\": true, \"exitcode\": 3, \"out-data\": \"b3V0Cg==\", \"err-data\": \"ZXJy\"}");
    json_auto_t *killed =
        read_json("{\"exited\": true, \"signal\": 9, \"out-data\": \"b3V0\", \"out-truncated\": true}");
    json_auto_t *windows = read_json("{\"exited\": true, \"exitcode\": 3221225477}");
    gboolean exited;
    gint32 exit_code;
    gint32 killer;

    (void)state;
    assert_true(vp_guest_read_status(running, &exited, &exit_code, &killer));
    assert_false(exited);
    assert_null(vp_guest_read_run(running, 100));
    assert_true(vp_guest_read_status(windows, &exited, &exit_code, &killer));
    assert_int_equal((guint32)exit_code, 3221225477u);

    vp_pb_auto PbRunGuestCommandResponse *well = vp_guest_read_run(ended, 100);
    assert_int_equal(well->exit_code, 3);
    assert_int_equal(well->output.len, 4);
    assert_memory_equal(well->output.data, "out\n", 4);
    assert_memory_equal(well->error_output.data, "err", 3);
    assert_false(well->truncated);
    vp_pb_auto PbRunGuestCommandResponse *cut = vp_guest_read_run(ended, 2);
    assert_int_equal(cut->output.len, 2);
    assert_true(cut->truncated);
    vp_pb_auto PbRunGuestCommandResponse *ill = vp_guest_read_run(killed, 100);
    assert_int_equal(ill->signal, 9);
    assert_true(ill->truncated);
}

static void test_programs_that_lie(void **state)
{
    static const char *const lies[] = {
        "{}",
        "[]",
        "7",
        "null",
        "{\"exited\": 1}",
        "{\"exited\": true, \"exitcode\": \"0\"}",
        "{\"exited\": true, \"exitcode\": 99999999999}",
        "{\"exited\": true, \"signal\": -9}",
        "{\"exited\": true, \"out-data\": 7}",
        "{\"exited\": true, \"out-data\": \"b3V0C\"}",
        "{\"exited\": true, \"out-data\": \"b3V0 g==\"}",
        "{\"exited\": true, \"out-data\": \"b===\"}",
        "{\"exited\": true, \"out-data\": \"=b3V\"}",
        "{\"exited\": true, \"err-data\": [\"b3V0\"]}",
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(lies); i++) {
        json_auto_t *json = read_json(lies[i]);

        assert_null(vp_guest_read_run(json, 100));
    }
}

static void test_numbers(void **state)
{
    static const char *const no_pids[] = {"{}", "{\"pid\": 0}", "{\"pid\": -1}", "{\"pid\": 1.5}", "{\"pid\": \"1\"}",
                                          "1"};
    static const char *const no_handles[] = {"-1", "\"1\"", "1.0", "{\"handle\": 1}", "null"};
    json_auto_t *pid = read_json("{\"pid\": 4711}");
    json_auto_t *handle = read_json("1000");
    gint64 number;

    (void)state;
    assert_true(vp_guest_read_pid(pid, &number));
    assert_int_equal(number, 4711);
    assert_true(vp_guest_read_handle(handle, &number));
    assert_int_equal(number, 1000);
    for (gsize i = 0; i < G_N_ELEMENTS(no_pids); i++) {
        json_auto_t *json = read_json(no_pids[i]);

        assert_false(vp_guest_read_pid(json, &number));
    }
    for (gsize i = 0; i < G_N_ELEMENTS(no_handles); i++) {
        json_auto_t *json = read_json(no_handles[i]);
        guint32 count;

        assert_false(vp_guest_read_handle(json, &number));
        assert_false(vp_guest_read_count(json, &count));
    }
}

static gboolean reads_chunk(const char *text, gsize max, gsize *size, gboolean *at_end)
{
    json_auto_t *json = read_json(text);
    g_autofree guint8 *bytes = NULL;

    return vp_guest_read_chunk(json, max, &bytes, size, at_end);
}

static void test_chunks(void **state)
{
    gsize size;
    gboolean at_end;

    (void)state;
    assert_true(reads_chunk("{\"count\": 4, \"buf-b64\": \"b3V0Cg==\", \"eof\": false}", 4, &size, &at_end));
    assert_int_equal(size, 4);
    assert_false(at_end);
    assert_true(reads_chunk("{\"count\": 0, \"buf-b64\": \"\", \"eof\": true}", 4, &size, &at_end));
    assert_true(at_end);
    /* More than was asked for, another count, no end told. */
    assert_false(reads_chunk("{\"count\": 4, \"buf-b64\": \"b3V0Cg==\", \"eof\": false}", 3, &size, &at_end));
    assert_false(reads_chunk("{\"count\": 3, \"buf-b64\": \"b3V0Cg==\", \"eof\": false}", 4, &size, &at_end));
    assert_false(reads_chunk("{\"count\": 3, \"buf-b64\": \"b3V0Cg==\", \"eof\": false}", 3, &size, &at_end));
    assert_false(reads_chunk("{\"count\": 4, \"buf-b64\": \"b3V0Cg==\"}", 4, &size, &at_end));
    assert_false(reads_chunk("{\"count\": 4, \"eof\": true}", 4, &size, &at_end));

    json_auto_t *written = read_json("{\"count\": 3, \"eof\": false}");
    gsize count;
    assert_true(vp_guest_read_written(written, 3, &count));
    assert_int_equal(count, 3);
    assert_false(vp_guest_read_written(written, 2, &count));
    json_auto_t *nothing = read_json("{\"count\": 0, \"eof\": false}");
    assert_false(vp_guest_read_written(nothing, 3, &count));
}

/* ---- the guest ---- */

static void test_interfaces(void **state)
{
    json_auto_t *json = read_json(
        "[{\"name\": \"lo\", \"ip-addresses\": [{\"ip-address-type\": \"ipv4\", \"ip-address\": \"127.0.0.1\", "
        "\"prefix\": 8},"
        " {\"ip-address-type\": \"ipv6\", \"ip-address\": \"::1\", \"prefix\": 128}],"
        " \"statistics\": {\"tx-packets\": 5, \"tx-errs\": 0, \"rx-bytes\": 430, \"rx-dropped\": -7}, "
        "\"hardware-address\": \"00:00:00:00:00:00\"},"
        " {\"name\": \"eth0\", \"hardware-address\": \"52:54:00:AB:cd:ef\", \"ip-addresses\": ["
        "  {\"ip-address\": \"FE80::1%eth0\", \"prefix\": 64}, {\"ip-address\": \"192.0.2.300\", \"prefix\": 24},"
        "  {\"ip-address\": \"192.0.2.1; rm\", \"prefix\": 24}, {\"ip-address\": \"192.0.2.1\", \"prefix\": 33}, "
        "{\"ip-address\": 7}, 7]},"
        " {\"hardware-address\": \"52:54:00:AB:cd:eg\"}, \"text\"]");
    json_auto_t *none = read_json("{}");

    (void)state;
    vp_pb_auto PbListGuestInterfacesResponse *told = vp_guest_read_interfaces(json);
    assert_int_equal(told->n_interfaces, 3);
    const PbGuestInterface *lo = told->interfaces[0];
    assert_string_equal(lo->addresses[0]->address, "127.0.0.1");
    assert_int_equal(lo->addresses[1]->prefix_length, 128);
    assert_int_equal(lo->counters->sent_packets, 5);
    assert_int_equal(lo->counters->received_dropped, 0);
    const PbGuestInterface *eth0 = told->interfaces[1];
    assert_string_equal(eth0->mac, "52:54:00:ab:cd:ef");
    assert_int_equal(eth0->n_addresses, 1);
    assert_string_equal(eth0->addresses[0]->address, "fe80::1");
    assert_string_equal(told->interfaces[2]->mac, "");
    assert_null(vp_guest_read_interfaces(none));
}

static void test_bounds(void **state)
{
    json_auto_t *users = json_array();
    g_autofree char *name = g_malloc0(4001);

    (void)state;
    /* Two bytes a letter, and one before them: the cut comes in the midst of a letter. */
    name[0] = 'a';
    for (gsize i = 1; i + 1 < 4000; i += 2)
        memcpy(name + i, "\xc3\xa4", 2);
    for (guint i = 0; i < 2000; i++)
        json_array_append_new(users, json_pack("{s:s, s:f}", "user", name, "login-time", i == 0 ? 1e300 : 1.5));
    vp_pb_auto PbListGuestUsersResponse *told = vp_guest_read_users(users);
    assert_int_equal(told->n_users, VP_GUEST_MAX_LIST);
    assert_int_equal(strlen(told->users[0]->name), VP_GUEST_MAX_TEXT - 1);
    assert_true(g_utf8_validate(told->users[0]->name, -1, NULL));
    assert_null(told->users[0]->login_time);
    assert_int_equal(told->users[1]->login_time->nanos, 500000000);
}

static void test_system(void **state)
{
    vp_pb_auto PbGuestInfo *info = vp_pb_new(&pb_guest_info__descriptor);
    json_auto_t *system = read_json("{\"id\": \"debian\", \"kernel-release\": \"6.1.0\", \"machine\": 7}");
    json_auto_t *zone = read_json("{\"zone\": \"CET\", \"offset\": 3600}");
    json_auto_t *far = read_json("{\"zone\": \"X\", \"offset\": 360000}");
    json_auto_t *filesystems = read_json(
        "[{\"name\": \"vda1\", \"mountpoint\": \"/\", \"type\": \"ext4\", \"total-bytes\": 10, \"used-bytes\": -1,"
        " \"disk\": [{\"serial\": \"s1\", \"dev\": \"/dev/vda\"}, {\"dev\": \"/dev/vdb\"}, {}, 7]}, 7]");
    json_auto_t *nothing = read_json("7");

    (void)state;
    assert_true(vp_guest_read_system(system, info));
    assert_string_equal(info->operating_system->id, "debian");
    assert_string_equal(info->operating_system->machine, "");
    assert_true(vp_guest_read_zone(zone, info));
    assert_int_equal(info->time_zone_offset_seconds, 3600);
    assert_false(vp_guest_read_zone(far, info));
    assert_true(vp_guest_read_filesystems(filesystems, info));
    assert_int_equal(info->n_file_systems, 1);
    assert_int_equal(info->file_systems[0]->used_bytes, 0);
    assert_int_equal(info->file_systems[0]->n_disks, 2);
    assert_string_equal(info->file_systems[0]->disks[0], "s1");
    assert_string_equal(info->file_systems[0]->disks[1], "/dev/vdb");
    assert_false(vp_guest_read_system(nothing, info));
    assert_false(vp_guest_read_host_name(nothing, info));
    assert_false(vp_guest_read_filesystems(nothing, info));
}

static void test_the_agent(void **state)
{
    vp_pb_auto PbPingGuestResponse *response = vp_pb_new(&pb_ping_guest_response__descriptor);
    json_auto_t *json =
        read_json("{\"version\": \"7.2.0\", \"supported_commands\": [{\"name\": \"guest-exec\", \"enabled\": true},"
                  " {\"name\": \"guest-ping\", \"enabled\": \"yes\"}, {\"name\": \"\"}, {}, 3]}");
    json_auto_t *bare = read_json("{\"version\": \"7.2.0\"}");
    json_auto_t *time = read_json("1700000000123456789");
    json_auto_t *before = read_json("-1");
    gint64 wall_us;

    (void)state;
    assert_false(vp_guest_read_agent(bare, response));
    assert_true(vp_guest_read_agent(json, response));
    assert_string_equal(response->version, "7.2.0");
    assert_int_equal(response->n_commands, 2);
    assert_true(response->commands[0]->enabled);
    assert_false(response->commands[1]->enabled);
    assert_true(vp_guest_read_time(time, &wall_us));
    assert_int_equal(wall_us, 1700000000123456);
    assert_false(vp_guest_read_time(before, &wall_us));
    assert_false(vp_guest_read_time(bare, &wall_us));
}

static void test_trim(void **state)
{
    json_auto_t *json =
        read_json("{\"paths\": [{\"path\": \"/\", \"trimmed\": 4096, \"minimum\": 0}, {\"path\": \"/boot\","
                  " \"error\": \"trim not supported\"}]}");
    json_auto_t *none = read_json("[]");

    (void)state;
    vp_pb_auto PbTrimGuestFilesystemsResponse *told = vp_guest_read_trim(json);
    assert_int_equal(told->n_file_systems, 2);
    assert_int_equal(told->file_systems[0]->trimmed_bytes, 4096);
    assert_string_equal(told->file_systems[1]->error, "trim not supported");
    assert_null(vp_guest_read_trim(none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_programs), cmocka_unit_test(test_programs_that_lie), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_chunks),   cmocka_unit_test(test_interfaces),        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_system),   cmocka_unit_test(test_the_agent),         cmocka_unit_test(test_trim),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
