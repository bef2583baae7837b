/*
 * RecordBackingFormat: what QEMU sees before and after, what an interruption leaves at any point, and that an image in use is left alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "storage/chain/record_plan.h"
#include "storage/probe/qcow2.h"
#include "tests/unit/storage/headers.h"
#include "tests/unit/storage/images.h"

/* Removes the backing format from an image that qemu-img made: it is the first extension, and becomes one that nobody knows. */
static void forget_format(const char *name, off_t extension)
{
    int fd = open(name, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\x11", 1, extension), 1);
    close(fd);
}

static VpError *record(const char *name, PbImageFormat format, gboolean validate_only, PbImageFormat *ret_format,
                       gboolean *ret_changed, char **ret_undo)
{
    g_autofree char *path = path_of(name);
    PbImageLayer *layer = NULL;
    VpError *error =
        vp_image_record_backing_format(path, format, validate_only, NULL, &layer, ret_format, ret_changed, ret_undo);
    if (!error) {
        assert_int_equal(layer->backing_format, *ret_format);
        assert_int_equal(layer->format, PB_IMAGE_FORMAT_QCOW2);
    }
    vp_pb_free(layer);
    return error;
}

static void assert_recorded(const char *name, const char *format)
{
    g_autofree char *output = run("qemu-img info -f qcow2 %s", name);
    g_autofree char *line = g_strdup_printf("backing file format: %s\n", format);
    if (!strstr(output, line)) {
        fail_msg("%s: %s", name, output);
    }
    must_run("qemu-img check -q -f qcow2 %s", name);
}

static void records_for_all_kinds(void **state)
{
    (void)state;
    static const char *const options[] = {"compat=1.1",       "compat=0.10",    "cluster_size=4k",
                                          "cluster_size=2M",  "extended_l2=on", "compression_type=zstd",
                                          "lazy_refcounts=on"};
    must_run("qemu-img create -q -f qcow2 k0.q 4M; qemu-io -f qcow2 -c 'write -P 7 0 1M' k0.q; cp k0.q k0.raw.q;"
             "qemu-img convert -f qcow2 -O raw k0.q k0.raw");
    for (gsize i = 0; i < G_N_ELEMENTS(options); i++) {
        for (guint raw = 0; raw < 2; raw++) {
            const char *format = raw ? "raw" : "qcow2";
            PbImageFormat got = PB_IMAGE_FORMAT_UNSPECIFIED;
            gboolean changed = FALSE;
            g_autofree char *undo = NULL;
            must_run("rm -f k1.q; qemu-img create -q -f qcow2 -o %s -F %s -b %s k1.q; qemu-io -f qcow2 -c 'write -P 9 "
                     "512k 1M' k1.q;"
                     "qemu-img convert -O raw k1.q before.raw; qemu-img bitmap --add k1.q b || true; cp k1.q k1.orig",
                     options[i], format, raw ? "k0.raw" : "k0.q");
            forget_format("k1.q", i == 1 ? 72 : 112);
            must_run("cp k1.q k1.forgot");

            assert_null(record("k1.q", PB_IMAGE_FORMAT_UNSPECIFIED, TRUE, &got, &changed, NULL));
            assert_true(changed);
            must_run("cmp k1.q k1.forgot");

            g_autoptr(VpError) error = record("k1.q", PB_IMAGE_FORMAT_UNSPECIFIED, FALSE, &got, &changed, &undo);
            if (error) {
                fail_msg("%s: %s", options[i], error->message);
            }
            assert_true(changed);
            assert_int_equal(got, raw ? PB_IMAGE_FORMAT_RAW : PB_IMAGE_FORMAT_QCOW2);
            assert_recorded("k1.q", format);
            must_run("qemu-img compare -q -f qcow2 -F raw k1.q before.raw");
            /* Nothing beyond the first cluster has changed. */
            must_run("cmp -i $(qemu-img info --output=json k1.q | sed -n 's/.*\"cluster-size\": \\([0-9]*\\).*/\\1/p') "
                     "k1.q k1.forgot");

            assert_null(record("k1.q", PB_IMAGE_FORMAT_UNSPECIFIED, FALSE, &got, &changed, NULL));
            assert_false(changed);

            /* And back again. */
            must_run("%s", undo);
            g_autoptr(VpChain) undone = walk("k1.q", PB_IMAGE_FORMAT_QCOW2);
            assert_non_null(find(undone, PB_FINDING_CODE_FORMAT_NOT_DECLARED));
            must_run("qemu-img check -q -f qcow2 k1.q");
        }
    }
}

static void refuses_what_is_unsafe(void **state)
{
    (void)state;
    PbImageFormat got;
    gboolean changed;
    must_run(
        "qemu-img create -q -f raw r.raw 4M; qemu-img create -q -f qcow2 r0.q 4M; qemu-img create -q -f qcow2 -F qcow2 "
        "-b r0.q r1.q;"
        "qemu-img create -q -f qcow2 -F qcow2 -b r1.q r2.q; qemu-img create -q -u -f qcow2 -F raw -b gone.raw r3.q 4M;"
        "qemu-img create -q -f qcow2 -o cluster_size=512 -F raw -b r.raw r4.q");
    g_autoptr(VpError) not_qcow2 = record("r.raw", 0, FALSE, &got, &changed, NULL);
    assert_string_equal(not_qcow2->reason, "NOT_QCOW2");
    g_autoptr(VpError) no_backing = record("r0.q", 0, FALSE, &got, &changed, NULL);
    assert_string_equal(no_backing->reason, "NO_BACKING_FILE");
    g_autoptr(VpError) other = record("r1.q", PB_IMAGE_FORMAT_RAW, FALSE, &got, &changed, NULL);
    assert_string_equal(other->reason, "OTHER_FORMAT_RECORDED");
    assert_non_null(vp_error_get(other, "remedy"));

    forget_format("r2.q", 112);
    g_autoptr(VpError) unproven = record("r2.q", 0, FALSE, &got, &changed, NULL);
    assert_string_equal(unproven->reason, "PROBE_REFUSED_BACKING_FILE");
    must_run("cp r2.q r2.copy; %s\nmv r2.copy r2.q", vp_error_get(unproven, "remedy"));
    g_autoptr(VpError) raw_as_qcow2 = record("r2.q", PB_IMAGE_FORMAT_VMDK, FALSE, &got, &changed, NULL);
    assert_string_equal(raw_as_qcow2->reason, "FORMAT_MISMATCH");
    assert_null(record("r2.q", PB_IMAGE_FORMAT_QCOW2, FALSE, &got, &changed, NULL)); /* who knows may say so */
    assert_recorded("r2.q", "qcow2");

    forget_format("r3.q", 112);
    g_autoptr(VpError) missing = record("r3.q", 0, FALSE, &got, &changed, NULL);
    assert_int_equal(missing->code, VP_NOT_FOUND);
    assert_null(record("r3.q", PB_IMAGE_FORMAT_RAW, FALSE, &got, &changed, NULL));

    /* Room for nothing: the first cluster is full of what nobody knows. The command in the error does it. */
    g_autofree char *junk = run("printf 'j%%.0s' $(seq 200)");
    int fd = open("r4.q", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, junk, 200, 150), 200);
    close(fd);
    forget_format("r4.q", 112);
    must_run("cp r4.q r4.copy");
    g_autoptr(VpError) no_room = record("r4.q", 0, FALSE, &got, &changed, NULL);
    assert_string_equal(no_room->reason, "NO_ROOM");
    assert_non_null(strstr(no_room->message, vp_error_get(no_room, "remedy")));
    must_run("cmp r4.q r4.copy; %s", vp_error_get(no_room, "remedy"));
    assert_recorded("r4.q", "raw");
}

