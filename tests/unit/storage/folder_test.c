/* InspectPath's walks: what is shared is told once, bad files are answers, and nothing piles up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "storage/chain/folder.h"
#include "tests/unit/storage/images.h"

#define QCOW2 PB_IMAGE_FORMAT_QCOW2
#define RAW PB_IMAGE_FORMAT_RAW

/* All that came. */
typedef struct Result {
    GPtrArray *images;      /* of PbInspectedImage */
    GHashTable *overlays;   /* of path -> their number, for shared bases */
    PbPathSummary *summary; /* NULL: the end did not come */
    guint messages;
    guint stop_after; /* messages; 0: never */
} Result;

static gboolean take(void *data, PbInspectPathResponse *message)
{
    Result *result = data;
    assert_null(result->summary); /* it is in the last message */
    for (size_t i = 0; i < message->n_images; i++) {
        g_ptr_array_add(result->images, vp_pb_dup(message->images[i]));
    }
    for (size_t i = 0; i < message->n_shared_bases; i++) {
        const PbSharedBase *base = message->shared_bases[i];
        assert_true(g_hash_table_insert(result->overlays, g_strdup(base->path), GUINT_TO_POINTER(base->overlays)));
    }
    result->summary = vp_pb_dup(message->summary);
    return ++result->messages != result->stop_after;
}

static void result_clear(Result *result)
{
    g_ptr_array_unref(result->images);
    g_hash_table_unref(result->overlays);
    vp_pb_free(result->summary);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Result, result_clear)

#define RESULT_INIT                                                                                                    \
    {                                                                                                                  \
        .images = g_ptr_array_new_with_free_func(vp_pb_free),                                                          \
        .overlays = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),                                      \
    }

static void inspect(const char *name, const VpFolderOptions *options, Result *result)
{
    g_autofree char *path = path_of(name);
    g_autoptr(VpError) error = vp_folder_inspect(path, options, take, result);
    if (error) {
        fail_msg("%s: %s", name, error->message);
    }
    assert_non_null(result->summary);
    assert_int_equal(result->summary->images, result->images->len - result->summary->unread_folders);
    assert_int_equal(result->summary->safe + result->summary->unsafe, result->summary->images);
}

/* The image of that file; its name counts from the folder. */
static const PbInspectedImage *image_at(const Result *result, const char *name)
{
    g_autofree char *path = path_of(name);
    for (guint i = 0; i < result->images->len; i++) {
        const PbInspectedImage *image = g_ptr_array_index(result->images, i);
        if (strcmp(image->path, path) == 0) {
            return image;
        }
    }
    fail_msg("nothing was said of %s", name);
    return NULL;
}

static guint times_told(const Result *result, const char *name)
{
    g_autofree char *path = path_of(name);
    guint times = 0;
    for (guint i = 0; i < result->images->len; i++) {
        const PbInspectedImage *image = g_ptr_array_index(result->images, i);
        for (size_t l = 0; l < image->n_layers; l++) {
            g_autofree char *plain = g_canonicalize_filename(image->layers[l]->path, "/");
            times += strcmp(plain, path) == 0;
        }
    }
    return times;
}

static gboolean has_finding(const PbInspectedImage *image, PbFindingCode code)
{
    for (size_t i = 0; i < image->n_findings; i++) {
        if (image->findings[i]->code == code) {
            return TRUE;
        }
    }
    return FALSE;
}

