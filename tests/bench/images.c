/*
 * The figures about images: the walk of a deep chain beside qemu-img, a folder of 10,000 images beside libvirt's pool refresh and beside a bare loop
 * that opens and reads each, and the system calls of a layer (counted by strace).
 */
#include <dirent.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <grpc/grpc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "storage/chain/chain.h"
#include "storage/chain/folder.h"
#include "tests/bench/bench.h"
#include "tests/bench/libvirt_peer.h"
#include "virtplane/v1/image_service.pb-c.h"

#define DEPTH 200
#define IMAGES 10000

typedef struct Bench {
    char *dir;
    char *chain; /* the folder of the deep chain */
    char *top;
    char *folder; /* of 10,000 images */
    char *address;
    pid_t daemon;
} Bench;

/* qemu-img with these arguments, which end with NULL. */
static void qemu_img(const char *first, ...) G_GNUC_NULL_TERMINATED;
static void qemu_img(const char *first, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list args;
    int status = -1;

    g_ptr_array_add(argv, (char *)"qemu-img");
    va_start(args, first);
    for (const char *arg = first; arg; arg = va_arg(args, const char *))
        g_ptr_array_add(argv, (char *)arg);
    va_end(args);
    g_ptr_array_add(argv, NULL);
    if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) ||
        status != 0)
        bench_die("qemu-img %s failed", first);
}

static char *make_dir(const Bench *bench, const char *name)
{
    char *dir = g_build_filename(bench->dir, name, NULL);

    if (g_mkdir(dir, 0755) != 0)
        bench_die("cannot make %s", dir);
    return dir;
}

/* ---- what is measured on ---- */

/* Headers are alike but for the name: one real overlay is copied, and its name patched. */
static void make_chain(Bench *bench)
{
    g_autofree char *first = NULL;
    g_autofree char *bytes = NULL;
    gsize size = 0;

    bench->chain = make_dir(bench, "chain");
    bench->top = g_strdup_printf("%s/%03d.qcow2", bench->chain, DEPTH);
    g_autofree char *base = g_strdup_printf("%s/000.qcow2", bench->chain);
    first = g_strdup_printf("%s/001.qcow2", bench->chain);
    qemu_img("create", "-q", "-f", "qcow2", base, "64M", NULL);
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "000.qcow2", first, NULL);
    if (!g_file_get_contents(first, &bytes, &size, NULL))
        bench_die("cannot read %s", first);
    char *name = memmem(bytes, size, "000.qcow2", 9);
    for (guint i = 2; name && i <= DEPTH; i++) {
        g_autofree char *path = g_strdup_printf("%s/%03u.qcow2", bench->chain, i);
        g_autofree char *below = g_strdup_printf("%03u", i - 1);

        memcpy(name, below, 3);
        if (!g_file_set_contents_full(path, bytes, (gssize)size, G_FILE_SET_CONTENTS_NONE, 0644, NULL))
            bench_die("cannot write %s", path);
    }
}

static void make_folder(Bench *bench)
{
    g_autofree char *bytes = NULL;
    gsize size = 0;

    bench->folder = make_dir(bench, "folder");
    g_autofree char *model = g_build_filename(bench->dir, "model.qcow2", NULL);
    qemu_img("create", "-q", "-f", "qcow2", model, "64M", NULL);
    if (!g_file_get_contents(model, &bytes, &size, NULL))
        bench_die("cannot read %s", model);
    for (guint i = 0; i < IMAGES; i++) {
        g_autofree char *path = g_strdup_printf("%s/%05u.%s", bench->folder, i, i % 2 ? "qcow2" : "raw");
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        if (fd < 0 || (i % 2 ? write(fd, bytes, size) != (ssize_t)size : ftruncate(fd, 1 << 20) != 0))
            bench_die("cannot write %s", path);
        close(fd);
    }
}

static void start_daemon(Bench *bench)
{
    g_autofree char *daemon = bench_runfile("server/virtplaned");
    g_autofree char *state = g_build_filename(bench->dir, "state", NULL);
    g_autofree char *log = g_build_filename(bench->dir, "daemon.log", NULL);

    bench->address = g_strdup_printf("unix:%s/d.sock", bench->dir);
    char *const argv[] = {daemon, (char *)"--state-dir", state, (char *)"--listen", bench->address, NULL};
    bench->daemon = bench_spawn(argv, log);
    bench_wait_line(log, "ready");
}

