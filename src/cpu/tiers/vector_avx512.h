/* The vocabulary of vector_softmax.h in AVX-512 (F, BW, DQ, VL). */
#ifndef PRISM_CPU_VECTOR_AVX512_H
#define PRISM_CPU_VECTOR_AVX512_H

#include <immintrin.h>

#define VL 16
#define NV 4
#define VF __m512
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define SET1(x) _mm512_set1_ps(x)
#define ADD(a, b) _mm512_add_ps(a, b)
#define MUL(a, b) _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MAX(a, b) _mm512_max_ps(a, b)
#define SQRT(x) _mm512_sqrt_ps(x)
#define DIV(a, b) _mm512_div_ps(a, b)
#define SUM(x) _mm512_reduce_add_ps(x)
#define RMAX(x) _mm512_reduce_max_ps(x)
#define LOAD_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define LOAD_BF16(p)                                                                                                   \
    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
#define STORE_F16(p, x)                                                                                                \
    _mm256_storeu_si256((__m256i *)(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define STORE_BF16(p, x) _mm256_storeu_si256((__m256i *)(p), to_bf16(x))
/* A clamp, so that the difference is not inf - inf; the second operand is returned when it is NaN. */
#define EXP2_PARTS(x, poly)                                                                                            \
    ({                                                                                                                 \
        const VF y_ = _mm512_max_ps(_mm512_set1_ps(-160.0f), x);                                                       \
        const VF whole_ = _mm512_roundscale_ps(y_, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);                     \
        _mm512_scalef_ps(poly(_mm512_sub_ps(y_, whole_)), whole_);                                                     \
    })
#define NOT_FINITE(x) (_mm512_fpclass_ps_mask(x, 0x99) != 0) /* quiet NaN, +inf, -inf, signalling NaN */

static inline __m256i to_bf16(__m512 x)
{
    const __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

#endif
