/* The walk on real images: the rule, every finding, and the cases where qemu-img and libvirt judge wrongly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"
#include "tests/unit/storage/images.h"

#define QCOW2 PB_IMAGE_FORMAT_QCOW2
#define RAW PB_IMAGE_FORMAT_RAW
#define UNDECLARED PB_IMAGE_FORMAT_UNSPECIFIED
#define CODE(name) PB_FINDING_CODE_##name

/* An overlay that does not record its backing format: qemu-img 7.2 makes none, so the extension of a recorded one is made unknown. */
static void make_undeclared(const char *overlay, const char *backing, const char *as)
{
    must_run("qemu-img create -q -u -f qcow2 -F %s -b '%s' '%s' 4M", as, backing, overlay);
    int fd = open(overlay, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\x11", 1, 112), 1);
    close(fd);
}

static void patch(const char *name, off_t offset, const char *bytes, gsize size)
{
    int fd = open(name, O_RDWR | O_CLOEXEC | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, offset), (ssize_t)size);
    close(fd);
}

static void declared_chain(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f raw d0.raw 4M; qemu-img create -q -f qcow2 -F raw -b d0.raw d1.q; mkdir sub;"
             "qemu-img create -q -f qcow2 -F qcow2 -b ../d1.q sub/d2.q; ln -s sub/d2.q d3.link;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b file:$PWD/sub/d2.q d4.q 4M;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b "
             "\"json:{\\\"driver\\\":\\\"qcow2\\\",\\\"file\\\":{\\\"driver\\\":\\\"file\\\","
             "\\\"filename\\\":\\\"$PWD/d4.q\\\"}}\" d5.q 4M");
    g_autoptr(VpChain) chain = walk("d5.q", QCOW2);
    assert_safe(chain, 5);
    assert_int_equal(chain->findings->len, 0);
    assert_int_equal(file_at(chain, 0)->layer->format_source, PB_FORMAT_SOURCE_DECLARED_BY_CALLER);
    assert_int_equal(file_at(chain, 1)->layer->format_source, PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY);
    assert_int_equal(file_at(chain, 4)->layer->format, RAW);
    g_autofree char *base = path_of("sub/../d1.q");
    assert_string_equal(file_at(chain, 3)->layer->path, base);
    assert_string_equal(file_at(chain, 3)->layer->backing_path, "d0.raw");
    assert_int_equal(file_at(chain, 3)->layer->backing_format, RAW);
    assert_int_equal(file_at(chain, 3)->layer->virtual_size_bytes, 4 << 20);

    /* Through a symlink a relative name is relative to the link's own folder, as with QEMU: not found here. */
    g_autoptr(VpChain) linked = walk("d3.link", QCOW2);
    assert_refused(linked, CODE(FILE_MISSING), 1);
    g_autofree char *output = NULL;
    assert_int_not_equal(try_run(&output, "qemu-img info --backing-chain d3.link"), 0);
}

static void undeclared_backing_is_probed(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 u0.q 4M; qemu-img create -q -f raw u0.raw 4M");
    make_undeclared("u1.q", "u0.q", "qcow2");
    g_autoptr(VpChain) chain = walk("u1.q", QCOW2);
    assert_safe(chain, 2);
    const PbFinding *not_declared = find(chain, CODE(FORMAT_NOT_DECLARED));
    assert_non_null(not_declared);
    assert_int_equal(not_declared->severity, PB_SEVERITY_WARNING);
    assert_int_equal(not_declared->depth, 0);
    const PbFinding *used = find(chain, CODE(PROBE_USED));
    assert_non_null(used);
    assert_int_equal(used->severity, PB_SEVERITY_INFO);
    assert_int_equal(used->depth, 1);
    assert_int_equal(chain->summary->warnings, 1);
    assert_int_equal(file_at(chain, 1)->layer->format, QCOW2);
    assert_int_equal(file_at(chain, 1)->layer->format_source, PB_FORMAT_SOURCE_PROBED);

    /* The remedy works when pasted. */
    must_run("%s", not_declared->remedy);
    g_autoptr(VpChain) mended = walk("u1.q", QCOW2);
    assert_safe(mended, 2);
    assert_int_equal(mended->findings->len, 0);

    make_undeclared("u2.q", "u0.raw", "raw");
    g_autoptr(VpChain) raw = walk("u2.q", QCOW2);
    assert_safe(raw, 2);
    assert_non_null(find(raw, CODE(FORMAT_NOT_DECLARED)));
    assert_non_null(find(raw, CODE(PROBE_USED)));
    assert_int_equal(file_at(raw, 1)->layer->format, RAW);
}

