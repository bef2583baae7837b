/* The event loop's thread, posts into it, and timers that any thread may use: see loop.h. */
#include "base/loop.h"

#include "base/thread.h"

typedef struct Post {
    void (*run)(void *data);
    void *data;
} Post;

struct VpLoop {
    uv_loop_t uv;
    uv_async_t wake;
    pthread_t thread;
    pthread_mutex_t mutex;
    GArray *posts; /* of Post; under the mutex */
    gboolean stopping;
};

static gboolean run_posts(VpLoop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    g_autoptr(GArray) posts = loop->posts;
    loop->posts = g_array_new(FALSE, FALSE, sizeof(Post));
    gboolean stopping = loop->stopping;
    pthread_mutex_unlock(&loop->mutex);

    for (guint i = 0; i < posts->len; i++) {
        const Post *post = &g_array_index(posts, Post, i);
        post->run(post->data);
    }
    return stopping && posts->len == 0;
}

static void close_handle(uv_handle_t *handle, void *data)
{
    (void)data;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void on_wake(uv_async_t *wake)
{
    VpLoop *loop = wake->data;

    if (run_posts(loop)) {
        uv_stop(&loop->uv);
        return;
    }
    /* A post may post again, and the stop has to be seen once nothing is left. */
    VP_LOCK(&loop->mutex);
    if (loop->posts->len > 0 || loop->stopping)
        uv_async_send(&loop->wake);
}

static void *loop_run(void *data)
{
    VpLoop *loop = data;

    uv_run(&loop->uv, UV_RUN_DEFAULT);
    /* Whoever opened a handle should have closed it; what is left must not keep the loop alive. */
    uv_walk(&loop->uv, close_handle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    return NULL;
}

static void loop_destroy(VpLoop *loop)
{
    uv_loop_close(&loop->uv);
    g_array_unref(loop->posts);
    pthread_mutex_destroy(&loop->mutex);
    g_free(loop);
}

VpLoop *vp_loop_new(const char *name, VpError **error)
{
    VpLoop *loop = g_new0(VpLoop, 1);

    pthread_mutex_init(&loop->mutex, NULL);
    loop->posts = g_array_new(FALSE, FALSE, sizeof(Post));
    int r = uv_loop_init(&loop->uv);
    if (r == 0)
        r = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (r < 0) {
        *error = vp_error_errno(-r, "LOOP_FAILED", "cannot make the event loop %s", name);
        loop_destroy(loop);
        return NULL;
    }
    loop->wake.data = loop;

    VpError *failure = vp_thread_start(&loop->thread, name, loop_run, loop);
    if (failure) {
        uv_close((uv_handle_t *)&loop->wake, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        loop_destroy(loop);
        *error = failure;
        return NULL;
    }
    return loop;
}

void vp_loop_post(VpLoop *loop, void (*run)(void *data), void *data)
{
    const Post post = {.run = run, .data = data};

    VP_LOCK(&loop->mutex);
    g_array_append_val(loop->posts, post);
    /* A wake-up is on its way already if there was a post before. */
    if (loop->posts->len == 1)
        uv_async_send(&loop->wake);
}

gboolean vp_loop_is_current(const VpLoop *loop)
{
    return pthread_equal(pthread_self(), loop->thread) != 0;
}

uv_loop_t *vp_loop_uv(VpLoop *loop)
{
    return &loop->uv;
}

void vp_loop_free(VpLoop *loop)
{
    if (!loop)
        return;

    pthread_mutex_lock(&loop->mutex);
    loop->stopping = TRUE;
    uv_async_send(&loop->wake);
    pthread_mutex_unlock(&loop->mutex);
    pthread_join(loop->thread, NULL);
    loop_destroy(loop);
}

/* ---- timers ---- */

typedef enum TimerState { TIMER_PENDING, TIMER_FIRED, TIMER_CANCELLED } TimerState;

struct VpTimer {
    gint refs; /* one the maker's, one the loop's */
    gint state;
    VpLoop *loop;
    uv_timer_t uv;
    guint64 delay_ms;
    gint64 start_us;
    void (*fire)(void *data);
    void *data;
};

static void timer_unref(VpTimer *timer)
{
    if (g_atomic_int_dec_and_test(&timer->refs))
        g_free(timer);
}

static void timer_closed(uv_handle_t *handle)
{
    timer_unref(handle->data);
}

static void timer_fired(uv_timer_t *uv)
{
    VpTimer *timer = uv->data;

    if (g_atomic_int_compare_and_exchange(&timer->state, TIMER_PENDING, TIMER_FIRED))
        timer->fire(timer->data);
    if (!uv_is_closing((uv_handle_t *)uv))
        uv_close((uv_handle_t *)uv, timer_closed);
}

static void timer_arm(void *data)
{
    VpTimer *timer = data;

    /* The time that the post was under way counts; libuv's own clock is refreshed once per turn of the loop. */
    const guint64 passed_ms = (guint64)MAX(0, (vp_now_us() - timer->start_us) / 1000);
    uv_update_time(&timer->loop->uv);
    uv_timer_init(&timer->loop->uv, &timer->uv);
    timer->uv.data = timer;
    uv_timer_start(&timer->uv, timer_fired, timer->delay_ms > passed_ms ? timer->delay_ms - passed_ms : 0, 0);
}

static void timer_disarm(void *data)
{
    VpTimer *timer = data;

    if (!uv_is_closing((uv_handle_t *)&timer->uv))
        uv_close((uv_handle_t *)&timer->uv, timer_closed);
    timer_unref(timer);
}

VpTimer *vp_timer_start(VpLoop *loop, guint64 delay_ms, void (*fire)(void *data), void *data)
{
    VpTimer *timer = g_new0(VpTimer, 1);

    timer->refs = 2;
    timer->loop = loop;
    timer->delay_ms = delay_ms;
    timer->start_us = vp_now_us();
    timer->fire = fire;
    timer->data = data;
    vp_loop_post(loop, timer_arm, timer);
    return timer;
}

gboolean vp_timer_cancel(VpTimer *timer)
{
    if (!timer)
        return FALSE;
    if (!g_atomic_int_compare_and_exchange(&timer->state, TIMER_PENDING, TIMER_CANCELLED)) {
        timer_unref(timer);
        return FALSE;
    }
    /* The maker's reference goes to the post, which comes after the one that arms. */
    vp_loop_post(timer->loop, timer_disarm, timer);
    return TRUE;
}
