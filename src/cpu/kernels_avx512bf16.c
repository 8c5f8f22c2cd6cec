/* AVX-512-BF16 tier: the AVX-512 tier's kernels, and dot products of pairs of bfloat16. */
#include "cpu/vector_avx512.h"

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

/* 2^whole(x) times a minimax of 2^r on [0, 1) of degree 4, exactly 1 at 0: relative error 2.9e-6, a thousandth of what
 * rounding to bfloat16 adds. The whole part is that of floor, for both instructions; NaN stays NaN, -inf gives 0. */
static inline __m512 exp2_weight(__m512 x)
{
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
    __m512 p = _mm512_set1_ps(1.34266855e-2f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.22424722e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.41280206e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93044845e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

#include "cpu/vector_bf16.h"

void prism_cpu_kernels_avx512bf16(prism_cpu_kernels *k)
{
    k->depth_bf16 = 2;
    k->gemm_bf16 = gemm_bf16_avx512bf16;
    k->softmax_bf16 = softmax_bf16_avx512bf16;
}