static void undeclared_backing_with_a_backing_file(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f raw b0.raw 4M; qemu-img create -q -f qcow2 -F raw -b b0.raw 'b 1.q'");
    make_undeclared("b2.q", "b 1.q", "qcow2");
    g_autoptr(VpChain) chain = walk("b2.q", QCOW2);
    assert_refused(chain, CODE(PROBE_REFUSED_BACKING_FILE), 1);
    assert_int_equal(chain->summary->depth, 2); /* what the refused layer names is not even looked at */
    assert_int_equal(file_at(chain, 1)->fd, -1);
    assert_int_equal(file_at(chain, 1)->layer->format, PB_IMAGE_FORMAT_UNSPECIFIED);
    assert_int_equal(file_at(chain, 1)->layer->probed_format, QCOW2);
    must_run("%s", find(chain, CODE(PROBE_REFUSED_BACKING_FILE))->remedy);
    g_autoptr(VpChain) mended = walk("b2.q", QCOW2);
    assert_safe(mended, 3);
}

static void undeclared_with_a_data_file(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 -o data_file=$PWD/x.data x0.q 4M");
    make_undeclared("x1.q", "x0.q", "qcow2");
    g_autoptr(VpChain) chain = walk("x1.q", QCOW2);
    assert_refused(chain, CODE(PROBE_REFUSED_DATA_FILE), 1);
    g_autoptr(VpChain) top = walk("x0.q", UNDECLARED);
    assert_refused(top, CODE(PROBE_REFUSED_DATA_FILE), 0);

    g_autoptr(VpChain) declared = walk("x0.q", QCOW2);
    assert_safe(declared, 1);
    assert_true(file_at(declared, 0)->data_fd >= 0);

    /* QEMU would look for a relative one in its working directory. The remedy's amend works. */
    must_run("qemu-img create -q -f qcow2 -o data_file=x.rel x2.q 4M");
    g_autoptr(VpChain) relative = walk("x2.q", QCOW2);
    assert_refused(relative, CODE(UNSUPPORTED_REFERENCE), 0);
    must_run("qemu-img amend -f qcow2 -o data_file=$PWD/x.rel x2.q");
    g_autoptr(VpChain) amended = walk("x2.q", QCOW2);
    assert_safe(amended, 1);

    must_run("rm x.data");
    g_autoptr(VpChain) missing = walk("x0.q", QCOW2);
    assert_refused(missing, CODE(FILE_MISSING), 0);
}

static void undeclared_top(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -q -f qcow2 t0.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b t0.q t1.q; truncate -s 1M t.raw");
    g_autoptr(VpChain) plain = walk("t0.q", UNDECLARED);
    assert_safe(plain, 1);
    assert_non_null(find(plain, CODE(PROBE_USED)));
    g_autoptr(VpChain) raw = walk("t.raw", UNDECLARED);
    assert_safe(raw, 1);
    assert_int_equal(file_at(raw, 0)->layer->format, RAW);
    g_autoptr(VpChain) overlay = walk("t1.q", UNDECLARED);
    assert_refused(overlay, CODE(PROBE_REFUSED_BACKING_FILE), 0);
    const char *remedy = find(overlay, CODE(PROBE_REFUSED_BACKING_FILE))->remedy;
    assert_true(g_str_has_prefix(remedy, "vpctl image inspect --format qcow2 "));
    assert_non_null(strstr(remedy, "/t1.q,format=qcow2 "));
    g_autoptr(VpChain) declared = walk("t1.q", QCOW2);
    assert_safe(declared, 2);
}

