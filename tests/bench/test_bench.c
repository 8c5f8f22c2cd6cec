/* The arithmetic of the measurements: counts against direct sums, densities, what is derived from times. */
#include "../lm/lm_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

static prism_ctx *ctx;

static int setup(void **state)
{
    (void)state;
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 2;
    return prism_create(&config, &ctx) != PRISM_OK;
}

static int teardown(void **state)
{
    (void)state;
    prism_destroy(ctx);
    return 0;
}

static prism_call shape(int32_t n_head, int32_t n_q, int32_t n_kv)
{
    prism_call call;
    prism_call_init(&call);
    call.n_head = n_head;
    call.n_kv_head = 1;
    call.d_head = 64;
    call.n_q = n_q;
    call.n_kv = n_kv;
    return call;
}

static prism_plan_view view_of(const prism_plan *plan)
{
    prism_plan_view view = {.struct_size = sizeof view};
    assert_int_equal(prism_plan_read(plan, &view), PRISM_OK);
    return view;
}

/* ------------------------------------------------------------------------------------------------ counts ---- */

/* Query by query: 4 d operations for each key of each block that its row's mask lists; NULL: of each causal block. */
static double count(const prism_call *c, int32_t block, const uint8_t *mask)
{
    const int32_t start = c->n_kv - c->n_q, first = start / block, n_kblk = (c->n_kv - 1) / block + 1;
    double pairs = 0;
    for (int32_t h = 0; h < c->n_head; h++)
        for (int32_t p = start; p < c->n_kv; p++)
            for (int32_t v = 0; v <= p / block; v++) {
                const int64_t row = (int64_t)h * (n_kblk - first) + p / block - first;
                pairs += !mask || mask[row * n_kblk + v] ? block : 0;
            }
    return 4.0 * c->d_head * pairs;
}

static void flop(void **state)
{
    (void)state;
    static const int32_t lengths[][2] = {{512, 512}, {300, 300}, {300, 500}, {1, 129}, {129, 1000}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int32_t block = 64; block <= 128; block += 64) {
            const prism_call call = shape(3, lengths[i][0], lengths[i][1]);
            prism_plan *plan;
            assert_int_equal(prism_plan_create(ctx, &call, block, 0, &plan), PRISM_OK);
            ok(bench_impose_density(ctx, &call, block, 0.4, i, plan, &err));
            const prism_plan_view view = view_of(plan);
            const size_t bytes = (size_t)view.n_row * (size_t)view.n_kblk;
            uint8_t *mask = malloc(bytes);
            assert_int_equal(prism_plan_mask(plan, mask, bytes), PRISM_OK);
            assert_true(bench_attend_flop(&call, block, &view) == count(&call, block, mask));
            assert_true(bench_attend_flop(&call, block, NULL) == count(&call, block, NULL));
            free(mask);
            prism_plan_destroy(plan);
        }
}

/* The library's own count, of a method that lists single keys, too. */
static void flop_of_library(void **state)
{
    (void)state;
    const bench_shape s = {700, 4, 2, 64, PRISM_F32};
    bench_tensors t;
    ok(bench_tensors_random(&s, 7, 2, &t, &err));
    const prism_call call = bench_tensors_call(&t, s.n_token);
    prism_options options;
    prism_options_init(&options);
    options.min_tokens = 0;
    options.method = PRISM_METHOD_MINFERENCE;
    options.minference_vertical = 20;
    options.minference_slash = 50;
    prism_plan *plan;
    assert_int_equal(prism_plan_create(ctx, &call, options.block_size, 0, &plan), PRISM_OK);
    size_t bytes;
    assert_int_equal(prism_workspace_bytes(ctx, &options, &call, &bytes), PRISM_OK);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    prism_stats stats = {.struct_size = sizeof stats};
    assert_int_equal(prism_attention(ctx, &options, &call, plan, workspace, bytes, &stats), PRISM_OK);
    const prism_plan_view view = view_of(plan);
    assert_true(view.select_flop > 0 && view.pool_seconds == 0);
    assert_true(stats.dense_flop == bench_attend_flop(&call, options.block_size, NULL));
    assert_true(stats.work_flop == view.select_flop + bench_attend_flop(&call, options.block_size, &view));
    free(workspace);
    prism_plan_destroy(plan);
    bench_tensors_free(&t);
}

/* --------------------------------------------------------------------------------------------- densities ---- */

