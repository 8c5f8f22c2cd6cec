#include "blocks.h"
#include "ops.h"
#include "tensor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define LM_X86 1
#endif

/* ------------------------------------------------------------------------------------------ conversions ---- */

/* Each function that widens exists for the baseline and for AVX2: weights are widened on every use, and at the baseline
 * this would cost as much as the products it feeds. */
#define WIDEN(suffix, name, block, bytes)                                                                              \
    static void widen_##name##suffix(const uint8_t *restrict src, float *restrict dst, int64_t n)                      \
    {                                                                                                                  \
        for (int64_t i = 0; i < n / (block); i++)                                                                      \
            lm_unpack_##name(src + i * (bytes), dst + i * (block));                                                    \
    }
#define WIDEN_C(NAME, name, ggml, file, block, bytes, ...) WIDEN(_c, name, block, bytes)
LM_WEIGHT_TYPES(WIDEN_C)
#ifdef LM_X86
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define WIDEN_AVX2(NAME, name, ggml, file, block, bytes, ...) TARGET_AVX2 WIDEN(_avx2, name, block, bytes)
LM_FLOAT_TYPES(WIDEN_AVX2)

/* A loop that no compiler finds by itself: bytes to floats, eight at a time. */
TARGET_AVX2 static inline __attribute__((always_inline)) void widen_run(const int8_t *q, float scale, float less,
                                                                        float *dst)
{
    for (int i = 0; i < 16; i += 8) {
        const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(q + i)));
        _mm256_storeu_ps(dst + i,
                         _mm256_fmsub_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(wide), _mm256_set1_ps(less)));
    }
}

#define WIDEN_PARTS_AVX2(NAME, name, ggml, file, block, bytes, ...)                                                    \
    TARGET_AVX2 static void widen_##name##_avx2(const uint8_t *restrict src, float *restrict dst, int64_t n)           \
    {                                                                                                                  \
        int8_t q[block];                                                                                               \
        float scale[(block) / 16], less[(block) / 16];                                                                 \
        for (const float *end = dst + n; dst < end; dst += (block), src += (bytes)) {                                  \
            lm_split_##name(src, q, scale, less);                                                                      \
            for (int run = 0; run < (block) / 16; run++)                                                               \
                widen_run(q + 16 * run, scale[run], less[run], dst + 16 * run);                                        \
        }                                                                                                              \
    }
LM_BLOCK_TYPES(WIDEN_PARTS_AVX2)
#define AVX2(name) widen_##name##_avx2

/* Dot products with a row of x as the same runs pass by: no float of a weight is stored. */
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
TARGET_AVX512 static inline __attribute__((always_inline)) __m512 dot_run(const int8_t *q, float scale, float less,
                                                                          const float *x, __m512 sum)
{
    const __m512 wide = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)q)));
    const __m512 w = _mm512_fmsub_ps(_mm512_set1_ps(scale), wide, _mm512_set1_ps(less));
    return _mm512_fmadd_ps(w, _mm512_loadu_ps(x), sum);
}

#define DOT_PARTS_AVX512(NAME, name, ggml, file, block, bytes, ...)                                                    \
    TARGET_AVX512 static float dot_##name##_avx512(const uint8_t *restrict src, const float *restrict x, int64_t n)    \
    {                                                                                                                  \
        int8_t q[block];                                                                                               \
        float scale[(block) / 16], less[(block) / 16];                                                                 \
        __m512 even = _mm512_setzero_ps(), odd = even;                                                                 \
        for (const float *end = x + n; x < end; x += (block), src += (bytes)) {                                        \
            lm_split_##name(src, q, scale, less);                                                                      \
            for (int run = 0; run < (block) / 16; run += 2) {                                                          \
                even = dot_run(q + 16 * run, scale[run], less[run], x + 16 * run, even);                               \
                odd = dot_run(q + 16 * run + 16, scale[run + 1], less[run + 1], x + 16 * run + 16, odd);               \
            }                                                                                                          \
        }                                                                                                              \
        return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));                                                         \
    }
LM_BLOCK_TYPES(DOT_PARTS_AVX512)

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#define DOT_CASE(NAME, name, ...)                                                                                      \
    case LM_##NAME: return dot_##name##_avx512;
/* NULL: the type's weights are widened first. */
static float (*dot_of(lm_dtype dtype))(const uint8_t *, const float *, int64_t)
{
    switch (has_avx512() ? dtype : LM_F32) {
        LM_BLOCK_TYPES(DOT_CASE)
    default: return NULL;
    }
}
#else
#define AVX2(name) NULL
#define dot_of(dtype) NULL
#endif

static uint16_t to_half(float f)
{
    const uint32_t bits = lm_bits_of_float(f), sign = (bits >> 16) & 0x8000, abs = bits & 0x7fffffff;
    const uint32_t normal = (abs - 0x38000000 + 0xfff + ((abs >> 13) & 1)) >> 13;
    /* Adding a half aligns the mantissa of a subnormal and rounds it. */
    const uint32_t small = lm_bits_of_float(lm_float_of_bits(abs) + 0.5f);
    uint32_t r = abs < 0x38800000 ? small - 0x3f000000 : normal;
    r = abs >= 0x477ff000 ? 0x7c00 : r;
    r = abs > 0x7f800000 ? 0x7e00 : r;
    return (uint16_t)(sign | r);
}

