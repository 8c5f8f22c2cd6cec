#include "tensor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define LM_X86 1
#endif

static const struct {
    const char *name;
    uint8_t bytes, alignment;
} dtypes[LM_DTYPE_COUNT] = {
    [LM_F32] = {"F32", 4, 4},         [LM_F16] = {"F16", 2, 2},
    [LM_BF16] = {"BF16", 2, 2},       [LM_Q8_0] = {"Q8_0", LM_Q8_0_BLOCK_BYTES, 2},
    [LM_F64] = {"F64", 8, 8},         [LM_U8] = {"U8", 1, 1},
    [LM_I8] = {"I8", 1, 1},           [LM_U16] = {"U16", 2, 2},
    [LM_I16] = {"I16", 2, 2},         [LM_U32] = {"U32", 4, 4},
    [LM_I32] = {"I32", 4, 4},         [LM_U64] = {"U64", 8, 8},
    [LM_I64] = {"I64", 8, 8},         [LM_BOOL] = {"BOOL", 1, 1},
    [LM_F8_E4M3] = {"F8_E4M3", 1, 1}, [LM_F8_E5M2] = {"F8_E5M2", 1, 1},
};

const char *lm_dtype_name(lm_dtype dtype)
{
    return (unsigned)dtype < LM_DTYPE_COUNT ? dtypes[dtype].name : "?";
}

bool lm_dtype_find(const char *name, lm_dtype *out)
{
    for (int i = 0; i < LM_DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (lm_dtype)i;
            return true;
        }
    return false;
}

size_t lm_dtype_bytes(lm_dtype dtype)
{
    return (unsigned)dtype < LM_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

size_t lm_dtype_alignment(lm_dtype dtype)
{
    return (unsigned)dtype < LM_DTYPE_COUNT ? dtypes[dtype].alignment : 1;
}

bool lm_dtype_is_weight(lm_dtype dtype)
{
    return dtype <= LM_Q8_0;
}

bool lm_count(int32_t n_dim, const int64_t *dim, uint64_t *out)
{
    uint64_t n = 1;
    bool zero = false;
    for (int32_t i = 0; i < n_dim; i++) {
        if (dim[i] < 0)
            return false;
        if (dim[i] == 0)
            zero = true;
        else if (__builtin_mul_overflow(n, (uint64_t)dim[i], &n))
            return false;
    }
    *out = zero ? 0 : n;
    return *out <= INT64_MAX;
}

bool lm_shape_bytes(lm_dtype dtype, int32_t n_dim, const int64_t *dim, uint64_t *out)
{
    uint64_t n;
    if (!lm_count(n_dim, dim, &n))
        return false;
    if (dtype == LM_Q8_0) {
        if (n_dim < 1 || dim[n_dim - 1] % LM_Q8_0_BLOCK)
            return false;
        n /= LM_Q8_0_BLOCK;
    }
    return !__builtin_mul_overflow(n, (uint64_t)lm_dtype_bytes(dtype), out) && *out <= INT64_MAX;
}

const char *lm_shape_text(int32_t n_dim, const int64_t *dim, char *text, size_t n)
{
    size_t at = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < n_dim && at < n; i++)
        at += (size_t)snprintf(text + at, n - at, "%s%lld", i ? ", " : "[", (long long)dim[i]);
    if (at < n)
        snprintf(text + at, n - at, n_dim ? "]" : "[]");
    return text;
}

/* ------------------------------------------------------------------------------------------ conversions ---- */

/* Each loop body is written once, branch-free so that it vectorises, and compiled for the baseline and for AVX2:
 * weights are converted on every use, and at the baseline this would cost as much as the products it feeds. */
#define LM_BODY static inline __attribute__((always_inline))

typedef union lm_bits {
    float f;
    uint32_t u;
} lm_bits;

LM_BODY float f16_to_f32(uint16_t h)
{
    const uint32_t rest = (uint32_t)(h & 0x7fff) << 13;
    lm_bits v = {.u = rest};
    v.f *= 0x1p112f; /* moves the exponent; right for subnormals too */
    v.u |= rest >= 0x0f800000 ? 0x7f800000 : 0;
    v.u |= (uint32_t)(h & 0x8000) << 16;
    return v.f;
}

LM_BODY uint16_t f32_to_f16(float f)
{
    const lm_bits v = {.f = f};
    const uint32_t sign = (v.u >> 16) & 0x8000, abs = v.u & 0x7fffffff;
    const uint32_t normal = (abs - 0x38000000 + 0xfff + ((abs >> 13) & 1)) >> 13;
    lm_bits small = {.u = abs};
    small.f += 0.5f; /* aligns the mantissa of a subnormal and rounds it */
    uint32_t r = abs < 0x38800000 ? small.u - 0x3f000000 : normal;
    r = abs >= 0x477ff000 ? 0x7c00 : r;
    r = abs > 0x7f800000 ? 0x7e00 : r;
    return (uint16_t)(sign | r);
}