/* Each head within a block of the wanted total, or at two blocks a row where that is more already. */
static void check_density(int32_t n_q, int32_t n_kv, double density)
{
    const prism_call call = shape(2, n_q, n_kv);
    prism_plan *plan;
    assert_int_equal(prism_plan_create(ctx, &call, 128, 0, &plan), PRISM_OK);
    ok(bench_impose_density(ctx, &call, 128, density, 5, plan, &err));
    const prism_plan_view v = view_of(plan);
    const int32_t first = v.n_kblk - v.n_qblk;
    const double wanted = density * (double)v.n_causal / call.n_head;
    for (int32_t h = 0; h < call.n_head; h++) {
        const int64_t begin = (int64_t)h * v.n_qblk, n = v.row_ptr[begin + v.n_qblk] - v.row_ptr[begin];
        const double least = 2.0 * v.n_qblk - (first == 0);
        assert_true(fabs((double)n - wanted) <= 1 || (wanted < least && (double)n == least));
        for (int32_t i = 0; i < v.n_qblk; i++) {
            assert_int_equal(v.index[v.row_ptr[begin + i]], 0);
            assert_int_equal(v.index[v.row_ptr[begin + i + 1] - 1], first + i);
        }
    }
    prism_plan_destroy(plan);
}

static void densities(void **state)
{
    (void)state;
    static const double wanted[] = {0.01, 0.05, 0.1, 0.371, 0.9, 1};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        check_density(64 * 128, 64 * 128, wanted[i]);
        check_density(9 * 128 + 1, 9 * 128 + 1, wanted[i]);
        check_density(20 * 128, 100 * 128 + 17, wanted[i]);
    }
    const prism_call call = shape(1, 512, 512);
    prism_plan *plan;
    lm_error err;
    assert_int_equal(prism_plan_create(ctx, &call, 128, 0, &plan), PRISM_OK);
    assert_false(bench_impose_density(ctx, &call, 128, 0, 1, plan, &err));
    assert_false(bench_impose_density(ctx, &call, 128, NAN, 1, plan, &err));
    assert_false(bench_impose_density(ctx, &call, 128, 1.5, 1, plan, &err));
    prism_plan_destroy(plan);
}

static void seeds(void **state)
{
    (void)state;
    const prism_call call = shape(2, 4096, 4096);
    uint8_t mask[3][2 * 32 * 32];
    for (int i = 0; i < 3; i++) {
        prism_plan *plan;
        assert_int_equal(prism_plan_create(ctx, &call, 128, 0, &plan), PRISM_OK);
        ok(bench_impose_density(ctx, &call, 128, 0.3, i < 2 ? 8 : 9, plan, &err));
        assert_int_equal(prism_plan_mask(plan, mask[i], sizeof mask[i]), PRISM_OK);
        prism_plan_destroy(plan);
    }
    assert_memory_equal(mask[0], mask[1], sizeof mask[0]);
    assert_memory_not_equal(mask[0], mask[2], sizeof mask[0]);
}

/* ---------------------------------------------------------------------------------------------- tensors ---- */

/* The same noise, rounded to each type: one is the nearest value of the other. */
static void types(void **state)
{
    (void)state;
    bench_shape s = {40, 2, 2, 6, PRISM_F32};
    bench_tensors wide, narrow;
    ok(bench_tensors_random(&s, 3, 1, &wide, &err));
    for (int type = PRISM_F16; type <= PRISM_BF16; type++) {
        s.dtype = (prism_dtype)type;
        ok(bench_tensors_random(&s, 3, 1, &narrow, &err));
        for (int i = 0; i < 40 * 2 * 6; i++) {
            const uint16_t bits = ((uint16_t *)narrow.v)[i];
            const int mantissa = type == PRISM_BF16 ? 7 : 10, bias = type == PRISM_BF16 ? 127 : 15;
            const int exponent = (bits & 0x7fff) >> mantissa, low = bits & ((1 << mantissa) - 1);
            const double size = ldexp((1 << mantissa) + low, exponent - bias - mantissa);
            const double x = ((float *)wide.v)[i], y = bits & 0x8000 ? -size : size;
            assert_true(fabs(x - y) <= ldexp(fabs(y), -mantissa - 1));
        }
        bench_tensors_free(&narrow);
    }
    bench_tensors_free(&wide);
}

static void noise(void **state)
{
    (void)state;
    const bench_shape s = {500, 4, 2, 62, PRISM_F32};
    bench_tensors one, two;
    ok(bench_tensors_random(&s, 3, 1, &one, &err));
    ok(bench_tensors_random(&s, 3, 2, &two, &err));
    const size_t n = 500 * 4 * 62;
    assert_memory_equal(one.q, two.q, n * sizeof(float));
    assert_memory_not_equal(one.k, one.v, n / 2 * sizeof(float));
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((float *)one.q)[i];
        squares += (double)((float *)one.q)[i] * ((float *)one.q)[i];
    }
    assert_true(fabs(sum / (double)n) < 0.02 && fabs(squares / (double)n - 1) < 0.02);
    bench_tensors_free(&one);
    bench_tensors_free(&two);
    const bench_shape bad[] = {{0, 4, 2, 64, PRISM_F32}, {8, 3, 2, 64, PRISM_F32}, {8, 4, 2, 63, PRISM_F32}};
    for (size_t i = 0; i < 3; i++) {
        lm_error err = {0};
        assert_false(bench_tensors_random(&bad[i], 1, 1, &one, &err));
        assert_int_equal(err.kind, LM_ERROR_USAGE);
        bench_tensors_free(&one);
    }
}

