/* Tasks: ended once, cancelled from any thread, and no hook is called after it was taken away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"
#include "bench.h"

typedef struct Told {
    guint done;
    VpError *error;
    gint hooked;
    gint entered;
    gint leave; /* the hook waits for it */
} Told;

static void on_done(void *data, VpError *error)
{
    Told *told = data;

    told->done++;
    told->error = error;
}

static void hook(void *data)
{
    g_atomic_int_inc(&((Told *)data)->hooked);
}

static VpTask *make_task(Told *told)
{
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    return vp_task_new(domain, 4711, on_done, told);
}

static void test_finish(void **state)
{
    Told told = {0};
    VpTask *task = make_task(&told);

    (void)state;
    assert_string_equal(vp_task_domain(task)->name, "guest1");
    assert_int_equal(vp_task_deadline_us(task), 4711);
    vp_task_finish(task, vp_error_new(VP_ABORTED, "X", "x"));
    assert_int_equal(told.done, 1);
    check_error(told.error, VP_ABORTED, "X");
    vp_error_free(told.error);
}

static void test_cancel(void **state)
{
    Told told = {0};
    VpTask *task = vp_task_ref(make_task(&told));

    (void)state;
    vp_task_set_cancel_hook(task, hook, &told);
    assert_false(vp_task_cancelled(task));
    vp_task_cancel(task);
    vp_task_cancel(task);
    assert_true(vp_task_cancelled(task));
    assert_int_equal(told.hooked, 1);
    assert_int_equal(told.done, 0);
    /* Too late for a new hook to wait for it. */
    vp_task_set_cancel_hook(task, hook, &told);
    assert_int_equal(told.hooked, 2);
    vp_task_finish(task, NULL);
    vp_task_unref(task);
}

static void test_no_hook_after_the_end(void **state)
{
    Told told = {0};
    VpTask *task = vp_task_ref(make_task(&told));

    (void)state;
    vp_task_set_cancel_hook(task, hook, &told);
    vp_task_finish(task, NULL);
    vp_task_cancel(task);
    assert_int_equal(told.hooked, 0);
    vp_task_unref(task);
}

/* ---- a hook that is under way on another thread ---- */

static void slow_hook(void *data)
{
    Told *told = data;

    g_atomic_int_set(&told->entered, 1);
    while (!g_atomic_int_get(&told->leave))
        g_usleep(100);
    g_atomic_int_inc(&told->hooked);
}

static void *cancel_thread(void *data)
{
    vp_task_cancel(data);
    return NULL;
}

static void *leave_thread(void *data)
{
    g_usleep(20000);
    g_atomic_int_set(&((Told *)data)->leave, 1);
    return NULL;
}

static void test_finish_waits_for_the_hook(void **state)
{
    Told told = {0};
    VpTask *task = vp_task_ref(make_task(&told));
    pthread_t cancelling;
    pthread_t leaving;

    (void)state;
    vp_task_set_cancel_hook(task, slow_hook, &told);
    assert_null(vp_thread_start(&cancelling, "cancelling", cancel_thread, task));
    while (!g_atomic_int_get(&told.entered))
        g_usleep(100);
    assert_null(vp_thread_start(&leaving, "leaving", leave_thread, &told));
    vp_task_finish(task, NULL);
    assert_int_equal(g_atomic_int_get(&told.hooked), 1);
    pthread_join(cancelling, NULL);
    pthread_join(leaving, NULL);
    vp_task_unref(task);
}

/* ---- a hook that ends its own task ---- */

typedef struct Self {
    VpTask *task;
    Told told;
} Self;

static void finish_from_hook(void *data)
{
    Self *self = data;

    vp_task_finish(self->task, NULL);
}

static void on_self_done(void *data, VpError *error)
{
    on_done(&((Self *)data)->told, error);
}

static void test_finish_from_the_hook(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);
    Self self = {0};

    (void)state;
    self.task = vp_task_new(domain, 0, on_self_done, &self);
    vp_task_ref(self.task);
    vp_task_set_cancel_hook(self.task, finish_from_hook, &self);
    vp_task_cancel(self.task);
    assert_int_equal(self.told.done, 1);
    vp_task_unref(self.task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_no_hook_after_the_end),
        cmocka_unit_test(test_finish_waits_for_the_hook),
        cmocka_unit_test(test_finish_from_the_hook),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
