/* Images made to do harm. None may block the walk, lead it out of its bounds, cost it much, or be called safe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"
#include "storage/chain/folder.h"
#include "storage/chain/reference.h"
#include "tests/unit/storage/headers.h"
#include "tests/unit/storage/images.h"

#define QCOW2 PB_IMAGE_FORMAT_QCOW2
#define RAW PB_IMAGE_FORMAT_RAW
#define UNDECLARED PB_IMAGE_FORMAT_UNSPECIFIED
#define CODE(name) PB_FINDING_CODE_##name

/* The headers made here have nothing beyond their first pages. */
static void write_image(const char *name, const GByteArray *bytes)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes->data, 8192), 8192);
    assert_int_equal(ftruncate(fd, bytes->len), 0);
    close(fd);
}

/* A qcow2 whose backing name is these bytes, which need not be text. */
static void make_named(const char *image, const char *name, gsize size)
{
    g_autoptr(GByteArray) file = header_new(3);
    header_put64(file, 8, 1024);
    header_put32(file, 16, (guint32)size);
    memcpy(file->data + 1024, name, MIN(size, 4096));
    header_extension(file, 104, 0xe2792acau, "raw", 3);
    write_image(image, file);
}

/* Each field of the header that is a length or an offset, at its limits: no crash, no large read, no chain that is safe by accident. */
static void lengths_at_their_limits(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        guint offset;
        gboolean wide;
    } fields[] = {
        {"backing name offset", 8, TRUE}, {"backing name length", 16, FALSE},
        {"cluster bits", 20, FALSE},      {"virtual size", 24, TRUE},
        {"L1 size", 36, FALSE},           {"L1 offset", 40, TRUE},
        {"refcount offset", 48, TRUE},    {"refcount clusters", 56, FALSE},
        {"snapshots", 60, FALSE},         {"snapshot offset", 64, TRUE},
        {"refcount order", 96, FALSE},    {"header length", 100, FALSE},
        {"extension type", 104, FALSE},   {"extension length", 108, FALSE},
    };
    static const guint64 values[] = {0,
                                     1,
                                     0x7f,
                                     0x80,
                                     0x3ff,
                                     0x400,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xffffffffffffffff};
    must_run("truncate -s 1M limits.raw");
    gint64 start = vp_now_us();
    for (gsize f = 0; f < G_N_ELEMENTS(fields); f++) {
        for (gsize v = 0; v < G_N_ELEMENTS(values); v++) {
            g_autoptr(GByteArray) file = header_new(3);
            header_extension(file, 104, 0xe2792acau, "raw", 3);
            header_backing(file, 1024, "limits.raw");
            if (fields[f].wide) {
                header_put64(file, fields[f].offset, values[v]);
            } else {
                header_put32(file, fields[f].offset, (guint32)values[v]);
            }
            write_image("limits.q", file);
            g_autoptr(VpChain) declared = walk("limits.q", QCOW2);
            /* What is safe has kept its backing file: it was never cut off. */
            if (declared->summary->safe && declared->summary->depth != 2 && fields[f].offset != 8 &&
                fields[f].offset != 16) {
                fail_msg("%s %" G_GINT64_MODIFIER "x: the chain was cut", fields[f].what, values[v]);
            }
            g_autoptr(VpChain) probed = walk("limits.q", UNDECLARED);
            if (probed->summary->safe && file_at(probed, 0)->layer->backing_path[0]) {
                fail_msg("%s %" G_GINT64_MODIFIER "x: probed, and safe with a backing file", fields[f].what, values[v]);
            }
        }
    }
    assert_true(vp_now_us() - start < 60 * G_USEC_PER_SEC);
}

