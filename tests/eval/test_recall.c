/* Recall against brute force: masses, errors, densities and the oracle computed the obvious way. */
#include "tests/lm/lm_test.h"

#include "eval/exact.h"
#include "eval/recall.h"
#include "eval/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 700, N_HEAD = 4, N_KV = 2, D = 64, Q_START = 300, N_Q = N - Q_START, B = 64 };

static float q[N_Q][N_HEAD][D], k[N][N_KV][D], v[N][N_KV][D];
static double p[N_HEAD][N_Q][N], o[N_HEAD][N_Q][D]; /* probabilities and outputs */

static float noise(eval_rng *rng, double size)
{
    return (float)(size * ((double)(eval_rng_next(rng) >> 11) * 0x1p-53 - 0.5));
}

static prism_call make_call(void)
{
    eval_rng rng = {7};
    prism_call call;
    for (float *at = &q[0][0][0]; at < &q[0][0][0] + N_Q * N_HEAD * D; at++)
        *at = noise(&rng, 6);
    for (float *at = &k[0][0][0]; at < &k[0][0][0] + N * N_KV * D; at++)
        *at = noise(&rng, 3);
    for (float *at = &v[0][0][0]; at < &v[0][0][0] + N * N_KV * D; at++)
        *at = noise(&rng, 2);
    prism_call_init(&call);
    call.n_seq = 1;
    call.n_head = N_HEAD;
    call.n_kv_head = N_KV;
    call.d_head = D;
    call.n_q = N_Q;
    call.n_kv = N;
    call.q_start = Q_START;
    call.q = prism_tensor_token_major(q, PRISM_F32, N_Q, N_HEAD, D);
    call.k = prism_tensor_token_major(k, PRISM_F32, N, N_KV, D);
    call.v = prism_tensor_token_major(v, PRISM_F32, N, N_KV, D);
    return call;
}

static void brute_force(void)
{
    for (int h = 0; h < N_HEAD; h++)
        for (int i = 0; i < N_Q; i++) {
            const int g = h / (N_HEAD / N_KV), last = Q_START + i;
            double sum = 0;
            memset(p[h][i], 0, sizeof p[h][i]);
            memset(o[h][i], 0, sizeof o[h][i]);
            for (int j = 0; j <= last; j++) {
                double s = 0;
                for (int x = 0; x < D; x++)
                    s += (double)q[i][h][x] * (double)k[j][g][x];
                sum += p[h][i][j] = exp(s / sqrt(D)); /* logits below 40: nothing overflows */
            }
            for (int j = 0; j <= last; j++) {
                p[h][i][j] /= sum;
                for (int x = 0; x < D; x++)
                    o[h][i][x] += p[h][i][j] * (double)v[j][g][x];
            }
        }
}

static void exact_rows(void **state)
{
    (void)state;
    const prism_call call = make_call();
    brute_force();
    static double got_o[N_Q * D], mass[N];
    for (int h = 0; h < N_HEAD; h++) {
        eval_exact_kv kv;
        ok(eval_exact_kv_load(&call, h / 2, &kv, &err));
        ok(eval_exact_rows(&call, h, 17, 90, &kv, got_o, mass, &err));
        for (int i = 0; i < 90; i++)
            for (int x = 0; x < D; x++)
                assert_float_equal(got_o[i * D + x], o[h][17 + i][x], 1e-12);
        for (int j = 0; j < N; j++) {
            double want = 0;
            for (int i = 17; i < 107; i++)
                want += p[h][i][j] / 90;
            assert_float_equal(mass[j], want, 1e-13);
        }
        eval_exact_kv_free(&kv);
    }
}

