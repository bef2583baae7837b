/* The event loop: posts in their order, and timers that are cancelled before, while and after they fire, from the loop's thread and from others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/thread.h"

#define SOON_US (20 * G_USEC_PER_SEC)
#define NEVER_MS (60 * 60 * 1000)

/* What loop and test share. */
typedef struct Bench {
    VpLoop *loop;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    GArray *seen; /* of int, under the mutex */
    VpTimer *timer;
    int step; /* under the mutex */
    gboolean cancelled;
} Bench;

static int setup(void **state)
{
    Bench *bench = g_new0(Bench, 1);
    VpError *error = NULL;

    pthread_mutex_init(&bench->mutex, NULL);
    vp_cond_init(&bench->changed);
    bench->seen = g_array_new(FALSE, FALSE, sizeof(int));
    bench->loop = vp_loop_new("test-loop", &error);
    *state = bench;
    return error ? -1 : 0;
}

static int teardown(void **state)
{
    Bench *bench = *state;

    vp_loop_free(bench->loop);
    g_array_unref(bench->seen);
    pthread_cond_destroy(&bench->changed);
    pthread_mutex_destroy(&bench->mutex);
    g_free(bench);
    return 0;
}

static void set_step(Bench *bench, int step)
{
    VP_LOCK(&bench->mutex);
    bench->step = step;
    pthread_cond_broadcast(&bench->changed);
}

static void wait_step(Bench *bench, int step)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&bench->mutex);
    while (bench->step < step && in_time)
        in_time = vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us);
    pthread_mutex_unlock(&bench->mutex);
    assert_true(in_time);
}

static void next_step(void *data)
{
    Bench *bench = data;

    VP_LOCK(&bench->mutex);
    bench->step++;
    pthread_cond_broadcast(&bench->changed);
}

static void reach_loop(Bench *bench)
{
    const int before = bench->step;

    vp_loop_post(bench->loop, next_step, bench);
    wait_step(bench, before + 1);
}

/* ---- posts ---- */

typedef struct Number {
    Bench *bench;
    int value;
} Number;

static void see(void *data)
{
    g_autofree Number *number = data;
    Bench *bench = number->bench;

    VP_LOCK(&bench->mutex);
    g_array_append_val(bench->seen, number->value);
    pthread_cond_broadcast(&bench->changed);
}

static void post_number(Bench *bench, int value)
{
    Number *number = g_new(Number, 1);

    *number = (Number){bench, value};
    vp_loop_post(bench->loop, see, number);
}