/* A prompt's first tokens leave the same Q, K, V whether more follow or not. */
static void capture(void **state)
{
    (void)state;
    enum { n_short = 200, n_long = 330 };
    lm_model *model;
    ok(lm_model_open(BENCH_TEST_MODEL, &model, &err));
    int32_t tokens[n_long];
    for (int32_t i = 0; i < n_long; i++)
        tokens[i] = 300 + i * 37 % 900;
    bench_tensors a, b;
    ok(bench_tensors_capture(model, ctx, tokens, n_short, 2, PRISM_F32, NULL, NULL, &a, &err));
    ok(bench_tensors_capture(model, ctx, tokens, n_long, 2, PRISM_F32, NULL, NULL, &b, &err));
    const float *x[3] = {a.q, a.k, a.v}, *y[3] = {b.q, b.k, b.v};
    for (int i = 0; i < 3; i++) {
        const int32_t n = n_short * a.d_head * (i ? a.n_kv_head : a.n_head);
        double largest = 0;
        for (int32_t j = 0; j < n; j++) {
            assert_true(fabsf(x[i][j] - y[i][j]) <= 1e-3f * (1 + fabsf(x[i][j])));
            largest = fmax(largest, fabs(x[i][j]));
        }
        assert_true(largest > 0.1);
    }
    bench_tensors_free(&a);
    bench_tensors_free(&b);
    lm_error err = {0};
    assert_false(bench_tensors_capture(model, ctx, tokens, n_short, 99, PRISM_F32, NULL, NULL, &a, &err));
    assert_int_equal(err.kind, LM_ERROR_USAGE);
    bench_tensors_free(&a);
    lm_model_close(model);
}

/* ---------------------------------------------------------------------------------------------- results ---- */

static void median(void **state)
{
    (void)state;
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2};
    bench_time t = bench_summarize(odd, 3, true);
    assert_true(t.median == 2 && t.min == 1 && t.max == 3 && t.n == 3 && t.warm);
    t = bench_summarize(even, 4, false);
    assert_true(t.median == 2.5 && t.min == 1 && t.max == 4 && !t.warm);
}

static void check_stages(const bench_tensors *t, const bench_attention_result *r, const prism_options *options)
{
    const bench_peaks peaks = {.fma_flops = 1e11, .dot_flops = 3e11, .read_bytes_s = 1e10};
    bench_stage stages[BENCH_N_STAGE];
    bench_stages(t, r, options, &peaks, stages);
    double flop_sum = 0;
    for (int i = 0; i < BENCH_N_STAGE; i++) {
        const bench_stage *g = &stages[i];
        const bool dots = i == BENCH_ATTEND && t->dtype == PRISM_BF16;
        const double compute = g->flop / (dots ? peaks.dot_flops : peaks.fma_flops);
        const double least = fmax(compute, g->bytes / peaks.read_bytes_s);
        assert_true(fabs(g->share * g->seconds - least) <= 1e-9 * least);
        assert_int_equal(g->bound_by_memory, g->bytes / peaks.read_bytes_s > compute);
        flop_sum += g->flop;
    }
    const double heads = t->n_head + t->n_kv_head;
    assert_true(stages[BENCH_POOL].flop == r->n_token * heads * t->d_head);
    assert_true(stages[BENCH_ATTEND].bytes == 2 * r->n_token * heads * t->d_head * 2);
    assert_true(fabs(flop_sum - (r->select_flop + r->correct_flop + r->attend_flop)) <= 1e-9 * flop_sum);
}