/* The plan that the library builds, as a mask. */
static uint8_t *mask_of(prism_ctx *ctx, const prism_call *call, const prism_options *options, int n_qblk, int n_kblk)
{
    prism_plan *plan;
    size_t bytes;
    prism_options always = *options;
    always.min_tokens = 0;
    assert_int_equal(prism_workspace_bytes(ctx, &always, call, &bytes), PRISM_OK);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_int_equal(prism_plan_create(ctx, call, B, 0, &plan), PRISM_OK);
    assert_int_equal(prism_plan_build(ctx, &always, call, plan, workspace, bytes), PRISM_OK);
    const size_t n = (size_t)N_HEAD * (size_t)n_qblk * (size_t)n_kblk;
    uint8_t *mask = malloc(n);
    assert_int_equal(prism_plan_mask(plan, mask, n), PRISM_OK);
    prism_plan_destroy(plan);
    free(workspace);
    return mask;
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static eval_recall_head expected(const uint8_t *mask, int h, int n_qblk, int n_kblk)
{
    eval_recall_head e = {0};
    double error = 0, norm = 0, causal = 0;
    for (int r = 0; r < n_qblk; r++) {
        const int kblk = Q_START / B + r;
        const uint8_t *row = mask + ((size_t)h * (size_t)n_qblk + (size_t)r) * (size_t)n_kblk;
        double blocks[N / B + 1] = {0}, kept = 0, sum = 0;
        int n_query = 0;
        for (int i = 0; i < N_Q; i++) {
            if ((Q_START + i) / B != kblk)
                continue;
            double out[D] = {0}, mine = 0;
            n_query++;
            for (int j = 0; j <= Q_START + i; j++) {
                blocks[j / B] += p[h][i][j];
                if (!row[j / B])
                    continue;
                mine += p[h][i][j];
                for (int x = 0; x < D; x++)
                    out[x] += p[h][i][j] * (double)v[j][h / 2][x];
            }
            kept += mine;
            for (int x = 0; x < D; x++) {
                error += pow(out[x] / mine - o[h][i][x], 2);
                norm += pow(o[h][i][x], 2);
            }
        }
        e.mass += kept / N_Q;
        qsort(blocks, (size_t)kblk + 1, sizeof *blocks, descending);
        int n = 0;
        while (n <= kblk && sum < kept * (1 - 1e-12))
            sum += blocks[n++];
        e.oracle += n;
        for (int j = 0; j <= kblk; j++)
            e.density += row[j];
        causal += kblk + 1;
    }
    e.error = sqrt(error / norm);
    e.density /= causal;
    e.oracle /= causal;
    return e;
}

static void measures(void **state)
{
    (void)state;
    const prism_call call = make_call();
    prism_ctx *ctx;
    eval_methods methods;
    prism_rope rope;
    prism_bands bands;
    brute_force();
    assert_int_equal(prism_create(NULL, &ctx), PRISM_OK);
    assert_int_equal(prism_rope_init(&rope, D), PRISM_OK);
    assert_int_equal(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, D, 1e6), PRISM_OK);
    assert_int_equal(prism_bands_split(&bands, &rope, 32, 48), PRISM_OK);
    ok(eval_methods_parse("dense:block_size=64,prism:block_size=64:top_p=0.5,meanpool:block_size=64:top_p=0.3,dense",
                          NULL, &methods, &err));
    for (int m = 0; m < methods.n; m++) {
        methods.items[m].options.bands = &bands;
        methods.items[m].options.min_tokens = 0;
    }
    eval_recall_head got[4][N_HEAD];
    ok(eval_recall_measure(ctx, &call, &methods, 0, got[0], &err));
    const int n_kblk = (N + B - 1) / B, n_qblk = n_kblk - Q_START / B;
    for (int m = 0; m < 3; m++) {
        uint8_t *mask = mask_of(ctx, &call, &methods.items[m].options, n_qblk, n_kblk);
        for (int h = 0; h < N_HEAD; h++) {
            const eval_recall_head want = expected(mask, h, n_qblk, n_kblk);
            assert_float_equal(got[m][h].mass, want.mass, 1e-9);
            assert_float_equal(got[m][h].density, want.density, 1e-12);
            assert_float_equal(got[m][h].oracle, want.oracle, 1e-12);
            assert_float_equal(got[m][h].error, want.error, 1e-4); /* the method's kernel is float32 */
        }
        free(mask);
    }
    assert_float_equal(got[3][0].mass, 1, 1e-12); /* dense, in blocks of 128 */
    assert_float_equal(got[3][0].density, 1, 1e-12);
    assert_true(got[1][0].density < 1 && got[1][0].oracle <= got[1][0].density);

    eval_recall_head some[4][N_HEAD]; /* two rows a head, the last among them */
    ok(eval_recall_measure(ctx, &call, &methods, 2, some[0], &err));
    assert_float_equal(some[0][0].mass, 1, 1e-12);
    assert_true(some[1][0].mass > 0 && some[1][0].mass < 1);
    eval_methods_free(&methods);
    prism_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exact_rows), cmocka_unit_test(measures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