static void narrow_f32(const float *src, uint8_t *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *src);
}

static void narrow_f16(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = to_half(src[i]);
        memcpy(dst + 2 * i, &h, 2);
    }
}

static inline __attribute__((always_inline)) void narrow_bf16(const float *restrict src, uint8_t *restrict dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = lm_bits_of_float(src[i]);
        const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
        const uint16_t h = (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
        memcpy(dst + 2 * i, &h, 2);
    }
}

static void narrow_q8_0(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++, src += 32, dst += 34) {
        float largest = 0;
        for (int i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(src[i]));
        const float scale = largest / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
        const uint16_t h = to_half(scale);
        memcpy(dst, &h, 2);
        for (int i = 0; i < 32; i++) {
            /* The comparison is false for NaN, which has no integer; the caller refuses such weights by name. */
            const float q = roundf(src[i] * inverse);
            dst[2 + i] = (uint8_t)(int8_t)(q >= -127.0f && q <= 127.0f ? (int)q : 0);
        }
    }
}

/* clang-format off */
#define WEIGHT(NAME, name, ggml, file, block, bytes, alignment, narrow) \
    [LM_##NAME] = {#NAME, ggml, file, block, bytes, alignment, widen_##name##_c, AVX2(name), narrow},
#define OTHER(NAME, bytes) [LM_##NAME] = {#NAME, -1, -1, 1, bytes, bytes, NULL, NULL, NULL},
const lm_dtype_row lm_dtypes[LM_DTYPE_COUNT] = {LM_WEIGHT_TYPES(WEIGHT) LM_OTHER_TYPES(OTHER)};
/* clang-format on */

/* Every processor with AVX2 has F16C, which clang's builtin does not know by name. */
static bool has_avx2(void)
{
#ifdef LM_X86
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

/* Processors with F16C convert float16 by an instruction. Both functions return how many elements they converted. */
#ifdef LM_X86
__attribute__((target("avx2,f16c"))) static int64_t widen_f16c(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + 2 * i))));
    return i;
}

__attribute__((target("avx2,f16c"))) static int64_t narrow_f16c(const float *src, uint8_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(dst + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}
#else
#define widen_f16c(src, dst, n) 0
#define narrow_f16c(src, dst, n) 0
#endif

void lm_to_float(lm_dtype dtype, const void *src, float *dst, int64_t n)
{
    const lm_dtype_row *row = &lm_dtypes[dtype];
    assert(row->widen && n % row->block == 0);
    const bool avx2 = has_avx2();
    const int64_t done = avx2 && dtype == LM_F16 ? widen_f16c(src, dst, n) : 0;
    (avx2 ? row->widen_avx2 : row->widen)((const uint8_t *)src + done * row->bytes, dst + done, n - done);
}

void lm_from_float(lm_dtype dtype, const float *src, void *dst, int64_t n)
{
    const lm_dtype_row *row = &lm_dtypes[dtype];
    assert(row->narrow && n % row->block == 0);
    const int64_t done = has_avx2() && dtype == LM_F16 ? narrow_f16c(src, dst, n) : 0;
    row->narrow(src + done, (uint8_t *)dst + done * row->bytes, n - done);
}

#ifdef LM_X86
__attribute__((target("avx2"))) static void narrow_bf16_avx2(const float *src, uint8_t *dst, int64_t n)
{
    narrow_bf16(src, dst, n);
}

/* Returns how many elements it converted, by the instruction for it. */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static int64_t
narrow_avx512bf16(const float *src, uint8_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(dst + 2 * i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(src + i)));
    return i;
}

static bool has_avx512bf16(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
}
#else
#define narrow_bf16_avx2 narrow_bf16
#define narrow_avx512bf16(src, dst, n) 0
#define has_avx512bf16() false
#endif

static void round_bf16(const float *src, uint16_t *dst, int64_t n)
{
    const int64_t done = has_avx512bf16() ? narrow_avx512bf16(src, (uint8_t *)dst, n) : 0;
    (has_avx2() ? narrow_bf16_avx2 : narrow_bf16)(src + done, (uint8_t *)(dst + done), n - done);
}

void lm_to_bf16(lm_dtype dtype, const void *src, uint16_t *dst, int64_t n)
{
    enum { piece = 1024 }; /* a whole number of blocks of every type; stays in L1 */
    float wide[piece];
    const uint8_t *from = src;
    if (dtype == LM_F32) {
        round_bf16(src, dst, n);
        return;
    }
    for (int64_t i = 0, count; i < n; i += count) {
        count = n - i < piece ? n - i : piece;
        lm_to_float(dtype, from, wide, count);
        round_bf16(wide, dst + i, count);
        from += lm_row_bytes(dtype, count);
    }
}

