/*
 * The QEMU driver with real QEMU. Guests are boot sectors of a few bytes: one halts, one powers itself off, one resets itself, one
 * panics. Needs qemu-system-x86_64 and qemu-img.
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"
#include "bench.h"
#include "drivers/qemu/folder.h"
#include "drivers/qemu/process.h"
#include "drivers/qemu/qemu.h"
#include "virtplane/v1/domain_service.pb-c.h"

#define E(name) PB_EVENT_TYPE_DOMAIN_##name
#define S(name) PB_DOMAIN_STATE_##name

/* TCG, since on a nested host the firmware is far faster with it than with KVM; test_kvm() has its own setting. */
#define FAST "ping_interval_ms=50\nunresponsive_after_ms=1000\naccelerator=tcg\n"

static int setup(void **state)
{
    *state = bench_new(&vp_qemu_driver, FAST);
    return 0;
}

static int teardown(void **state)
{
    bench_free(*state);
    return 0;
}

/* ---- guests ---- */

static const guint8 guest_halts[] = {0xf4, 0xeb, 0xfd}; /* hlt; jmp $-1 */
/* mov dx, PM1a_CNT of q35; mov ax, SLP_EN; out dx, ax; and halt */
static const guint8 guest_powers_off[] = {0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd};
/* Counts in CMOS byte 0x50, which a reset keeps: resets by the keyboard controller the first time, halts the second. */
static const guint8 guest_resets[] = {0xb0, 0x50, 0xe6, 0x70, 0xe4, 0x71, 0x3c, 0x77, 0x74, 0x0c, 0xb0, 0x50, 0xe6,
                                      0x70, 0xb0, 0x77, 0xe6, 0x71, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd};
/* mov dx, the panic device; mov al, 1; out dx, al; and halt */
static const guint8 guest_panics[] = {0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd};

/* A raw image of 1 MiB that boots `code`. */
static char *make_guest(Bench *bench, const char *name, const guint8 *code, gsize size)
{
    char *path = g_build_filename(bench->dir, name, NULL);
    g_autofree guint8 *image = g_malloc0(1024 * 1024);

    memcpy(image, code, size);
    image[510] = 0x55;
    image[511] = 0xaa;
    assert_true(g_file_set_contents(path, (const char *)image, 1024 * 1024, NULL));
    return path;
}

static void run_command(const char *format, ...) G_GNUC_PRINTF(1, 2);
static void run_command(const char *format, ...)
{
    va_list args;
    int status = -1;

    va_start(args, format);
    g_autofree char *command = g_strdup_vprintf(format, args);
    va_end(args);
    g_auto(GStrv) argv = NULL;
    assert_true(g_shell_parse_argv(command, NULL, &argv, NULL));
    assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
    assert_int_equal(status, 0);
}

static PbDomain *guest_domain(Bench *bench, guint number, const guint8 *code, gsize size)
{
    PbDomain *domain = bench_domain("qemu", number);
    g_autofree char *name = g_strdup_printf("guest%u.raw", number);
    g_autofree char *path = make_guest(bench, name, code, size);

    bench_disk(domain, "vda", path, PB_IMAGE_FORMAT_RAW);
    return domain;
}

#define GUEST(bench, number, code) guest_domain(bench, number, code, sizeof(code))

static const Seen *started(Bench *bench, const PbDomain *domain)
{
    bench_ok(bench, vp_qemu_driver.start, domain);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    return bench_next(bench, E(STARTED), S(RUNNING), "REQUESTED");
}

static void power_off(Bench *bench, const PbDomain *domain)
{
    bench_ok(bench, vp_qemu_driver.power_off, domain);
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "REQUESTED");
}

/* A zombie's arguments are empty. */
/* Until its end has been told: its memory is gone a moment before that. */
static gboolean process_lives(gint32 pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    const char *state = strrchr(text, ')');
    return state && state[1] == ' ' && state[2] != 'Z' && state[2] != 'X';
}

static void kill_and_wait(gint32 pid)
{
    kill(pid, SIGKILL);
    while (process_lives(pid))
        g_usleep(1000);
}

/* ---- life ---- */

static void test_verbs(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    const guint fds = count_fds();

    const Seen *seen = started(bench, domain);
    assert_true(process_lives(seen->pid));
    assert_true(seen->pid_start_ticks > 0);
    assert_int_equal(seen->n_disks, 1);
    assert_int_equal(seen->n_layers, 1);
    assert_int_equal(seen->accelerator, PB_ACCELERATOR_TCG);
    const gint32 pid = seen->pid;
    vp_error_free(bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "DOMAIN_RUNNING"));

    bench_ok(bench, vp_qemu_driver.pause, domain);
    bench_next(bench, E(PAUSED), S(PAUSED), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.pause, domain);
    vp_error_free(bench_fails(bench, vp_qemu_driver.shutdown, domain, VP_FAILED_PRECONDITION, "DOMAIN_PAUSED"));
    /* A reset of a paused guest leaves it paused. */
    bench_ok(bench, vp_qemu_driver.reset, domain);
    bench_next(bench, E(RESET), S(PAUSED), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.resume, domain);
    bench_next(bench, E(RESUMED), S(RUNNING), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.resume, domain);
    bench_ok(bench, vp_qemu_driver.reset, domain);
    bench_next(bench, E(RESET), S(RUNNING), "REQUESTED");
    /* This guest does not know ACPI. */
    bench_ok(bench, vp_qemu_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    power_off(bench, domain);
    assert_false(process_lives(pid));
    vp_error_free(bench_fails(bench, vp_qemu_driver.pause, domain, VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING"));
    bench_ok(bench, vp_qemu_driver.power_off, domain);
    bench_nothing_more(bench);

    /* The closing of handles takes a turn of the loop. */
    bench_reopen(bench);
    assert_int_equal(count_fds(), fds);
    vp_qemu_driver.forget(bench->driver, domain->uid);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);
    assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
}

static void test_start_paused(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_powers_off);

    bench_label(domain, "start-paused", "");
    bench_ok(bench, vp_qemu_driver.start, domain);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(STARTED), S(PAUSED), "REQUESTED");
    bench_nothing_more(bench);
    bench_ok(bench, vp_qemu_driver.resume, domain);
    bench_next(bench, E(RESUMED), S(RUNNING), "REQUESTED");
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

