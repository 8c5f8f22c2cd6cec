/* AVX-512-BF16 tier: the AVX-512 tier's kernels, and dot products of pairs of bfloat16. */
#include "cpu/tiers/vector_avx512.h"

#define SUFFIX(name) name##_avx512bf16
#define VH __m512bh
#define LOAD_PAIRS(p) ((__m512bh)_mm512_loadu_si512(p))
#define SET_PAIR(p) ((__m512bh)_mm512_set1_epi32(pair_at(p)))
#define DOT(acc, a, b) _mm512_dpbf16_ps(acc, a, b)
#define NARROW(p, x) _mm256_storeu_si256((__m256i *)(p), (__m256i)_mm512_cvtneps_pbh(x))
#define EXP2_WEIGHT(x) exp2_weight(x)

#include <string.h>

static inline int32_t pair_at(const void *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return pair;
}

#include "cpu/tiers/vector_exp2_weight.h"
#include "cpu/tiers/vector_bf16.h"

void prism_tier_avx512bf16(prism_tier *k)
{
    k->depth_bf16 = 2;
    k->panel_bf16 = PANEL;
    k->gemm_bf16 = gemm_bf16_avx512bf16;
    k->softmax_bf16 = softmax_bf16_avx512bf16;
}
