/* See libvirt_peer.h. */
#include "tests/bench/libvirt_peer.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/bench/bench.h"

#define LIBVIRTD "/usr/sbin/libvirtd"
#define MAX_CONNECTIONS 64
#define NAME "virtplane-bench"

/* As in libvirt's public API (https://libvirt.org/html/libvirt-libvirt-domain.html). */
typedef struct DomainInfo {
    unsigned char state;
    unsigned long max_mem;
    unsigned long memory;
    unsigned short n_cpus;
    unsigned long long cpu_time;
} DomainInfo;

struct LibvirtPeer {
    void *library;
    pid_t daemon;
    char *uri;
    void *connection;
    void *domain;
    void *(*open)(const char *uri);
    int (*close)(void *connection);
    void *(*define)(void *connection, const char *xml);
    void *(*lookup)(void *connection, const char *name);
    int (*info)(void *domain, DomainInfo *info);
    int (*undefine)(void *domain);
    int (*domain_free)(void *domain);
    void *pool;
    void *(*pool_create)(void *connection, const char *xml, unsigned flags);
    int (*pool_refresh)(void *pool, unsigned flags);
    int (*pool_destroy)(void *pool);
    int (*pool_free)(void *pool);
};

static const char xml[] = "<domain type='qemu'><name>" NAME "</name><memory unit='MiB'>64</memory>"
                          "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";

static gboolean load_library(LibvirtPeer *peer)
{
    const struct {
        const char *name;
        void *slot;
    } symbols[] = {
        {"virConnectOpen", &peer->open},
        {"virConnectClose", &peer->close},
        {"virDomainDefineXML", &peer->define},
        {"virDomainGetInfo", &peer->info},
        {"virDomainUndefine", &peer->undefine},
        {"virDomainFree", &peer->domain_free},
        {"virDomainLookupByName", &peer->lookup},
        {"virStoragePoolCreateXML", &peer->pool_create},
        {"virStoragePoolRefresh", &peer->pool_refresh},
        {"virStoragePoolDestroy", &peer->pool_destroy},
        {"virStoragePoolFree", &peer->pool_free},
    };

    peer->library = dlopen("libvirt.so.0", RTLD_NOW);
    if (!peer->library || access(LIBVIRTD, X_OK) < 0)
        return FALSE;
    for (gsize i = 0; i < G_N_ELEMENTS(symbols); i++) {
        void *symbol = dlsym(peer->library, symbols[i].name);

        if (!symbol)
            return FALSE;
        memcpy(symbols[i].slot, &symbol, sizeof(symbol));
    }
    return TRUE;
}

/* ---- the daemon ---- */

/* A /dev/kvm of its own that libvirt's QEMU user may open: without one libvirtd asks QEMU for its capabilities anew at each define. */
static void open_kvm(const char *node)
{
    struct stat st;

    if (stat("/dev/kvm", &st) == 0 && unshare(CLONE_NEWNS) == 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mknod(node, S_IFCHR | 0666, st.st_rdev) == 0 &&
        chmod(node, 0666) == 0 && mount(node, "/dev/kvm", NULL, MS_BIND, NULL) != 0)
        _exit(125);
}

static volatile sig_atomic_t libvirtd_pid;

static void pass_on(int number)
{
    kill(libvirtd_pid, number);
}

/*
 * Between us and libvirtd is a process that waits for all children that are left to it: where PID 1 is slow to do so, libvirtd waits for seconds for each
 * QEMU that it has killed, and the comparison would be unfair.
 */
static pid_t spawn_libvirtd(char *const *argv, const char *log, const char *node)
{
    const struct sigaction action = {.sa_handler = pass_on};
    const pid_t pid = fork();

    if (pid < 0)
        bench_die("fork: %s", g_strerror(errno));
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    open_kvm(node);
    libvirtd_pid = bench_spawn(argv, log);
    sigaction(SIGTERM, &action, NULL);
    for (;;) {
        const pid_t ended = waitpid(-1, NULL, 0);

        if (ended == libvirtd_pid || (ended < 0 && errno != EINTR))
            _exit(0);
    }
}

LibvirtPeer *libvirt_peer_new(const char *dir)
{
    g_autofree LibvirtPeer *peer = g_new0(LibvirtPeer, 1);
    g_autofree char *config = g_build_filename(dir, "libvirtd.conf", NULL);
    g_autofree char *pid_file = g_build_filename(dir, "libvirtd.pid", NULL);
    g_autofree char *log = g_build_filename(dir, "libvirtd.log", NULL);
    g_autofree char *node = g_build_filename(dir, "kvm", NULL);
    g_autofree char *text = g_strdup_printf("unix_sock_dir = \"%s\"\nauth_unix_rw = \"none\"\n", dir);

    if (!load_library(peer)) {
        puts("libvirt is not installed; its figures are left out (tools/setup --bench installs it)");
        return NULL;
    }
    if (!g_file_set_contents(config, text, -1, NULL))
        bench_die("%s cannot be written", config);
    char *const argv[] = {(char *)LIBVIRTD, (char *)"-f", config, (char *)"-p", pid_file, NULL};
    peer->daemon = spawn_libvirtd(argv, log, node);
    peer->uri = g_strdup_printf("qemu:///system?socket=%s/libvirt-sock", dir);
    for (guint i = 0; i < 100 && !peer->connection; i++) {
        g_usleep(100000);
        peer->connection = peer->open(peer->uri);
    }
    /* Of a run that was killed. */
    void *old = peer->connection ? peer->lookup(peer->connection, NAME) : NULL;
    if (old) {
        peer->undefine(old);
        peer->domain_free(old);
    }
    if (peer->connection)
        peer->domain = peer->define(peer->connection, xml);
    if (!peer->domain) {
        puts("libvirtd could not be started or asked; its figures are left out");
        bench_stop(peer->daemon);
        return NULL;
    }
    return g_steal_pointer(&peer);
}

