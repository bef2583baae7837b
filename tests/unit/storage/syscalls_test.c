/* The system calls of a walk, counted by strace: so many a layer, and never one that reads a special file. The test runs itself under strace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "storage/chain/folder.h"
#include "tests/unit/storage/images.h"

/* openat2 (O_PATH), fstat, open, close, read; and the close at the end. docs/images.md says so. */
#define CALLS_A_LAYER 6
/* A plain file in a folder: openat, fstat, reads of its head, of what lies at 32 KiB and of its end, close. */
#define CALLS_A_FILE 6
/* For the folder itself, and what differs between two runs. */
#define CALLS_ASIDE 20

static char self[4096];

static guint count_lines(const char *text, const char *word)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint n = 0;
    for (char **line = lines; *line; line++) {
        n += **line && strstr(*line, word) != NULL;
    }
    return n;
}

/* What this program did when it walked: strace's lines. */
static char *trace(const char *mode, const char *name)
{
    char *text = NULL;
    must_run("strace -f -qq -o calls '%s' %s '%s'", self, mode, name);
    assert_true(g_file_get_contents("calls", &text, NULL, NULL));
    return text;
}

static void of_a_layer(void **state)
{
    (void)state;
    must_run("mkdir c; cd c; qemu-img create -q -f qcow2 000.q 4M; qemu-img create -q -f qcow2 -F qcow2 -b 000.q 001.q;"
             "for i in $(seq 2 120); do n=$(printf %%03d $i); cp 001.q $n.q;"
             "printf %%03d $((i-1)) | dd of=$n.q bs=1 seek=528 conv=notrunc status=none; done");
    g_autofree char *few_path = path_of("c/020.q");
    g_autofree char *many_path = path_of("c/120.q");
    g_autofree char *few = trace("--walk", few_path);
    g_autofree char *many = trace("--walk", many_path);
    guint calls = count_lines(many, "(") - count_lines(few, "(");
    /* Memory is asked for now and then. */
    if (calls > CALLS_A_LAYER * 100 + 10 || calls < 300) {
        fail_msg("%u system calls for 100 layers", calls);
    }
    assert_int_equal(count_lines(many, "O_PATH") - count_lines(few, "O_PATH"), 100);
}

static void of_a_file_in_a_folder(void **state)
{
    (void)state;
    must_run("mkdir few many; for i in $(seq 1 10); do truncate -s 1M few/$i; done; for i in $(seq 1 510); do truncate "
             "-s 1M many/$i; done");
    g_autofree char *few_path = path_of("few");
    g_autofree char *many_path = path_of("many");
    g_autofree char *few = trace("--folder", few_path);
    g_autofree char *many = trace("--folder", many_path);
    static const char *const calls[] = {"openat(", "fstat", "pread64(", "close("};
    guint sum = 0;
    for (gsize i = 0; i < G_N_ELEMENTS(calls); i++) {
        sum += count_lines(many, calls[i]) - count_lines(few, calls[i]);
    }
    if (sum > CALLS_A_FILE * 500 + CALLS_ASIDE || sum < 4 * 500) {
        fail_msg("%u system calls for 500 files", sum);
    }
}

/* A FIFO, a socket, a device: looked at by O_PATH, never opened. */
static void of_a_special_file(void **state)
{
    (void)state;
    must_run("mkfifo fifo; ln -s /dev/zero zero; ln -s /dev/ptmx tty");
    static const char *const names[] = {"fifo", "zero", "tty"};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = path_of(names[i]);
        g_autofree char *text = trace("--walk", path);
        assert_int_equal(count_lines(text, path), 1);        /* the O_PATH */
        assert_int_equal(count_lines(text, "O_NOATIME"), 0); /* which every open for reading asks for */
    }
}

static gboolean drop(void *data, PbInspectPathResponse *message)
{
    (void)data;
    (void)message;
    return TRUE;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--walk") == 0) {
        const VpChainOptions options = {.format = PB_IMAGE_FORMAT_QCOW2, .look_only = TRUE};
        g_autoptr(VpChain) chain = NULL;
        g_autoptr(VpError) error = vp_chain_walk(argv[2], &options, NULL, &chain);
        return error != NULL;
    }
    if (argc == 3 && strcmp(argv[1], "--folder") == 0) {
        const VpFolderOptions options = {.threads = 1};
        g_autoptr(VpError) error = vp_folder_inspect(argv[2], &options, drop, NULL);
        return error != NULL;
    }
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_layer),
        cmocka_unit_test(of_a_file_in_a_folder),
        cmocka_unit_test(of_a_special_file),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