static void odd_names(void **state)
{
    (void)state;
    must_run("truncate -s 1M plain.raw \"$(printf 'new\\nline.raw')\"; mkdir -p sub");
    static const struct {
        const char *name;
        gsize size;
        gboolean safe;
        PbFindingCode code;
        guint32 depth;
    } names[] = {
        {"plain.raw\0/etc/shadow", 21, FALSE, CODE(HEADER_CORRUPT), 0}, /* cut at the NUL it would be another file */
        {"new\nline.raw", 12, TRUE, 0, 0},
        {"sub/../plain.raw", 16, TRUE, 0, 0},
        {"../../../../../../../../../../../../etc/shadow.none", 51, FALSE, CODE(FILE_MISSING), 1},
        {"\xff\xfe", 2, FALSE, CODE(FILE_MISSING), 1},
        {"json:{\"driver\":\"raw\",\"file.filename\":\"/dev/zero\"}", 49, FALSE, CODE(NOT_REGULAR_FILE), 1},
        {"json:{", 6, FALSE, CODE(UNSUPPORTED_REFERENCE), 1},
        {"fat:rw:/etc", 11, FALSE, CODE(UNSUPPORTED_REFERENCE), 1},
        {"/proc/self/mem", 14, FALSE, CODE(NOT_REGULAR_FILE), 1},
        {"/proc/self/fd/0", 15, FALSE, CODE(NOT_REGULAR_FILE), 1},
        {"/sys/kernel/uevent_seqnum", 25, FALSE, CODE(NOT_REGULAR_FILE), 1},
        {"/dev/zero", 9, FALSE, CODE(NOT_REGULAR_FILE), 1},
        {"/dev/tty", 8, FALSE, CODE(NOT_REGULAR_FILE), 1},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        make_named("odd.q", names[i].name, names[i].size);
        g_autoptr(VpChain) chain = walk("odd.q", QCOW2);
        print_message("%s\n", names[i].name[0] > 0 ? names[i].name : "(bytes)");
        if (names[i].safe) {
            assert_safe(chain, 2);
        } else {
            assert_refused(chain, names[i].code, names[i].depth);
        }
    }
}

/* qcow2 allows 1,023 bytes; who says 1 MiB gets neither memory nor a file. And as text for the parser of names. */
static void a_name_of_a_mebibyte(void **state)
{
    (void)state;
    g_autofree char *name = g_strnfill(1 << 20, 'a');
    make_named("long.q", name, 1 << 20);
    g_autoptr(VpChain) chain = walk("long.q", QCOW2);
    assert_refused(chain, CODE(HEADER_CORRUPT), 0);

    g_auto(VpReference) plain = {0};
    vp_reference_parse(name, "/dir/overlay", &plain);
    assert_int_equal(plain.kind, VP_REFERENCE_FILE);
    g_autofree char *nested = g_strnfill(1 << 20, '[');
    g_autofree char *json = g_strconcat("json:", nested, NULL);
    g_auto(VpReference) deep = {0};
    vp_reference_parse(json, "/dir/overlay", &deep);
    assert_int_equal(deep.kind, VP_REFERENCE_UNSUPPORTED);

    /* A path that the kernel takes no more. */
    g_autofree char *path = g_strconcat("/", name, NULL);
    g_autoptr(VpChain) top = walk(path, RAW);
    assert_refused(top, CODE(IO_ERROR), 0);
}

static void sparse_giants(void **state)
{
    (void)state;
    /* As large as this file system allows, to 8 EiB. */
    must_run("for s in 9223372036854775807 8796093022207 1099511627776; do truncate -s $s giant.raw 2>/dev/null && "
             "break; done;"
             "qemu-img create -q -u -f qcow2 -F raw -b giant.raw giant.q 1M; qemu-img create -q -f qcow2 huge.q 4M;"
             "for s in 9223372036854775807 8796093022207 1099511627776; do truncate -s $s huge.q 2>/dev/null && break; "
             "done");
    gint64 start = vp_now_us();
    g_autoptr(VpChain) raw = walk("giant.q", QCOW2);
    assert_safe(raw, 2);
    g_autoptr(VpChain) undeclared = walk("giant.raw", UNDECLARED);
    assert_safe(undeclared, 1);
    g_autoptr(VpChain) declared = walk("huge.q", QCOW2);
    assert_safe(declared, 1);
    assert_true(vp_now_us() - start < 5 * G_USEC_PER_SEC);
    must_run("rm giant.raw huge.q");
}