static void mismatches(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 m0.q 4M; qemu-img create -q -f raw m0.raw 4M;"
             "qemu-img create -q -u -f qcow2 -F raw -b m0.q m1.q 4M; qemu-img create -q -u -f qcow2 -F qcow2 -b m0.raw "
             "m2.q 4M");
    g_autoptr(VpChain) raw = walk("m1.q", QCOW2);
    assert_safe(raw, 2);
    assert_int_equal(find(raw, CODE(FORMAT_MISMATCH))->severity, PB_SEVERITY_WARNING);
    assert_int_equal(file_at(raw, 1)->layer->format, RAW);
    g_autoptr(VpChain) qcow2 = walk("m2.q", QCOW2);
    assert_refused(qcow2, CODE(FORMAT_MISMATCH), 1);
    g_autoptr(VpChain) top = walk("m0.raw", QCOW2);
    assert_refused(top, CODE(FORMAT_MISMATCH), 0);
}

static void loops(void **state)
{
    (void)state;
    must_run("qemu-img create -q -u -f qcow2 -F qcow2 -b l0.q l.q 4M; mv l.q l0.q;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b l2.q l1.q 4M; qemu-img create -q -u -f qcow2 -F qcow2 -b "
             "l1.hard l2.q 4M;"
             "ln l1.q l1.hard");
    g_autoptr(VpChain) self = walk("l0.q", QCOW2);
    assert_refused(self, CODE(LOOP), 1);
    assert_int_equal(self->summary->depth, 1);
    g_autoptr(VpChain) two = walk("l1.q", QCOW2); /* by another name of the same file */
    assert_refused(two, CODE(LOOP), 2);
    assert_int_equal(two->summary->depth, 2);
}

static void depth(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 c0.q 4M; for i in 1 2 3; do qemu-img create -q -u -f qcow2 -F qcow2 -b "
             "c$((i-1)).q c$i.q 4M; done");
    VpChainOptions options = {.format = QCOW2, .max_depth = 2};
    g_autoptr(VpChain) deep = walk_with("c3.q", &options);
    assert_refused(deep, CODE(DEPTH_EXCEEDED), 3);
    assert_int_equal(deep->summary->depth, 3);
    g_autoptr(VpChain) fits = walk_with("c2.q", &options);
    assert_safe(fits, 3);
}

static void special_files(void **state)
{
    (void)state;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s.socket"};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    must_run(
        "mkfifo s.fifo; mkdir s.dir; ln -s /dev/zero s.zero; ln -s /proc/self/status s.proc; ln -s s.knot s.knot;"
        "ln -s /proc/self/root/etc/passwd s.magic; ln -s /sys/kernel/mm/transparent_hugepage/enabled s.sys;"
        "for f in fifo dir zero socket proc magic; do qemu-img create -q -u -f qcow2 -F raw -b s.$f s.$f.q 4M; done");
    static const char *const names[] = {"s.fifo", "s.dir", "s.zero", "s.socket", "s.proc", "s.magic"};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *overlay = g_strconcat(names[i], ".q", NULL);
        g_autoptr(VpChain) backing = walk(overlay, QCOW2);
        assert_refused(backing, CODE(NOT_REGULAR_FILE), 1);
        g_autoptr(VpChain) top = walk(names[i], RAW);
        assert_refused(top, CODE(NOT_REGULAR_FILE), 0);
    }
    g_autoptr(VpChain) folder = walk("s.dir.q", QCOW2);
    assert_int_equal(folder->summary->depth, 2);
    assert_int_equal(file_at(folder, 1)->layer->probed_format, PB_IMAGE_FORMAT_DIRECTORY);
    assert_int_equal(file_at(folder, 1)->fd, -1);
    g_autoptr(VpChain) knot = walk("s.knot", RAW);
    assert_refused(knot, CODE(IO_ERROR), 0);
    close(fd);
}

