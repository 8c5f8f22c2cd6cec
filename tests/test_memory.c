/* What happens when memory runs out: each allocation of every _create function fails once. The linker sends the
 * library's malloc, calloc and friends here (-Wl,--wrap). */
#include <stdlib.h>
#include <string.h>

#include "check.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t align, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t n);
void __wrap_free(void *p);

static int fail_at = -1, n_allocation, n_live;

static int refuse(void)
{
    return n_allocation++ == fail_at;
}

static void *counted(void *p)
{
    n_live += p != NULL;
    return p;
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : counted(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refuse() ? NULL : counted(__real_aligned_alloc(align, n));
}

void __wrap_free(void *p)
{
    n_live -= p != NULL;
    __real_free(p);
}

static prism_call some_call(void)
{
    prism_call call;
    prism_call_init(&call);
    call.n_head = 4;
    call.n_kv_head = 2;
    call.d_head = 64;
    call.n_q = call.n_kv = 1000;
    return call;
}

/* Runs create with its first, second, ... allocation failing, until it succeeds. */
static void test_contexts(void **state)
{
    (void)state;
    prism_ctx *ctx;
    int failures = 0;
    const int live = n_live;
    for (;; failures++) {
        fail_at = n_allocation + failures;
        const prism_status status = prism_create(NULL, &ctx);
        fail_at = -1;
        if (status == PRISM_OK)
            break;
        assert_int_equal(status, PRISM_ERROR_MEMORY);
        assert_null(ctx);
        assert_int_equal(n_live, live);
    }
    assert_true(failures >= 1);
    prism_destroy(ctx);
    assert_int_equal(n_live, live);
}

static void test_plans(void **state)
{
    (void)state;
    prism_ctx *ctx;
    prism_plan *plan;
    const prism_call call = some_call();
    assert_ok(prism_create(NULL, &ctx));
    const int live = n_live;
    int failures = 0;
    for (;; failures++) {
        fail_at = n_allocation + failures;
        const prism_status status = prism_plan_create(ctx, &call, 64, 0.5f, &plan);
        fail_at = -1;
        if (status == PRISM_OK)
            break;
        assert_int_equal(status, PRISM_ERROR_MEMORY);
        assert_true(plan == NULL && prism_last_error(ctx)[0]);
        assert_int_equal(n_live, live);
    }
    assert_true(failures >= 2);
    prism_plan_destroy(plan);
    assert_int_equal(n_live, live);
    prism_destroy(ctx);
}

/* Only the _create functions allocate. (OpenMP makes its threads on the first parallel region: that one is not
 * counted, and its runtime's own calls do not come through here.) */
static void test_hot_calls_do_not_allocate(void **state)
{
    (void)state;
    enum { n = 1000 };
    prism_call call = some_call();
    float *x = calloc(n * 4 * 64, sizeof *x), *o = calloc(n * 4 * 64, sizeof *o);
    prism_options options;
    prism_bands bands;
    prism_rope rope;
    prism_ctx *ctx;
    prism_plan *plan;
    size_t bytes;
    prism_options_init(&options);
    options.min_tokens = 0;
    options.bands = &bands;
    assert_ok(prism_rope_init(&rope, 64));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, 64, 1e4));
    assert_ok(prism_bands_auto(&bands, &rope, 128));
    call.q = prism_tensor_token_major(x, PRISM_F32, n, 4, 64);
    call.k = call.v = prism_tensor_token_major(x, PRISM_F32, n, 2, 64);
    call.o = prism_tensor_token_major(o, PRISM_F32, n, 4, 64);
    assert_ok(prism_create(NULL, &ctx));
    assert_ok(prism_plan_create(ctx, &call, 128, 0, &plan));
    assert_ok(prism_workspace_bytes(ctx, &options, &call, &bytes));
    void *workspace = aligned_alloc(64, bytes);
    const int before = n_allocation;
    prism_stats stats = {.struct_size = sizeof stats};
    for (int method = 0; method < 3; method++) {
        options.method = (prism_method)method;
        assert_ok(prism_attention(ctx, &options, &call, plan, workspace, bytes, &stats));
    }
    assert_int_equal(n_allocation, before);
    free(workspace);
    free(x);
    free(o);
    prism_plan_destroy(plan);
    prism_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_hot_calls_do_not_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