/* A data file anywhere on the host: obeyed where the image was declared, but not against the policy; never where it was probed. */
static void a_data_file_elsewhere(void **state)
{
    (void)state;
    must_run("mkdir in; qemu-img create -q -f qcow2 -o data_file=$PWD/in/data in/data.q 1M; truncate -s 1M secret;"
             "qemu-img amend -f qcow2 -o data_file=$PWD/secret in/data.q 2>/dev/null || true");
    g_autofree char *in = path_of("in");
    char *roots[] = {in, NULL};
    const VpImagePolicy policy = {.roots = roots};
    const VpChainOptions options = {.format = QCOW2, .policy = &policy};
    g_autoptr(VpChain) outside = walk_with("in/data.q", &options);
    assert_refused(outside, CODE(OUTSIDE_ALLOWED_ROOTS), 0);
    g_autoptr(VpChain) probed = walk("in/data.q", UNDECLARED);
    assert_refused(probed, CODE(PROBE_REFUSED_DATA_FILE), 0);
    must_run("ln -sf /etc/shadow in/link; qemu-img create -q -u -f qcow2 -F raw -b link in/shadow.q 1M");
    g_autoptr(VpChain) shadow = walk_with("in/shadow.q", &options);
    assert_refused(shadow, access("/etc/shadow", F_OK) == 0 ? CODE(OUTSIDE_ALLOWED_ROOTS) : CODE(FILE_MISSING), 1);
}

/* Its owner may not read what it names: told, or refused. */
static void a_deputy(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    must_run("mkdir -m 755 tenant; truncate -s 1M tenant/private.raw; chmod 600 tenant/private.raw;"
             "qemu-img create -q -f qcow2 -F raw -b private.raw tenant/t.q; chown 65534:65534 tenant/t.q");
    g_autoptr(VpChain) warned = walk("tenant/t.q", QCOW2);
    assert_safe(warned, 2);
    assert_int_equal(find(warned, CODE(OWNER_MAY_NOT_READ))->severity, PB_SEVERITY_WARNING);

    const VpImagePolicy strict = {.ownership = VP_OWNERSHIP_REFUSE};
    const VpChainOptions refuse = {.format = QCOW2, .policy = &strict};
    g_autoptr(VpChain) refused = walk_with("tenant/t.q", &refuse);
    assert_refused(refused, CODE(OWNER_MAY_NOT_READ), 1);
    const VpImagePolicy loose = {.ownership = VP_OWNERSHIP_IGNORE};
    const VpChainOptions ignore = {.format = QCOW2, .policy = &loose};
    g_autoptr(VpChain) ignored = walk_with("tenant/t.q", &ignore);
    assert_int_equal(ignored->findings->len, 0);
    must_run("chmod 644 tenant/private.raw");
    g_autoptr(VpChain) readable = walk_with("tenant/t.q", &refuse);
    assert_safe(readable, 2);
    must_run("chown 65534 tenant/private.raw; chmod 600 tenant/private.raw");
    g_autoptr(VpChain) own = walk_with("tenant/t.q", &refuse);
    assert_safe(own, 2);
    must_run("chmod 666 tenant/private.raw");
    g_autoptr(VpChain) open = walk_with("tenant/t.q", &refuse);
    assert_refused(open, CODE(WRITABLE_BY_OTHERS), 1);
}

/* 10,000 layers: the walk ends where it may not go on, and a folder of them is done in reasonable time. */
static void ten_thousand_layers(void **state)
{
    (void)state;
    must_run("mkdir deep");
    for (guint i = 0; i < 10000; i++) {
        g_autofree char *image = g_strdup_printf("deep/%05u.q", i);
        g_autofree char *below = g_strdup_printf("%05u.q", i - 1);
        g_autoptr(GByteArray) file = header_new(3);
        header_extension(file, 104, 0xe2792acau, "qcow2", 5);
        if (i > 0) {
            header_backing(file, 1024, below);
        }
        write_image(image, file);
    }
    gint64 start = vp_now_us();
    g_autoptr(VpChain) chain = walk("deep/09999.q", QCOW2);
    assert_refused(chain, CODE(DEPTH_EXCEEDED), 201);
    assert_int_equal(chain->summary->depth, 201);
    assert_true(vp_now_us() - start < 10 * G_USEC_PER_SEC);
    must_run("rm -r deep");
}

/* A fork into itself: the data file of one layer is the backing file of another, and the other way round. */
static void a_chain_that_forks_into_itself(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 -o data_file=$PWD/fork.data fork.q 1M; rm fork.data; ln fork.q fork.data");
    g_autoptr(VpChain) itself = walk("fork.q", QCOW2);
    assert_refused(itself, CODE(LOOP), 0);
    must_run("qemu-img create -q -f qcow2 -o data_file=$PWD/fork2.data fork2.q 1M; qemu-img create -q -u -f qcow2 -F "
             "raw -b $PWD/fork2.data fork1.q 1M;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b fork1.q fork0.q 1M");
    g_autoptr(VpChain) fine = walk("fork0.q", QCOW2);
    assert_safe(fine, 3);
}