static guint32 set_capabilities(guint32 effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    assert_int_equal(syscall(SYS_capget, &header, data), 0);
    guint32 old = data[0].effective;
    data[0].effective = effective & data[0].permitted;
    assert_int_equal(syscall(SYS_capset, &header, data), 0);
    return old;
}

/* Root reads anything: look as one who may not, where the tests run as root. */
static guint32 drop_capabilities(void)
{
    return set_capabilities(~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH));
}

static void files_that_are_not_to_be_had(void **state)
{
    (void)state;
    must_run("qemu-img create -q -u -f qcow2 -F raw -b gone.raw f1.q 4M; mkdir f.dir; qemu-img create -q -f raw "
             "f.dir/b.raw 4M;"
             "qemu-img create -q -f qcow2 -F raw -b f.dir/b.raw f2.q");
    g_autoptr(VpChain) missing = walk("f1.q", QCOW2);
    assert_refused(missing, CODE(FILE_MISSING), 1);
    assert_non_null(strstr(find(missing, CODE(FILE_MISSING))->message, "f1.q"));

    must_run("chmod 0 f.dir");
    guint32 old = drop_capabilities();
    g_autoptr(VpChain) denied = walk("f2.q", QCOW2);
    set_capabilities(old);
    assert_refused(denied, CODE(PERMISSION_DENIED), 1);
    must_run("chmod 755 f.dir");
}

static void allowed_roots(void **state)
{
    (void)state;
    must_run("mkdir r.in r.out; qemu-img create -q -f raw r.out/b.raw 4M; qemu-img create -q -f raw r.in/b.raw 4M;"
             "qemu-img create -q -f qcow2 -F raw -b ../r.out/b.raw r.in/out.q; qemu-img create -q -f qcow2 -F raw -b "
             "b.raw r.in/in.q;"
             "ln -s ../r.out/b.raw r.in/link.raw; qemu-img create -q -f qcow2 -F raw -b link.raw r.in/link.q; mkdir "
             "r.inside;"
             "qemu-img create -q -f raw r.inside/b.raw 4M; ln -s r.in r.alias");
    g_autofree char *in = path_of("r.alias");
    char *roots[] = {(char *)"/nonexistent", in, NULL};
    const VpImagePolicy policy = {.roots = roots};
    const VpChainOptions options = {.format = QCOW2, .policy = &policy};
    g_autoptr(VpChain) good = walk_with("r.in/in.q", &options);
    assert_safe(good, 2);
    g_autoptr(VpChain) out = walk_with("r.in/out.q", &options);
    assert_refused(out, CODE(OUTSIDE_ALLOWED_ROOTS), 1);
    g_autoptr(VpChain) link = walk_with("r.in/link.q", &options);
    assert_refused(link, CODE(OUTSIDE_ALLOWED_ROOTS), 1);
    g_autoptr(VpChain) prefix = walk_with("r.inside/b.raw", &options);
    assert_refused(prefix, CODE(OUTSIDE_ALLOWED_ROOTS), 0);
}

static void damaged_images(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -q -f qcow2 h0.q 4M; for i in cut short dirty corrupt feature future; do cp h0.q h.$i; done;"
        "truncate -s 40 h.cut; truncate -s 196000 h.short");
    patch("h.dirty", 79, "\x01", 1);
    patch("h.corrupt", 79, "\x02", 1);
    patch("h.feature", 76, "\x01", 1);
    patch("h.future", 7, "\x09", 1);
    static const struct {
        const char *name;
        PbFindingCode code;
    } cases[] = {
        {"h.cut", CODE(TRUNCATED)},
        {"h.short", CODE(TRUNCATED)},
        {"h.corrupt", CODE(HEADER_CORRUPT)},
        {"h.feature", CODE(UNKNOWN_INCOMPATIBLE_FEATURE)},
        {"h.future", CODE(UNKNOWN_INCOMPATIBLE_FEATURE)},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpChain) declared = walk(cases[i].name, QCOW2);
        assert_refused(declared, cases[i].code, 0);
        g_autoptr(VpChain) probed = walk(cases[i].name, UNDECLARED);
        assert_refused(probed, cases[i].code, 0);
    }
    g_autoptr(VpChain) dirty = walk("h.dirty", QCOW2);
    assert_safe(dirty, 1);
    assert_int_equal(find(dirty, CODE(DIRTY))->severity, PB_SEVERITY_WARNING);
}

