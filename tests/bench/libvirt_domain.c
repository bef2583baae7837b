/* See libvirt_domain.h. */
#include "tests/bench/libvirt_domain.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/bench/bench.h"

#define VIRTLOGD "/usr/sbin/virtlogd"
#define VIRTLOGD_SOCKET "/run/libvirt/virtlogd-sock"
/* As in libvirt's public API. */
#define LIFECYCLE 0
#define SUSPENDED 3
#define RESUMED 4
#define CALLBACK_MS 10000

struct LibvirtDomain {
    pid_t virtlogd; /* 0: one runs already */
    void *domain;
    void *events; /* the connection that hears */
    int callback;
    gboolean halted;
    pthread_t thread;
    gint ending; /* atomic */
    pthread_mutex_t mutex;
    pthread_cond_t heard;
    gint64 heard_us; /* of the last callback */
    int (*create)(void *domain);
    int (*destroy)(void *domain);
    int (*suspend)(void *domain);
    int (*resume)(void *domain);
    int (*undefine)(void *domain);
    int (*domain_free)(void *domain);
    int (*close)(void *connection);
    int (*run_events)(void);
    int (*deregister)(void *connection, int callback);
};

/* Puts a function of the library where `slot` points to. */
static void load(LibvirtPeer *peer, const char *name, void *slot)
{
    void *found = libvirt_peer_symbol(peer, name);

    if (!found)
        bench_die("libvirt has no %s", name);
    memcpy(slot, &found, sizeof(found));
}

/* The figure would be libvirt's search for it. */
static void start_virtlogd(LibvirtDomain *domain, const char *dir)
{
    g_autofree char *log = g_build_filename(dir, "virtlogd.log", NULL);
    g_autofree char *pid_file = g_build_filename(dir, "virtlogd.pid", NULL);
    char *const argv[] = {(char *)VIRTLOGD, (char *)"-p", pid_file, NULL};

    if (access(VIRTLOGD, X_OK) < 0)
        return;
    domain->virtlogd = bench_spawn(argv, log);
    for (guint i = 0; i < 100 && access(VIRTLOGD_SOCKET, F_OK) < 0; i++)
        g_usleep(50000);
    g_usleep(200000);
}

/* ---- events ---- */

static void on_lifecycle(void *connection, void *dom, int event, int detail, void *opaque)
{
    LibvirtDomain *domain = opaque;

    (void)connection;
    (void)dom;
    (void)detail;
    if (event != SUSPENDED && event != RESUMED)
        return;
    VP_LOCK(&domain->mutex);
    domain->heard_us = vp_now_us();
    pthread_cond_signal(&domain->heard);
}

static void *run_events(void *data)
{
    LibvirtDomain *domain = data;

    while (!g_atomic_int_get(&domain->ending))
        domain->run_events();
    return NULL;
}

/* So that the thread comes back from its wait. */
static void on_tick(int timer, void *opaque)
{
    (void)timer;
    (void)opaque;
}

static gboolean hear(LibvirtDomain *domain, LibvirtPeer *peer)
{
    int (*register_loop)(void) = NULL;
    int (*add_timeout)(int, void (*)(int, void *), void *, void (*)(void *)) = NULL;
    int (*listen)(void *, void *, int, void (*)(void *, void *, int, int, void *), void *, void (*)(void *)) = NULL;
    void *(*open)(const char *) = NULL;

    load(peer, "virEventRegisterDefaultImpl", &register_loop);
    load(peer, "virEventAddTimeout", &add_timeout);
    load(peer, "virConnectDomainEventRegisterAny", &listen);
    load(peer, "virConnectOpen", &open);
    /* Before the connection that hears, and for no other. */
    if (register_loop() < 0)
        return FALSE;
    domain->events = open(libvirt_peer_uri(peer));
    if (!domain->events)
        return FALSE;
    add_timeout(100, on_tick, NULL, NULL);
    domain->callback = listen(domain->events, NULL, LIFECYCLE, on_lifecycle, domain, NULL);
    return domain->callback >= 0 && pthread_create(&domain->thread, NULL, run_events, domain) == 0;
}