void *libvirt_peer_symbol(LibvirtPeer *peer, const char *name)
{
    return dlsym(peer->library, name);
}

void *libvirt_peer_connection(LibvirtPeer *peer)
{
    return peer->connection;
}

const char *libvirt_peer_uri(const LibvirtPeer *peer)
{
    return peer->uri;
}

typedef struct Client {
    LibvirtPeer *peer;
    pthread_t thread;
    gint64 end_us;
    guint64 calls;
    guint number;
    gint64 took_end_us;
} Client;

static void *client_run(void *data)
{
    Client *client = data;
    const LibvirtPeer *peer = client->peer;
    void *connection = peer->open(peer->uri);
    void *domain = connection ? peer->lookup(connection, NAME) : NULL;
    DomainInfo info;

    if (!domain)
        bench_die("libvirt does not answer");
    while (vp_now_us() < client->end_us) {
        if (peer->info(domain, &info) < 0)
            bench_die("virDomainGetInfo failed");
        client->calls++;
    }
    peer->domain_free(domain);
    peer->close(connection);
    return NULL;
}

gdouble libvirt_peer_domain_info(LibvirtPeer *peer, guint connections, guint duration_ms)
{
    Client clients[MAX_CONNECTIONS] = {0};
    const gint64 start_us = vp_now_us();
    guint64 calls = 0;

    for (guint i = 0; i < connections && i < MAX_CONNECTIONS; i++) {
        clients[i] = (Client){.peer = peer, .end_us = start_us + (gint64)duration_ms * 1000};
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0)
            bench_die("no thread");
    }
    for (guint i = 0; i < connections && i < MAX_CONNECTIONS; i++) {
        pthread_join(clients[i].thread, NULL);
        calls += clients[i].calls;
    }
    return (gdouble)calls / ((gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC);
}

gboolean libvirt_peer_pool(LibvirtPeer *peer, const char *folder)
{
    g_autofree char *text =
        g_markup_printf_escaped("<pool type='dir'><name>" NAME "</name><target><path>%s</path></target></pool>",
                                folder);

    peer->pool = peer->pool_create(peer->connection, text, 0);
    if (!peer->pool)
        puts("libvirt cannot make a storage pool here; its figure is left out");
    return peer->pool != NULL;
}

gdouble libvirt_peer_pool_refresh(LibvirtPeer *peer)
{
    const gint64 start_us = vp_now_us();

    if (peer->pool_refresh(peer->pool, 0) < 0)
        bench_die("virStoragePoolRefresh failed");
    return (gdouble)(vp_now_us() - start_us) / 1000.0;
}

static char *domain_xml(guint client, guint64 number)
{
    return g_strdup_printf("<domain type='qemu'><name>vp-%d-%u-%" G_GUINT64_FORMAT
                           "</name><memory unit='MiB'>64</memory>"
                           "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>",
                           (int)getpid(), client, number);
}

static void *define_run(void *data)
{
    Client *client = data;
    const LibvirtPeer *peer = client->peer;
    void *connection = peer->open(peer->uri);
    g_autoptr(GPtrArray) defined = g_ptr_array_new();

    if (!connection)
        bench_die("libvirt does not answer");
    while (vp_now_us() < client->end_us) {
        g_autofree char *text = domain_xml(client->number, client->calls);
        void *domain = peer->define(connection, text);

        if (!domain)
            bench_die("virDomainDefineXML failed");
        g_ptr_array_add(defined, domain);
        client->calls++;
    }
    client->took_end_us = vp_now_us();
    for (guint i = 0; i < defined->len; i++) {
        peer->undefine(defined->pdata[i]);
        peer->domain_free(defined->pdata[i]);
    }
    peer->close(connection);
    return NULL;
}

gdouble libvirt_peer_define(LibvirtPeer *peer, guint connections, guint duration_ms)
{
    Client clients[MAX_CONNECTIONS] = {0};
    const gint64 start_us = vp_now_us();
    const guint count = MIN(connections, MAX_CONNECTIONS);
    gint64 end_us = start_us;
    guint64 calls = 0;

    for (guint i = 0; i < count; i++) {
        clients[i] = (Client){.peer = peer, .end_us = start_us + (gint64)duration_ms * 1000, .number = i};
        if (pthread_create(&clients[i].thread, NULL, define_run, &clients[i]) != 0)
            bench_die("no thread");
    }
    for (guint i = 0; i < count; i++) {
        pthread_join(clients[i].thread, NULL);
        calls += clients[i].calls;
        end_us = MAX(end_us, clients[i].took_end_us);
    }
    return (gdouble)calls / ((gdouble)(end_us - start_us) / G_USEC_PER_SEC);
}

void libvirt_peer_free(LibvirtPeer *peer)
{
    if (!peer)
        return;
    if (peer->pool) {
        peer->pool_destroy(peer->pool);
        peer->pool_free(peer->pool);
    }
    peer->undefine(peer->domain);
    peer->domain_free(peer->domain);
    peer->close(peer->connection);
    bench_stop(peer->daemon);
    g_free(peer->uri);
    g_free(peer);
}