static void other_formats(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        PbImageFormat format;
        const char *options;
    } formats[] = {
        {"qcow", PB_IMAGE_FORMAT_QCOW, ""},
        {"qed", PB_IMAGE_FORMAT_QED, ""},
        {"vmdk", PB_IMAGE_FORMAT_VMDK, ""},
        {"vdi", PB_IMAGE_FORMAT_VDI, ""},
        {"vpc", PB_IMAGE_FORMAT_VPC, ""},
        {"vpc", PB_IMAGE_FORMAT_VPC, "-o subformat=fixed"}, /* a footer only: qemu-img and libvirt say raw */
        {"vhdx", PB_IMAGE_FORMAT_VHDX, ""},                 /* libvirt says raw */
        {"parallels", PB_IMAGE_FORMAT_PARALLELS, ""},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        must_run("qemu-img create -q -f %s %s o.img 4M", formats[i].name, formats[i].options);
        g_autoptr(VpChain) probed = walk("o.img", UNDECLARED);
        assert_safe(probed, 1);
        assert_int_equal(file_at(probed, 0)->layer->format, formats[i].format);
        g_autoptr(VpChain) declared = walk("o.img", formats[i].format);
        assert_safe(declared, 1);
        assert_int_equal(declared->findings->len, 0);
        g_autoptr(VpChain) wrong = walk("o.img", QCOW2);
        assert_refused(wrong, CODE(FORMAT_MISMATCH), 0);
        must_run("rm -f o.img");
    }
    must_run(
        "qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentFlat o.img 4M"); /* a descriptor: libvirt says raw */
    g_autoptr(VpChain) extents = walk("o.img", UNDECLARED);
    assert_refused(extents, CODE(PROBE_REFUSED_OTHER_FILE), 0);
    g_autoptr(VpChain) declared_extents = walk("o.img", PB_IMAGE_FORMAT_VMDK);
    assert_refused(declared_extents, CODE(UNSUPPORTED_REFERENCE), 0);
    /* A recorded format that nobody knows. */
    must_run("qemu-img create -q -f raw o.raw 4M; qemu-img create -q -f qcow2 -F raw -b o.raw o.q");
    patch("o.q", 120, "foo", 3);
    g_autoptr(VpChain) unknown = walk("o.q", QCOW2);
    assert_refused(unknown, CODE(UNSUPPORTED_FORMAT), 1);
}

static void polyglot(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 p0.q 4M");
    patch("p0.q", 32768,
          "\x01"
          "CD001\x01",
          7);
    make_undeclared("p1.q", "p0.q", "qcow2");
    g_autoptr(VpChain) chain = walk("p1.q", QCOW2);
    assert_refused(chain, CODE(AMBIGUOUS_FORMAT), 1);
    assert_int_equal(file_at(chain, 1)->layer->probed_format, PB_IMAGE_FORMAT_UNSPECIFIED);
    g_autoptr(VpChain) declared = walk("p0.q", QCOW2);
    assert_safe(declared, 1);
}

static void references(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        PbFindingCode code;
    } cases[] = {
        {"nbd://localhost:1/x", CODE(REMOTE_BACKING)},
        {"https://localhost:1/x.qcow2", CODE(REMOTE_BACKING)},
        {"fat:rw:/etc", CODE(UNSUPPORTED_REFERENCE)},
        {"blkdebug::/etc/passwd", CODE(UNSUPPORTED_REFERENCE)},
        {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}}",
         CODE(UNSUPPORTED_REFERENCE)},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        /* The last one contradicts the recorded format. */
        must_run("qemu-img create -q -u -f qcow2 -F qcow2 -b '%s' n.q 4M", cases[i].name);
        g_autoptr(VpChain) chain = walk("n.q", QCOW2);
        assert_refused(chain, cases[i].code, 1);
        assert_string_equal(file_at(chain, 0)->layer->backing_path, cases[i].name);
    }
}