/* ---- the deep chain ---- */

static gdouble chain_by_walk(const Bench *bench)
{
    const VpChainOptions options = {.format = PB_IMAGE_FORMAT_QCOW2, .look_only = TRUE};
    VpChain *chain = NULL;
    const gint64 start = vp_now_us();
    VpError *error = vp_chain_walk(bench->top, &options, NULL, &chain);
    const gint64 end = vp_now_us();

    if (error || !chain->summary->safe || chain->summary->depth != DEPTH + 1)
        bench_die("the chain was not walked to its end");
    vp_chain_free(chain);
    return (gdouble)(end - start) / 1000.0;
}

/* Through the daemon, each layer streamed. */
static gdouble chain_by_daemon(const Bench *bench, VpClient *client)
{
    vp_pb_auto PbInspectChainRequest *request = vp_pb_new(&pb_inspect_chain_request__descriptor);
    VpError *error = NULL;
    guint layers = 0;

    vp_pb_set(&request->path, bench->top);
    request->format = PB_IMAGE_FORMAT_QCOW2;
    const gint64 start = vp_now_us();
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_image_service__descriptor, "InspectChain", request, 30000, &error);
    for (;;) {
        vp_pb_auto PbInspectChainResponse *item = stream ? vp_client_stream_read(stream, 0, &error) : NULL;

        if (!item)
            break;
        layers += item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER;
    }
    const gint64 end = vp_now_us();
    if (error || layers != DEPTH + 1)
        bench_die("the chain was not streamed: %s", error ? error->message : "layers are missing");
    return (gdouble)(end - start) / 1000.0;
}

static gdouble chain_by_qemu_img(const Bench *bench)
{
    char *argv[] = {(char *)"qemu-img", (char *)"info", (char *)"--backing-chain", bench->top, NULL};
    int status = 0;
    const gint64 start = vp_now_us();

    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, NULL,
                      &status, NULL) ||
        status != 0)
        bench_die("qemu-img info failed");
    return (gdouble)(vp_now_us() - start) / 1000.0;
}

static void measure_chain(const Bench *bench, VpClient *client)
{
    BenchSamples walk = {0};
    BenchSamples daemon = {0};
    BenchSamples peer = {0};

    chain_by_walk(bench);
    chain_by_daemon(bench, client);
    chain_by_qemu_img(bench);
    for (guint i = 0; i < BENCH_RUNS; i++) {
        bench_add(&walk, chain_by_walk(bench));
        bench_add(&daemon, chain_by_daemon(bench, client));
        bench_add(&peer, chain_by_qemu_img(bench));
    }
    bench_figure("chain_depth_200", bench_median(&walk), "ms", bench_median(&peer) / bench_median(&walk), "qemu-img");
    bench_figure("chain_depth_200_rpc", bench_median(&daemon), "ms", bench_median(&peer) / bench_median(&daemon),
                 "qemu-img");
}

/* ---- the folder ---- */

static gboolean count_images(void *data, PbInspectPathResponse *message)
{
    *(gsize *)data += message->n_images;
    return TRUE;
}

static gdouble folder_by_walk(const Bench *bench)
{
    const VpFolderOptions options = {0};
    gsize images = 0;
    const gint64 start = vp_now_us();
    VpError *error = vp_folder_inspect(bench->folder, &options, count_images, &images);
    const gint64 end = vp_now_us();

    if (error || images != IMAGES)
        bench_die("the folder was not inspected: %s", error ? error->message : "images are missing");
    return (gdouble)(end - start) / 1000.0;
}

static gdouble folder_by_daemon(const Bench *bench, VpClient *client)
{
    vp_pb_auto PbInspectPathRequest *request = vp_pb_new(&pb_inspect_path_request__descriptor);
    VpError *error = NULL;
    gsize images = 0;

    vp_pb_set(&request->path, bench->folder);
    const gint64 start = vp_now_us();
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_image_service__descriptor, "InspectPath", request, 60000, &error);
    for (;;) {
        vp_pb_auto PbInspectPathResponse *item = stream ? vp_client_stream_read(stream, 0, &error) : NULL;

        if (!item)
            break;
        images += item->n_images;
    }
    const gint64 end = vp_now_us();
    if (error || images != IMAGES)
        bench_die("the folder was not streamed: %s", error ? error->message : "images are missing");
    return (gdouble)(end - start) / 1000.0;
}