static void shared_bases(void **state)
{
    (void)state;
    must_run("mkdir s s/sub; qemu-img create -q -f raw s/0.raw 4M; qemu-img create -q -f qcow2 -F raw -b 0.raw s/1.q;"
             "for i in $(seq 1 60); do qemu-img create -q -f qcow2 -F qcow2 -b ../1.q s/sub/$i.q; done;"
             "qemu-img create -q -u -f qcow2 -F qcow2 -b ../1.q s/sub/small.q 1M");
    const VpFolderOptions options = {.alike = QCOW2};
    for (guint round = 0; round < 5; round++) {
        g_auto(Result) result = RESULT_INIT;
        inspect("s", &options, &result);
        assert_int_equal(result.summary->images, 63);
        assert_int_equal(result.summary->safe, 63);
        assert_int_equal(result.summary->layers,
                         64); /* 0.raw is one when declared, another when it is a top that nobody declared */
        assert_int_equal(times_told(&result, "s/1.q"), 1);
        assert_int_equal(times_told(&result, "s/0.raw"), 2);
        for (guint i = 1; i <= 60; i++) {
            g_autofree char *name = g_strdup_printf("s/sub/%u.q", i);
            const PbInspectedImage *image = image_at(&result, name);
            assert_int_equal(image->summary->depth, 3); /* of the whole chain, wherever the rest was told */
            assert_true(image->summary->safe);
            assert_true(image->n_layers == 3 || image->continues_at[0]);
            assert_int_equal(image->layers[0]->format, QCOW2);
            assert_int_equal(image->layers[0]->format_source, PB_FORMAT_SOURCE_DECLARED_BY_CALLER);
        }
        const PbInspectedImage *small = image_at(&result, "s/sub/small.q");
        assert_true(has_finding(small, PB_FINDING_CODE_BACKING_LARGER)); /* of this overlay, not of the base */
        assert_int_equal(small->summary->warnings, 1);
        /* The base by the path by which it was told: one overlay says ../1.q of it. */
        assert_int_equal(result.summary->shared_bases, 1);
        assert_int_equal(g_hash_table_size(result.overlays), 1);
        GHashTableIter iter;
        gpointer path;
        gpointer overlays;
        g_hash_table_iter_init(&iter, result.overlays);
        assert_true(g_hash_table_iter_next(&iter, &path, &overlays));
        assert_true(g_str_has_suffix(path, "/1.q"));
        assert_int_equal(GPOINTER_TO_UINT(overlays), 61);
    }
}

/* Nobody declared the tops: plain ones are used as probed, overlays are refused, and what these name is not opened. */
static void undeclared_tops(void **state)
{
    (void)state;
    must_run(
        "mkdir u; qemu-img create -q -f raw u/0.raw 4M; qemu-img create -q -f qcow2 -F raw -b 0.raw u/1.q;"
        "qemu-img create -q -f qcow2 u/2.q 4M; qemu-img create -q -u -f qcow2 -F raw -b /etc/hostname u/evil.q 1M");
    const VpFolderOptions options = {0};
    g_auto(Result) result = RESULT_INIT;
    inspect("u", &options, &result);
    assert_int_equal(result.summary->safe, 2);
    assert_true(image_at(&result, "u/0.raw")->summary->safe);
    assert_int_equal(image_at(&result, "u/2.q")->layers[0]->format, QCOW2);
    assert_int_equal(image_at(&result, "u/2.q")->layers[0]->format_source, PB_FORMAT_SOURCE_PROBED);
    assert_int_equal(image_at(&result, "u/2.q")->n_findings, 0);
    assert_true(has_finding(image_at(&result, "u/1.q"), PB_FINDING_CODE_PROBE_REFUSED_BACKING_FILE));
    assert_int_equal(image_at(&result, "u/evil.q")->n_layers, 1);
    assert_int_equal(result.summary->layers, 4);
}

/* An overlay as the base of one that does not record its format: refused there, and fine as the top that the caller declared. */
static void an_undeclared_base_is_another_top(void **state)
{
    (void)state;
    must_run("mkdir a; qemu-img create -q -f raw a/0.raw 4M; qemu-img create -q -f qcow2 -F raw -b 0.raw a/1.q;"
             "qemu-img create -q -f qcow2 -F qcow2 -b 1.q a/2.q; printf x | dd of=a/2.q bs=1 seek=112 conv=notrunc "
             "status=none");
    const VpFolderOptions options = {.alike = QCOW2};
    for (guint round = 0; round < 20; round++) {
        g_auto(Result) result = RESULT_INIT;
        inspect("a", &options, &result);
        const PbInspectedImage *base = image_at(&result, "a/1.q");
        assert_true(base->summary->safe);
        assert_int_equal(base->n_layers, 2);
        assert_true(has_finding(image_at(&result, "a/2.q"), PB_FINDING_CODE_PROBE_REFUSED_BACKING_FILE));
        assert_int_equal(result.summary->unsafe, 1);
    }
}