/* ---- the domain ---- */

LibvirtDomain *libvirt_domain_new(LibvirtPeer *peer, const char *dir, gboolean kvm)
{
    LibvirtDomain *domain = g_new0(LibvirtDomain, 1);
    void *(*define)(void *connection, const char *xml) = NULL;
    /* Of its usual devices those that ours has not are left out: the figures are of the daemons. */
    g_autofree char *xml =
        g_strdup_printf("<domain type='%s'><name>virtplane-bench-%d</name><memory unit='MiB'>64</memory>"
                        "<os><type arch='x86_64' machine='q35'>hvm</type></os>%s"
                        "<devices><controller type='usb' model='none'/></devices></domain>",
                        kvm ? "kvm" : "qemu", (int)getpid(),
                        kvm ? "<cpu mode='host-passthrough'><feature policy='disable' name='arch-capabilities'/></cpu>"
                            : "");

    load(peer, "virDomainDefineXML", &define);
    pthread_mutex_init(&domain->mutex, NULL);
    vp_cond_init(&domain->heard);
    load(peer, "virDomainCreate", &domain->create);
    load(peer, "virDomainDestroy", &domain->destroy);
    load(peer, "virDomainSuspend", &domain->suspend);
    load(peer, "virDomainResume", &domain->resume);
    load(peer, "virDomainUndefine", &domain->undefine);
    load(peer, "virDomainFree", &domain->domain_free);
    load(peer, "virConnectClose", &domain->close);
    load(peer, "virEventRunDefaultImpl", &domain->run_events);
    load(peer, "virConnectDomainEventDeregisterAny", &domain->deregister);
    start_virtlogd(domain, dir);
    domain->domain = define(libvirt_peer_connection(peer), xml);
    if (!domain->domain || domain->create(domain->domain) < 0) {
        puts("libvirtd cannot start a domain here; its figures are left out");
        if (domain->domain) {
            domain->undefine(domain->domain);
            domain->domain_free(domain->domain);
        }
        if (domain->virtlogd)
            bench_stop(domain->virtlogd);
        g_free(domain);
        return NULL;
    }
    domain->destroy(domain->domain);
    if (!hear(domain, peer))
        bench_die("libvirt tells no events");
    return domain;
}

void libvirt_domain_free(LibvirtDomain *domain)
{
    if (!domain)
        return;
    g_atomic_int_set(&domain->ending, TRUE);
    pthread_join(domain->thread, NULL);
    domain->deregister(domain->events, domain->callback);
    domain->close(domain->events);
    domain->undefine(domain->domain);
    domain->domain_free(domain->domain);
    if (domain->virtlogd)
        bench_stop(domain->virtlogd);
    g_free(domain);
}

gdouble libvirt_domain_start(LibvirtDomain *domain)
{
    const gint64 start_us = vp_now_us();

    if (domain->create(domain->domain) < 0)
        bench_die("virDomainCreate failed");
    domain->halted = FALSE;
    return (gdouble)(vp_now_us() - start_us) / 1000.0;
}

gdouble libvirt_domain_destroy(LibvirtDomain *domain)
{
    const gint64 start_us = vp_now_us();

    if (domain->destroy(domain->domain) < 0)
        bench_die("virDomainDestroy failed");
    return (gdouble)(vp_now_us() - start_us) / 1000.0;
}

gdouble libvirt_domain_event(LibvirtDomain *domain)
{
    const gint64 start_us = vp_now_us();
    const gint64 deadline_us = start_us + CALLBACK_MS * 1000;

    if ((domain->halted ? domain->resume(domain->domain) : domain->suspend(domain->domain)) < 0)
        bench_die("virDomainSuspend or virDomainResume failed");
    domain->halted = !domain->halted;
    VP_LOCK(&domain->mutex);
    while (domain->heard_us < start_us) {
        if (!vp_cond_wait_until(&domain->heard, &domain->mutex, deadline_us))
            bench_die("libvirt told no event");
    }
    return (gdouble)(domain->heard_us - start_us);
}
