/* The rivals' options, formulas, single keys, non-finite input, chunks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/flex.h"
#include "core/lines.h"
#include "core/rule.h"
#include "expect.h"
#include "fixture.h"

static const prism_method rivals[] = {PRISM_METHOD_MINFERENCE, PRISM_METHOD_FLEXPREFILL, PRISM_METHOD_XATTENTION,
                                      PRISM_METHOD_FLASHPREFILL};
enum { n_rival = sizeof rivals / sizeof *rivals };

/* Sparse enough that prompts of a thousand tokens show it. */
static prism_options sparse_options(prism_method method, int block)
{
    prism_options o = rival_options(method, block);
    o.minference_vertical = 40;
    o.minference_slash = 110;
    o.flex_min_budget = 128;
    o.flex_gamma = 0.3f;
    o.xattn_threshold = 0.5f;
    o.flash_sink = o.flash_window = 1;
    o.flash_last = 0;
    o.flash_alpha = 0.7f;
    return o;
}

/* --------------------------------------------------------------------------------------------- options ---- */

static void test_options(void **state)
{
    (void)state;
    static const struct {
        const char *name, *good, *bad[3];
    } cases[] = {
        {"minference_vertical", "0", {"-1", "1.5", "many"}},
        {"minference_slash", "512", {"-1", "1e300", ""}},
        {"minference_budget", "0.5", {"-0.1", "1.1", "nan"}},
        {"flex_gamma", "0.95", {"-1", "1.01", "nan"}},
        {"flex_tau", "0", {"-1", "2", "x"}},
        {"flex_min_budget", "1024", {"-1", "0.5", "inf"}},
        {"flex_max_budget", "0", {"-1", "1e10", " "}},
        {"xattn_stride", "16", {"1", "12", "128"}},
        {"xattn_threshold", "1", {"0", "1.1", "-1"}},
        {"flash_alpha", "0", {"-0.1", "1.1", "nan"}},
        {"flash_sink", "0", {"-1", "1.5", "a"}},
        {"flash_window", "1", {"0", "-1", "1.5"}},
        {"flash_last", "0", {"-1", "1.5", "a"}},
        {"correct", "mean", {"1", "", "moment"}},
        {"moments_error", "0", {"-0.1", "nan", "a"}},
        {"precision", "fp8", {"1", "", "fp4"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prism_options o, before;
        prism_options_init(&o);
        assert_ok(prism_options_set(&o, cases[i].name, cases[i].good));
        before = o;
        for (int b = 0; b < 3; b++) {
            assert_int_equal(prism_options_set(&o, cases[i].name, cases[i].bad[b]), PRISM_ERROR_INVALID);
            assert_memory_equal(&o, &before, sizeof o);
        }
    }
}

static const rival_case one = {NULL, 2, 1, 64, 128, 1, {1100}, {0}, 21};

static void test_fields_are_checked(void **state)
{
    (void)state;
    rival_fixture *f = fixture_new(&one, PRISM_ISA_AUTO);
    size_t bytes;
    prism_options o = rival_options(PRISM_METHOD_XATTENTION, 128);
    o.xattn_stride = 12;
    assert_int_equal(prism_workspace_bytes(f->ctx, &o, &f->call, &bytes), PRISM_ERROR_INVALID);
    assert_non_null(strstr(prism_last_error(f->ctx), "xattn_stride"));
    o = rival_options(PRISM_METHOD_FLASHPREFILL, 128);
    o.flash_alpha = NAN;
    assert_int_equal(prism_workspace_bytes(f->ctx, &o, &f->call, &bytes), PRISM_ERROR_INVALID);
    o.flash_alpha = 0.1f;
    o.method = (prism_method)prism_method_count();
    assert_int_equal(prism_workspace_bytes(f->ctx, &o, &f->call, &bytes), PRISM_ERROR_INVALID);
    o = rival_options(PRISM_METHOD_DENSE, 128);
    o.precision = (prism_precision)2;
    assert_int_equal(prism_workspace_bytes(f->ctx, &o, &f->call, &bytes), PRISM_ERROR_INVALID);
    o.precision = PRISM_PRECISION_FP8; /* well formed, but not on the CPU */
    assert_int_equal(prism_workspace_bytes(f->ctx, &o, &f->call, &bytes), PRISM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(prism_last_error(f->ctx), "fp8"));
    fixture_free(f);
}

/* A workspace a byte too small is refused, and the plan stays what it was. */
static void test_workspace_and_capacity(void **state)
{
    (void)state;
    for (int m = 0; m < n_rival; m++) {
        rival_fixture *f = fixture_new(&one, PRISM_ISA_AUTO);
        const prism_options o = sparse_options(rivals[m], 128);
        prism_stats stats;
        fixture_run(f, &o, &stats);
        const int64_t n = f->view.n_selected, n_key = f->view.n_key_selected;
        assert_int_equal(n_key > 0, rivals[m] == PRISM_METHOD_MINFERENCE);
        assert_int_equal(prism_plan_build(f->ctx, &o, &f->call, f->plan, f->workspace, 64), PRISM_ERROR_WORKSPACE);
        prism_plan *small;
        assert_ok(prism_plan_create(f->ctx, &f->call, 128, 1e-6f, &small));
        const prism_status status = prism_plan_build(f->ctx, &o, &f->call, small, f->workspace, f->workspace_bytes);
        assert_true(status == PRISM_OK || status == PRISM_ERROR_CAPACITY);
        prism_plan_destroy(small);
        assert_ok(prism_plan_read(f->plan, &f->view));
        assert_true(f->view.n_selected == n && f->view.n_key_selected == n_key);
        assert_true(fabs(f->view.density - ((double)n + (double)n_key / 128) / (double)f->view.n_causal) < 1e-12);
        assert_true(stats.work_flop > 0 && stats.dense_flop > 0);
        fixture_free(f);
    }
}

static void test_mask_has_no_keys(void **state)
{
    (void)state;
    rival_fixture *f = fixture_new(&one, PRISM_ISA_AUTO);
    const prism_options o = sparse_options(PRISM_METHOD_MINFERENCE, 128);
    prism_stats stats;
    fixture_run(f, &o, &stats);
    const size_t bytes = (size_t)(f->view.n_row * f->view.n_kblk);
    uint8_t *mask = zeros((long)bytes, 1);
    assert_ok(prism_plan_mask(f->plan, mask, bytes));
    int64_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += mask[i];
    assert_int_equal(n, f->view.n_selected);
    assert_ok(prism_plan_from_mask(f->ctx, &f->call, 128, mask, bytes, f->plan));
    assert_ok(prism_plan_read(f->plan, &f->view));
    assert_true(!f->view.key_ptr && !f->view.key_index && f->view.n_key_selected == 0);
    free(mask);
    fixture_free(f);
}

/* -------------------------------------------------------------------------------------------- formulas ---- */

static void test_top_k(void **state)
{
    (void)state;
    const float x[] = {1, 3, INFINITY, 3, 0, 3, INFINITY};
    int32_t got[7];
    const int32_t want[] = {1, 2, 3, 6};
    assert_int_equal(prism_top_k(x, 7, 4, got), 4);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(prism_top_k(x, 7, 1, got), 1);
    assert_int_equal(got[0], 2);
    assert_int_equal(prism_top_k(x, 7, 9, got), 7);
    assert_int_equal(prism_top_k(x, 7, 0, got), 0);
}

static void test_counts_and_distance(void **state)
{
    (void)state;
    uint64_t fixed[8];
    const float x[] = {0.5f, 0.25f, 0.125f, 0.125f}, zero[] = {0, 0, 0, 0}, a[] = {1, 0, 0}, b[] = {0, 0, 2};
    assert_int_equal(prism_count_within(x, 4, 0.5, fixed), 1);
    assert_int_equal(prism_count_within(x, 4, 0.4, fixed), 0);
    assert_int_equal(prism_count_within(x, 4, 0.875, fixed), 3);
    assert_int_equal(prism_count_within(x, 4, 1, fixed), 4);
    assert_int_equal(prism_count_within(zero, 4, 0.5, fixed), 4);
    assert_true(prism_flex_distance(a, a, 3) == 0); /* 0 log 0 is 0, not NaN */
    assert_true(fabs(prism_flex_distance(a, b, 3) - sqrt(log(2.0))) < 1e-12);
    assert_true(prism_flex_distance(zero, a, 3) == 1);
}

static void test_rules(void **state)
{
    (void)state;
    const double mass[] = {4, 1, 3, 1, 1};
    uint64_t fixed[5], bits = 0;
    prism_row_rule rule = {PRISM_RULE_MASS, 0.7f, 0, 1, 0};
    prism_rule_apply(&rule, mass, 5, 3, fixed, &bits); /* own 1, then 4, then 3: 8 of 10 */
    assert_int_equal(bits, 0x15);
    bits = 0;
    rule = (prism_row_rule){PRISM_RULE_RELATIVE, 0.5f, 2, 0, 0};
    prism_rule_apply(&rule, mass, 5, 3, fixed, &bits);
    assert_int_equal(bits, 0x07);
    bits = 0;
    rule.n_last = 4;
    prism_rule_apply(&rule, mass, 5, 3, fixed, &bits);
    assert_int_equal(bits, 0x1f);
    const double nothing[5] = {0};
    bits = 0;
    rule = (prism_row_rule){PRISM_RULE_MASS, 0.9f, 0, 0, 0};
    prism_rule_apply(&rule, nothing, 5, 3, fixed, &bits);
    assert_int_equal(bits, 0x10); /* never an empty row */
}

/* ------------------------------------------------------------------------------------------ non-finite ---- */

/* With one key (or value) not finite, queries before it do not notice; with a key, those after it are what dense
 * attention makes them: not finite. */
static void check_poison(prism_method method, char which, float poison, int at)
{
    rival_fixture *f = fixture_new(&one, PRISM_ISA_AUTO);
    const prism_options o = sparse_options(method, 128);
    prism_stats stats;
    const int d = one.d, n = one.n_q[0];
    if (which == 'q')
        f->q[(long)at * d + 3] = poison; /* head 0 */
    else
        (which == 'k' ? f->k : f->v)[(long)at * d + 3] = poison;
    fixture_run(f, &o, &stats);
    for (int h = 0; h < one.n_head; h++)
        for (int t = 0; t < n; t++) {
            bool finite = true;
            for (int j = 0; j < d; j++)
                finite = finite && isfinite(f->o[((long)h * n + t) * d + j]);
            if (which == 'q' ? t != at || h != 0 : t < at)
                assert_true(finite);
            else if (which == 'q' || (which == 'k' && isnan(poison)))
                assert_false(finite);
        }
    fixture_free(f);
}

static void test_non_finite(void **state)
{
    (void)state;
    static const int at[] = {0, 5, 640, 700, 1000, 1098};
    for (int m = 0; m < n_rival; m++)
        for (int i = 0; i < 6; i++) {
            check_poison(rivals[m], 'k', NAN, at[i]);
            check_poison(rivals[m], 'k', INFINITY, at[i]);
            check_poison(rivals[m], 'v', NAN, at[i]);
            check_poison(rivals[m], 'v', INFINITY, at[i]);
            check_poison(rivals[m], 'q', NAN, at[i]);
        }
}

/* ---------------------------------------------------------------------------------------------- chunks ---- */

/* XAttention and FlashPrefill choose row by row: block-aligned chunks give the whole prompt's rows. (The other two ask
 * the last queries of the call, by design.) */
static void check_chunk(prism_method method)
{
    rival_fixture *whole = fixture_new(&one, PRISM_ISA_AUTO), *part = fixture_new(&one, PRISM_ISA_AUTO);
    const prism_options o = sparse_options(method, 128);
    const int start = 512, n = one.n_q[0], n_q = n - start;
    prism_stats stats;
    fixture_run(whole, &o, &stats);
    part->call.q = prism_tensor_head_major(part->q + (long)start * one.d, PRISM_F32, n, one.n_head, one.d);
    part->call.o = prism_tensor_head_major(part->o + (long)start * one.d, PRISM_F32, n, one.n_head, one.d);
    part->call.n_q = part->n_q_of[0] = n_q;
    part->q_start_of[0] = start;
    fixture_run(part, &o, &stats);
    uint8_t *a = zeros(n, 1), *b = zeros(n, 1);
    for (int h = 0; h < one.n_head; h++) {
        for (int i = 0; i < part->view.n_qblk; i++) {
            fixture_row(whole, 0, h, start / 128 + i, a);
            fixture_row(part, 0, h, i, b);
            assert_memory_equal(a, b, (size_t)n);
        }
        for (long t = (long)start * one.d; t < (long)n * one.d; t++) {
            const long j = (long)h * n * one.d + t;
            assert_true(fabsf(whole->o[j] - part->o[j]) < 1e-5f);
        }
    }
    free(a), free(b);
    fixture_free(whole);
    fixture_free(part);
}

static void test_chunks(void **state)
{
    (void)state;
    check_chunk(PRISM_METHOD_XATTENTION);
    check_chunk(PRISM_METHOD_FLASHPREFILL);
}

/* Everything asked for is everything given. */
static void test_full(void **state)
{
    (void)state;
    rival_fixture *f = fixture_new(&one, PRISM_ISA_AUTO);
    prism_stats stats;
    prism_options o = rival_options(PRISM_METHOD_XATTENTION, 128);
    o.xattn_threshold = 1;
    fixture_run(f, &o, &stats);
    assert_true(f->view.density == 1 && stats.work_flop > stats.dense_flop);
    o = rival_options(PRISM_METHOD_FLASHPREFILL, 128);
    o.flash_last = 1000;
    fixture_run(f, &o, &stats);
    assert_true(f->view.density == 1);
    o = rival_options(PRISM_METHOD_MINFERENCE, 128);
    o.minference_budget = 1; /* 0.8 of all distances */
    fixture_run(f, &o, &stats);
    assert_true(f->view.density > 0.95);
    o = rival_options(PRISM_METHOD_FLEXPREFILL, 128);
    o.flex_gamma = 1;
    fixture_run(f, &o, &stats);
    assert_true(f->view.density == 1);
    for (int m = 0; m < n_rival; m++) { /* short prompts take the dense way, whatever the method */
        o = rival_options(rivals[m], 128);
        o.min_tokens = 2000;
        fixture_run(f, &o, &stats);
        assert_int_equal(stats.path, PRISM_PATH_DENSE_SHORT);
        assert_true(stats.work_flop == stats.dense_flop);
    }
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_fields_are_checked),
        cmocka_unit_test(test_workspace_and_capacity),
        cmocka_unit_test(test_mask_has_no_keys),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_counts_and_distance),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_non_finite),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