static void attention(void **state)
{
    (void)state;
    const bench_shape s = {1100, 4, 2, 64, PRISM_BF16};
    bench_tensors t;
    ok(bench_tensors_random(&s, 3, 2, &t, &err));
    bench_method methods[] = {{.label = "a"}, {.label = "b"}};
    for (int i = 0; i < 2; i++) {
        prism_options_init(&methods[i].options);
        methods[i].options.min_tokens = 0;
    }
    methods[1].options.method = PRISM_METHOD_DENSE;
    bench_spec spec = {.methods = methods,
                       .n_method = 2,
                       .n_token = 1024,
                       .density = 0.5,
                       .seed = 1,
                       .limits = {.reps = 1, .seconds = 60},
                       .measures_memory = true};
    bench_attention_result r[2];
    ok(bench_attention(ctx, &t, &spec, r, &err));
    assert_string_equal(r[0].label, "a");
    for (int i = 0; i < 2; i++) {
        assert_true(r[i].call.n == 1 && r[i].call.warm && r[i].n_token == 1024);
        assert_true(fabs(r[i].select.median + r[i].attend.median - r[i].call.median) < 1e-9);
        assert_true(r[i].speedup == r[1].call.median / r[i].call.median);
        assert_true(r[i].dense_flop == 4.0 * 64 * 4 * 128 * 128 * 36);
        assert_true(r[i].workspace_bytes >= r[i].attend_workspace_bytes);
    }
    assert_true(fabs(r[0].density - 0.5) <= 1 / 36.0 && r[1].density == 1);
    assert_true(fabs(r[0].attend_flop - r[0].density * r[0].dense_flop) < 1 && r[1].attend_flop == r[1].dense_flop);
    assert_true(r[0].select_flop > 0 && r[1].select_flop == 0 && r[0].pool.median > 0);
    check_stages(&t, &r[0], &methods[0].options);
    spec.density = 0;
    spec.limits.seconds = 0; /* the warm-up is the measurement */
    ok(bench_attention(ctx, &t, &spec, r, &err));
    assert_true(r[0].density == r[0].density_of_method && !r[0].call.warm && r[0].call.n == 1);
    spec.n_token = 1101;
    lm_error err = {0};
    assert_false(bench_attention(ctx, &t, &spec, r, &err));
    assert_int_equal(err.kind, LM_ERROR_USAGE);
    bench_tensors_free(&t);
}

/* A correction counts where it runs: in attend, and not at all over an imposed plan. */
static void corrections(void **state)
{
    (void)state;
    const bench_shape s = {1024, 4, 2, 64, PRISM_F32};
    bench_tensors t;
    ok(bench_tensors_random(&s, 3, 2, &t, &err));
    bench_method methods[] = {{.label = "none"}, {.label = "moments"}};
    for (int i = 0; i < 2; i++) {
        prism_options_init(&methods[i].options);
        methods[i].options.method = PRISM_METHOD_MOMENTS;
        methods[i].options.min_tokens = 0;
        methods[i].options.correct = i ? PRISM_CORRECTION_MOMENTS : PRISM_CORRECTION_NONE;
    }
    bench_spec spec = {
        .methods = methods, .n_method = 2, .n_token = 1024, .seed = 1, .limits = {.reps = 1, .seconds = 0}};
    bench_attention_result r[2];
    bench_stage stages[2][BENCH_N_STAGE];
    const bench_peaks peaks = {.fma_flops = 1e11, .read_bytes_s = 1e10};
    ok(bench_attention(ctx, &t, &spec, r, &err));
    double wanted = 0; /* every token against 16 single ones and the blocks before its own: mean, variance, value; C q */
    for (int32_t own = 1; own < 8; own++)
        wanted += 4.0 * 128 * ((own + 16) * 2 * (64 + 8 + 64) + 2 * 64 * 64);
    assert_true(r[0].correct_flop == 0 && r[1].correct_flop == wanted);
    assert_true(r[0].select_flop == r[1].select_flop && r[0].select_flop > 0);
    for (int i = 0; i < 2; i++)
        bench_stages(&t, &r[i], &methods[i].options, &peaks, stages[i]);
    assert_true(stages[0][BENCH_SELECT].flop == stages[1][BENCH_SELECT].flop);
    assert_true(stages[1][BENCH_ATTEND].flop == r[1].attend_flop + wanted);
    spec.density = 0.5;
    ok(bench_attention(ctx, &t, &spec, r, &err));
    assert_true(r[1].correct_flop == 0 && r[0].select_flop == r[1].select_flop);
    bench_tensors_free(&t);
}

static void peaks(void **state)
{
    (void)state;
    bench_peaks p;
    ok(bench_measure_peaks(ctx, PRISM_BF16, 0.02, &p, &err));
    assert_true(p.fma_flops > 0 && p.read_bytes_s > 0 && p.copy_bytes_s > 0 && p.n_tier >= 1);
    for (int32_t i = 0; i < p.n_tier; i++)
        assert_true(p.tiers[i].flops > 0 && p.tiers[i].name && p.tiers[i].what);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flop),        cmocka_unit_test(flop_of_library), cmocka_unit_test(densities),
        cmocka_unit_test(seeds),       cmocka_unit_test(types),           cmocka_unit_test(noise),
        cmocka_unit_test(capture),     cmocka_unit_test(median),          cmocka_unit_test(attention),
        cmocka_unit_test(corrections), cmocka_unit_test(peaks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
