/* The formulas by numbers known beforehand: a small vector worked out by hand, the temperatures of white noise, top-p,
 * 16-bit floats. The internal stages are driven directly: they know no smallest block size. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core/half.h"
#include "core/topp.h"
#include "cpu/cpu.h"
#include "oracle.h"
#include "support.h"

/* --------------------------------------------------------------------------------------- a small vector ---- */

/* 7 tokens, blocks of 2, d 8, one head; high band 4 of 8 dimensions, low band 6. */
enum { L = 7, B = 2, D = 8, N_BLK = 4 };

static const int high_dim[] = {0, 1, 4, 5}, low_dim[] = {1, 2, 3, 5, 6, 7};

static void make_vector(double q[L + 1][D], double k[L + 1][D])
{
    memset(q, 0, (L + 1) * sizeof q[0]);
    memset(k, 0, (L + 1) * sizeof k[0]);
    for (int n = 0; n < L; n++)
        for (int c = 0; c < D; c++) {
            q[n][c] = sin(0.1 * (n + 1) * (c + 1));
            k[n][c] = cos(0.07 * (n + 1) * (c + 2));
        }
}

static const oracle_rule vector_rule = {
    .n_band = 2, .dim = {high_dim, low_dim}, .n_dim = {4, 6}, .top_p = {0.5, 0.5}, .calibrated = true};

static void check_oracle(int n, double rq, double rk, double scale_h, double scale_l, const char *rows)
{
    double q[L + 1][D], k[L + 1][D], qm[N_BLK * D], km[N_BLK * D];
    make_vector(q, k);
    oracle_means(&q[0][0], 0, n, D, B, qm);
    oracle_means(&k[0][0], 0, n, D, B, km);
    const oracle_strength h = oracle_calibrate(qm, N_BLK, km, N_BLK, D, high_dim, 4, 1 / sqrt(D));
    const oracle_strength l = oracle_calibrate(qm, N_BLK, km, N_BLK, D, low_dim, 6, 1 / sqrt(D));
    assert_near(h.rq, rq, 1e-6);
    assert_near(h.rk, rk, 1e-6);
    assert_near(1 / h.factor, scale_h, 1e-6); /* logit = dot / (sqrt(d_z) tau) */
    assert_near(1 / l.factor, scale_l, 1e-6);
    assert_near(h.tau, scale_h / 2, 1e-6);
    assert_near(l.tau, scale_l / sqrt(6), 1e-6);
    uint8_t mask[N_BLK * N_BLK];
    const oracle_seq s = {1, 1, D, n, 0, B, 1 / sqrt(D), &q[0][0], &k[0][0], NULL};
    oracle_select(&s, &vector_rule, mask);
    for (int i = 0; i < N_BLK * N_BLK; i++)
        assert_int_equal(mask[i], rows[i] - '0');
    oracle_rule forced = vector_rule;
    forced.keep_sink = forced.keep_own = true;
    oracle_select(&s, &forced, mask);
    for (int i = 0; i < N_BLK; i++)
        assert_true(mask[i * N_BLK] && mask[i * N_BLK + i]);
}

static void test_vector_oracle(void **state)
{
    (void)state;
    /* A row of zeros in the place of the missing token: the tail is divided by the block size. */
    check_oracle(L + 1, 0.620452, 0.614290, 1.349321, 2.162480, "1000100011100110");
    /* The tail divided by its valid rows. */
    check_oracle(L, 0.700137, 0.678337, 1.397976, 2.158241, "1000100011100111");
}

static void test_vector_probabilities(void **state)
{
    (void)state;
    static const double want[2][N_BLK][N_BLK] = {
        {{1}, {.757101, .242899}, {.439803, .336688, .223510}, {.202939, .265501, .316005, .215556}},
        {{1}, {.768372, .231628}, {.282674, .406160, .311166}, {.191652, .288014, .318231, .202104}}};
    double q[L + 1][D], k[L + 1][D], qm[N_BLK * D], km[N_BLK * D], x[N_BLK];
    make_vector(q, k);
    oracle_means(&q[0][0], 0, L + 1, D, B, qm);
    oracle_means(&k[0][0], 0, L + 1, D, B, km);
    const oracle_seq s = {1, 1, D, L + 1, 0, B, 1 / sqrt(D), &q[0][0], &k[0][0], NULL};
    for (int band = 0; band < 2; band++)
        for (int i = 0; i < N_BLK; i++) {
            oracle_logits(&s, &vector_rule, band, 0, i, qm, km, x);
            oracle_softmax(x, i + 1);
            for (int v = 0; v <= i; v++)
                assert_near(x[v], want[band][i][v], 1e-6);
        }
}