/* A window of a file that the chain has already: what is written to the one changes the other. Windows side by side are fine. */
static void parts_that_overlap(void **state)
{
    (void)state;
    static const struct {
        const char *window; /* of `box`, below another window of it from 1 MiB to 2 MiB */
        gboolean safe;
    } windows[] = {
        {"\"offset\":0,\"size\":1048576", TRUE},        {"\"offset\":2097152", TRUE},
        {"\"offset\":0,\"size\":1049088", FALSE},       {"\"offset\":2096640", FALSE},
        {"\"offset\":1049088,\"size\":512", FALSE},     {"\"size\":4194304", FALSE},
        {"\"offset\":1048576,\"size\":1048576", FALSE},
    };
    must_run(
        "qemu-img create -q -f qcow2 self.q 1M; truncate -s 1M self.q; qemu-img rebase -q -u -f qcow2 -F raw -b "
        "\"json:{\\\"driver\\\":\\\"raw\\\",\\\"offset\\\":65536,\\\"file.filename\\\":\\\"$PWD/self.q\\\"}\" self.q");
    g_autoptr(VpChain) itself = walk("self.q", QCOW2);
    assert_refused(itself, CODE(LOOP), 1);

    g_autofree char *box = path_of("box");
    for (gsize i = 0; i < G_N_ELEMENTS(windows); i++) {
        g_autofree char *below =
            g_strdup_printf("json:{\"driver\":\"raw\",%s,\"file.filename\":\"%s\"}", windows[i].window, box);
        must_run("qemu-img create -q -u -f qcow2 -F raw -b '%s' inner.q 1M; truncate -s 1M inner.q box;"
                 "cat inner.q >>box; truncate -s 4M box; qemu-img create -q -u -f qcow2 -F qcow2 -b "
                 "'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\",\"offset\":1048576,\"size\":1048576,\"file."
                 "filename\":\"%s\"}}' "
                 "over.q 1M",
                 below, box);
        print_message("%s\n", windows[i].window);
        g_autoptr(VpChain) chain = walk("over.q", QCOW2);
        if (windows[i].safe) {
            assert_safe(chain, 3);
        } else {
            assert_refused(chain, CODE(LOOP), 2);
        }
        must_run("rm box");
    }
}

/* The name is swapped between good and evil while walks go on: what a walk calls safe is what its descriptor is. */
typedef struct Swap {
    gint stop;
    guint rounds;
} Swap;

static void *keep_swapping(void *data)
{
    Swap *swap = data;
    while (!g_atomic_int_get(&swap->stop)) {
        assert_int_equal(renameat2(AT_FDCWD, "swap.raw", AT_FDCWD, "swap.evil", RENAME_EXCHANGE), 0);
        swap->rounds++;
    }
    return NULL;
}

static void a_base_that_is_swapped(void **state)
{
    (void)state;
    must_run("mkdir safe; truncate -s 1M swap.good; ln -s /etc/passwd swap.evil; ln -s swap.good swap.raw;"
             "qemu-img create -q -u -f qcow2 -F raw -b swap.raw swap.q 1M");
    struct stat passwd;
    assert_int_equal(stat("/etc/passwd", &passwd), 0);
    g_autofree char *folder = path_of(".");
    char *roots[] = {folder, NULL};
    const VpImagePolicy policy = {.roots = roots};
    const VpChainOptions options = {.format = QCOW2, .policy = &policy};
    Swap swap = {0};
    pthread_t thread;
    assert_null(vp_thread_start(&thread, "swap", keep_swapping, &swap));
    guint safe = 0;
    guint refused = 0;
    for (guint i = 0; i < 3000 || ((safe == 0 || refused == 0) && i < 100000); i++) {
        g_autoptr(VpChain) chain = walk_with("swap.q", &options);
        safe += chain->summary->safe;
        refused += !chain->summary->safe;
        if (chain->summary->safe) {
            struct stat st;
            assert_int_equal(fstat(file_at(chain, 1)->fd, &st), 0);
            assert_false(st.st_ino == passwd.st_ino && st.st_dev == passwd.st_dev);
        } else {
            assert_refused(chain, CODE(OUTSIDE_ALLOWED_ROOTS), 1);
        }
    }
    g_atomic_int_set(&swap.stop, 1);
    pthread_join(thread, NULL);
    assert_true(safe > 0 && refused > 0 && swap.rounds > 0);
}