static void test_guest_shuts_down(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_powers_off);

    started(bench, domain);
    const Seen *seen = bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
    assert_int_equal(seen->pid, 0);
    bench_nothing_more(bench);
}

static void test_guest_resets(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_resets);

    started(bench, domain);
    bench_next(bench, E(RESET), S(RUNNING), "GUEST_REQUEST");
    power_off(bench, domain);
    bench_nothing_more(bench);
}

static void test_guest_panics(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_panics);

    started(bench, domain);
    bench_next(bench, E(PANICKED), S(RUNNING), "GUEST_PANICKED");
    bench_next(bench, E(CRASHED), S(CRASHED), "GUEST_PANICKED");
}

static void test_guest_panics_and_is_halted(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_panics);

    domain->spec->on_panic = PB_LIFECYCLE_ACTION_PAUSE;
    started(bench, domain);
    bench_next(bench, E(PANICKED), S(RUNNING), "GUEST_PANICKED");
    bench_next(bench, E(PAUSED), S(PAUSED), "GUEST_PANICKED");
    power_off(bench, domain);
    domain->spec->on_panic = PB_LIFECYCLE_ACTION_IGNORE;
    started(bench, domain);
    bench_next(bench, E(PANICKED), S(RUNNING), "GUEST_PANICKED");
    bench_ok(bench, vp_qemu_driver.pause, domain);
    bench_next(bench, E(PAUSED), S(PAUSED), "REQUESTED");
    power_off(bench, domain);
    bench_nothing_more(bench);
}

/* QEMU makes no difference between a guest's own reset and one that it is asked for; the driver does. */
static void test_guest_resets_and_ends(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    vp_pb_auto PbDomain *other = GUEST(bench, 2, guest_resets);

    domain->spec->on_reboot = PB_LIFECYCLE_ACTION_POWER_OFF;
    other->spec->on_reboot = PB_LIFECYCLE_ACTION_POWER_OFF;
    started(bench, domain);
    bench_ok(bench, vp_qemu_driver.reset, domain);
    bench_next(bench, E(RESET), S(RUNNING), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.reset, domain);
    bench_next(bench, E(RESET), S(RUNNING), "REQUESTED");
    power_off(bench, domain);
    started(bench, other);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REBOOT");
}

static void test_all_buses(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_powers_off);

    for (guint i = 0; i < 20; i++) {
        g_autofree char *name = g_strdup_printf("d%u,\"%u", i, i); /* names that want quoting */
        g_autofree char *target = g_strdup_printf("disk%u", i);
        g_autofree char *path = make_guest(bench, name, guest_halts, sizeof(guest_halts));

        bench_disk(domain, target, path, PB_IMAGE_FORMAT_RAW);
        domain->spec->disks[i + 1]->bus = (PbDiskBus)(i % 5);
        domain->spec->disks[i + 1]->read_only = i % 2 && i % 5 != PB_DISK_BUS_SATA;
    }
    for (guint i = 0; i < 4; i++) {
        PbInterface *interface = vp_pb_new(&pb_interface__descriptor);

        interface->type = (PbInterfaceType)(i % 3);
        interface->model = (PbInterfaceModel)(i % 3);
        vp_pb_printf(&interface->mac, "52:54:00:00:00:%02x", i);
        vp_pb_append(&domain->spec->n_interfaces, &domain->spec->interfaces, interface);
    }
    assert_null(vp_qemu_driver.validate(bench->driver, domain->spec));
    started(bench, domain);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

/* ---- images ---- */

/* A qcow2 overlay over a raw guest, its format recorded or not. */
static char *make_overlay(Bench *bench, const char *name, const char *base, const char *backing_format)
{
    char *path = g_build_filename(bench->dir, name, NULL);

    run_command("qemu-img create -q -f qcow2 %s -b %s -F %s", path, base, backing_format);
    return path;
}

/* Cuts the header extension with the backing format out, as lazy clients write it: qemu-img no longer does. */
static void forget_format(const char *path)
{
    const int fd = open(path, O_RDWR);
    guint8 header[512];

    assert_int_equal(pread(fd, header, sizeof(header), 0), sizeof(header));
    const guint32 length =
        (guint32)header[100] << 24 | (guint32)header[101] << 16 | (guint32)header[102] << 8 | header[103];
    /* The first extension is the backing format; an unknown type is skipped by all. */
    assert_memory_equal(header + length, "\xe2\x79\x2a\xca", 4);
    assert_int_equal(pwrite(fd, "\x11\x22\x33\x44", 4, length), 4);
    close(fd);
}

