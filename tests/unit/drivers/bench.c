/* A driver on a bench: see bench.h. */
#include "bench.h"

#include <dirent.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"

#define WAIT_US (60 * G_USEC_PER_SEC)

static void seen_free(gpointer data)
{
    Seen *seen = data;

    g_free(seen->uid);
    g_free(seen->reason);
    g_free(seen->detail);
    g_free(seen);
}

static void record(void *data, const char *uid, const VpObservation *observation)
{
    Bench *bench = data;
    Seen *seen = g_new0(Seen, 1);

    seen->uid = g_strdup(uid);
    seen->event = observation->event;
    seen->state = observation->state;
    seen->reason = g_strdup(observation->reason);
    seen->detail = g_strdup(observation->detail);
    seen->pid = observation->pid;
    seen->pid_start_ticks = observation->pid_start_ticks;
    seen->accelerator = observation->accelerator;
    seen->n_disks = observation->n_disks;
    seen->n_layers = observation->n_disks > 0 ? observation->disks[0]->n_layers : 0;
    seen->n_findings = observation->n_findings;
    VP_LOCK(&bench->mutex);
    g_ptr_array_add(bench->seen, seen);
    pthread_cond_broadcast(&bench->changed);
}

static void settle(void *data, const char *uid, void (*done)(void *done_data, VpError *error), void *done_data)
{
    Bench *bench = data;

    (void)uid;
    pthread_mutex_lock(&bench->mutex);
    const gboolean slow = bench->slow_store;
    if (slow) {
        bench->settle_done = done;
        bench->settle_data = done_data;
        pthread_cond_broadcast(&bench->changed);
    }
    pthread_mutex_unlock(&bench->mutex);
    if (!slow)
        done(done_data, NULL);
}

void bench_wait_settle(Bench *bench)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;

    /* A test that fails leaves with no lock: its end would wait for it. */
    pthread_mutex_lock(&bench->mutex);
    while (!bench->settle_done && vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us)) {
    }
    const gboolean waits = bench->settle_done != NULL;
    pthread_mutex_unlock(&bench->mutex);
    if (!waits)
        fail_msg("the driver does not wait for the disk");
}

void bench_settle(Bench *bench, VpError *error)
{
    bench_wait_settle(bench);
    pthread_mutex_lock(&bench->mutex);
    void (*done)(void *done_data, VpError *failure) = g_steal_pointer(&bench->settle_done);
    pthread_mutex_unlock(&bench->mutex);
    done(bench->settle_data, error);
}

static void must(VpError *error)
{
    if (error)
        fail_msg("%s: %s", error->reason, error->message);
}

Bench *bench_new(const VpDriverOps *ops, const char *settings)
{
    Bench *bench = g_new0(Bench, 1);
    VpError *error = NULL;

    bench->dir = g_dir_make_tmp("vp-drivers-XXXXXX", NULL);
    /* Longer than a socket's address may be. */
    g_autofree char *deep = g_strnfill(150, 'd');
    bench->state_dir = g_build_filename(bench->dir, deep, "state", NULL);
    bench->run_dir = g_build_filename(bench->dir, "run", NULL);
    assert_int_equal(g_mkdir_with_parents(bench->state_dir, 0700), 0);
    assert_int_equal(g_mkdir_with_parents(bench->run_dir, 0700), 0);

    bench->ops = ops;
    bench->host.loop = vp_loop_new("test-loop", &error);
    must(error);
    bench->host.pool = vp_pool_new("test-pool", 2, 100, &error);
    must(error);
    bench->host.slow_pool = vp_pool_new("test-slow", 2, 100, &error);
    must(error);
    bench->host.state_dir = bench->state_dir;
    bench->host.run_dir = bench->run_dir;
    bench->host.config = g_key_file_new();
    g_autofree char *config = g_strdup_printf("[%s]\n%s\n", ops->name, settings ? settings : "");
    assert_true(g_key_file_load_from_data(bench->host.config, config, (gsize)-1, G_KEY_FILE_NONE, NULL));
    bench->host.report = record;
    bench->host.settle = settle;
    bench->host.data = bench;
    pthread_mutex_init(&bench->mutex, NULL);
    vp_cond_init(&bench->changed);
    bench->seen = g_ptr_array_new_with_free_func(seen_free);
    bench->driver = ops->open(&bench->host, &error);
    must(error);
    return bench;
}

