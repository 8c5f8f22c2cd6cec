/*
 * The float32 kernels of every tier with vectors: one text, compiled once per tier. The including file has included a
 * vocabulary first (vector_avx2.h, vector_avx512.h, vector_neon.h) and defines
 *   SUFFIX(name)  the kernel's name in this tier
 */
#include <math.h>
#include <string.h>

#include "core/half.h"
#include "cpu/tiers/tier.h"
#include "cpu/tiers/vector_softmax.h"

enum { PANEL = NV * VL, MR = 6 }; /* 6 x NV accumulators and NV + 1 operands fit the register file */

/* ------------------------------------------------------------------------------------------------- rows ---- */

static void SUFFIX(load_row_f16)(float *dst, const void *src, int32_t n)
{
    const uint16_t *x = src;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(dst + j, LOAD_F16(x + j));
    for (; j < n; j++)
        dst[j] = prism_f16_to_f32(x[j]);
}

static void SUFFIX(load_row_bf16)(float *dst, const void *src, int32_t n)
{
    const uint16_t *x = src;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(dst + j, LOAD_BF16(x + j));
    for (; j < n; j++)
        dst[j] = prism_bf16_to_f32(x[j]);
}

static void SUFFIX(add_row_f32)(float *sum, const void *src, int32_t n)
{
    const float *x = src;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(sum + j, ADD(LOAD(sum + j), LOAD(x + j)));
    for (; j < n; j++)
        sum[j] += x[j];
}

static void SUFFIX(add_row_f16)(float *sum, const void *src, int32_t n)
{
    const uint16_t *x = src;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(sum + j, ADD(LOAD(sum + j), LOAD_F16(x + j)));
    for (; j < n; j++)
        sum[j] += prism_f16_to_f32(x[j]);
}

static void SUFFIX(add_row_bf16)(float *sum, const void *src, int32_t n)
{
    const uint16_t *x = src;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(sum + j, ADD(LOAD(sum + j), LOAD_BF16(x + j)));
    for (; j < n; j++)
        sum[j] += prism_bf16_to_f32(x[j]);
}

static void SUFFIX(store_row_f32)(void *dst, const float *src, int32_t n, float factor)
{
    float *y = dst;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(y + j, MUL(LOAD(src + j), SET1(factor)));
    for (; j < n; j++)
        y[j] = src[j] * factor;
}

static void SUFFIX(store_row_f16)(void *dst, const float *src, int32_t n, float factor)
{
    uint16_t *y = dst;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE_F16(y + j, MUL(LOAD(src + j), SET1(factor)));
    for (; j < n; j++)
        y[j] = prism_f32_to_f16(src[j] * factor);
}

static void SUFFIX(store_row_bf16)(void *dst, const float *src, int32_t n, float factor)
{
    uint16_t *y = dst;
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE_BF16(y + j, MUL(LOAD(src + j), SET1(factor)));
    for (; j < n; j++)
        y[j] = prism_f32_to_bf16(src[j] * factor);
}

/* ------------------------------------------------------------------------------------------------- gemm ---- */