/* Starts a command and waits until it has printed `ready`. */
static GPid start(const char *command, const char *ready, int *ret_in, int *ret_out)
{
    char *argv[] = {"/bin/sh", "-c", (char *)command, NULL};
    g_autoptr(GString) seen = g_string_new(NULL);
    GPid pid;
    assert_true(g_spawn_async_with_pipes(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, ret_in, ret_out,
                                         NULL, NULL));
    while (!strstr(seen->str, ready)) {
        char buffer[256];
        ssize_t got = read(*ret_out, buffer, sizeof(buffer));
        if (got <= 0) {
            fail_msg("%s: ended with %s", command, seen->str);
        }
        g_string_append_len(seen, buffer, got);
    }
    return pid;
}

static void stop(GPid pid, int in, int out)
{
    int status;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(in);
    close(out);
}

static void leaves_images_in_use_alone(void **state)
{
    (void)state;
    static const char *const users[] = {
        "exec qemu-io -f qcow2 v1.q",
        "exec qemu-io -r -f qcow2 v1.q",
        "exec qemu-system-x86_64 -display none -machine none -S -qmp stdio -blockdev file,node-name=f,filename=v1.q "
        "-blockdev qcow2,node-name=q,file=f",
        "exec qemu-system-x86_64 -display none -machine none -S -qmp stdio -drive if=none,file=v2.q,format=qcow2",
    };
    static const char *const ready[] = {"qemu-io>", "qemu-io>", "QMP", "QMP"};
    PbImageFormat got;
    gboolean changed;
    must_run("qemu-img create -q -f qcow2 v0.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b v0.q v1.q; qemu-img create "
             "-q -f qcow2 -F qcow2 -b v1.q v2.q");
    forget_format("v1.q", 112);
    must_run("cp v1.q v1.copy");
    for (gsize i = 0; i < G_N_ELEMENTS(users); i++) {
        int in;
        int out;
        GPid pid = start(users[i], ready[i], &in, &out);
        g_autoptr(VpError) error = record("v1.q", 0, FALSE, &got, &changed, NULL);
        stop(pid, in, out);
        if (!error || strcmp(error->reason, "IMAGE_IN_USE") != 0) {
            fail_msg("%s: %s", users[i], error ? error->message : "not refused");
        }
        must_run("cmp v1.q v1.copy");
    }
    assert_null(record("v1.q", 0, FALSE, &got, &changed, NULL));
}