static void test_overlay_without_format(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *guest = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
    g_autofree char *base = g_build_filename(bench->dir, "base.qcow2", NULL);

    run_command("qemu-img convert -q -f raw -O qcow2 %s %s", guest, base);
    g_autofree char *overlay = make_overlay(bench, "overlay.qcow2", base, "qcow2");
    forget_format(overlay);
    bench_disk(domain, "vda", overlay, PB_IMAGE_FORMAT_QCOW2);
    const Seen *seen = started(bench, domain);
    assert_int_equal(seen->n_layers, 2);
    assert_true(seen->n_findings >= 1);
    /* The guest was read through both layers. */
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

/* Every format that QEMU writes: the guest boots from it, declared or not, and the descriptor is all that QEMU has of it. */
static void test_formats(void **state)
{
    static const struct {
        const char *name;
        const char *options;
        PbImageFormat format;
    } formats[] = {
        {"qcow", "", PB_IMAGE_FORMAT_QCOW},
        {"qed", "", PB_IMAGE_FORMAT_QED},
        {"vdi", "", PB_IMAGE_FORMAT_VDI},
        {"vdi", "-o static=on", PB_IMAGE_FORMAT_VDI},
        {"vhdx", "", PB_IMAGE_FORMAT_VHDX},
        {"vpc", "", PB_IMAGE_FORMAT_VPC},
        {"vpc", "-o subformat=fixed", PB_IMAGE_FORMAT_VPC},
        {"vmdk", "", PB_IMAGE_FORMAT_VMDK},
        {"parallels", "", PB_IMAGE_FORMAT_PARALLELS},
    };
    Bench *bench = *state;

    for (gsize i = 0; i < 2 * G_N_ELEMENTS(formats); i++) {
        vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
        g_autofree char *guest = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
        g_autofree char *disk = g_strdup_printf("%s/guest.disk", bench->dir);

        run_command("qemu-img convert -q -f raw -O %s %s %s %s", formats[i / 2].name, formats[i / 2].options, guest,
                    disk);
        bench_disk(domain, "vda", disk, i % 2 ? formats[i / 2].format : PB_IMAGE_FORMAT_UNSPECIFIED);
        const Seen *seen = started(bench, domain);
        assert_int_equal(seen->n_layers, 1);
        assert_int_equal(seen->n_findings, i % 2 ? 0 : 2); /* FORMAT_NOT_DECLARED, PROBE_USED */
        bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
        assert_int_equal(g_unlink(disk), 0);
    }
}

/* A vmdk over a vmdk, both given as nodes. */
static void test_vmdk_overlay(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *guest = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
    g_autofree char *base = g_strdup_printf("%s/base.vmdk", bench->dir);
    g_autofree char *top = g_strdup_printf("%s/top.vmdk", bench->dir);

    run_command("qemu-img convert -q -f raw -O vmdk %s %s", guest, base);
    run_command("qemu-img create -q -f vmdk -b %s -F vmdk %s", base, top);
    bench_disk(domain, "vda", top, PB_IMAGE_FORMAT_VMDK);
    assert_int_equal(started(bench, domain)->n_layers, 2);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

/* Proven safe, and yet not to be used as asked. */
static void test_formats_that_cannot_be_used(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *guest = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
    g_autofree char *disk = g_strdup_printf("%s/guest.disk", bench->dir);
    g_autofree char *flat = g_strdup_printf("%s/flat.vmdk", bench->dir);

    bench_disk(domain, "vda", disk, PB_IMAGE_FORMAT_VMDK);
    run_command("qemu-img convert -q -f raw -O vmdk -o subformat=streamOptimized %s %s", guest, disk);
    g_autoptr(VpError) written =
        bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "READ_ONLY_FORMAT");
    assert_string_equal(vp_error_get(written, "path"), disk);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    domain->spec->disks[0]->read_only = TRUE;
    started(bench, domain);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");

    run_command(
        "qemu-img create -q --object secret,id=s,data=abc -f qcow -o encrypt.format=aes,encrypt.key-secret=s %s 1M",
        disk);
    domain->spec->disks[0]->format = PB_IMAGE_FORMAT_QCOW;
    vp_error_free(bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT"));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");

    /* QEMU would open the extent by itself. */
    run_command("qemu-img convert -q -f raw -O vmdk -o subformat=monolithicFlat %s %s", guest, flat);
    vp_pb_set(&domain->spec->disks[0]->path, flat);
    domain->spec->disks[0]->format = PB_IMAGE_FORMAT_VMDK;
    vp_error_free(bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "UNSUPPORTED_REFERENCE"));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    domain->spec->disks[0]->format = PB_IMAGE_FORMAT_UNSPECIFIED;
    vp_error_free(bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "PROBE_REFUSED_OTHER_FILE"));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
}

static void test_unsafe_chain(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *guest = make_guest(bench, "guest.raw", guest_halts, sizeof(guest_halts));
    g_autofree char *middle = make_overlay(bench, "middle.qcow2", guest, "raw");
    g_autofree char *top = make_overlay(bench, "top.qcow2", middle, "qcow2");

    forget_format(top);
    bench_disk(domain, "vda", top, PB_IMAGE_FORMAT_QCOW2);
    g_autoptr(VpError) error =
        bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "PROBE_REFUSED_BACKING_FILE");
    assert_string_equal(vp_error_get(error, "disk"), "vda");
    assert_string_equal(vp_error_get(error, "path"), middle);
    assert_true(strlen(vp_error_get(error, "remedy")) > 0);
    assert_true(g_str_has_prefix(error->message, "disk vda: "));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);
    assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
}