static void sizes_and_encryption(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -q -f qcow2 z0.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b z0.q z1.q 8M;"
        "qemu-img create -q -f qcow2 -F qcow2 -b z0.q z2.q 2M;"
        "qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s z3.q 4M");
    g_autoptr(VpChain) smaller = walk("z1.q", QCOW2);
    assert_safe(smaller, 2);
    assert_int_equal(find(smaller, CODE(BACKING_SMALLER))->severity, PB_SEVERITY_INFO);
    g_autoptr(VpChain) larger = walk("z2.q", QCOW2);
    assert_safe(larger, 2);
    assert_int_equal(find(larger, CODE(BACKING_LARGER))->severity, PB_SEVERITY_WARNING);
    g_autoptr(VpChain) encrypted = walk("z3.q", QCOW2);
    assert_safe(encrypted, 1);
    assert_int_equal(find(encrypted, CODE(ENCRYPTED))->severity, PB_SEVERITY_INFO);
    assert_true(file_at(encrypted, 0)->layer->encrypted);
}

static void odd_names(void **state)
{
    (void)state;
    /* Any byte but NUL, and a remedy that still works when pasted (into bash). */
    const char *name = "q \n'\"$`\\\xff\xc3\xb6.q";
    g_autofree char *quoted = g_shell_quote(name);
    must_run("qemu-img create -q -f qcow2 plain.q 4M; mv plain.q %s", quoted);
    make_undeclared("q1.q", "placeholder-of-19.q", "qcow2");
    g_autofree char *length = g_strdup_printf("%c", (int)strlen(name));
    patch("q1.q", 528, name, strlen(name));
    patch("q1.q", 19, length, 1);
    g_autoptr(VpChain) chain = walk("q1.q", QCOW2);
    assert_safe(chain, 2);
    assert_true(g_utf8_validate(file_at(chain, 1)->layer->path, -1, NULL));
    assert_true(g_utf8_validate(file_at(chain, 0)->layer->backing_path, -1, NULL));
    assert_true(g_file_set_contents("q.sh", find(chain, CODE(FORMAT_NOT_DECLARED))->remedy, -1, NULL));
    must_run("bash q.sh");
    g_autoptr(VpChain) mended = walk("q1.q", QCOW2);
    assert_safe(mended, 2);
    assert_int_equal(mended->findings->len, 0);
}