/* mr rows of one panel. mr is a constant at every call, so that the accumulators stay in registers. */
static inline __attribute__((always_inline)) void SUFFIX(gemm_tile)(float *c, int64_t ldc, const float *alpha,
                                                                    const float *a, int64_t lda, const float *b,
                                                                    int32_t k, const int mr)
{
    VF acc[MR][NV];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            acc[i][v] = alpha ? MUL(SET1(alpha[i]), LOAD(c + i * ldc + v * VL)) : SET1(0.0f);
    for (int32_t l = 0; l < k; l++, b += PANEL) {
        VF x[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            x[v] = LOAD(b + v * VL);
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
            const VF w = SET1(a[i * lda + l]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                acc[i][v] = FMA(w, x[v], acc[i][v]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            STORE(c + i * ldc + v * VL, acc[i][v]);
}

static void SUFFIX(gemm)(float *c, int64_t ldc, const float *alpha, const float *a, int64_t lda, const float *b,
                         int32_t m, int32_t n, int32_t k)
{
    for (int32_t j = 0; j < n; j += PANEL, b += (int64_t)PANEL * k) {
        int32_t i = 0;
        for (; i + MR <= m; i += MR)
            SUFFIX(gemm_tile)(c + i * ldc + j, ldc, alpha ? alpha + i : NULL, a + i * lda, lda, b, k, MR);
        float *ci = c + i * ldc + j;
        const float *si = alpha ? alpha + i : NULL, *ai = a + i * lda;
        switch (m - i) {
        case 5: SUFFIX(gemm_tile)(ci, ldc, si, ai, lda, b, k, 5); break;
        case 4: SUFFIX(gemm_tile)(ci, ldc, si, ai, lda, b, k, 4); break;
        case 3: SUFFIX(gemm_tile)(ci, ldc, si, ai, lda, b, k, 3); break;
        case 2: SUFFIX(gemm_tile)(ci, ldc, si, ai, lda, b, k, 2); break;
        case 1: SUFFIX(gemm_tile)(ci, ldc, si, ai, lda, b, k, 1); break;
        default: break;
        }
    }
}

/* Few rows against unpacked ones: y[i] = a[i] . x */
static void SUFFIX(dot_rows)(float *y, const float *a, int64_t lda, const float *x, int32_t m, int32_t k)
{
    for (int32_t i = 0; i < m; i++) {
        VF s0 = SET1(0.0f), s1 = SET1(0.0f);
        int32_t l = 0;
        for (; l + 2 * VL <= k; l += 2 * VL) {
            s0 = FMA(LOAD(a + i * lda + l), LOAD(x + l), s0);
            s1 = FMA(LOAD(a + i * lda + l + VL), LOAD(x + l + VL), s1);
        }
        float sum = SUM(ADD(s0, s1));
        for (; l < k; l++)
            sum += a[i * lda + l] * x[l];
        y[i] = sum;
    }
}

/* y = alpha * y + sum over i of w[i] * a[i] */
static void SUFFIX(sum_rows)(float *y, float alpha, const float *w, const float *a, int64_t lda, int32_t m, int32_t n)
{
    int32_t j = 0;
    for (; j + 2 * VL <= n; j += 2 * VL) {
        VF s0 = MUL(SET1(alpha), LOAD(y + j)), s1 = MUL(SET1(alpha), LOAD(y + j + VL));
        for (int32_t i = 0; i < m; i++) {
            s0 = FMA(SET1(w[i]), LOAD(a + i * lda + j), s0);
            s1 = FMA(SET1(w[i]), LOAD(a + i * lda + j + VL), s1);
        }
        STORE(y + j, s0);
        STORE(y + j + VL, s1);
    }
    for (; j < n; j++) {
        float s = alpha * y[j];
        for (int32_t i = 0; i < m; i++)
            s += w[i] * a[i * lda + j];
        y[j] = s;
    }
}

/* --------------------------------------------------------------------------------------------- softmax ---- */

static void SUFFIX(softmax)(float *logit, int64_t ld, int32_t m, int32_t n, const int32_t *n_valid,
                            prism_softmax *state, float *alpha)
{
    float base[TILE_ROWS];
    for (int32_t first = 0; first < m; first += TILE_ROWS) {
        const int32_t n_row = m - first < TILE_ROWS ? m - first : TILE_ROWS;
        start_rows(logit + first * ld, ld, n_row, n, 1.0f, n_valid + first, state + first, alpha + first, base);
        for (int32_t i = 0; i < n_row; i++) {
            float *x = logit + (first + i) * ld;
            const VF shift = SET1(-base[i]);
            VF sum = SET1(0.0f);
            for (int32_t j = 0; j < n; j += VL) {
                const VF w = EXP2(ADD(LOAD(x + j), shift));
                STORE(x + j, w);
                sum = ADD(sum, w);
            }
            state[first + i].sum += SUM(sum);
        }
    }
}

static float SUFFIX(scale_max)(float *x, int32_t n, float factor, bool *finite)
{
    bool bad = false;
    int32_t j = 0;
    for (; j + VL <= n; j += VL) {
        const VF y = MUL(LOAD(x + j), SET1(factor));
        bad |= NOT_FINITE(y);
        STORE(x + j, y);
    }
    for (; j < n; j++) {
        x[j] *= factor;
        bad |= !isfinite(x[j]);
    }
    *finite = !bad;
    return row_max(x, n);
}

static void SUFFIX(exp_row)(float *x, int32_t n, float max)
{
    const VF log2e = SET1(1.44269504f), base = SET1(-max);
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        STORE(x + j, EXP2(MUL(ADD(LOAD(x + j), base), log2e)));
    if (j < n) { /* the same arithmetic for the tail: equal scores must stay equal weights, or ties go astray */
        float tail[VL] = {0};
        memcpy(tail, x + j, (size_t)(n - j) * sizeof *x);
        STORE(tail, EXP2(MUL(ADD(LOAD(tail), base), log2e)));
        memcpy(x + j, tail, (size_t)(n - j) * sizeof *x);
    }
}

static void SUFFIX(add_spread)(float *x, const float *spread, const float *bias, int32_t n, float half, float slow,
                               float cap)
{
    const VF one = SET1(1.0f), minus = SET1(-1.0f);
    for (int32_t j = 0; j < n; j += VL) {
        VF y = ADD(LOAD(x + j), LOAD(bias + j));
        if (spread) { /* MAX returns its second operand where the first is NaN */
            const VF s = LOAD(spread + j), fall = DIV(MUL(s, SET1(-half)), SQRT(FMA(s, SET1(slow), one)));
            y = FMA(MAX(fall, SET1(-cap)), minus, y);
        }
        STORE(x + j, y);
    }
}

static void SUFFIX(add_error)(float *sum, const float *a, const float *b, int32_t n, float factor)
{
    for (int32_t j = 0; j < n; j += VL) {
        const VF x = LOAD(b + j);
        STORE(sum + j, FMA(MUL(LOAD(a + j), SET1(factor)), MUL(x, SQRT(x)), LOAD(sum + j)));
    }
}

static inline void SUFFIX(prism_cpu_kernels_fill)(prism_tier *k)
{
    k->panel = PANEL;
    k->load_row[PRISM_F16] = SUFFIX(load_row_f16);
    k->load_row[PRISM_BF16] = SUFFIX(load_row_bf16);
    k->add_row[PRISM_F32] = SUFFIX(add_row_f32);
    k->add_row[PRISM_F16] = SUFFIX(add_row_f16);
    k->add_row[PRISM_BF16] = SUFFIX(add_row_bf16);
    k->store_row[PRISM_F32] = SUFFIX(store_row_f32);
    k->store_row[PRISM_F16] = SUFFIX(store_row_f16);
    k->store_row[PRISM_BF16] = SUFFIX(store_row_bf16);
    k->gemm = SUFFIX(gemm);
    k->dot_rows = SUFFIX(dot_rows);
    k->sum_rows = SUFFIX(sum_rows);
    k->softmax = SUFFIX(softmax);
    k->scale_max = SUFFIX(scale_max);
    k->exp_row = SUFFIX(exp_row);
    k->add_spread = SUFFIX(add_spread);
    k->add_error = SUFFIX(add_error);
}