/* QEMU's own locks work on the descriptors that it is given. */
static void test_two_writers(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *first = GUEST(bench, 1, guest_halts);
    vp_pb_auto PbDomain *second = bench_domain("qemu", 2);

    bench_disk(second, "vda", first->spec->disks[0]->path, PB_IMAGE_FORMAT_RAW);
    started(bench, first);
    g_autoptr(VpError) error = bench_fails(bench, vp_qemu_driver.start, second, VP_FAILED_PRECONDITION, "QEMU_EXITED");
    assert_non_null(strstr(error->message, "lock"));
    /* The image by the name that its user knows. */
    assert_non_null(strstr(error->message, first->spec->disks[0]->path));
    assert_null(strstr(error->message, "/dev/fdset/"));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    power_off(bench, first);
    started(bench, second);
    power_off(bench, second);
}

static void test_external_data_file(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *guest = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
    g_autofree char *image = g_build_filename(bench->dir, "image.qcow2", NULL);
    g_autofree char *data = g_build_filename(bench->dir, "image.data", NULL);

    run_command("qemu-img convert -q -f raw -O qcow2 -o data_file=%s %s %s", data, guest, image);
    bench_disk(domain, "vda", image, PB_IMAGE_FORMAT_QCOW2);
    started(bench, domain);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

/* Far more descriptors than a QEMU usually has. */
static void test_deep_chain(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *below = make_guest(bench, "guest.raw", guest_powers_off, sizeof(guest_powers_off));
    const char *format = "raw";

    for (guint i = 0; i < 60; i++) {
        g_autofree char *name = g_strdup_printf("layer%u.qcow2", i);
        char *layer = g_build_filename(bench->dir, name, NULL);

        run_command("qemu-img create -q -u -f qcow2 -b %s -F %s %s 1M", below, format, layer);
        g_free(below);
        below = layer;
        format = "qcow2";
    }
    bench_disk(domain, "vda", below, PB_IMAGE_FORMAT_QCOW2);
    assert_int_equal(started(bench, domain)->n_layers, 61);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

/* ---- faults ---- */

static void write_script(const char *path, const char *text)
{
    assert_true(g_file_set_contents(path, text, -1, NULL));
    assert_int_equal(g_chmod(path, 0755), 0);
}

static void reconfigure(Bench *bench, const char *key, const char *value)
{
    g_key_file_set_string(bench->host.config, "qemu", key, value);
    bench_reopen(bench);
}

static void test_exits_at_once(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *script = g_build_filename(bench->dir, "qemu-system-x86_64", NULL);

    write_script(script, "#!/bin/sh\necho first >&2\necho 'no such firmware' >&2\nexit 3\n");
    reconfigure(bench, "binary", script);
    g_autoptr(VpError) error = bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "QEMU_EXITED");
    assert_string_equal(error->message, "domain guest1: QEMU exited with status 3: first; no such firmware");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    const Seen *seen = bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    assert_string_equal(seen->detail, error->message);
    assert_int_equal(seen->pid, 0);
}

static void test_bad_machine(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    vp_pb_set(&domain->spec->machine, "no-such-machine");
    g_autoptr(VpError) error = bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "UNSUPPORTED");
    assert_non_null(strstr(error->message, "no machine no-such-machine"));
}

static void test_missing_binary(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    reconfigure(bench, "binary", "/nowhere/qemu-system-x86_64");
    g_autoptr(VpError) error =
        bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "QEMU_NOT_FOUND");
    assert_non_null(strstr(error->message, "/nowhere/qemu-system-x86_64"));
    assert_non_null(strstr(error->message, "apt-get install qemu-system-x86"));
    vp_pb_auto PbDriverCapabilities *capabilities = vp_pb_new(&pb_driver_capabilities__descriptor);
    vp_qemu_driver.capabilities(bench->driver, capabilities);
    assert_false(capabilities->available);
    assert_non_null(strstr(capabilities->detail, "apt-get install"));
}

/* Something that runs and never says a word. */
static void test_silent_binary(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *script = g_build_filename(bench->dir, "qemu-system-x86_64", NULL);

    write_script(script, "#!/bin/sh\nexec sleep 1000\n");
    reconfigure(bench, "binary", script);
    g_autoptr(VpError) late = bench_end(bench_begin(bench, vp_qemu_driver.start, domain, 300));
    check_error(late, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");

    Running *running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_cancel(running);
    g_autoptr(VpError) cancelled = bench_end(running);
    check_error(cancelled, VP_CANCELLED, "CANCELLED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "CANCELLED");

    running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.power_off, domain);
    g_autoptr(VpError) ended = bench_end(running);
    check_error(ended, VP_CANCELLED, ended->reason);
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "CANCELLED");
    bench_nothing_more(bench);
}