LM_BODY void widen_f16(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        dst[i] = f16_to_f32(h);
    }
}

LM_BODY void widen_bf16(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        const uint32_t u = (uint32_t)h << 16;
        memcpy(dst + i, &u, 4);
    }
}

LM_BODY void widen_q8_0(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t b = 0; b < n / LM_Q8_0_BLOCK; b++, src += LM_Q8_0_BLOCK_BYTES, dst += LM_Q8_0_BLOCK) {
        uint16_t h;
        memcpy(&h, src, 2);
        const float scale = f16_to_f32(h);
        const int8_t *q = (const int8_t *)(src + 2);
        for (int i = 0; i < LM_Q8_0_BLOCK; i++)
            dst[i] = scale * (float)q[i];
    }
}

LM_BODY void narrow_f16(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = f32_to_f16(src[i]);
        memcpy(dst + 2 * i, &h, 2);
    }
}

LM_BODY void narrow_bf16(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + i, 4);
        const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
        const uint16_t h = (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
        memcpy(dst + 2 * i, &h, 2);
    }
}

/* Writing files only: not worth a second build. */
static void narrow_q8_0(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t b = 0; b < n / LM_Q8_0_BLOCK; b++, src += LM_Q8_0_BLOCK, dst += LM_Q8_0_BLOCK_BYTES) {
        float largest = 0;
        for (int i = 0; i < LM_Q8_0_BLOCK; i++)
            largest = fmaxf(largest, fabsf(src[i]));
        const float scale = largest / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
        const uint16_t h = f32_to_f16(scale);
        memcpy(dst, &h, 2);
        for (int i = 0; i < LM_Q8_0_BLOCK; i++) {
            /* The comparison is false for NaN, which has no integer; the caller refuses such weights by name. */
            const float q = roundf(src[i] * inverse);
            dst[2 + i] = (uint8_t)(int8_t)(q >= -127.0f && q <= 127.0f ? (int)q : 0);
        }
    }
}

static void widen_c(lm_dtype dtype, const uint8_t *src, float *dst, int64_t n)
{
    if (dtype == LM_F16)
        widen_f16(src, dst, n);
    else if (dtype == LM_BF16)
        widen_bf16(src, dst, n);
    else
        widen_q8_0(src, dst, n);
}

static void narrow_c(lm_dtype dtype, const float *src, uint8_t *dst, int64_t n)
{
    if (dtype == LM_F16)
        narrow_f16(src, dst, n);
    else
        narrow_bf16(src, dst, n);
}

#ifdef LM_X86
__attribute__((target("avx2,f16c"))) static void widen_avx2(lm_dtype dtype, const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    if (dtype == LM_F16) {
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + 2 * i))));
        widen_f16(src + 2 * i, dst + i, n - i);
    } else if (dtype == LM_BF16) {
        widen_bf16(src, dst, n);
    } else {
        widen_q8_0(src, dst, n);
    }
}

__attribute__((target("avx2,f16c"))) static void narrow_avx2(lm_dtype dtype, const float *src, uint8_t *dst, int64_t n)
{
    int64_t i = 0;
    if (dtype == LM_F16) {
        for (; i + 8 <= n; i += 8)
            _mm_storeu_si128((__m128i *)(dst + 2 * i),
                             _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
        narrow_f16(src + i, dst + 2 * i, n - i);
    } else {
        narrow_bf16(src, dst, n);
    }
}

/* Every processor with AVX2 has F16C, which clang's builtin does not know by name. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}
#endif

void lm_to_float(lm_dtype dtype, const void *src, float *dst, int64_t n)
{
    assert(lm_dtype_is_weight(dtype) && (dtype != LM_Q8_0 || n % LM_Q8_0_BLOCK == 0));
    if (dtype == LM_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
#ifdef LM_X86
    if (has_avx2()) {
        widen_avx2(dtype, src, dst, n);
        return;
    }
#endif
    widen_c(dtype, src, dst, n);
}

void lm_from_float(lm_dtype dtype, const float *src, void *dst, int64_t n)
{
    assert(lm_dtype_is_weight(dtype) && (dtype != LM_Q8_0 || n % LM_Q8_0_BLOCK == 0));
    if (dtype == LM_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    if (dtype == LM_Q8_0) {
        narrow_q8_0(src, dst, n);
        return;
    }
#ifdef LM_X86
    if (has_avx2()) {
        narrow_avx2(dtype, src, dst, n);
        return;
    }
#endif
    narrow_c(dtype, src, dst, n);
}