/* The library's own stages on the same vector, every tier. */
typedef struct stage_result {
    float q_mean[N_BLK * D], k_mean[N_BLK * D], factor[N_BLK * PRISM_MAX_BAND];
    uint64_t bits[N_BLK];
} stage_result;

static stage_result run_stages(prism_ctx *ctx, int n, prism_calibration mode)
{
    double q[L + 1][D], k[L + 1][D];
    float qf[(L + 1) * D], kf[(L + 1) * D], sum[N_BLK * D];
    _Alignas(64) static char scratch[1 << 16];
    make_vector(q, k);
    for (int i = 0; i < (L + 1) * D; i++) {
        qf[i] = (float)q[i / D][i % D];
        kf[i] = (float)k[i / D][i % D];
    }
    prism_call call;
    prism_call_init(&call);
    call.n_head = call.n_kv_head = 1;
    call.d_head = D;
    call.n_q = call.n_kv = n;
    call.q = prism_tensor_token_major(qf, PRISM_F32, n, 1, D);
    call.k = prism_tensor_token_major(kf, PRISM_F32, n, 1, D);
    const prism_problem p = {.call = &call,
                             .block_size = B,
                             .group = 1,
                             .n_qblk = N_BLK,
                             .n_kblk = N_BLK,
                             .n_row = N_BLK,
                             .n_word = 1,
                             .scale = 1 / sqrtf(D)};
    prism_pooled pooled = {
        .struct_size = sizeof pooled, .n_kv_head = 1, .d_head = D, .block_size = B, .n_token_max = n, .key_sum = sum};
    const prism_bands bands = {.d_head = D, .n_high = 4, .n_low = 6, .high = {0, 1, 4, 5}, .low = {1, 2, 3, 5, 6, 7}};
    stage_result r;
    const prism_select_job job = {.problem = &p,
                                  .q_mean = r.q_mean,
                                  .k_mean = r.k_mean,
                                  .bands = &bands,
                                  .calibration = mode,
                                  .top_p = {0.5f, 0.5f},
                                  .bits = r.bits,
                                  .scratch = scratch};
    assert_true(ctx->backend->select.bytes(ctx, &job) <= sizeof scratch);
    prism_energy k_upto[N_BLK];
    ctx->backend->pool(
        ctx,
        &(prism_pool_job){.problem = &p, .bands = &bands, .pooled = &pooled, .q_mean = r.q_mean, .k_mean = r.k_mean});
    prism_calibrate_cpu(&job, r.factor, k_upto);
    ctx->backend->select.run(ctx, &job);
    return r;
}

static void check_stages(prism_isa isa, int n, double scale_h, double scale_l, const char *rows)
{
    prism_config config;
    prism_ctx *ctx;
    prism_config_init(&config);
    config.isa = isa;
    if (prism_create(&config, &ctx) == PRISM_ERROR_DEVICE)
        return;
    const stage_result r = run_stages(ctx, n, PRISM_CALIBRATION_GLOBAL);
    for (int i = 0; i < N_BLK; i++) {
        assert_near(1 / r.factor[i * PRISM_MAX_BAND], scale_h, 2e-6); /* the vector's six digits and float inputs */
        assert_near(1 / r.factor[i * PRISM_MAX_BAND + 1], scale_l, 2e-6);
        for (int v = 0; v < N_BLK; v++)
            assert_int_equal(r.bits[i] >> v & 1, rows[i * N_BLK + v] - '0');
    }
    prism_destroy(ctx);
}

