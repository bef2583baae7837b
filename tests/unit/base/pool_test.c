/* The worker pool: a bound on what waits, and an end that loses nothing it took. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/pool.h"
#include "base/thread.h"

#define SOON_US (20 * G_USEC_PER_SEC)

typedef struct Gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    guint entered;
    gboolean open;
    VpPool *pool;
    gboolean taken;
} Gate;

static int setup(void **state)
{
    Gate *gate = g_new0(Gate, 1);

    pthread_mutex_init(&gate->mutex, NULL);
    vp_cond_init(&gate->changed);
    *state = gate;
    return 0;
}

static int teardown(void **state)
{
    Gate *gate = *state;

    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->mutex);
    g_free(gate);
    return 0;
}

static void pass(void *data)
{
    Gate *gate = data;

    VP_LOCK(&gate->mutex);
    gate->entered++;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->mutex);
}

static void wait_entered(Gate *gate, guint entered)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&gate->mutex);
    while (gate->entered < entered && in_time)
        in_time = vp_cond_wait_until(&gate->changed, &gate->mutex, deadline_us);
    pthread_mutex_unlock(&gate->mutex);
    assert_true(in_time);
}

static void open_gate(Gate *gate)
{
    VP_LOCK(&gate->mutex);
    gate->open = TRUE;
    pthread_cond_broadcast(&gate->changed);
}

static void a_full_queue_refuses_and_the_end_runs_the_rest(void **state)
{
    Gate *gate = *state;
    VpError *error = NULL;
    VpPool *pool = vp_pool_new("test", 2, 3, &error);

    assert_null(error);
    assert_true(vp_pool_submit(pool, pass, gate));
    assert_true(vp_pool_submit(pool, pass, gate));
    wait_entered(gate, 2);
    for (guint i = 0; i < 3; i++)
        assert_true(vp_pool_submit(pool, pass, gate));
    assert_false(vp_pool_submit(pool, pass, gate));
    open_gate(gate);
    vp_pool_free(pool);
    assert_int_equal(gate->entered, 5);
}

static void submit_until_refused(void *data)
{
    Gate *gate = data;
    const gint64 deadline_us = vp_now_us() + SOON_US;

    pass(gate);
    /* The free is under way once it refuses. */
    while (vp_now_us() < deadline_us) {
        if (!vp_pool_submit(gate->pool, pass, gate))
            return;
        pthread_mutex_lock(&gate->mutex);
        gate->taken = TRUE;
        pthread_mutex_unlock(&gate->mutex);
    }
    abort();
}

static void *free_pool(void *data)
{
    vp_pool_free(data);
    return NULL;
}

static void a_stopping_pool_refuses(void **state)
{
    Gate *gate = *state;
    VpError *error = NULL;
    pthread_t thread;

    gate->pool = vp_pool_new("test", 1, G_MAXUINT, &error);
    assert_null(error);
    assert_true(vp_pool_submit(gate->pool, submit_until_refused, gate));
    wait_entered(gate, 1);
    assert_null(vp_thread_start(&thread, "free", free_pool, gate->pool));
    open_gate(gate);
    pthread_join(thread, NULL);
    assert_true(gate->entered >= 1);
}

static void count(void *data)
{
    g_atomic_int_inc((gint *)data);
}

typedef struct Submitter {
    VpPool *pool;
    gint *ran;
    gint taken;
} Submitter;

static void *submit_many(void *data)
{
    Submitter *submitter = data;

    for (guint i = 0; i < 5000; i++)
        submitter->taken += vp_pool_submit(submitter->pool, count, submitter->ran);
    return NULL;
}

static void what_is_taken_runs_once(void **state)
{
    VpError *error = NULL;
    VpPool *pool = vp_pool_new("test", 3, 64, &error);
    Submitter submitters[3];
    pthread_t threads[3];
    gint ran = 0;
    gint taken = 0;

    (void)state;
    assert_null(error);
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        submitters[i] = (Submitter){pool, &ran, 0};
        assert_null(vp_thread_start(&threads[i], "submit", submit_many, &submitters[i]));
    }
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
        taken += submitters[i].taken;
    }
    vp_pool_free(pool);
    assert_true(taken > 0);
    assert_int_equal(ran, taken);
}