/* A descriptor of 10,000 extents, and one of a mebibyte in one line: read in no time, named and refused. */
static void endless_descriptors(void **state)
{
    (void)state;
    must_run("{ printf '# Disk "
             "DescriptorFile\\nversion=1\\nCID=1\\nparentCID=ffffffff\\ncreateType=\"twoGbMaxExtentFlat\"\\n';"
             "for i in $(seq 10000); do echo \"RW 4192256 FLAT \\\"/etc/shadow$i\\\" 0\"; done; } >many.vmdk;"
             "{ printf '# Disk DescriptorFile\\nversion=1\\nRW 8 FLAT \"'; head -c 1100000 /dev/zero | tr '\\0' '\"'; "
             "} >line.vmdk");
    gint64 start = vp_now_us();
    g_autoptr(VpChain) many = walk("many.vmdk", UNDECLARED);
    assert_refused(many, CODE(PROBE_REFUSED_OTHER_FILE), 0);
    assert_int_equal(file_at(many, 0)->layer->virtual_size_bytes, 10000ull * 4192256 * 512);
    g_autoptr(VpChain) declared = walk("many.vmdk", PB_IMAGE_FORMAT_VMDK);
    assert_refused(declared, CODE(UNSUPPORTED_REFERENCE), 0);
    g_autoptr(VpChain) line = walk("line.vmdk", PB_IMAGE_FORMAT_VMDK);
    assert_false(line->summary->safe);
    assert_true(vp_now_us() - start < 5 * G_USEC_PER_SEC);
}

/* Windows of files: walked right, and never beyond the end. */
static void windows(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 inner.q 4M; truncate -s 1M pad; cat pad inner.q > both; truncate -s 8M both;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b "
             "\"json:{\\\"driver\\\":\\\"qcow2\\\",\\\"file\\\":{\\\"driver\\\":\\\"raw\\\",\\\"offset\\\":1048576,"
             "\\\"file\\\":{\\\"driver\\\":\\\"file\\\",\\\"filename\\\":\\\"$PWD/both\\\"}}}\" w1.q 4M;"
             "qemu-img create -q -u -f qcow2 -F raw -b "
             "\"json:{\\\"driver\\\":\\\"raw\\\",\\\"offset\\\":1048576,\\\"size\\\":65536,"
             "\\\"file.filename\\\":\\\"$PWD/both\\\"}\" w2.q 4M;"
             "qemu-img create -q -u -f qcow2 -F raw -b "
             "\"json:{\\\"driver\\\":\\\"raw\\\",\\\"offset\\\":1048576,\\\"size\\\":8388608,"
             "\\\"file.filename\\\":\\\"$PWD/both\\\"}\" w3.q 4M");
    g_autoptr(VpChain) qcow2 = walk("w1.q", QCOW2);
    assert_safe(qcow2, 2);
    const PbImageLayer *layer = file_at(qcow2, 1)->layer;
    assert_true(layer->is_window);
    assert_int_equal(layer->window_offset_bytes, 1 << 20);
    assert_int_equal(layer->virtual_size_bytes, 4 << 20);
    assert_int_equal(layer->file_size_bytes, 7 << 20);
    g_autoptr(VpChain) raw = walk("w2.q", QCOW2);
    assert_safe(raw, 2);
    assert_int_equal(file_at(raw, 1)->layer->virtual_size_bytes, 65536);
    assert_non_null(find(raw, CODE(FORMAT_MISMATCH))); /* in the window it looks like qcow2 */
    g_autoptr(VpChain) beyond = walk("w3.q", QCOW2);
    assert_refused(beyond, CODE(TRUNCATED), 1);
}