static void test_killed(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);

    const Seen *seen = started(bench, domain);
    kill(seen->pid, SIGKILL);
    seen = bench_next(bench, E(CRASHED), S(CRASHED), "PROCESS_EXITED");
    assert_non_null(strstr(seen->detail, "signal 9"));
    /* A crashed one can be started again. */
    seen = started(bench, domain);
    kill(seen->pid, SIGTERM);
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "HOST_SIGNAL");
}

static void test_stopped_process(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    vp_pb_auto PbDomain *other = GUEST(bench, 2, guest_halts);

    const gint32 pid = started(bench, domain)->pid;
    kill(pid, SIGSTOP);
    g_autoptr(VpError) error = bench_end(bench_begin(bench, vp_qemu_driver.pause, domain, 100));
    check_error(error, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    const Seen *seen = bench_next(bench, E(UNRESPONSIVE), S(UNRESPONSIVE), "NO_ANSWER");
    assert_int_equal(seen->pid, pid);
    /* It delays no other. */
    started(bench, other);
    power_off(bench, other);
    kill(pid, SIGCONT);
    /* The pause that was given up is in its socket still, and is done before it is known to be back or after. */
    pthread_mutex_lock(&bench->mutex);
    while (bench->seen->len <= bench->taken)
        assert_true(vp_cond_wait_until(&bench->changed, &bench->mutex, vp_now_us() + 30 * G_USEC_PER_SEC));
    const Seen *back = g_ptr_array_index(bench->seen, bench->taken);
    pthread_mutex_unlock(&bench->mutex);
    bench_next(bench, E(RESPONSIVE), back->state, "ANSWERS_AGAIN");
    if (back->state == S(RUNNING))
        bench_next(bench, E(PAUSED), S(PAUSED), "REQUESTED");

    kill(pid, SIGSTOP);
    bench_next(bench, E(UNRESPONSIVE), S(UNRESPONSIVE), "NO_ANSWER");
    power_off(bench, domain);
    assert_false(process_lives(pid));
}

/* Whose shutdown is given up since its time is over is powered off all the same, as was asked for; whose is cancelled is not. */
static void test_shutdown_given_up(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    Google__Protobuf__Duration soon = GOOGLE__PROTOBUF__DURATION__INIT;
    PbShutdownDomainRequest request = PB_SHUTDOWN_DOMAIN_REQUEST__INIT;

    soon.nanos = 500000000;
    request.fallback_after = &soon;
    const gint32 pid = started(bench, domain)->pid;
    kill(pid, SIGSTOP);
    bench_next(bench, E(UNRESPONSIVE), S(UNRESPONSIVE), "NO_ANSWER");
    Running *cancelled = bench_begin_request(bench, vp_qemu_driver.shutdown, domain, &request);
    bench_cancel(cancelled);
    g_autoptr(VpError) error = bench_end(cancelled);
    check_error(error, VP_CANCELLED, "CANCELLED");
    /* Long enough for a fallback that was kept. */
    g_usleep(700000);
    bench_nothing_more(bench);
    Running *late = bench_begin_request(bench, vp_qemu_driver.shutdown, domain, &request);
    bench_expire(late);
    g_autoptr(VpError) expired = bench_end(late);
    check_error(expired, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "FALLBACK");
    assert_false(process_lives(pid));
}

/* ---- the daemon's restart ---- */

static void test_adopt_running(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);

    const Seen *seen = started(bench, domain);
    const gint32 pid = seen->pid;
    bench_store_status(domain, seen);
    bench_reopen(bench);
    bench_nothing_more(bench);
    assert_true(process_lives(pid));

    bench_ok(bench, vp_qemu_driver.adopt, domain);
    seen = bench_next(bench, E(ADOPTED), S(RUNNING), "DAEMON_RESTARTED");
    assert_int_equal(seen->pid, pid);
    assert_int_equal(seen->accelerator, domain->status->accelerator);
    bench_ok(bench, vp_qemu_driver.pause, domain);
    seen = bench_next(bench, E(PAUSED), S(PAUSED), "REQUESTED");
    bench_store_status(domain, seen);

    bench_reopen(bench);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(PAUSED), "DAEMON_RESTARTED");
    bench_ok(bench, vp_qemu_driver.resume, domain);
    bench_next(bench, E(RESUMED), S(RUNNING), "REQUESTED");
    power_off(bench, domain);
    assert_false(process_lives(pid));
}

static void test_adopt_gone(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);

    bench_ok(bench, vp_qemu_driver.start, domain);
    const Seen *starting = bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    const Seen *seen = bench_next(bench, E(STARTED), S(RUNNING), "REQUESTED");
    bench_store_status(domain, seen);
    bench_reopen(bench);
    kill_and_wait(seen->pid);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "WHILE_DAEMON_DOWN");
    bench_store_status(domain, starting);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "WHILE_DAEMON_DOWN");
    started(bench, domain);
    power_off(bench, domain);
}

/* Another process has the pid now: it is neither adopted nor harmed. */
static void test_adopt_pid_of_another(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);
    const VpRecord record = {.pid = getpid(), .start_ticks = 1};
    const Seen seen = {.state = S(RUNNING), .pid = getpid(), .pid_start_ticks = 1};

    assert_null(vp_folder_make(dir));
    assert_null(vp_folder_write_record(dir, &record));
    bench_store_status(domain, &seen);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "WHILE_DAEMON_DOWN");
}

