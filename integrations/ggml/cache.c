/*
 * cache: cells of ggml's KV cache as tensors of the library. Where every group's cells are consecutive, a group starts
 * at its own row of the cache; else each key has an entry in a page table with pages of one token. Quantised caches
 * are written out as float16: the library multiplies no 8-bit integers, and the Hadamard mixing, which llama.cpp does
 * before it quantises, must be undone before keys are averaged by frequency.
 */
#include "plugin.h"

#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* --------------------------------------------------------------------------------------------------- float16 ---- */

static float half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 0)
        return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* To nearest even. */
static uint16_t float_to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x47800000) /* 65536 and above, infinite, NaN */
        return (uint16_t)(sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (magnitude < 0x38800000) /* below 2^-14: subnormal, in units of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(x) * 0x1p24f));
    return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

static void to_half(uint16_t *out, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = float_to_half(x[i]);
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static void to_half_f16c(uint16_t *out, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
}
#endif

typedef void (*to_half_fn)(uint16_t *out, const float *x, int32_t n);

static to_half_fn pick_to_half(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c"))
        return to_half_f16c;
#endif
    return to_half;
}

/* -------------------------------------------------------------------------------------------------- unpacking ---- */

void plugin_unmix(float *x, int32_t n, int32_t n_mixed)
{
    const float size = 1 / sqrtf((float)n_mixed);
    for (int32_t from = 0; from < n; from += n_mixed) {
        float *y = x + from;
        for (int32_t half = 1; half < n_mixed; half *= 2)
            for (int32_t i = 0; i < n_mixed; i += 2 * half)
                for (int32_t j = i; j < i + half; j++) {
                    const float a = y[j], b = y[j + half];
                    y[j] = a + b;
                    y[j + half] = a - b;
                }
        for (int32_t i = 0; i < n_mixed; i++)
            y[i] *= size;
    }
}

static void unpack_q8_0(float *out, const char *row, int32_t d)
{
    for (int32_t i = 0; i < d; i += GGML_Q8_0_BLOCK, row += GGML_Q8_0_BYTES) {
        uint16_t factor;
        memcpy(&factor, row, sizeof factor);
        const int8_t *q = (const int8_t *)row + sizeof factor;
        const float f = half_to_float(factor);
        for (int32_t j = 0; j < GGML_Q8_0_BLOCK; j++)
            out[i + j] = f * (float)q[j];
    }
}

/* Writes the groups' cells to out, [n_cell][n_head][d], in their order. */
static void unpack_cells(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_mixed, int n_thread,
                         uint16_t *out)
{
    const int32_t d = (int32_t)cache->ne[0], n_head = (int32_t)cache->ne[2];
    const to_half_fn convert = pick_to_half();
    for (int32_t g = 0; g < groups->n_group; g++) {
        const plugin_group *group = &groups->group[g];
        const char *stream = (const char *)cache->data + (size_t)group->stream * cache->nb[3];
#pragma omp parallel for num_threads(n_thread) schedule(static)
        for (int32_t i = 0; i < group->n_kv; i++) {
            const int64_t at = (int64_t)group->first_cell + i;
            const char *token = stream + (size_t)groups->cell[at] * cache->nb[1];
            for (int32_t h = 0; h < n_head; h++) {
                float row[PRISM_MAX_D_HEAD];
                unpack_q8_0(row, token + (size_t)h * cache->nb[2], d);
                if (n_mixed)
                    plugin_unmix(row, d, n_mixed);
                convert(out + (at * n_head + h) * d, row, d);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------------ views ---- */

/* Page tables or starting rows for all groups, whichever their cells need. at[g]: where group g starts. */
static bool place_groups(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_kv_max, plugin_buffer *index,
                         prism_tensor *view)
{
    bool contiguous = true;
    for (int32_t g = 0; g < groups->n_group; g++)
        contiguous = contiguous && groups->group[g].contiguous;
    const int64_t stride = contiguous ? 1 : n_kv_max, stream_cells = (int64_t)(cache->nb[3] / cache->nb[1]);
    int32_t *entry = plugin_buffer_reserve(index, (size_t)(groups->n_group * stride) * sizeof *entry);
    if (!entry)
        return false;
    for (int32_t g = 0; g < groups->n_group; g++) {
        const plugin_group *group = &groups->group[g];
        const int32_t *cell = groups->cell + group->first_cell;
        for (int32_t i = 0; i < (contiguous ? 1 : group->n_kv); i++)
            entry[g * stride + i] = (int32_t)(group->stream * stream_cells + cell[i]);
    }
    if (contiguous) {
        view->row_start = entry;
        return true;
    }
    view->page_table = entry;
    view->stride_table = stride;
    view->stride_page = view->stride_token;
    view->page_size = 1;
    view->n_page = (int32_t)((cache->ne[3] - 1) * stream_cells + cache->ne[1]);
    return true;
}

bool plugin_cache_view(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_kv_max, int32_t n_mixed,
                       int n_thread, plugin_buffer *copy, plugin_buffer *index, prism_tensor *view)
{
    const int64_t d = cache->ne[0], n_head = cache->ne[2];
    if (cache->type != GGML_TYPE_Q8_0) {
        *view = (prism_tensor){.data = cache->data,
                               .dtype = cache->type == GGML_TYPE_BF16 ? PRISM_BF16 : PRISM_F16,
                               .stride_token = (int64_t)(cache->nb[1] / 2),
                               .stride_head = (int64_t)(cache->nb[2] / 2),
                               .stride_dim = 1};
        return place_groups(cache, groups, n_kv_max, index, view);
    }
    uint16_t *out = plugin_buffer_reserve(copy, (size_t)(groups->n_cell * n_head * d) * sizeof *out);
    int32_t *start = plugin_buffer_reserve(index, (size_t)groups->n_group * sizeof *start);
    if (!out || !start)
        return false;
    unpack_cells(cache, groups, n_mixed, n_thread, out);
    for (int32_t g = 0; g < groups->n_group; g++)
        start[g] = groups->group[g].first_cell;
    *view = prism_tensor_token_major(out, PRISM_F16, groups->n_cell, n_head, d);
    view->row_start = start;
    return true;
}