static void remove_tree(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        remove_tree(child);
    }
    if (dir)
        g_dir_close(dir);
    g_remove(path);
}

void bench_free(Bench *bench)
{
    /* After an assertion that failed an operation may wait for the disk still: the driver would wait for it. */
    pthread_mutex_lock(&bench->mutex);
    void (*done)(void *done_data, VpError *failure) = g_steal_pointer(&bench->settle_done);
    bench->slow_store = FALSE;
    pthread_mutex_unlock(&bench->mutex);
    if (done)
        done(bench->settle_data, NULL);
    bench->ops->close(bench->driver);
    vp_pool_free(bench->host.slow_pool);
    vp_pool_free(bench->host.pool);
    vp_loop_free(bench->host.loop);
    g_key_file_unref(bench->host.config);
    remove_tree(bench->dir);
    g_ptr_array_unref(bench->seen);
    pthread_cond_destroy(&bench->changed);
    pthread_mutex_destroy(&bench->mutex);
    g_free(bench->run_dir);
    g_free(bench->state_dir);
    g_free(bench->dir);
    g_free(bench);
}

void bench_reopen(Bench *bench)
{
    VpError *error = NULL;

    bench->ops->close(bench->driver);
    bench->driver = bench->ops->open(&bench->host, &error);
    must(error);
}

/* ---- operations ---- */

static void on_done(void *data, VpError *error)
{
    Running *running = data;

    VP_LOCK(&running->mutex);
    running->ended = TRUE;
    running->error = error;
    pthread_cond_broadcast(&running->ended_cond);
}

static Running *begin_with(Bench *bench, Operation operation, const PbDomain *domain, guint64 timeout_ms,
                           gboolean paused, const void *request)
{
    Running *running = g_new0(Running, 1);

    assert_non_null(operation);
    pthread_mutex_init(&running->mutex, NULL);
    vp_cond_init(&running->ended_cond);
    running->task = vp_task_new(domain, vp_now_us() + (gint64)timeout_ms * 1000, on_done, running);
    vp_task_set_paused(running->task, paused);
    vp_task_set_request(running->task, request);
    /* The driver gives up the maker's reference; this one is the test's. */
    vp_task_ref(running->task);
    operation(bench->driver, running->task);
    return running;
}

Running *bench_begin(Bench *bench, Operation operation, const PbDomain *domain, guint64 timeout_ms)
{
    const char *paused = NULL;

    for (size_t i = 0; i < domain->n_labels; i++) {
        if (strcmp(domain->labels[i]->key, "start-paused") == 0)
            paused = domain->labels[i]->value;
    }
    return begin_with(bench, operation, domain, timeout_ms, paused != NULL, NULL);
}

Running *bench_begin_request(Bench *bench, Operation operation, const PbDomain *domain, const void *request)
{
    return begin_with(bench, operation, domain, 30000, FALSE, request);
}

VpError *bench_end(Running *running)
{
    pthread_mutex_lock(&running->mutex);
    const gint64 deadline_us = vp_now_us() + WAIT_US;
    while (!running->ended) {
        if (!vp_cond_wait_until(&running->ended_cond, &running->mutex, deadline_us))
            fail_msg("an operation does not end");
    }
    pthread_mutex_unlock(&running->mutex);
    VpError *error = running->error;
    vp_task_unref(running->task);
    pthread_cond_destroy(&running->ended_cond);
    pthread_mutex_destroy(&running->mutex);
    g_free(running);
    return error;
}

void bench_cancel(Running *running)
{
    vp_task_cancel(running->task);
}

void bench_expire(Running *running)
{
    vp_task_expire(running->task);
}

VpError *bench_run(Bench *bench, Operation operation, const PbDomain *domain)
{
    return bench_end(bench_begin(bench, operation, domain, 30000));
}