/* The daemon died between the exec and the word to the guest: a QEMU of ours at -S, and the store knows of a start alone. */
static void test_adopt_half_started(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);
    VpRecord record;

    bench_label(domain, "start-paused", "");
    bench_ok(bench, vp_qemu_driver.start, domain);
    const Seen *starting = bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    const gint32 pid = bench_next(bench, E(STARTED), S(PAUSED), "REQUESTED")->pid;
    bench_store_status(domain, starting);
    bench_reopen(bench);
    /* One that was to be paused had got there. */
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(PAUSED), "DAEMON_RESTARTED");
    bench_reopen(bench);
    assert_null(vp_folder_read_record(dir, &record));
    record.paused = FALSE;
    assert_null(vp_folder_write_record(dir, &record));
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "WHILE_DAEMON_DOWN");
    assert_false(process_lives(pid));
}

static void test_adopt_stopped_process(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);

    const Seen *seen = started(bench, domain);
    bench_store_status(domain, seen);
    bench_reopen(bench);
    kill(seen->pid, SIGSTOP);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(UNRESPONSIVE), "DAEMON_RESTARTED");
    kill(seen->pid, SIGCONT);
    bench_next(bench, E(RESPONSIVE), S(RUNNING), "ANSWERS_AGAIN");
    power_off(bench, domain);
}

/* Someone has cleaned up too much: the process is found by what the store knows, and can be powered off. */
static void test_adopt_without_folder(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);

    const Seen *seen = started(bench, domain);
    const gint32 pid = seen->pid;
    bench_store_status(domain, seen);
    bench_reopen(bench);
    vp_folder_ended(dir);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(UNRESPONSIVE), "DAEMON_RESTARTED");
    vp_error_free(bench_fails(bench, vp_qemu_driver.pause, domain, VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE"));
    power_off(bench, domain);
    assert_false(process_lives(pid));
}

static void test_close_while_starting(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *script = g_build_filename(bench->dir, "qemu-system-x86_64", NULL);
    g_autofree char *dir = g_build_filename(bench->state_dir, domain->uid, NULL);
    VpRecord record;

    write_script(script, "#!/bin/sh\nexec sleep 1000\n");
    reconfigure(bench, "binary", script);
    Running *running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_store_status(domain, bench_next(bench, E(STARTING), S(STARTING), "REQUESTED"));
    while (vp_folder_running(dir) == 0)
        g_usleep(1000);
    bench_reopen(bench);
    g_autoptr(VpError) error = bench_end(running);
    check_error(error, VP_UNAVAILABLE, "DAEMON_STOPPING");
    bench_nothing_more(bench);
    assert_null(vp_folder_read_record(dir, &record));
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(UNRESPONSIVE), "DAEMON_RESTARTED");
    power_off(bench, domain);
    assert_false(process_lives(record.pid));
}

/* ---- no process that the next daemon would not look for ---- */

/* Whether a process names `text` in its arguments. */
static gboolean any_process_names(const char *text)
{
    GDir *proc = g_dir_open("/proc", 0, NULL);
    gboolean found = FALSE;
    const char *name;

    while (!found && (name = g_dir_read_name(proc))) {
        g_autofree char *path = g_build_filename("/proc", name, "cmdline", NULL);
        g_autofree char *arguments = NULL;
        gsize length = 0;

        if (g_ascii_isdigit(name[0]) && g_file_get_contents(path, &arguments, &length, NULL))
            found = memmem(arguments, length, text, strlen(text)) != NULL;
    }
    g_dir_close(proc);
    return found;
}

static const Seen *next_of_any(Bench *bench)
{
    const gint64 deadline_us = vp_now_us() + 30 * G_USEC_PER_SEC;

    VP_LOCK(&bench->mutex);
    while (bench->seen->len <= bench->taken)
        assert_true(vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us));
    return g_ptr_array_index(bench->seen, bench->taken++);
}

static void settle_soon(void *bench)
{
    bench_settle(bench, NULL);
}

static void test_no_process_before_the_disk_knows(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);

    bench->slow_store = TRUE;
    Running *running = bench_begin(bench, vp_qemu_driver.start, domain, 30000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    /* Long enough for a QEMU that is not waited for. */
    g_usleep(300000);
    assert_false(any_process_names(domain->uid));
    bench_settle(bench, NULL);
    assert_null(bench_end(running));
    bench_next(bench, E(STARTED), S(RUNNING), "REQUESTED");
    power_off(bench, domain);

    /* Refused: nothing is started. */
    running = bench_begin(bench, vp_qemu_driver.start, domain, 30000);
    bench_settle(bench, vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_FULL", "the disk is full"));
    g_autoptr(VpError) full = bench_end(running);
    check_error(full, VP_RESOURCE_EXHAUSTED, "STORE_FULL");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    assert_false(any_process_names(domain->uid));
}

/* A start that waits for the disk is given up at once: at its deadline, by a cancellation, by a power off, at the daemon's end. */
static void test_given_up_before_there_is_a_process(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    const guint fds = count_fds();

    bench->slow_store = TRUE;
    g_autoptr(VpError) late = bench_end(bench_begin(bench, vp_qemu_driver.start, domain, 100));
    check_error(late, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    bench_settle(bench, NULL);

    Running *running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_wait_settle(bench);
    bench_cancel(running);
    g_autoptr(VpError) cancelled = bench_end(running);
    check_error(cancelled, VP_CANCELLED, "CANCELLED");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "CANCELLED");
    bench_settle(bench, NULL);

    running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_wait_settle(bench);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_ok(bench, vp_qemu_driver.power_off, domain);
    g_autoptr(VpError) ended = bench_end(running);
    check_error(ended, VP_CANCELLED, ended->reason);
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "CANCELLED");
    bench_settle(bench, NULL);

    running = bench_begin(bench, vp_qemu_driver.start, domain, 60000);
    bench_wait_settle(bench);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    vp_loop_post(bench->host.loop, settle_soon, bench);
    bench_reopen(bench);
    g_autoptr(VpError) stopped = bench_end(running);
    check_error(stopped, VP_UNAVAILABLE, "DAEMON_STOPPING");
    bench_nothing_more(bench);
    assert_false(any_process_names(domain->uid));
    bench->slow_store = FALSE;
    started(bench, domain);
    power_off(bench, domain);
    /* The images of a start that was given up are closed in passing. */
    for (guint wait = 0; count_fds() != fds; wait++) {
        assert_true(wait < 10000);
        g_usleep(1000);
    }
}

