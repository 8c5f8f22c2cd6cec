/*
 * The inner loops of one CPU tier. tier_c.c fills the table first; a tier overrides what it does better.
 * docs/howto/cpu-tier.md says how to add one.
 *
 * Attention over a block is two small matrix products, Q K^T and P V, and so are block scores: one gemm kernel serves
 * all three. Its right operand is packed in panels of `panel` columns: panel c holds columns [c * panel, ...) as
 * [k][panel], columns beyond the matrix zero.
 */
#ifndef PRISM_CPU_TIER_H
#define PRISM_CPU_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include "prism_attn/prism.h"

enum { PRISM_N_DTYPE = 4, PRISM_MAX_PANEL = 64, PRISM_MAX_BLOCK = 128 };

/* Online softmax of one row, in base 2: max of the logits so far, sum of 2^(logit - max). */
typedef struct prism_softmax {
    float max, sum;
} prism_softmax;

/* Attention of a tile of queries over some blocks of n keys each, in bfloat16: logits = query keys, weights,
 * output = alpha output + weights values. */
typedef struct prism_key_block {
    const uint16_t *key, *value; /* packed as in gemm_bf16 */
} prism_key_block;

typedef struct prism_tile_bf16 {
    const uint16_t *query; /* [m][depth] */
    const prism_key_block *block;
    int32_t n_block, m, n, depth, d_pad;
    float scale;
    const int32_t *n_valid; /* [m] keys that a row sees of the only block; NULL: every row sees every key */
    float *logit;           /* scratch, [n][n] */
    float *output;          /* [m][d_pad] */
    prism_softmax *state;   /* [m] */
} prism_tile_bf16;

typedef struct prism_tier {
    const char *name;
    prism_isa isa;
    int32_t panel;

    /* dst[j] = src[j] as float32; sum[j] += src[j]. Rows are contiguous, aligned to their elements; of PRISM_Q8_0 n is
     * a multiple of 32. */
    void (*load_row[PRISM_N_DTYPE])(float *dst, const void *src, int32_t n);
    void (*add_row[PRISM_N_DTYPE])(float *sum, const void *src, int32_t n);
    /* dst[j] = src[j] * factor, rounded to nearest even; never to PRISM_Q8_0. */
    void (*store_row[PRISM_N_DTYPE])(void *dst, const float *src, int32_t n, float factor);

    /* c[i][j] = (alpha ? alpha[i] * c[i][j] : 0) + sum over l < k of a[i][l] * b[l][j], for i < m and j < n.
     * Assumptions: n a multiple of panel; b packed and 64-byte aligned; c rows 64-byte aligned (ldc a multiple of 16).
     */
    void (*gemm)(float *c, int64_t ldc, const float *alpha, const float *a, int64_t lda, const float *b, int32_t m,
                 int32_t n, int32_t k);

    /* Few rows against unpacked ones: y[i] = a[i] . x for i < m; y = alpha * y + sum over i < m of w[i] * a[i]. */
    void (*dot_rows)(float *y, const float *a, int64_t lda, const float *x, int32_t m, int32_t k);
    void (*sum_rows)(float *y, float alpha, const float *w, const float *a, int64_t lda, int32_t m, int32_t n);

    /* One block of one tile of rows. logit[i][j], base 2, j < n_valid[i] counts; becomes 2^(logit - max), and 0 for
     * n_valid[i] <= j < n. alpha[i] = what earlier sums and outputs must be scaled by. n a multiple of panel. */
    void (*softmax)(float *logit, int64_t ld, int32_t m, int32_t n, const int32_t *n_valid, prism_softmax *state,
                    float *alpha);

    /* Products of bfloat16 with sums in float32, in tiers that have such dot products; else NULL. As gemm, but b is
     * packed in panels of panel_bf16 columns of pairs of rows, [k / 2][panel_bf16][2], k a multiple of depth_bf16, n of
     * panel_bf16; and weights that stand beside the logits:
     * weight = 2^(scale * logit - max), rounded to bfloat16 after it was summed. Subnormal operands and sums are 0. */
    int32_t depth_bf16, panel_bf16;
    void (*gemm_bf16)(float *c, int64_t ldc, const float *alpha, const uint16_t *a, int64_t lda, const uint16_t *b,
                      int32_t m, int32_t n, int32_t k);
    void (*softmax_bf16)(uint16_t *weight, float *logit, int64_t ld, int32_t m, int32_t n, float scale,
                         const int32_t *n_valid, prism_softmax *state, float *alpha);

    /* The three steps in one, where a tier gains by it; else NULL. m is a multiple of 32, n of 64. Of a single block it
     * gives the bits that gemm_bf16, softmax_bf16 and gemm_bf16 give. */
    void (*attend_bf16)(const prism_tile_bf16 *tile);

    /* x[j] *= factor; returns the largest; *finite = all of them are. */
    float (*scale_max)(float *x, int32_t n, float factor, bool *finite);
    /* x[j] = e^(x[j] - max) */
    void (*exp_row)(float *x, int32_t n, float max);

    /* x[j] += bias[j] + min(half * spread[j] / sqrt(1 + slow * spread[j]), cap), and cap where that is NaN. spread NULL:
     * only the bias.
     * sum[j] += factor * a[j] * b[j]^1.5, b not negative. n a multiple of panel. */
    void (*add_spread)(float *x, const float *spread, const float *bias, int32_t n, float half, float slow,
                       float cap);
    void (*add_error)(float *sum, const float *a, const float *b, int32_t n, float factor);
} prism_tier;

void prism_tier_c(prism_tier *k);
#if defined(__x86_64__)
void prism_tier_avx2(prism_tier *k);   /* AVX2, FMA, F16C */
void prism_tier_avx512(prism_tier *k); /* AVX-512 F, BW, DQ, VL */
void prism_tier_avx512bf16(prism_tier *k);
void prism_tier_amx(prism_tier *k); /* AMX-TILE, AMX-BF16 */
#elif defined(__aarch64__)
void prism_tier_neon(prism_tier *k);
void prism_tier_neonbf16(prism_tier *k);
#endif

#endif
