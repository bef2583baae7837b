/* The worker pool: see pool.h. A bounded queue under one mutex. Threads are made when there is work for them: an idle daemon has few. */
#include "base/pool.h"

#include "base/fair.h"
#include "base/thread.h"

typedef struct Item {
    void (*run)(void *data);
    void *data;
} Item;

struct VpPool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    char *name;
    GArray *threads; /* of pthread_t */
    guint max_threads;
    guint idle;    /* threads that wait for work */
    VpFair *queue; /* of Item */
    guint max_queued;
    gboolean stopping;
};

static void *worker(void *data)
{
    VpPool *pool = data;

    for (;;) {
        pthread_mutex_lock(&pool->mutex);
        pool->idle++;
        while (vp_fair_length(pool->queue) == 0 && !pool->stopping)
            pthread_cond_wait(&pool->work, &pool->mutex);
        pool->idle--;
        g_autofree Item *item = vp_fair_pop(pool->queue);
        pthread_mutex_unlock(&pool->mutex);

        if (!item)
            return NULL;
        item->run(item->data);
    }
}

static VpError *add_thread(VpPool *pool)
{
    g_autofree char *name = g_strdup_printf("%s-%u", pool->name, pool->threads->len);
    pthread_t thread;
    VpError *error = vp_thread_start(&thread, name, worker, pool);

    if (!error)
        g_array_append_val(pool->threads, thread);
    return error;
}

VpPool *vp_pool_new(const char *name, guint threads, guint max_queued, VpError **error)
{
    g_autoptr(VpPool) pool = g_new0(VpPool, 1);

    pthread_mutex_init(&pool->mutex, NULL);
    vp_cond_init(&pool->work);
    pool->queue = vp_fair_new();
    pool->name = g_strdup(name);
    pool->max_threads = threads;
    pool->max_queued = max_queued;
    pool->threads = g_array_new(FALSE, FALSE, sizeof(pthread_t));
    VpError *failure = add_thread(pool);
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&pool);
}

/* Under the mutex: whether there is room for work of this lane; the pool's own (group 0) may have all. */
static gboolean has_room(const VpPool *pool, guint64 group, guint64 lane)
{
    return !pool->stopping && vp_fair_length(pool->queue) < pool->max_queued &&
           (!group || (vp_fair_lane_length(pool->queue, group, lane) < MAX(1, pool->max_queued / 2) &&
                       vp_fair_group_length(pool->queue, group) < MAX(1, pool->max_queued / 4 * 3)));
}

gboolean vp_pool_submit(VpPool *pool, void (*run)(void *data), void *data)
{
    return vp_pool_submit_for(pool, 0, 0, run, data);
}

gboolean vp_pool_submit_for(VpPool *pool, guint64 group, guint64 lane, void (*run)(void *data), void *data)
{
    g_autofree Item *item = g_new(Item, 1);
    *item = (Item){.run = run, .data = data};

    VP_LOCK(&pool->mutex);
    if (!has_room(pool, group, lane))
        return FALSE;
    vp_fair_push(pool->queue, group, lane, g_steal_pointer(&item));
    pthread_cond_signal(&pool->work);
    /* If the system gives none, those that there are do it all. */
    if (vp_fair_length(pool->queue) > pool->idle && pool->threads->len < pool->max_threads)
        vp_error_free(add_thread(pool));
    return TRUE;
}

void vp_pool_free(VpPool *pool)
{
    if (!pool)
        return;

    pthread_mutex_lock(&pool->mutex);
    pool->stopping = TRUE;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (guint i = 0; i < pool->threads->len; i++)
        pthread_join(g_array_index(pool->threads, pthread_t, i), NULL);

    vp_fair_free(pool->queue);
    g_array_unref(pool->threads);
    g_free(pool->name);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    g_free(pool);
}