static void note_running(void *data, const char *uid, gint32 pid)
{
    g_string_append_printf(data, "%s %d;", uid, pid);
}

/* Whatever is stored: a process that is written down and lives is found, is not doubled, not forgotten, and can be powered off. */
static void test_a_process_that_the_store_does_not_know(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_halts);
    const Seen shut_off = {.state = S(SHUTOFF)};
    g_autoptr(GString) running = g_string_new(NULL);

    const gint32 pid = started(bench, domain)->pid;
    bench_store_status(domain, &shut_off);
    bench_reopen(bench);
    vp_qemu_driver.find_running(bench->driver, note_running, running);
    g_autofree char *wanted = g_strdup_printf("%s %d;", domain->uid, pid);
    assert_string_equal(running->str, wanted);
    g_autofree char *pid_text = g_strdup_printf("%d", pid);
    g_autoptr(VpError) second =
        bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "PROCESS_ALIVE");
    assert_string_equal(vp_error_get(second, "pid"), pid_text);
    assert_non_null(strstr(second->message, "power the domain off"));
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    g_autoptr(VpError) forgotten = vp_qemu_driver.forget(bench->driver, domain->uid);
    check_error(forgotten, VP_FAILED_PRECONDITION, "PROCESS_ALIVE");
    assert_true(process_lives(pid));
    power_off(bench, domain);
    assert_false(process_lives(pid));
    bench_ok(bench, vp_qemu_driver.power_off, domain);
    bench_nothing_more(bench);

    /* And it is taken up. */
    started(bench, domain);
    bench_reopen(bench);
    bench_ok(bench, vp_qemu_driver.adopt, domain);
    bench_next(bench, E(ADOPTED), S(RUNNING), "DAEMON_RESTARTED");
    power_off(bench, domain);
    assert_null(vp_qemu_driver.forget(bench->driver, domain->uid));
}

/* ---- kill -9 of the daemon in the midst of a start ---- */

static void ignore_report(void *data, const char *uid, const VpObservation *observation)
{
    (void)data;
    (void)uid;
    (void)observation;
}

static void settle_at_once(void *data, const char *uid, void (*done)(void *done_data, VpError *error), void *done_data)
{
    (void)data;
    (void)uid;
    done(done_data, NULL);
}

/* `data`: the file that says so. */
static void tell_end(void *data, VpError *error)
{
    if (error)
        fprintf(stderr, "the start has failed: %s\n", error->message);
    vp_error_free(error);
    g_file_set_contents(data, "", 0, NULL);
}

static char *end_of_start(const char *state_dir)
{
    return g_build_filename(state_dir, "start-has-ended", NULL);
}

/* This program as a daemon that starts one domain and is to be killed. */
static G_GNUC_NORETURN void daemon_main(const char *state_dir, const char *image)
{
    VpError *error = NULL;
    PbDomain *domain = bench_domain("qemu", 1);
    const VpDriverHost host = {
        .loop = vp_loop_new("daemon-loop", &error),
        .pool = vp_pool_new("daemon-pool", 1, 10, &error),
        .slow_pool = vp_pool_new("daemon-slow", 1, 10, &error),
        .state_dir = state_dir,
        .run_dir = state_dir,
        .config = g_key_file_new(),
        .report = ignore_report,
        .settle = settle_at_once,
    };
    VpDriver *driver = vp_qemu_driver.open(&host, &error);

    bench_disk(domain, "vda", image, PB_IMAGE_FORMAT_RAW);
    domain->spec->accelerator = PB_ACCELERATOR_TCG;
    vp_qemu_driver.start(driver,
                         vp_task_new(domain, vp_now_us() + 60 * G_USEC_PER_SEC, tell_end, end_of_start(state_dir)));
    for (;;)
        pause();
}

