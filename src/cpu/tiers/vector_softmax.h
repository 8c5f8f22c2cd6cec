/*
 * What the softmaxes of every tier share; written in the vocabulary of vectors that was included before it:
 *   VL, VF        floats in a vector, the vector type      NV   vectors in a panel
 *   LOAD STORE SET1 ADD MUL FMA(a, b, c) = a * b + c MAX (the second operand if either is NaN)  SUM RMAX across lanes
 *   LOAD_F16 LOAD_BF16 STORE_F16 STORE_BF16                 NOT_FINITE(x) true if any lane is infinite or NaN
 *   EXP2_PARTS(x, poly) for x <= 0: poly of x's rest in [-1/2, 1/2], times 2 to its whole part. NaN stays NaN, below
 *                 -126: 0 or nearly
 */
#ifndef PRISM_CPU_VECTOR_SOFTMAX_H
#define PRISM_CPU_VECTOR_SOFTMAX_H

#include <math.h>

#include "cpu/tiers/tier.h"

/* Rows whose maxima are found before any weight: their sums across lanes, each slow, then run side by side. */
enum { TILE_ROWS = 16 };

/* Minimax of 2^r on [-1/2, 1/2], degree 6, exactly 1 at 0: relative error 2e-9, 7.5e-8 in float arithmetic. */
static inline VF exp2_poly(VF r)
{
    VF p = SET1(1.5353362e-4f);
    p = FMA(p, r, SET1(1.3398874e-3f));
    p = FMA(p, r, SET1(9.6184373e-3f));
    p = FMA(p, r, SET1(5.5503324e-2f));
    p = FMA(p, r, SET1(2.4022648e-1f));
    p = FMA(p, r, SET1(6.9314718e-1f));
    return FMA(p, r, SET1(1.0f));
}

#define EXP2(x) EXP2_PARTS(x, exp2_poly)

static inline float row_max(const float *x, int32_t n)
{
    VF max = SET1(-INFINITY);
    int32_t j = 0;
    for (; j + VL <= n; j += VL)
        max = MAX(max, LOAD(x + j));
    float m = RMAX(max);
    for (; j < n; j++)
        m = x[j] > m ? x[j] : m;
    return m;
}

/* Up to TILE_ROWS rows before their weights: columns that do not count become -inf, so that the loops over weights need
 * no tail; state->max moves to the largest of scale * logit, base is what to subtract from scale * logit, and alpha
 * shrinks what was summed before, state->sum among it. */
static inline void start_rows(float *logit, int64_t ld, int32_t n_row, int32_t n, float scale, const int32_t *n_valid,
                              prism_softmax *state, float *alpha, float base[TILE_ROWS])
{
    float shrink[TILE_ROWS];
    for (int32_t i = 0; i < n_row; i++) {
        float *x = logit + i * ld;
        for (int32_t j = n_valid[i]; j < n; j++)
            x[j] = -INFINITY;
        base[i] = row_max(x, n) * scale;
    }
    for (int32_t i = n_row; i < TILE_ROWS; i++)
        shrink[i] = 0;
    for (int32_t i = 0; i < n_row; i++) {
        const float max = base[i] > state[i].max ? base[i] : state[i].max;
        base[i] = max == -INFINITY ? 0.0f : max; /* nothing but -inf so far: every weight is 0 */
        shrink[i] = state[i].max - base[i];
        state[i].max = max;
    }
    for (int32_t i = 0; i < TILE_ROWS; i += VL)
        STORE(shrink + i, EXP2(LOAD(shrink + i)));
    for (int32_t i = 0; i < n_row; i++) {
        alpha[i] = shrink[i];
        state[i].sum *= shrink[i];
    }
}

#endif