static void remote_layers(void **state)
{
    (void)state;
    must_run("qemu-img create -q -u -f qcow2 -F raw -b nbd://host/a n1.q 1M; qemu-img create -q -u -f qcow2 -F qcow2 "
             "-b nbd://host/a n2.q 1M");
    char *protocols[] = {(char *)"nbd", NULL};
    char *others[] = {(char *)"rbd", (char *)"https", NULL};
    const VpImagePolicy allowing = {.protocols = protocols};
    const VpImagePolicy refusing = {.protocols = others};
    const VpChainOptions allow = {.format = QCOW2, .policy = &allowing};
    const VpChainOptions refuse = {.format = QCOW2, .policy = &refusing};
    g_autoptr(VpChain) allowed = walk_with("n1.q", &allow);
    assert_true(allowed->summary->safe);
    assert_int_equal(allowed->summary->depth, 2);
    assert_int_equal(find(allowed, CODE(REMOTE_BACKING))->severity, PB_SEVERITY_WARNING);
    assert_true(file_at(allowed, 1)->layer->is_remote);
    assert_string_equal(file_at(allowed, 1)->layer->protocol, "nbd");
    assert_int_equal(file_at(allowed, 1)->fd, -1);
    /* What its header names cannot be seen. */
    g_autoptr(VpChain) unseen = walk_with("n2.q", &allow);
    assert_refused(unseen, CODE(REMOTE_BACKING), 1);
    g_autoptr(VpChain) refused = walk_with("n1.q", &refuse);
    assert_refused(refused, CODE(REMOTE_BACKING), 1);
    g_autoptr(VpChain) none = walk("n1.q", QCOW2);
    assert_refused(none, CODE(REMOTE_BACKING), 1);
}

/* Block devices are opened only where the policy names them. */
static void block_devices(void **state)
{
    (void)state;
    g_autofree char *output = NULL;
    must_run("truncate -s 4M loop.img");
    if (try_run(&output, "losetup -f --show loop.img") != 0 || !g_str_has_prefix(g_strstrip(output), "/dev/loop")) {
        print_message("no loop devices here\n");
        skip();
    }
    g_autofree char *overlay = g_strdup_printf("host_device:%s", output);
    must_run("qemu-img create -q -u -f qcow2 -F raw -b '%s' dev.q 4M", overlay);
    char *devices[] = {output, NULL};
    const VpImagePolicy policy = {.block_devices = devices};
    const VpChainOptions options = {.format = QCOW2, .policy = &policy};
    g_autoptr(VpChain) named = walk_with("dev.q", &options);
    g_autoptr(VpChain) unnamed = walk("dev.q", QCOW2);
    /* The same device by another name is the same file. */
    struct stat st;
    assert_int_equal(stat(output, &st), 0);
    g_autofree char *twin = g_strdup_printf("/dev/vp-twin-%d", (int)getpid());
    g_autoptr(VpChain) twice = NULL;
    if (mknod(twin, S_IFBLK | 0600, st.st_rdev) == 0) {
        g_autofree char *overlay_of_twin = g_strdup_printf("host_device:%s", twin);
        must_run("qemu-img create -q -u -f qcow2 -F qcow2 -b '%s' dev0.q 1M; qemu-img create -q -u -f qcow2 -F raw -b "
                 "'%s' %s 1M; qemu-img create -q -u -f qcow2 -F qcow2 -b '%s' dev1.q 1M",
                 overlay, overlay_of_twin, output, overlay);
        char *both[] = {output, twin, NULL};
        const VpImagePolicy two = {.block_devices = both};
        const VpChainOptions options_of_two = {.format = QCOW2, .policy = &two};
        twice = walk_with("dev1.q", &options_of_two);
        unlink(twin);
    }
    must_run("losetup -d %s", output);
    if (twice) {
        assert_refused(twice, CODE(LOOP), 2);
    }
    assert_safe(named, 2);
    assert_int_equal(file_at(named, 1)->layer->virtual_size_bytes, 4 << 20);
    assert_refused(unnamed, CODE(NOT_REGULAR_FILE), 1);
}

/* A file where a device was promised. */
static void no_device(void **state)
{
    (void)state;
    must_run(
        "truncate -s 1M nodev.raw; qemu-img create -q -u -f qcow2 -F raw -b host_device:$PWD/nodev.raw nodev.q 1M");
    g_autoptr(VpChain) chain = walk("nodev.q", QCOW2);
    assert_refused(chain, CODE(NOT_REGULAR_FILE), 1);
}