float lm_row_dot(lm_dtype dtype, const void *src, const float *x, int64_t n)
{
    enum { piece = 1024 }; /* as in lm_to_bf16() */
    float wide[piece], sum = 0;
    const uint8_t *from = src;
    float (*const dot)(const uint8_t *, const float *, int64_t) = dot_of(dtype);
    if (dot)
        return dot(src, x, n);
    if (dtype == LM_F32)
        return lm_dot(src, x, n);
    for (int64_t i = 0, count; i < n; i += count) {
        count = n - i < piece ? n - i : piece;
        lm_to_float(dtype, from, wide, count);
        sum += lm_dot(wide, x + i, count);
        from += lm_row_bytes(dtype, count);
    }
    return sum;
}

/* ------------------------------------------------------------------------------------------------- types ---- */

const char *lm_dtype_name(lm_dtype dtype)
{
    return (unsigned)dtype < LM_DTYPE_COUNT ? lm_dtypes[dtype].name : "?";
}

bool lm_dtype_find(const char *name, lm_dtype *out)
{
    for (*out = 0; *out < LM_DTYPE_COUNT; ++*out)
        if (strcmp(name, lm_dtypes[*out].name) == 0)
            return true;
    return false;
}

bool lm_dtype_find_ggml(uint32_t number, lm_dtype *out)
{
    for (*out = 0; *out < LM_DTYPE_COUNT; ++*out)
        if (number == (uint32_t)lm_dtypes[*out].ggml && number <= INT32_MAX)
            return true;
    return false;
}

const char *lm_ggml_name(uint32_t number)
{
    static const char *const foreign[] = {
        [9] = "Q8_1",   [15] = "Q8_K", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
        [21] = "IQ3_S", [22] = "IQ2_S", [24] = "I8",     [25] = "I16",    [26] = "I32",     [27] = "I64",
        [28] = "F64",   [29] = "IQ1_M", [34] = "TQ1_0",  [35] = "TQ2_0",  [40] = "NVFP4",   [41] = "Q1_0"};
    lm_dtype dtype;
    if (lm_dtype_find_ggml(number, &dtype))
        return lm_dtypes[dtype].name;
    return number < sizeof foreign / sizeof *foreign && foreign[number] ? foreign[number] : "unknown";
}

const char *lm_dtype_names(bool written, char *text, size_t n)
{
    const char *names[LM_DTYPE_COUNT];
    size_t count = 0;
    for (int i = 0; i < LM_DTYPE_COUNT; i++)
        if (written ? lm_dtypes[i].narrow != NULL : lm_dtypes[i].widen != NULL)
            names[count++] = lm_dtypes[i].name;
    return lm_list_text(names, count, "or", text, n);
}

/* ------------------------------------------------------------------------------------------------ shapes ---- */

bool lm_shape_bytes(lm_dtype dtype, int32_t n_dim, const int64_t *dim, uint64_t *out)
{
    const lm_dtype_row *row = &lm_dtypes[dtype];
    uint64_t n = 1;
    bool zero = false;
    for (int32_t i = 0; i < n_dim; i++) {
        if (dim[i] < 0 || __builtin_mul_overflow(n, dim[i] ? (uint64_t)dim[i] : 1, &n))
            return false;
        zero |= dim[i] == 0;
    }
    n = zero ? 0 : n;
    if (n > INT64_MAX || (row->block > 1 && (n_dim < 1 || dim[n_dim - 1] % row->block)))
        return false;
    return !__builtin_mul_overflow(n / (uint64_t)row->block, (uint64_t)row->bytes, out) && *out <= INT64_MAX;
}

size_t lm_row_bytes(lm_dtype dtype, int64_t cols)
{
    return (size_t)(cols / lm_dtypes[dtype].block) * (size_t)lm_dtypes[dtype].bytes;
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

/* ------------------------------------------------------------------------------------------------- lists ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const lm_tensor *)a)->name, ((const lm_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const lm_tensor *x = a, *y = b;
    const uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

bool lm_tensors_apart(lm_tensor *t, size_t n, const char *where, lm_error *err)
{
    if (n)
        qsort(t, n, sizeof *t, by_place);
    for (size_t i = 1; i < n; i++)
        if ((uintptr_t)t[i - 1].data + t[i - 1].bytes > (uintptr_t)t[i].data && t[i].bytes)
            return lm_fail(err, LM_ERROR_INPUT, "%s: tensors %s and %s overlap", where, t[i - 1].name, t[i].name);
    return true;
}

bool lm_tensors_by_name(lm_tensor *t, size_t n, const char *where, lm_error *err)
{
    if (n)
        qsort(t, n, sizeof *t, by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&t[i - 1], &t[i]) == 0)
            return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s comes twice", where, t[i].name);
    return true;
}

const lm_tensor *lm_tensors_find(const lm_tensor *t, size_t n, const char *name)
{
    const lm_tensor key = {.name = name};
    return n ? bsearch(&key, t, n, sizeof key, by_name) : NULL;
}