static PbImageFormat declare(void *data, const char *path)
{
    return g_str_has_suffix(path, data) ? QCOW2 : PB_IMAGE_FORMAT_UNSPECIFIED;
}

static void declared_by_the_caller(void **state)
{
    (void)state;
    must_run("mkdir d; qemu-img create -q -f raw d/0.raw 4M; for i in 1 2; do qemu-img create -q -f qcow2 -F raw -b "
             "0.raw d/$i.q; done");
    const VpFolderOptions options = {.declared = declare, .declared_data = (void *)"/1.q"};
    g_auto(Result) result = RESULT_INIT;
    inspect("d", &options, &result);
    assert_true(image_at(&result, "d/1.q")->summary->safe);
    assert_false(image_at(&result, "d/2.q")->summary->safe);
}

static void bad_files_are_answers(void **state)
{
    (void)state;
    must_run(
        "mkdir b b/dir b/dir/deep; qemu-img create -q -f qcow2 b/good.q 4M; cp b/good.q b/cut.q; truncate -s 40 "
        "b/cut.q;"
        "mkfifo b/fifo; ln -s /dev/zero b/zero; ln -s knot b/knot; ln -s gone b/dangling; ln -s .. b/up; touch b/empty;"
        "qemu-img create -q -u -f qcow2 -F qcow2 -b loop2.q b/loop1.q 1M; qemu-img create -q -u -f qcow2 -F qcow2 -b "
        "loop1.q b/loop2.q 1M;"
        "qemu-img create -q -u -f qcow2 -F qcow2 -b self.q b/other.q 1M; mv b/other.q b/self.q;"
        "truncate -s 7E b/huge 2>/dev/null || truncate -s 8T b/huge; cp b/good.q b/dir/deep/d.q; cp b/good.q "
        "\"b/$(printf 'new\\nline\\377')\"");
    const VpFolderOptions options = {.alike = QCOW2};
    g_auto(Result) result = RESULT_INIT;
    inspect("b", &options, &result);
    assert_true(image_at(&result, "b/good.q")->summary->safe);
    assert_true(image_at(&result, "b/dir/deep/d.q")->summary->safe);
    assert_true(image_at(&result, "b/empty")->summary->safe);
    assert_true(image_at(&result, "b/huge")->summary->safe);
    assert_true(has_finding(image_at(&result, "b/cut.q"), PB_FINDING_CODE_TRUNCATED));
    assert_true(has_finding(image_at(&result, "b/fifo"), PB_FINDING_CODE_NOT_REGULAR_FILE));
    assert_true(has_finding(image_at(&result, "b/zero"), PB_FINDING_CODE_NOT_REGULAR_FILE));
    assert_true(has_finding(image_at(&result, "b/knot"), PB_FINDING_CODE_IO_ERROR));
    assert_true(has_finding(image_at(&result, "b/dangling"), PB_FINDING_CODE_FILE_MISSING));
    assert_true(has_finding(image_at(&result, "b/self.q"), PB_FINDING_CODE_LOOP));
    assert_false(image_at(&result, "b/loop1.q")->summary->safe);
    assert_false(image_at(&result, "b/loop2.q")->summary->safe);
    assert_int_equal(result.summary->images, 13); /* `up` is a link to a folder */
    assert_int_equal(result.summary->unread_folders, 0);

    const VpFolderOptions flat = {.flat = TRUE};
    g_auto(Result) top = RESULT_INIT;
    inspect("b", &flat, &top);
    assert_int_equal(top.summary->images, 12);
}