static void test_vector_stages(void **state)
{
    (void)state;
    for (int isa = PRISM_ISA_C; isa < PRISM_N_ISA; isa++) {
        check_stages((prism_isa)isa, L + 1, 1.349321, 2.162480, "1000100011100110");
        check_stages((prism_isa)isa, L, 1.397976, 2.158241, "1000100011100111");
    }
}

/* ------------------------------------------------------------------------------- temperature of white noise ---- */

enum { n_block_white = 512, block_white = 128, d_white = 128 };

/* Rotated tokens whose content is the same all over a block, white, and new in the next. */
static float *white_tokens(double base, rng *r)
{
    const size_t n = (size_t)n_block_white * block_white * d_white;
    float *x = malloc(n * sizeof *x), *at = x;
    assert_non_null(x);
    for (int b = 0; b < n_block_white; b++) {
        double content[d_white];
        for (int j = 0; j < d_white; j++)
            content[j] = rng_normal(r);
        for (int t = 0; t < block_white; t++, at += d_white)
            for (int j = 0; j < d_white / 2; j++) {
                const double a = t * pow(base, -2.0 * j / d_white), c = cos(a), s = sin(a);
                at[j] = (float)(content[j] * c - content[j + 64] * s);
                at[j + 64] = (float)(content[j] * s + content[j + 64] * c);
            }
    }
    return x;
}

static void check_white(double base, double tau_h, double tau_l)
{
    rng r = {(uint64_t)base};
    float *q = white_tokens(base, &r), *k = white_tokens(base, &r);
    prism_rope rope;
    prism_bands bands;
    prism_rope_init(&rope, d_white);
    prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, d_white, base);
    assert_ok(prism_bands_split(&bands, &rope, 64, 96));
    prism_call call;
    prism_call_init(&call);
    call.n_head = call.n_kv_head = 1;
    call.d_head = d_white;
    call.n_q = call.n_kv = n_block_white * block_white;
    call.q = prism_tensor_token_major(q, PRISM_F32, call.n_q, 1, d_white);
    call.k = prism_tensor_token_major(k, PRISM_F32, call.n_q, 1, d_white);
    const prism_problem p = {.call = &call,
                             .block_size = block_white,
                             .group = 1,
                             .n_qblk = n_block_white,
                             .n_kblk = n_block_white,
                             .n_row = n_block_white,
                             .n_word = 8,
                             .scale = 1 / sqrtf(d_white)};
    static float q_mean[n_block_white * d_white], k_mean[n_block_white * d_white], sum[n_block_white * d_white];
    static float factor[n_block_white * PRISM_MAX_BAND];
    static prism_energy k_upto[n_block_white];
    prism_pooled pooled = {.struct_size = sizeof pooled,
                           .n_kv_head = 1,
                           .d_head = d_white,
                           .block_size = block_white,
                           .n_token_max = call.n_q,
                           .key_sum = sum};
    prism_ctx *ctx;
    assert_ok(prism_create(NULL, &ctx));
    ctx->backend->pool(
        ctx, &(prism_pool_job){.problem = &p, .bands = &bands, .pooled = &pooled, .q_mean = q_mean, .k_mean = k_mean});
    prism_calibrate_cpu(&(prism_select_job){.problem = &p, .q_mean = q_mean, .k_mean = k_mean, .bands = &bands}, factor,
                        k_upto);
    /* The prediction is for infinitely many blocks; 512 of 128 dimensions leave about 0.6 %. */
    assert_near(1 / (factor[0] * sqrt(64)), tau_h, 0.02 * tau_h);
    assert_near(1 / (factor[1] * sqrt(96)), tau_l, 0.02 * tau_l);
    prism_destroy(ctx);
    free(q);
    free(k);
}

static void test_white_noise(void **state)
{
    (void)state;
    check_white(1e6, 0.415, 1.151);
    check_white(5e5, 0.394, 1.152);
    check_white(1e4, 0.185, 1.153);
}

/* ----------------------------------------------------------------------------------------------- top-p ---- */

enum { max_row = 200 };

