/* The store's watches: see watchers.h. A queue of nodes; the walk keeps its place in `next`, which a removal moves on. */
#include "server/store/watchers.h"

#include "base/thread.h"

struct VpStoreWatch {
    GList link; /* its data is the watch */
    void (*wake)(void *data);
    void *data;
};

struct VpWatchers {
    pthread_mutex_t lock;
    pthread_cond_t idle; /* no call of the one that is being removed is under way */
    GQueue queue;
    GList *next;           /* the walk's next */
    VpStoreWatch *calling; /* the one being called */
};

VpWatchers *vp_watchers_new(void)
{
    VpWatchers *watchers = g_new0(VpWatchers, 1);

    pthread_mutex_init(&watchers->lock, NULL);
    vp_cond_init(&watchers->idle);
    return watchers;
}

VpStoreWatch *vp_watchers_add(VpWatchers *watchers, void (*wake)(void *data), void *data)
{
    VpStoreWatch *watch = g_new0(VpStoreWatch, 1);

    watch->link.data = watch;
    watch->wake = wake;
    watch->data = data;
    VP_LOCK(&watchers->lock);
    g_queue_push_tail_link(&watchers->queue, &watch->link);
    return watch;
}

void vp_watchers_remove(VpWatchers *watchers, VpStoreWatch *watch)
{
    pthread_mutex_lock(&watchers->lock);
    if (watchers->next == &watch->link) {
        watchers->next = watch->link.next;
    }
    g_queue_unlink(&watchers->queue, &watch->link);
    /* No deadline: `wake` must not block, and to return while it runs would free what it uses. */
    while (watchers->calling == watch) {
        pthread_cond_wait(&watchers->idle, &watchers->lock);
    }
    pthread_mutex_unlock(&watchers->lock);
    g_free(watch);
}

void vp_watchers_wake(VpWatchers *watchers)
{
    pthread_mutex_lock(&watchers->lock);
    watchers->next = watchers->queue.head;
    while (watchers->next) {
        VpStoreWatch *watch = watchers->next->data;

        watchers->next = watch->link.next;
        watchers->calling = watch;
        pthread_mutex_unlock(&watchers->lock);
        watch->wake(watch->data);
        pthread_mutex_lock(&watchers->lock);
        watchers->calling = NULL;
        pthread_cond_broadcast(&watchers->idle);
    }
    pthread_mutex_unlock(&watchers->lock);
}

void vp_watchers_free(VpWatchers *watchers)
{
    if (!watchers) {
        return;
    }
    while (watchers->queue.head) {
        VpStoreWatch *watch = watchers->queue.head->data;

        g_queue_unlink(&watchers->queue, &watch->link);
        g_free(watch);
    }
    pthread_cond_destroy(&watchers->idle);
    pthread_mutex_destroy(&watchers->lock);
    g_free(watchers);
}