static void what_is_no_folder(void **state)
{
    (void)state;
    must_run("mkdir n n/in; touch n/file; mkfifo n/fifo; touch n/in/a");
    static const struct {
        const char *name;
        VpCode code;
    } cases[] = {{"n/gone", VP_NOT_FOUND}, {"n/file", VP_FAILED_PRECONDITION}, {"n/fifo", VP_FAILED_PRECONDITION}};
    const VpFolderOptions options = {0};
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = path_of(cases[i].name);
        g_auto(Result) result = RESULT_INIT;
        g_autoptr(VpError) error = vp_folder_inspect(path, &options, take, &result);
        assert_non_null(error);
        assert_int_equal(error->code, cases[i].code);
        assert_int_equal(result.messages, 0);
    }
    g_auto(Result) none = RESULT_INIT;
    g_autoptr(VpError) proc = vp_folder_inspect("/proc", &options, take, &none);
    assert_int_equal(proc->code, VP_FAILED_PRECONDITION);

    g_autofree char *in = path_of("n/in");
    char *roots[] = {in, NULL};
    const VpImagePolicy policy = {.roots = roots};
    const VpFolderOptions within = {.policy = &policy};
    g_autofree char *folder = path_of("n");
    g_autoptr(VpError) outside = vp_folder_inspect(folder, &within, take, &none);
    assert_int_equal(outside->code, VP_PERMISSION_DENIED);
    g_auto(Result) inside = RESULT_INIT;
    inspect("n/in", &within, &inside);
    assert_int_equal(inside.summary->safe, 1);
}

static void a_reader_that_leaves(void **state)
{
    (void)state;
    must_run("mkdir l; for i in $(seq 1 2000); do truncate -s 1k l/$i; done");
    g_autofree char *path = path_of("l");
    const VpFolderOptions options = {0};
    for (guint after = 1; after < 4; after++) {
        g_auto(Result) result = RESULT_INIT;
        result.stop_after = after;
        g_autoptr(VpError) error = vp_folder_inspect(path, &options, take, &result);
        assert_int_equal(error->code, VP_CANCELLED);
        assert_int_equal(result.messages, after);
    }
    g_auto(Result) all = RESULT_INIT;
    inspect("l", &options, &all);
    assert_int_equal(all.summary->images, 2000);
}

/* Chains of 200 in a folder, walked by several threads at once, fit into few descriptors. */
static void deep_chains_and_few_descriptors(void **state)
{
    (void)state;
    must_run("mkdir deep; cd deep; qemu-img create -q -f qcow2 000.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b 000.q "
             "001.q;"
             "for i in $(seq 2 230); do n=$(printf %%03d $i); cp 001.q $n.q;"
             "printf %%03d $((i-1)) | dd of=$n.q bs=1 seek=528 conv=notrunc status=none; done");
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit few = {64, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    const VpFolderOptions options = {.alike = QCOW2, .threads = 4};
    g_auto(Result) result = RESULT_INIT;
    inspect("deep", &options, &result);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(result.summary->images, 231);
    /* As deep as allowed and not one more, in whatever order they were walked. */
    assert_int_equal(result.summary->safe, 201);
    for (guint i = 0; i <= 230; i++) {
        g_autofree char *name = g_strdup_printf("deep/%03u.q", i);
        const PbInspectedImage *image = image_at(&result, name);
        assert_int_equal(image->summary->safe, i <= 200);
        if (i <= 200) {
            assert_int_equal(image->summary->depth, i + 1);
        }
        assert_int_equal(times_told(&result, name), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_bases),
        cmocka_unit_test(undeclared_tops),
        cmocka_unit_test(an_undeclared_base_is_another_top),
        cmocka_unit_test(declared_by_the_caller),
        cmocka_unit_test(bad_files_are_answers),
        cmocka_unit_test(what_is_no_folder),
        cmocka_unit_test(a_reader_that_leaves),
        cmocka_unit_test(deep_chains_and_few_descriptors),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
