/*
 * cache: cells of ggml's KV cache as tensors of the library. Where every group's cells are consecutive, a group starts
 * at its own row of the cache; else each key has an entry in a page table with pages of one token. llama.cpp may mix
 * keys by a Hadamard matrix before it quantises them. Selection wants dimensions that turn together, so such keys are
 * written out as float32 with the mixing undone.
 */
#include "plugin.h"

#include <string.h>

const plugin_cache_type *plugin_cache_type_of(const ggml_tensor *cache)
{
    static const plugin_cache_type types[] = {{GGML_TYPE_F16, PRISM_F16, 1, 2},
                                              {GGML_TYPE_BF16, PRISM_BF16, 1, 2},
                                              {GGML_TYPE_Q8_0, PRISM_Q8_0, GGML_Q8_0_BLOCK, GGML_Q8_0_BYTES}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == cache->type)
            return &types[i];
    return NULL;
}

/* Fills in the page table or the starting rows of all groups, whichever their cells need. */
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

bool plugin_cache_view(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_kv_max, plugin_buffer *index,
                       prism_tensor *view)
{
    const plugin_cache_type *type = plugin_cache_type_of(cache);
    *view = (prism_tensor){.data = cache->data,
                           .dtype = type->dtype,
                           .stride_token = (int64_t)(cache->nb[1] / type->bytes) * type->block,
                           .stride_head = (int64_t)(cache->nb[2] / type->bytes) * type->block,
                           .stride_dim = 1};
    return place_groups(cache, groups, n_kv_max, index, view);
}

/* --------------------------------------------------------------------------------------------- mixed keys ---- */

static float half_to_float(uint16_t h)
{
    const bool is_finite = (h & 0x7c00) != 0x7c00;
    const uint32_t bits = (uint32_t)(h & 0x8000) << 16 | (uint32_t)(h & 0x7fff) << 13 | (is_finite ? 0 : 0x7f800000);
    float x;
    memcpy(&x, &bits, sizeof x);
    return is_finite ? x * 0x1p112f : x; /* the product moves the exponent, of subnormal numbers too */
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

bool plugin_cache_unmix(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_mixed, int n_thread,
                        plugin_buffer *copy, plugin_buffer *index, prism_tensor *view)
{
    const int32_t d = (int32_t)cache->ne[0], n_head = (int32_t)cache->ne[2];
    float *out = plugin_buffer_reserve(copy, (size_t)(groups->n_cell * n_head * d) * sizeof *out);
    int32_t *start = plugin_buffer_reserve(index, (size_t)groups->n_group * sizeof *start);
    if (!out || !start)
        return false;
    for (int32_t g = 0; g < groups->n_group; g++) {
        const plugin_group *group = &groups->group[g];
        const char *stream = (const char *)cache->data + (size_t)group->stream * cache->nb[3];
        start[g] = group->first_cell;
#pragma omp parallel for num_threads(n_thread) schedule(static)
        for (int32_t i = 0; i < group->n_kv; i++) {
            const int64_t at = (int64_t)group->first_cell + i;
            const char *token = stream + (size_t)groups->cell[at] * cache->nb[1];
            for (int32_t h = 0; h < n_head; h++) {
                float *row = out + (at * n_head + h) * d;
                unpack_q8_0(row, token + (size_t)h * cache->nb[2], d);
                plugin_unmix(row, d, n_mixed);
            }
        }
    }
    *view = prism_tensor_token_major(out, PRISM_F32, groups->n_cell, n_head, d);
    view->row_start = start;
    return true;
}