/* The floor: lists the folder, and opens, looks at, reads and closes each file, 4 KiB of it. */
static gdouble folder_by_bare_loop(const Bench *bench)
{
    static char buffer[4096];
    guint files = 0;
    const gint64 start = vp_now_us();
    DIR *dir = opendir(bench->folder);
    const struct dirent *entry;

    while ((entry = readdir(dir))) {
        char path[PATH_MAX];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        g_snprintf(path, sizeof(path), "%s/%s", bench->folder, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, buffer, sizeof(buffer), 0) != sizeof(buffer))
            bench_die("cannot read %s", path);
        close(fd);
        files++;
    }
    closedir(dir);
    if (files != IMAGES)
        bench_die("files are missing");
    return (gdouble)(vp_now_us() - start) / 1000.0;
}

static void measure_folder(const Bench *bench, VpClient *client)
{
    BenchSamples walk = {0};
    BenchSamples daemon = {0};
    BenchSamples bare = {0};
    BenchSamples libvirt = {0};
    LibvirtPeer *peer = libvirt_peer_new(bench->dir);
    const gboolean with_pool = peer && libvirt_peer_pool(peer, bench->folder);

    folder_by_walk(bench);
    folder_by_daemon(bench, client);
    folder_by_bare_loop(bench);
    for (guint i = 0; i < BENCH_RUNS; i++) {
        bench_add(&walk, folder_by_walk(bench));
        bench_add(&daemon, folder_by_daemon(bench, client));
        bench_add(&bare, folder_by_bare_loop(bench));
        if (with_pool)
            bench_add(&libvirt, libvirt_peer_pool_refresh(peer));
    }
    const gdouble own = bench_median(&daemon);
    if (with_pool)
        bench_figure("folder_10000", own, "ms", bench_median(&libvirt) / own, "libvirt_pool_refresh");
    else
        bench_figure("folder_10000", own, "ms", 0, NULL);
    bench_figure("folder_10000_vs_bare", bench_median(&walk), "ms", bench_median(&bare) / bench_median(&walk),
                 "bare_open_read");
    libvirt_peer_free(peer);
}

/* ---- system calls ---- */

/* All calls of one process that walks to this depth; strace counts them. */
static guint count_calls(const Bench *bench, const char *self, guint depth)
{
    g_autofree char *counts = g_build_filename(bench->dir, "strace", NULL);
    g_autofree char *image = g_strdup_printf("%s/%03u.qcow2", bench->chain, depth);
    char *argv[] = {(char *)"strace", (char *)"-f", (char *)"-o", counts, (char *)self, (char *)"--walk", image, NULL};
    g_autofree char *text = NULL;
    int status = 0;
    guint lines = 0;

    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) || status != 0 ||
        !g_file_get_contents(counts, &text, NULL, NULL))
        return 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    return lines;
}

static void measure_calls(const Bench *bench)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    const guint few = count_calls(bench, self, 100);
    const guint many = count_calls(bench, self, DEPTH);

    if (few == 0 || many == 0) {
        puts("syscalls_per_layer is left out: strace is not installed, or may not trace here");
        return;
    }
    bench_figure("syscalls_per_layer", (gdouble)(many - few) / (DEPTH - 100), "calls", 0, NULL);
}

static int walk_one(const char *path)
{
    const VpChainOptions options = {.format = PB_IMAGE_FORMAT_QCOW2, .look_only = TRUE};
    g_autoptr(VpChain) chain = NULL;
    g_autoptr(VpError) error = vp_chain_walk(path, &options, NULL, &chain);

    return error || !chain->summary->safe;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--walk") == 0)
        return walk_one(argv[2]);

    Bench bench = {.dir = g_dir_make_tmp("vpbench-XXXXXX", NULL)};
    VpError *error = NULL;

    if (!bench.dir)
        bench_die("no temporary folder");
    setvbuf(stdout, NULL, _IOLBF, 0);
    grpc_init();
    make_chain(&bench);
    make_folder(&bench);
    start_daemon(&bench);
    VpClient *client = vp_client_new(bench.address, &error);
    if (!client)
        bench_die("%s", error->message);
    measure_chain(&bench, client);
    measure_folder(&bench, client);
    measure_calls(&bench);

    vp_client_free(client);
    bench_stop(bench.daemon);
    grpc_shutdown_blocking();
    bench_remove(bench.dir);
    return 0;
}