static void apply(GByteArray *file, const VpHeaderWrite *write, gsize bytes)
{
    gsize size;
    const guint8 *data = g_bytes_get_data(write->bytes, &size);
    memcpy(file->data + write->offset, data, MIN(bytes, size));
}

/* What a reader sees: the name is always there, and the format is the old or the new one. */
static gboolean sees_format(const GByteArray *file, const char *name, const char *format)
{
    VpProbe probe;
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(probe.well_formed);
    assert_int_equal(probe.backing_path.size, strlen(name));
    assert_memory_equal(probe.backing_path.bytes, name, strlen(name));
    if (probe.backing_format.size == 0) {
        return FALSE;
    }
    assert_int_equal(probe.backing_format.size, strlen(format));
    assert_memory_equal(probe.backing_format.bytes, format, strlen(format));
    return TRUE;
}

/* Stops the writes at every point: between two, and, where a torn write is possible, after each byte of one. A piece of at most 16 bytes
 * that is not the first or third kind is one sector's: all or nothing. */
static void interrupted(guint32 version, gsize name_at, gboolean end_mark, const char *format, guint writes)
{
    static const char name[] = "/images/base-of-all.img";
    g_autoptr(GByteArray) file = header_new(version);
    g_auto(VpRecordPlan) plan = {0};
    gsize at = version == 2 ? 72 : 104;
    if (end_mark) {
        at = header_extension(file, at, 0x0badcafe, "keep me", 7);
    }
    header_backing(file, name_at, name);
    g_autofree guint8 *original = g_memdup2(file->data, file->len);

    const char *why = vp_record_plan(file->data, HEADER_CLUSTER, format, &plan);
    if (why) {
        fail_msg("%s", why);
    }
    assert_int_equal(plan.n_writes, writes);
    for (guint i = 0; i < plan.n_writes; i++) {
        gsize size = g_bytes_get_size(plan.writes[i].bytes);
        gboolean may_tear = (plan.n_writes - i) % 2 == 0;
        for (gsize bytes = 0; may_tear && bytes < size; bytes++) {
            apply(file, &plan.writes[i], bytes);
            assert_false(sees_format(file, name, format));
        }
        if (!may_tear) {
            assert_int_equal(plan.writes[i].offset / 512, (plan.writes[i].offset + size - 1) / 512);
        }
        apply(file, &plan.writes[i], size);
        assert_int_equal(sees_format(file, name, format), i + 1 == plan.n_writes);
    }
    if (end_mark) {
        assert_memory_equal(file->data + (version == 2 ? 72 : 104), original + (version == 2 ? 72 : 104), 16);
    }
    memset(file->data + plan.extension_offset, 0, 8);
    assert_false(sees_format(file, name, format));
}

static void interrupted_writes(void **state)
{
    (void)state;
    static const char *const formats[] = {"raw", "qcow2", "parallels"};
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        for (guint32 version = 2; version <= 3; version++) {
            gsize header = version == 2 ? 72 : 104;
            interrupted(version, header + 16 + 8, TRUE, formats[i], 4);  /* the name right behind the end mark */
            interrupted(version, header + 16 + 16, TRUE, formats[i], 4); /* just in the way */
            interrupted(version, 4096, TRUE, formats[i], 2);             /* far away */
            interrupted(version, header, FALSE, formats[i], 4); /* no extensions and no end mark, as QEMU 0.1x wrote */
        }
    }
}

static void no_room(void **state)
{
    (void)state;
    g_auto(VpRecordPlan) plan = {0};
    g_autoptr(GByteArray) file = header_new(3);
    header_backing(file, 112, "/base");
    assert_null(vp_record_plan(file->data, HEADER_CLUSTER, "raw", &plan));
    vp_record_plan_clear(&plan);
    file->data[125] = 1; /* something unknown where the extension would go */
    assert_non_null(vp_record_plan(file->data, HEADER_CLUSTER, "raw", &plan));
    file->data[125] = 0;
    file->data[130] = 1; /* and where the name would go */
    assert_non_null(vp_record_plan(file->data, HEADER_CLUSTER, "raw", &plan));
    /* A name to the very end of the first cluster. */
    g_autoptr(GByteArray) full = header_new(3);
    header_put64(full, 8, 112);
    header_put32(full, 16, 400);
    header_put32(full, 20, 9);
    memset(full->data + 112, 'a', 400);
    assert_non_null(vp_record_plan(full->data, 512, "raw", &plan));
    assert_int_equal(plan.n_writes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_for_all_kinds),
        cmocka_unit_test(refuses_what_is_unsafe),
        cmocka_unit_test(leaves_images_in_use_alone),
        cmocka_unit_test(interrupted_writes),
        cmocka_unit_test(no_room),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
