/* Pooled keys that a caller keeps. */
#include "api/request.h"
#include "core/arena.h"
#include "core/block_moments.h"

/* Cuts the state's arrays, one after the other. */
static prism_status cut_pooled(const prism_options *options, int32_t n_kv_head, int32_t d_head, int32_t n_token_max,
                               prism_arena *a, prism_pooled *out)
{
    if (!options || options->struct_size < sizeof *options || !prism_options_fit(options, NULL) || n_kv_head < 1 ||
        d_head < 1 || d_head > PRISM_MAX_D_HEAD || n_token_max < 1)
        return PRISM_ERROR_INVALID;
    const int32_t n_block = (int32_t)(((int64_t)n_token_max + options->block_size - 1) / options->block_size);
    *out = (prism_pooled){.struct_size = sizeof *out,
                          .n_kv_head = n_kv_head,
                          .d_head = d_head,
                          .block_size = options->block_size,
                          .n_token_max = n_token_max};
    out->key_sum = prism_arena_take(a, prism_arena_count(a, n_block, n_kv_head, d_head, 1), sizeof(float));
    if (prism_options_need_moments(options, true))
        out->moments = prism_block_moments_cut(a, 1, n_block, n_kv_head, d_head);
    return a->overflow ? PRISM_ERROR_INVALID : PRISM_OK;
}

prism_status prism_pooled_bytes(const prism_options *options, int32_t n_kv_head, int32_t d_head, int32_t n_token_max,
                                size_t *bytes)
{
    prism_arena a = {0};
    prism_pooled x;
    if (!bytes || cut_pooled(options, n_kv_head, d_head, n_token_max, &a, &x))
        return PRISM_ERROR_INVALID;
    *bytes = a.used;
    return PRISM_OK;
}

prism_status prism_pooled_init(prism_pooled *pooled, const prism_options *options, int32_t n_kv_head, int32_t d_head,
                               int32_t n_token_max, void *memory, size_t bytes)
{
    size_t need;
    prism_arena a = {.base = memory};
    if (prism_pooled_bytes(options, n_kv_head, d_head, n_token_max, &need) || !pooled || !memory ||
        (uintptr_t)memory % PRISM_ALIGN)
        return PRISM_ERROR_INVALID;
    if (bytes < need)
        return PRISM_ERROR_CAPACITY;
    return cut_pooled(options, n_kv_head, d_head, n_token_max, &a, pooled);
}

prism_status prism_pool_append(prism_ctx *ctx, const prism_call *call)
{
    prism_request r;
    const prism_status status = prism_request_pool(ctx, call, &r);
    if (status)
        return status;
    ctx->backend->pool(ctx, &(prism_pool_job){.problem = &r.problem, .pooled = call->pooled, .reads_values = true});
    return ctx->backend->status(ctx);
}
