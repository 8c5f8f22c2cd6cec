/* What several threads may do at once: use contexts of their own, read one plan, load the plug-in of the GPU. The
 * ThreadSanitizer build (make test-tsan) reports what the comparisons cannot see. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "prism_attn/prism_cuda.h"

enum { N_THREAD = 3, N_ROUND = 4 };

/* The arguments and the results of one thread. cmocka's assertions belong to the main thread, so threads only note. */
typedef struct worker {
    test_case *c;
    prism_options options;
    const prism_plan *plan; /* shared by all workers, or NULL */
    prism_status status;    /* the first failure */
    int64_t n_selected;
    uint8_t mask[8 * 8 * 4];
    prism_status device_status;
    char problem[256];
} worker;

static void start_all(void *(*run)(void *), worker *w)
{
    pthread_t thread[N_THREAD];
    for (int i = 0; i < N_THREAD; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run, &w[i]), 0);
    for (int i = 0; i < N_THREAD; i++)
        pthread_join(thread[i], NULL);
}

static void note(worker *w, prism_status status)
{
    if (!w->status)
        w->status = status;
}

static void *attend_alone(void *arg)
{
    worker *w = arg;
    prism_ctx *ctx = context_new(PRISM_ISA_AUTO, 2);
    runner r = runner_new(ctx, &w->options, &w->c->call);
    for (int i = 0; i < N_ROUND; i++)
        note(w, prism_attention(ctx, &w->options, &w->c->call, r.plan, r.workspace.data, r.workspace.bytes, NULL));
    runner_free(&r);
    prism_destroy(ctx);
    return NULL;
}

/* Contexts in several threads do not know of each other. */
static void test_contexts(void **state)
{
    static const prism_method methods[N_THREAD] = {PRISM_METHOD_PRISM, PRISM_METHOD_MOMENTS, PRISM_METHOD_XATTENTION};
    const shape s = plain(500, 4, 2, 64);
    worker w[N_THREAD] = {0};
    answer want[N_THREAD];
    for (int i = 0; i < N_THREAD; i++) {
        w[i].c = case_new(&s, 15 + (uint64_t)i);
        w[i].options = options_with(w[i].c, methods[i], 0.7f);
        want[i] = attention(*state, w[i].c, &w[i].options, PRISM_PATH_SPARSE);
        case_poison_outputs(w[i].c);
    }
    start_all(attend_alone, w);
    for (int i = 0; i < N_THREAD; i++) {
        assert_ok(w[i].status);
        answer got = read_answer(w[i].c);
        assert_same_bits(&want[i], &got);
        answer_free(&want[i]);
        answer_free(&got);
        case_free(w[i].c);
    }
}

static void *read_and_attend(void *arg)
{
    worker *w = arg;
    prism_ctx *ctx = context_new(PRISM_ISA_AUTO, 2);
    size_t bytes = 0;
    note(w, prism_workspace_bytes(ctx, &w->options, &w->c->call, &bytes));
    guarded memory = guarded_new(bytes, 64);
    for (int i = 0; i < N_ROUND; i++) {
        prism_plan_view view = {.struct_size = sizeof view};
        note(w, prism_plan_read(w->plan, &view));
        note(w, prism_plan_mask(w->plan, w->mask, sizeof w->mask));
        note(w, prism_attend(ctx, &w->c->call, w->plan, memory.data, bytes));
        w->n_selected = view.n_selected;
    }
    guarded_free(&memory);
    prism_destroy(ctx);
    return NULL;
}

/* One plan, read and attended over by all threads at once, each with its own tensors. */
static void test_one_plan(void **state)
{
    const shape s = plain(500, 4, 2, 64);
    worker w[N_THREAD] = {0};
    test_case *c = case_new(&s, 20);
    const prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
    runner r = runner_new(*state, &o, &c->call);
    assert_ok(runner_plan(&r, &o, &c->call));
    const answer want = attention(*state, c, &o, PRISM_PATH_SPARSE);
    for (int i = 0; i < N_THREAD; i++)
        w[i] = (worker){.c = case_new(&s, 20), .options = o, .plan = r.plan};
    start_all(read_and_attend, w);
    for (int i = 0; i < N_THREAD; i++) {
        assert_ok(w[i].status);
        assert_int_equal(w[i].n_selected, r.view.n_selected);
        assert_memory_equal(w[i].mask, r.mask, (size_t)(r.view.n_row * r.view.n_kblk));
        answer got = read_answer(w[i].c);
        assert_same_bits(&want, &got);
        answer_free(&got);
        case_free(w[i].c);
    }
    answer_free((answer *)&want);
    runner_free(&r);
    case_free(c);
}

static void *open_device(void *arg)
{
    worker *w = arg;
    prism_cuda_info info = {.struct_size = sizeof info};
    prism_config config;
    prism_ctx *ctx;
    prism_config_init(&config);
    config.device = PRISM_DEVICE_CUDA;
    w->status = prism_cuda_describe(0, &info);
    w->device_status = prism_create(&config, &ctx);
    memcpy(w->problem, info.problem, sizeof w->problem);
    prism_destroy(ctx);
    return NULL;
}

/* The plug-in is loaded once; every thread is told the same about it. Comes first: what is loaded stays so. */
static void test_plugin(void **state)
{
    worker w[N_THREAD] = {0};
    (void)state;
    start_all(open_device, w);
    for (int i = 0; i < N_THREAD; i++) {
        assert_true(w[i].status == PRISM_OK || w[i].status == PRISM_ERROR_DEVICE);
        assert_int_equal(w[i].status, w[0].status);
        assert_int_equal(w[i].device_status, w[0].status);
        assert_string_equal(w[i].problem, w[0].problem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plugin),
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_one_plan),
    };
    return cmocka_run_group_tests(tests, new_context, drop_context);
}