void bench_ok(Bench *bench, Operation operation, const PbDomain *domain)
{
    must(bench_run(bench, operation, domain));
}

void check_error(const VpError *error, VpCode code, const char *reason)
{
    if (!error) {
        fail_msg("did not fail with %s", reason);
        return;
    }
    if (error->code != code || strcmp(error->reason, reason) != 0)
        fail_msg("failed with %s %s (%s), not with %s %s", vp_code_name(error->code), error->reason, error->message,
                 vp_code_name(code), reason);
}

VpError *bench_fails(Bench *bench, Operation operation, const PbDomain *domain, VpCode code, const char *reason)
{
    VpError *error = bench_run(bench, operation, domain);

    check_error(error, code, reason);
    return error;
}

/* ---- reports ---- */

const Seen *bench_next(Bench *bench, PbEventType event, PbDomainState state, const char *reason)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;
    const Seen *seen = NULL;

    pthread_mutex_lock(&bench->mutex);
    while (bench->taken >= bench->seen->len && vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us)) {
    }
    if (bench->taken < bench->seen->len)
        seen = g_ptr_array_index(bench->seen, bench->taken++);
    pthread_mutex_unlock(&bench->mutex);
    if (!seen) {
        fail_msg("no report came, but %s was due", vp_pb_enum_name(&pb_event_type__descriptor, (int)event));
        return NULL;
    }
    if (seen->event != event || seen->state != state || g_strcmp0(seen->reason, reason) != 0)
        fail_msg("reported %s %s %s (%s), not %s %s %s", vp_pb_enum_name(&pb_event_type__descriptor, (int)seen->event),
                 vp_pb_enum_name(&pb_domain_state__descriptor, (int)seen->state), seen->reason,
                 seen->detail ? seen->detail : "", vp_pb_enum_name(&pb_event_type__descriptor, (int)event),
                 vp_pb_enum_name(&pb_domain_state__descriptor, (int)state), reason);
    return seen;
}

void bench_nothing_more(Bench *bench)
{
    pthread_mutex_lock(&bench->mutex);
    const Seen *seen = bench->taken < bench->seen->len ? g_ptr_array_index(bench->seen, bench->taken) : NULL;
    pthread_mutex_unlock(&bench->mutex);
    if (seen) {
        fail_msg("reported %s, and nothing was due", vp_pb_enum_name(&pb_event_type__descriptor, (int)seen->event));
    }
}

/* ---- domains ---- */

PbDomain *bench_domain(const char *driver, guint number)
{
    PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    vp_pb_printf(&domain->name, "guest%u", number);
    vp_pb_printf(&domain->uid, "4c1f5b6e-0000-4000-8000-%012x", number);
    domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&domain->spec->driver, driver);
    domain->spec->memory_bytes = 64 * 1024 * 1024;
    return domain;
}

void bench_label(PbDomain *domain, const char *key, const char *value)
{
    PbDomain__LabelsEntry *label = vp_pb_new(&pb_domain__labels_entry__descriptor);

    vp_pb_set(&label->key, key);
    vp_pb_set(&label->value, value);
    vp_pb_append(&domain->n_labels, &domain->labels, label);
}

void bench_disk(PbDomain *domain, const char *target, const char *path, PbImageFormat format)
{
    PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

    vp_pb_set(&disk->target, target);
    vp_pb_set(&disk->path, path);
    disk->format = format;
    vp_pb_append(&domain->spec->n_disks, &domain->spec->disks, disk);
}

void bench_store_status(PbDomain *domain, const Seen *seen)
{
    vp_pb_free(domain->status);
    domain->status = vp_pb_new(&pb_domain_status__descriptor);
    domain->status->state = seen->state;
    domain->status->pid = seen->pid;
    domain->status->pid_start_ticks = seen->pid_start_ticks;
    domain->status->accelerator = seen->accelerator;
}

guint count_fds(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    guint count = 0;

    assert_non_null(dir);
    while (g_dir_read_name(dir))
        count++;
    g_dir_close(dir);
    return count;
}