static void bounds_of_the_policy(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 -o cluster_size=2M big.q 4M; truncate -s 1M big.raw; qemu-img create -q -u "
             "-f qcow2 -F raw -b big.raw -o "
             "cluster_size=2M bigtop.q 1M");
    GKeyFile *file = g_key_file_new();
    static const struct {
        const char *text;
        gboolean good;
    } texts[] = {
        {"[images]\nroots=/a;/b\nprotocols=nbd;https\nblock_devices=/dev/vg0/"
         "*\nmax_depth=7\nmax_header_bytes=65536\nownership=refuse\n",
         TRUE},
        {"[images]\nroot=/a\n", FALSE},
        {"[images]\nroots=a\n", FALSE},
        {"[images]\nprotocols=gopher\n", FALSE},
        {"[images]\nprotocols=nbd+unix\n", FALSE},
        {"[images]\nblock_devices=vda\n", FALSE},
        {"[images]\nmax_depth=201\n", FALSE},
        {"[images]\nmax_depth=x\n", FALSE},
        {"[images]\nmax_header_bytes=1\n", FALSE},
        {"[images]\nownership=maybe\n", FALSE},
        {"[daemon]\n", TRUE},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_auto(VpImagePolicy) policy = {0};
        assert_true(g_key_file_load_from_data(file, texts[i].text, strlen(texts[i].text), G_KEY_FILE_NONE, NULL));
        g_autoptr(VpError) error = vp_image_policy_read(file, &policy);
        if ((error == NULL) != texts[i].good) {
            fail_msg("%s: %s", texts[i].text, error ? error->message : "taken");
        }
        if (i == 0) {
            assert_int_equal(policy.max_depth, 7);
            assert_int_equal(policy.ownership, VP_OWNERSHIP_REFUSE);
            assert_true(vp_image_policy_allows_protocol(&policy, "nbd"));
            assert_false(vp_image_policy_allows_protocol(&policy, "ssh"));
            assert_true(vp_image_policy_allows_device(&policy, "/dev/vg0/lv", "/dev/dm-3"));
            assert_false(vp_image_policy_allows_device(&policy, "/dev/vg0/../sda", "/dev/sda"));
            assert_false(vp_image_policy_allows_device(&policy, "/home/u/link", "/dev/sda"));
            /* A star stays in its folder: everybody may make links in /dev/shm. */
            char *stars[] = {(char *)"/dev/s*", NULL};
            const VpImagePolicy star = {.block_devices = stars};
            assert_true(vp_image_policy_allows_device(&star, "/dev/sda", "/dev/sda"));
            assert_false(vp_image_policy_allows_device(&star, "/dev/shm/link", "/dev/nvme0n1"));
        }
    }
    g_key_file_free(file);
    const VpImagePolicy shallow = {.max_depth = 1, .max_header_bytes = 65536};
    const VpChainOptions options = {.format = QCOW2, .policy = &shallow, .max_depth = 5};
    must_run("qemu-img create -q -f qcow2 p0.q 1M; qemu-img create -q -f qcow2 -F qcow2 -b p0.q p1.q; qemu-img create "
             "-q -f qcow2 -F qcow2 -b p1.q p2.q");
    g_autoptr(VpChain) fits = walk_with("p1.q", &options);
    assert_safe(fits, 2);
    g_autoptr(VpChain) deep = walk_with("p2.q", &options);
    assert_refused(deep, CODE(DEPTH_EXCEEDED), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_at_their_limits),
        cmocka_unit_test(odd_names),
        cmocka_unit_test(a_name_of_a_mebibyte),
        cmocka_unit_test(sparse_giants),
        cmocka_unit_test(a_data_file_elsewhere),
        cmocka_unit_test(a_deputy),
        cmocka_unit_test(ten_thousand_layers),
        cmocka_unit_test(a_chain_that_forks_into_itself),
        cmocka_unit_test(parts_that_overlap),
        cmocka_unit_test(a_base_that_is_swapped),
        cmocka_unit_test(endless_descriptors),
        cmocka_unit_test(windows),
        cmocka_unit_test(remote_layers),
        cmocka_unit_test(block_devices),
        cmocka_unit_test(no_device),
        cmocka_unit_test(bounds_of_the_policy),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
