/* The thread pool: every index once, for any thread count; many small loops in a row; more threads than processors. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/pool.h"

struct marks {
    _Atomic int seen[1000];
    int64_t n, grain;
    int threads;
    atomic_int bad;
};

static void mark(void *arg, int64_t begin, int64_t end, int thread)
{
    struct marks *m = arg;
    if (thread < 0 || thread >= m->threads || begin % m->grain || end > m->n || (end != m->n && end - begin != m->grain))
        atomic_fetch_add(&m->bad, 1);
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&m->seen[i], 1);
}

static void test_covers(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 2, 7, 64, 1000}, grains[] = {1, 3, 64, 5000};
    for (int threads = 0; threads <= 5; threads++) {
        struct qp_pool *p = NULL;
        if (threads)
            assert_int_equal(qp_pool_new(&p, threads, NULL), 0);
        assert_int_equal(qp_pool_threads(p), threads ? threads : 1);
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < 4; j++) {
                struct marks m = {.n = sizes[i], .grain = grains[j], .threads = threads ? threads : 1};
                qp_pool_for(p, m.n, m.grain, mark, &m);
                for (int64_t k = 0; k < 1000; k++)
                    assert_int_equal(m.seen[k], k < m.n);
                assert_int_equal(m.bad, 0);
            }
        qp_pool_free(p);
    }
}

static void count(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    ((int64_t *)arg)[begin] += end - begin; /* plain: a chunk that two threads ran, or that outlived its loop, is a race */
}

/* A worker may come late to a loop that has ended: it must find nothing, and the next loop must be whole. */
static void test_many_loops(void **state)
{
    (void)state;
    struct qp_pool *p;
    int64_t sums[6] = {0};
    assert_int_equal(qp_pool_new(&p, 4, NULL), 0);
    for (int i = 0; i < 20000; i++) {
        qp_pool_for(p, 2 + i % 5, 1, count, sums);
        if (i % 2000 == 0)
            usleep(3000); /* long enough for the workers to fall asleep */
    }
    assert_int_equal(sums[0], 20000);
    assert_int_equal(sums[1], 20000);
    for (int k = 2; k < 6; k++)
        assert_int_equal(sums[k], 20000 / 5 * (6 - k));
    qp_pool_free(p);
}

static void slow(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)begin, (void)end, (void)thread;
    usleep(5000); /* longer than the caller spins */
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_waits(void **state)
{
    (void)state;
    struct qp_pool *p;
    atomic_int done = 0;
    assert_int_equal(qp_pool_new(&p, 3, NULL), 0);
    for (int i = 1; i <= 10; i++) {
        qp_pool_for(p, 4, 1, slow, &done);
        assert_int_equal(done, 4 * i);
    }
    qp_pool_free(p);
}

static void test_life(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct qp_pool *p;
        assert_int_equal(qp_pool_new(&p, 1 + i % 9, NULL), 0);
        qp_pool_free(p);
    }
    qp_pool_free(NULL);
}

static void count_processors(void *arg, int64_t begin, int64_t end, int thread)
{
    cpu_set_t set;
    (void)begin, (void)end;
    usleep(2000); /* so that every thread gets some */
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        ((int *)arg)[thread] = CPU_COUNT(&set);
}

static void test_pin(void **state)
{
    (void)state;
    struct qp_pool *p;
    cpu_set_t before;
    int seen[3] = {1, 1, 1};
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(qp_pool_new(&p, 3, NULL), 0); /* perhaps more than there are processors */
    assert_int_equal(qp_pool_pin(p, NULL), 0);
    qp_pool_for(p, 30, 1, count_processors, seen);
    assert_true(seen[0] == 1 && seen[1] == 1 && seen[2] == 1);
    qp_pool_free(p);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_covers),
        cmocka_unit_test(test_many_loops),
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_pin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
