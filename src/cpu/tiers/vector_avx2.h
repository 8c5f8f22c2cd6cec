/* The vocabulary of vector_softmax.h in AVX2, FMA and F16C. */
#ifndef PRISM_CPU_VECTOR_AVX2_H
#define PRISM_CPU_VECTOR_AVX2_H

#include <immintrin.h>

#define VL 8
#define NV 2
#define VF __m256
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define SET1(x) _mm256_set1_ps(x)
#define ADD(a, b) _mm256_add_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MAX(a, b) _mm256_max_ps(a, b)
#define SQRT(x) _mm256_sqrt_ps(x)
#define DIV(a, b) _mm256_div_ps(a, b)
#define SUM(x) sum_lanes(x)
#define RMAX(x) max_lanes(x)
#define LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define LOAD_BF16(p)                                                                                                   \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))), 16))
#define STORE_F16(p, x)                                                                                                \
    _mm_storeu_si128((__m128i *)(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define STORE_BF16(p, x) _mm_storeu_si128((__m128i *)(p), to_bf16(x))
#define EXP2_PARTS(x, poly) exp2_scale(x, poly(exp2_rest(x)))
#define NOT_FINITE(x) any_not_finite(x)

static inline float sum_lanes(__m256 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float max_lanes(__m256 x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* x - x is 0 for a finite x and NaN for any other */
static inline int any_not_finite(__m256 x)
{
    const __m256 zero = _mm256_sub_ps(x, x);
    return _mm256_movemask_ps(_mm256_cmp_ps(zero, zero, _CMP_UNORD_Q)) != 0;
}

static inline __m128i to_bf16(__m256 x)
{
    const __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
}

static inline __m256 exp2_whole(__m256 x)
{
    x = _mm256_max_ps(_mm256_set1_ps(-126.0f), x); /* the second operand is returned when it is NaN */
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m256 exp2_rest(__m256 x)
{
    return _mm256_sub_ps(_mm256_max_ps(_mm256_set1_ps(-126.0f), x), exp2_whole(x));
}

/* p * 2^whole(x); 0 below -126 */
static inline __m256 exp2_scale(__m256 x, __m256 p)
{
    const __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_LT_OQ); /* false for NaN */
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(exp2_whole(x)), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(exponent)));
}

#endif