static void test_daemon_killed_while_starting(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *image = make_guest(bench, "guest.raw", guest_halts, sizeof(guest_halts));
    g_autofree char *ended = end_of_start(bench->state_dir);
    const Seen starting = {.state = S(STARTING)};
    guint adopted = 0;
    guint failed = 0;

    /* So that the daemons need not ask QEMU what it can do. */
    vp_pb_auto PbDriverCapabilities *capabilities = vp_pb_new(&pb_driver_capabilities__descriptor);
    vp_qemu_driver.capabilities(bench->driver, capabilities);
    assert_true(capabilities->available);
    /* Killed a little later each time: before the process, while it is made, before it may run, and when it runs. */
    for (guint i = 0; i < 24; i++) {
        const pid_t daemon = fork();

        if (daemon == 0) {
            execl("/proc/self/exe", "qemu_test", "--daemon", bench->state_dir, image, NULL);
            _exit(127);
        }
        if (i < 20)
            g_usleep(i * 8000);
        for (guint wait = 0; i >= 20 && !g_file_test(ended, G_FILE_TEST_EXISTS) && wait < 30000; wait++)
            g_usleep(1000);
        kill(daemon, SIGKILL);
        waitpid(daemon, NULL, 0);
        unlink(ended);

        bench_store_status(domain, &starting);
        bench_ok(bench, vp_qemu_driver.adopt, domain);
        const Seen *seen = next_of_any(bench);
        if (seen->event == E(ADOPTED)) {
            adopted++;
            assert_int_equal(seen->state, S(RUNNING));
            power_off(bench, domain);
        } else {
            failed++;
            assert_int_equal(seen->event, E(START_FAILED));
            assert_int_equal(seen->state, S(SHUTOFF));
            assert_string_equal(seen->reason, "WHILE_DAEMON_DOWN");
        }
        bench_nothing_more(bench);
        /* A child that had no go yet goes by itself. */
        for (guint wait = 0; any_process_names(domain->uid); wait++) {
            assert_true(wait < 10000);
            g_usleep(1000);
        }
    }
    assert_true(adopted > 0);
    assert_true(failed > 0);
}

/* ---- many at once, and what the host can do ---- */

static void test_many(void **state)
{
    Bench *bench = *state;
    Running *running[6];
    PbDomain *domains[6];

    /* Two cores are busy with six machines: that is not to look like silence. */
    reconfigure(bench, "unresponsive_after_ms", "30000");
    for (guint i = 0; i < G_N_ELEMENTS(running); i++) {
        domains[i] = GUEST(bench, i + 1, guest_halts);
        running[i] = bench_begin(bench, vp_qemu_driver.start, domains[i], 60000);
    }
    for (guint i = 0; i < G_N_ELEMENTS(running); i++)
        assert_null(bench_end(running[i]));
    for (guint i = 0; i < G_N_ELEMENTS(running); i++)
        running[i] = bench_begin(bench, vp_qemu_driver.power_off, domains[i], 60000);
    for (guint i = 0; i < G_N_ELEMENTS(running); i++) {
        assert_null(bench_end(running[i]));
        vp_pb_free(domains[i]);
    }
    assert_int_equal(bench->seen->len, 3 * G_N_ELEMENTS(running));
}

static void test_capabilities(void **state)
{
    Bench *bench = *state;

    /* The second answer comes from memory. */
    for (guint i = 0; i < 2; i++) {
        vp_pb_auto PbDriverCapabilities *capabilities = vp_pb_new(&pb_driver_capabilities__descriptor);

        vp_qemu_driver.capabilities(bench->driver, capabilities);
        assert_true(capabilities->available);
        assert_true(g_ascii_isdigit(capabilities->version[0]));
        assert_true(g_file_test(capabilities->binary, G_FILE_TEST_IS_EXECUTABLE));
        assert_true(capabilities->n_accelerators >= 1);
    }
}

static void test_kvm(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = GUEST(bench, 1, guest_powers_off);
    vp_pb_auto PbDriverCapabilities *capabilities = vp_pb_new(&pb_driver_capabilities__descriptor);

    domain->spec->accelerator = PB_ACCELERATOR_KVM;
    vp_qemu_driver.capabilities(bench->driver, capabilities);
    if (capabilities->accelerators[0] != PB_ACCELERATOR_KVM) {
        vp_error_free(bench_fails(bench, vp_qemu_driver.start, domain, VP_FAILED_PRECONDITION, "KVM_UNAVAILABLE"));
        return;
    }
    assert_int_equal(started(bench, domain)->accelerator, PB_ACCELERATOR_KVM);
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "GUEST_REQUEST");
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--daemon") == 0)
        daemon_main(argv[2], argv[3]);
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_verbs),
        T(test_start_paused),
        T(test_guest_shuts_down),
        T(test_guest_resets),
        T(test_guest_panics),
        T(test_guest_panics_and_is_halted),
        T(test_guest_resets_and_ends),
        T(test_all_buses),
        T(test_overlay_without_format),
        T(test_formats),
        T(test_vmdk_overlay),
        T(test_formats_that_cannot_be_used),
        T(test_unsafe_chain),
        T(test_two_writers),
        T(test_external_data_file),
        T(test_exits_at_once),
        T(test_bad_machine),
        T(test_missing_binary),
        T(test_silent_binary),
        T(test_killed),
        T(test_stopped_process),
        T(test_shutdown_given_up),
        T(test_adopt_running),
        T(test_adopt_gone),
        T(test_adopt_pid_of_another),
        T(test_adopt_half_started),
        T(test_adopt_stopped_process),
        T(test_adopt_without_folder),
        T(test_close_while_starting),
        T(test_no_process_before_the_disk_knows),
        T(test_given_up_before_there_is_a_process),
        T(test_a_process_that_the_store_does_not_know),
        T(test_daemon_killed_while_starting),
        T(test_deep_chain),
        T(test_many),
        T(test_capabilities),
        T(test_kvm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