static void note_name(void *data)
{
    pthread_getname_np(pthread_self(), data, 16);
}

static void threads_are_named(void **state)
{
    VpError *error = NULL;
    VpPool *pool = vp_pool_new("twelve-chars", 1, 1, &error);
    char name[16] = "";

    (void)state;
    /* The name is set by the one who started the thread, before the pool is handed out. */
    assert_true(vp_pool_submit(pool, note_name, name));
    vp_pool_free(pool);
    assert_string_equal(name, "twelve-chars-0");
    vp_pool_free(NULL);
}

static guint count_threads(void)
{
    GDir *dir = g_dir_open("/proc/self/task", 0, NULL);
    guint count = 0;

    assert_non_null(dir);
    while (g_dir_read_name(dir))
        count++;
    g_dir_close(dir);
    return count;
}

static void threads_are_made_for_work(void **state)
{
    Gate *gate = *state;
    VpError *error = NULL;
    const guint before = count_threads();
    VpPool *pool = vp_pool_new("test", 3, 100, &error);

    assert_int_equal(count_threads(), before + 1);
    /* All three at once, and the rest waits. */
    for (guint i = 0; i < 5; i++)
        assert_true(vp_pool_submit(pool, pass, gate));
    wait_entered(gate, 3);
    assert_int_equal(count_threads(), before + 3);
    open_gate(gate);
    vp_pool_free(pool);
    assert_int_equal(gate->entered, 5);
}

/* ---- turns ---- */

typedef struct Order {
    Gate *gate;
    GString *letters;
} Order;

typedef struct Letter {
    Order *order;
    char letter;
} Letter;

static void write_letter(void *data)
{
    g_autofree Letter *letter = data;

    VP_LOCK(&letter->order->gate->mutex);
    g_string_append_c(letter->order->letters, letter->letter);
}

static gboolean submit_letter(VpPool *pool, Order *order, guint64 group, guint64 lane, char letter)
{
    Letter *item = g_new(Letter, 1);

    *item = (Letter){order, letter};
    if (vp_pool_submit_for(pool, group, lane, write_letter, item))
        return TRUE;
    g_free(item);
    return FALSE;
}

/* One that puts in much waits for itself, and does not fill the queue for the others. */
static void test_a_greedy_one_waits_for_itself(void **state)
{
    Gate *gate = *state;
    VpError *error = NULL;
    g_autoptr(VpPool) pool = vp_pool_new("pool", 1, 20, &error);
    Order order = {gate, g_string_new(NULL)};

    assert_null(error);
    assert_true(vp_pool_submit(pool, pass, gate));
    wait_entered(gate, 1);
    guint taken = 0;
    while (taken < 100 && submit_letter(pool, &order, 7, 1, 'g'))
        taken++;
    assert_int_equal(taken, 10);
    /* Another connection of the same identity has room, and then that identity has had its part. */
    for (taken = 0; taken < 100 && submit_letter(pool, &order, 7, 2, 'h'); taken++)
        ;
    assert_int_equal(taken, 5);
    assert_true(submit_letter(pool, &order, 8, 3, 'v'));
    assert_true(submit_letter(pool, &order, 8, 3, 'v'));
    pthread_mutex_lock(&gate->mutex);
    gate->open = TRUE;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
    vp_pool_free(g_steal_pointer(&pool));
    assert_int_equal(order.letters->len, 17);
    assert_memory_equal(order.letters->str, "gvhvghg", 7);
    g_string_free(order.letters, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_queue_refuses_and_the_end_runs_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stopping_pool_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_taken_runs_once, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_are_made_for_work, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_greedy_one_waits_for_itself, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
