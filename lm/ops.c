#include "ops.h"
#include "tensor.h"

#include <math.h>
#include <string.h>

/* The loops that take long are compiled for the baseline, for AVX2 and for AVX-512. */
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#ifdef __clang__ /* does not know the word, and takes the width that it finds best */
#define WIDE ""
#else
#define WIDE ",prefer-vector-width=512"
#endif
#define TWINS(type, function, parameters, statement)                                                                   \
    __attribute__((target("avx2,fma"))) static type function##_avx2 parameters { statement; }                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma" WIDE))) static type                              \
        function##_avx512 parameters                                                                                   \
    {                                                                                                                  \
        statement;                                                                                                     \
    }
#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define CALL(function, ...)                                                                                            \
    (HAS("avx512bw") && HAS("avx512dq") && HAS("avx512vl") ? function##_avx512(__VA_ARGS__)                            \
     : HAS("avx2") && HAS("fma")                           ? function##_avx2(__VA_ARGS__)                              \
                                                           : function(__VA_ARGS__))
#else
#define TWINS(type, function, parameters, statement)
#define CALL(function, ...) function(__VA_ARGS__)
#endif

/* The sum of a[i] b[i], in 32 chains: strict float order would make this loop scalar. */
INLINE float dot(const float *restrict a, const float *restrict b, int64_t n)
{
    float sums[32] = {0};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 32; j++)
            sums[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sums[i % 32] += a[i] * b[i];
    for (int half = 16; half; half /= 2)
        for (int j = 0; j < half; j++)
            sums[j] += sums[j + half];
    return sums[0];
}
TWINS(float, dot, (const float *a, const float *b, int64_t n), return dot(a, b, n))

float lm_dot(const float *a, const float *b, int64_t n)
{
    return CALL(dot, a, b, n);
}

static float rms_scale(const float *x, int64_t n, float eps)
{
    return (float)(1.0 / sqrt((double)lm_dot(x, x, n) / (double)n + (double)eps));
}

void lm_rms_norm(const float *x, const float *weight, int64_t n, float eps, float *out)
{
    const float scale = rms_scale(x, n, eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

void lm_rms_norm_bf16(const float *x, const float *weight, int64_t n, float eps, uint16_t *out)
{
    enum { piece = 256 };
    float wide[piece];
    const float scale = rms_scale(x, n, eps);
    for (int64_t i = 0, count; i < n; i += count) {
        count = n - i < piece ? n - i : piece;
        for (int64_t j = 0; j < count; j++)
            wide[j] = x[i + j] * scale * weight[i + j];
        lm_to_bf16(LM_F32, wide, out + i, count);
    }
}

/* exp(-x) for the sigmoid, branch-free so that it vectorises (libm's does not without -ffast-math): 2^k times a
 * polynomial on [-ln2/2, ln2/2]. Clamped where silu has long reached its limits; NaN stays NaN. */
INLINE float exp_clamped(float x)
{
    const float magic = 0x1.8p23f; /* adding it rounds to the nearest integer */
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shifted = x * 0x1.715476p0f + magic, k = shifted - magic;
    const float r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
    float p = 0x1.6850e4p-10f;
    p = p * r + 0x1.123bccp-7f;
    p = p * r + 0x1.555b98p-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0x1.fffff8p-2f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

INLINE void swiglu(float *restrict gate, const float *restrict up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_clamped(-gate[i])) * up[i];
}
TWINS(void, swiglu, (float *gate, const float *up, int64_t n), swiglu(gate, up, n))

void lm_swiglu(float *gate, const float *up, int64_t n)
{
    CALL(swiglu, gate, up, n);
}

double lm_nll(const float *x, int64_t n, int32_t token)
{
    float max = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)max);
    return log(sum) + (double)max - (double)x[token];
}

bool lm_all_finite(const float *x, int64_t n)
{
    uint32_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7f800000;
}

int32_t lm_argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return lm_all_finite(x, n) ? (int32_t)best : -1;
}
