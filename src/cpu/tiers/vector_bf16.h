/*
 * The bfloat16 kernels of the tiers with vectors: products of pairs, and weights. The including file has included a
 * vocabulary first (vector_avx512.h, vector_neon.h) and defines
 *   SUFFIX(name)  the kernel's name in this tier
 *   VH, LOAD_PAIRS SET_PAIR        VL pairs of bfloat16; all lanes the pair at p
 *   DOT(acc, a, b)                 acc + a.first * b.first + a.second * b.second, lane by lane
 *   NARROW(p, x)                   VL floats, rounded to bfloat16, to p
 *   EXP2_WEIGHT(x)                 2^x as exactly as a weight needs (the file says how exactly)
 */
#include "cpu/tiers/vector_softmax.h"

enum { PANEL = NV * VL, MR = 6 };

/* mr rows of one panel. mr is a constant at every call, so that the accumulators stay in registers. */
static inline __attribute__((always_inline)) void SUFFIX(dot_tile)(float *c, int64_t ldc, const float *alpha,
                                                                   const uint16_t *a, int64_t lda, const uint16_t *b,
                                                                   int32_t k, const int mr)
{
    VF acc[MR][NV];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            acc[i][v] = alpha ? MUL(SET1(alpha[i]), LOAD(c + i * ldc + v * VL)) : SET1(0.0f);
    for (int32_t l = 0; l < k; l += 2, b += 2 * PANEL) {
        VH x[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            x[v] = LOAD_PAIRS(b + 2 * v * VL);
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
            const VH w = SET_PAIR(a + i * lda + l);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                acc[i][v] = DOT(acc[i][v], w, x[v]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            STORE(c + i * ldc + v * VL, acc[i][v]);
}

static void SUFFIX(gemm_bf16)(float *c, int64_t ldc, const float *alpha, const uint16_t *a, int64_t lda,
                              const uint16_t *b, int32_t m, int32_t n, int32_t k)
{
    for (int32_t j = 0; j < n; j += PANEL, b += (int64_t)PANEL * k) {
        int32_t i = 0;
        for (; i + MR <= m; i += MR)
            SUFFIX(dot_tile)(c + i * ldc + j, ldc, alpha ? alpha + i : NULL, a + i * lda, lda, b, k, MR);
        float *ci = c + i * ldc + j;
        const float *si = alpha ? alpha + i : NULL;
        const uint16_t *ai = a + i * lda;
        switch (m - i) {
        case 5: SUFFIX(dot_tile)(ci, ldc, si, ai, lda, b, k, 5); break;
        case 4: SUFFIX(dot_tile)(ci, ldc, si, ai, lda, b, k, 4); break;
        case 3: SUFFIX(dot_tile)(ci, ldc, si, ai, lda, b, k, 3); break;
        case 2: SUFFIX(dot_tile)(ci, ldc, si, ai, lda, b, k, 2); break;
        case 1: SUFFIX(dot_tile)(ci, ldc, si, ai, lda, b, k, 1); break;
        default: break;
        }
    }
}

static void SUFFIX(softmax_bf16)(uint16_t *weight, float *logit, int64_t ld, int32_t m, int32_t n, float scale,
                                 const int32_t *n_valid, prism_softmax *state, float *alpha)
{
    const VF factor = SET1(scale);
    float base[TILE_ROWS];
    for (int32_t first = 0; first < m; first += TILE_ROWS) {
        const int32_t n_row = m - first < TILE_ROWS ? m - first : TILE_ROWS;
        start_rows(logit + first * ld, ld, n_row, n, scale, n_valid + first, state + first, alpha + first, base);
        for (int32_t i = 0; i < n_row; i++) {
            const float *x = logit + (first + i) * ld;
            uint16_t *y = weight + (first + i) * ld;
            const VF shift = SET1(-base[i]);
            VF sum = SET1(0.0f);
            for (int32_t j = 0; j < n; j += VL) {
                const VF w = EXP2_WEIGHT(FMA(LOAD(x + j), factor, shift));
                NARROW(y + j, w);
                sum = ADD(sum, w);
            }
            state[first + i].sum += SUM(sum);
        }
    }
}