static void check_topp(const float *weight, int n, float p)
{
    uint64_t fixed[max_row], bits[max_row / 64 + 1] = {0};
    double prob[max_row], total = 0, mass = 0, least = 2;
    bool keep[max_row];
    int n_kept = 0;
    prism_topp_row(weight, n, p, fixed, bits);
    for (int v = 0; v < n; v++)
        total += weight[v];
    for (int v = 0; v < n; v++)
        prob[v] = weight[v] / 64.0; /* exact; the target is scaled instead of dividing by the total */
    oracle_topp(prob, n, (double)p * (total / 64), keep);
    for (int v = 0; v < n; v++) {
        const bool got = bits[v / 64] >> v % 64 & 1;
        assert_int_equal(got, keep[v] || p >= 1);
        mass += got ? weight[v] : 0;
        least = got && weight[v] < least ? weight[v] : least;
        n_kept += got;
    }
    assert_true(n_kept >= 1 && mass >= (double)p * total);
    assert_true(p >= 1 || mass - least < (double)p * total); /* none could be left out */
}

static void test_topp(void **state)
{
    (void)state;
    static const float p[] = {1e-6f, 0.1f, 0.37f, 0.5f, 0.75f, 0.9f, 0.95f, 0.999f, 1.0f};
    rng r = {7};
    for (int round = 0; round < 20000; round++) {
        float weight[max_row];
        const int n = rng_range(&r, 1, max_row), levels = rng_range(&r, 0, 3) ? 1 << 10 : 4;
        for (int v = 0; v < n; v++) /* few levels: many ties; dyadic, so that every sum is exact */
            weight[v] = (float)rng_range(&r, 0, levels) / (float)levels;
        weight[rng_range(&r, 0, n - 1)] = 1;
        check_topp(weight, n, p[round % 9]);
    }
}

/* ---------------------------------------------------------------------------------------- 16-bit floats ---- */

static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && !signbit(a) == !signbit(b));
}

static void check_encode(float f)
{
    uint16_t want;
    value_encode(PRISM_F16, f, &want);
    if (isnan(f))
        assert_true(isnan(prism_f16_to_f32(prism_f32_to_f16(f))) && isnan(prism_bf16_to_f32(prism_f32_to_bf16(f))));
    else if (prism_f32_to_f16(f) != want)
        fail_msg("f16 of %.9g is %04x, want %04x", (double)f, prism_f32_to_f16(f), want);
#if defined(__FLT16_MAX__)
    const _Float16 native = (_Float16)f;
    memcpy(&want, &native, 2);
    assert_true(isnan(f) || prism_f32_to_f16(f) == want);
#endif
    value_encode(PRISM_BF16, f, &want);
    if (!isnan(f) && prism_f32_to_bf16(f) != want)
        fail_msg("bf16 of %.9g is %04x, want %04x", (double)f, prism_f32_to_bf16(f), want);
}

/* Every 16-bit pattern, back and forth, and the floats around every midpoint between neighbours. */
static void test_halves(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        const uint16_t h = (uint16_t)i, next = (uint16_t)(i + 1);
        const float f16 = prism_f16_to_f32(h), bf16 = prism_bf16_to_f32(h);
        assert_true(same(f16, value_decode(PRISM_F16, &h)));
        assert_true(same(bf16, value_decode(PRISM_BF16, &h)));
        if (!isnan(f16))
            assert_int_equal(prism_f32_to_f16(f16), h);
        if (!isnan(bf16))
            assert_int_equal(prism_f32_to_bf16(bf16), h);
        const float mid[] = {(float)(0.5 * ((double)f16 + prism_f16_to_f32(next))),
                             (float)(0.5 * ((double)bf16 + prism_bf16_to_f32(next)))};
        for (int m = 0; m < 2; m++) {
            check_encode(mid[m]);
            check_encode(nextafterf(mid[m], INFINITY));
            check_encode(nextafterf(mid[m], -INFINITY));
        }
    }
}

static void test_halves_random(void **state)
{
    (void)state;
    rng r = {3};
    for (int i = 0; i < 3000000; i++)
        check_encode(prism_float_from_bits((uint32_t)rng_next(&r)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector_oracle), cmocka_unit_test(test_vector_probabilities),
        cmocka_unit_test(test_vector_stages), cmocka_unit_test(test_white_noise),
        cmocka_unit_test(test_topp),          cmocka_unit_test(test_halves),
        cmocka_unit_test(test_halves_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