static void written_top(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 w0.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b w0.q w1.q; chmod 444 w0.q");
    VpChainOptions options = {.format = QCOW2, .write_top = TRUE};
    g_autoptr(VpChain) chain = walk_with("w1.q", &options);
    assert_safe(chain, 2);
    assert_int_equal(fcntl(file_at(chain, 0)->fd, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_int_equal(fcntl(file_at(chain, 1)->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
}

static gboolean stop_at_second(void *data, const PbImageLayer *layer)
{
    guint *count = data;
    (void)layer;
    return ++*count < 2;
}

static void reader_that_leaves(void **state)
{
    (void)state;
    guint count = 0;
    VpChain *chain = NULL;
    VpChainOptions options = {.format = QCOW2};
    VpChainSink sink = {.layer = stop_at_second, .data = &count};
    g_autofree char *path = path_of("c3.q");
    g_autoptr(VpError) error = vp_chain_walk(path, &options, &sink, &chain);
    assert_non_null(error);
    assert_int_equal(error->code, VP_CANCELLED);
    assert_null(chain);
    assert_int_equal(count, 2);

    g_autoptr(VpError) relative = vp_chain_walk("c3.q", &options, NULL, &chain);
    assert_int_equal(relative->code, VP_INVALID_ARGUMENT);
}

static void out_of_descriptors(void **state)
{
    (void)state;
    struct rlimit old;
    struct rlimit few;
    VpChain *chain = NULL;
    VpChainOptions options = {.format = QCOW2};
    g_autofree char *path = path_of("c3.q");
    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = (rlim_t)next + 2;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    g_autoptr(VpError) error = vp_chain_walk(path, &options, NULL, &chain);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_non_null(error);
    assert_int_equal(error->code, VP_RESOURCE_EXHAUSTED);
    int after = dup(0);
    close(after);
    assert_int_equal(after, next); /* and nothing leaked */
}

static void one_image(void **state)
{
    (void)state;
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
    PbImageLayer *layer = NULL;
    make_undeclared("i1.q", "i0.q", "qcow2");
    must_run("mkfifo i.fifo");
    g_autofree char *path = path_of("i1.q");
    assert_null(vp_image_probe(path, NULL, &layer, findings));
    assert_int_equal(layer->format, QCOW2);
    assert_int_equal(layer->format_source, PB_FORMAT_SOURCE_PROBED);
    assert_string_equal(layer->backing_path, "i0.q"); /* missing: it was not looked for */
    assert_int_equal(findings->len, 1);
    pb_image_layer__free_unpacked(layer, NULL);

    g_autofree char *gone = path_of("i.gone");
    g_autoptr(VpError) missing = vp_image_probe(gone, NULL, &layer, findings);
    assert_int_equal(missing->code, VP_NOT_FOUND);
    g_autofree char *fifo = path_of("i.fifo");
    g_autoptr(VpError) odd = vp_image_probe(fifo, NULL, &layer, findings);
    assert_int_equal(odd->code, VP_FAILED_PRECONDITION);
    char *roots[] = {(char *)"/usr", NULL};
    const VpImagePolicy policy = {.roots = roots};
    g_autoptr(VpError) outside = vp_image_probe(path, &policy, &layer, findings);
    assert_int_equal(outside->code, VP_PERMISSION_DENIED);
}

static void deep_chain_is_quick(void **state)
{
    (void)state;
    /* Headers are alike but for the name, so one real overlay is copied and its name patched. */
    must_run("mkdir deep; cd deep; qemu-img create -q -f qcow2 000.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b 000.q "
             "001.q;"
             "for i in $(seq 2 200); do n=$(printf %%03d $i); cp 001.q $n.q;"
             "printf %%03d $((i-1)) | dd of=$n.q bs=1 seek=528 conv=notrunc status=none; done");
    gint64 start = vp_now_us();
    g_autoptr(VpChain) chain = walk("deep/200.q", QCOW2);
    gint64 ours = vp_now_us() - start;
    assert_safe(chain, 201);
    start = vp_now_us();
    must_run("qemu-img info --backing-chain deep/200.q");
    gint64 theirs = vp_now_us() - start;
    print_message("depth 200: %" G_GINT64_FORMAT " us; qemu-img %" G_GINT64_FORMAT " us\n", ours, theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(declared_chain),
        cmocka_unit_test(undeclared_backing_is_probed),
        cmocka_unit_test(undeclared_backing_with_a_backing_file),
        cmocka_unit_test(undeclared_with_a_data_file),
        cmocka_unit_test(undeclared_top),
        cmocka_unit_test(mismatches),
        cmocka_unit_test(loops),
        cmocka_unit_test(depth),
        cmocka_unit_test(special_files),
        cmocka_unit_test(files_that_are_not_to_be_had),
        cmocka_unit_test(allowed_roots),
        cmocka_unit_test(damaged_images),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(polyglot),
        cmocka_unit_test(references),
        cmocka_unit_test(sizes_and_encryption),
        cmocka_unit_test(odd_names),
        cmocka_unit_test(written_top),
        cmocka_unit_test(reader_that_leaves),
        cmocka_unit_test(out_of_descriptors),
        cmocka_unit_test(one_image),
        cmocka_unit_test(deep_chain_is_quick),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