static void posts_run_in_order(void **state)
{
    Bench *bench = *state;

    for (int i = 0; i < 1000; i++)
        post_number(bench, i);
    reach_loop(bench);
    assert_int_equal(bench->seen->len, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(g_array_index(bench->seen, int, i), i);
}

static void post_from_loop(void *data)
{
    Bench *bench = data;

    /* Later, not at once. */
    post_number(bench, 2);
    VP_LOCK(&bench->mutex);
    const int one = 1;
    g_array_append_val(bench->seen, one);
}

static void a_post_from_the_loop_runs_later(void **state)
{
    Bench *bench = *state;

    vp_loop_post(bench->loop, post_from_loop, bench);
    reach_loop(bench);
    reach_loop(bench);
    assert_int_equal(bench->seen->len, 2);
    assert_int_equal(g_array_index(bench->seen, int, 0), 1);
    assert_int_equal(g_array_index(bench->seen, int, 1), 2);
}

static void *post_many(void *data)
{
    Bench *bench = data;

    for (int i = 0; i < 2000; i++)
        post_number(bench, i);
    return NULL;
}

static void posts_of_many_threads_all_run(void **state)
{
    Bench *bench = *state;
    pthread_t threads[4];

    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        assert_null(vp_thread_start(&threads[i], "poster", post_many, bench));
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        pthread_join(threads[i], NULL);
    reach_loop(bench);
    assert_int_equal(bench->seen->len, 2000 * G_N_ELEMENTS(threads));
}

static void chain(void *data)
{
    Number *number = data;
    Bench *bench = number->bench;

    if (--number->value > 0) {
        vp_loop_post(bench->loop, chain, number);
        return;
    }
    see(number);
}

/* What a post posts is run by the free as well. */
static void free_runs_what_was_posted(void **state)
{
    Bench *bench = *state;
    Number *number = g_new(Number, 1);

    *number = (Number){bench, 50};
    vp_loop_post(bench->loop, chain, number);
    post_number(bench, 7);
    vp_loop_free(bench->loop);
    bench->loop = NULL;
    assert_int_equal(bench->seen->len, 2);
}

static void note_current(void *data)
{
    Bench *bench = data;

    bench->cancelled = vp_loop_is_current(bench->loop);
    next_step(bench);
}

static void the_loop_knows_its_thread(void **state)
{
    Bench *bench = *state;

    assert_false(vp_loop_is_current(bench->loop));
    vp_loop_post(bench->loop, note_current, bench);
    wait_step(bench, 1);
    assert_true(bench->cancelled);
}

static void on_nothing(uv_timer_t *timer)
{
    (void)timer;
}

static void open_handle(void *data)
{
    Bench *bench = data;
    static uv_timer_t forgotten;

    uv_timer_init(vp_loop_uv(bench->loop), &forgotten);
    uv_timer_start(&forgotten, on_nothing, NEVER_MS, 0);
    next_step(bench);
}

static void a_forgotten_handle_does_not_keep_the_loop(void **state)
{
    Bench *bench = *state;

    vp_loop_post(bench->loop, open_handle, bench);
    wait_step(bench, 1);
    vp_loop_free(g_steal_pointer(&bench->loop));
}

/* ---- timers ---- */

static void fire(void *data)
{
    next_step(data);
}

static void a_timer_fires_once_and_not_early(void **state)
{
    Bench *bench = *state;
    const gint64 start_us = vp_now_us();
    VpTimer *timer = vp_timer_start(bench->loop, 30, fire, bench);

    wait_step(bench, 1);
    /* libuv counts whole milliseconds. */
    assert_true(vp_now_us() - start_us >= 29000);
    assert_false(vp_timer_cancel(timer));
    reach_loop(bench);
    assert_int_equal(bench->step, 2);
}

static void timers_fire_in_the_order_of_their_times(void **state)
{
    Bench *bench = *state;
    Number *late = g_new(Number, 1);
    Number *early = g_new(Number, 1);

    *late = (Number){bench, 2};
    *early = (Number){bench, 1};
    VpTimer *second = vp_timer_start(bench->loop, 60, see, late);
    VpTimer *first = vp_timer_start(bench->loop, 1, see, early);
    pthread_mutex_lock(&bench->mutex);
    while (bench->seen->len < 2)
        pthread_cond_wait(&bench->changed, &bench->mutex);
    assert_int_equal(g_array_index(bench->seen, int, 0), 1);
    pthread_mutex_unlock(&bench->mutex);
    assert_false(vp_timer_cancel(first));
    assert_false(vp_timer_cancel(second));
}

static void cancelled_before_it_fires(void **state)
{
    Bench *bench = *state;
    VpTimer *timer = vp_timer_start(bench->loop, NEVER_MS, fire, bench);

    reach_loop(bench);
    assert_true(vp_timer_cancel(timer));
    reach_loop(bench);
    assert_int_equal(bench->step, 2);
}

static void cancelled_before_it_is_armed(void **state)
{
    Bench *bench = *state;

    for (int i = 0; i < 1000; i++)
        assert_true(vp_timer_cancel(vp_timer_start(bench->loop, NEVER_MS, fire, bench)));
    reach_loop(bench);
    assert_int_equal(bench->step, 1);
}

static void block(void *data)
{
    Bench *bench = data;

    set_step(bench, 1);
    wait_step(bench, 2);
}

/* The loop is kept busy past the timer's time: it is due, and yet it must not fire any more. */
static void cancelled_when_it_is_due(void **state)
{
    Bench *bench = *state;

    vp_loop_post(bench->loop, block, bench);
    wait_step(bench, 1);
    VpTimer *timer = vp_timer_start(bench->loop, 0, fire, bench);
    assert_true(vp_timer_cancel(timer));
    set_step(bench, 2);
    reach_loop(bench);
    assert_int_equal(bench->step, 3);
}

static void fire_and_wait(void *data)
{
    Bench *bench = data;

    set_step(bench, 1);
    wait_step(bench, 2);
    set_step(bench, 3);
}

static void cancelled_while_it_fires(void **state)
{
    Bench *bench = *state;
    VpTimer *timer = vp_timer_start(bench->loop, 0, fire_and_wait, bench);

    wait_step(bench, 1);
    assert_false(vp_timer_cancel(timer));
    set_step(bench, 2);
    wait_step(bench, 3);
}

static void cancel_own(void *data)
{
    Bench *bench = data;

    bench->cancelled = vp_timer_cancel(bench->timer);
    next_step(bench);
}

static void start_and_cancel_on_loop(void *data)
{
    Bench *bench = data;

    bench->timer = vp_timer_start(bench->loop, NEVER_MS, fire, bench);
    cancel_own(bench);
}

static void start_own(void *data)
{
    Bench *bench = data;

    bench->timer = vp_timer_start(bench->loop, 1, cancel_own, bench);
}

static void the_loop_starts_and_cancels(void **state)
{
    Bench *bench = *state;

    vp_loop_post(bench->loop, start_and_cancel_on_loop, bench);
    wait_step(bench, 1);
    assert_true(bench->cancelled);
    reach_loop(bench);
    /* From within its own function. */
    vp_loop_post(bench->loop, start_own, bench);
    wait_step(bench, 3);
    assert_false(bench->cancelled);
}

static void no_timer_is_let_pass(void **state)
{
    (void)state;
    assert_false(vp_timer_cancel(NULL));
    vp_loop_free(NULL);
}

static void count_fire(void *data)
{
    g_atomic_int_inc((gint *)data);
}

/* Each timer either fires or is cancelled, never both, never neither. */
static void *race_timers(void *data)
{
    Bench *bench = data;
    gint64 wrong = 0;

    for (guint i = 0; i < 500; i++) {
        gint *fired = g_new0(gint, 1);
        VpTimer *timer = vp_timer_start(bench->loop, i % 3, count_fire, fired);

        if (i % 2)
            usleep(i % 1500);
        const gboolean cancelled = vp_timer_cancel(timer);
        /* What fires, fires before a later post of ours runs. */
        for (gint64 until = vp_now_us() + SOON_US; !cancelled && g_atomic_int_get(fired) == 0 && vp_now_us() < until;)
            sched_yield();
        if (g_atomic_int_get(fired) != (cancelled ? 0 : 1))
            wrong++;
        /* A timer that fires although it was cancelled writes to freed memory: for AddressSanitizer to see. */
        g_free(fired);
    }
    return GINT_TO_POINTER((gint)wrong);
}

static void fired_or_cancelled_never_both(void **state)
{
    Bench *bench = *state;
    pthread_t threads[3];

    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
        assert_null(vp_thread_start(&threads[i], "racer", race_timers, bench));
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        void *wrong = NULL;

        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(posts_run_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_post_from_the_loop_runs_later, setup, teardown),
        cmocka_unit_test_setup_teardown(posts_of_many_threads_all_run, setup, teardown),
        cmocka_unit_test_setup_teardown(free_runs_what_was_posted, setup, teardown),
        cmocka_unit_test_setup_teardown(the_loop_knows_its_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(a_forgotten_handle_does_not_keep_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_fires_once_and_not_early, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_fire_in_the_order_of_their_times, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_before_it_fires, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_before_it_is_armed, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_when_it_is_due, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_while_it_fires, setup, teardown),
        cmocka_unit_test_setup_teardown(the_loop_starts_and_cancels, setup, teardown),
        cmocka_unit_test_setup_teardown(no_timer_is_let_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(fired_or_cancelled_never_both, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
