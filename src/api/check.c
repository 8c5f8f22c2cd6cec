#include "api/check.h"

#include <math.h>

#include "stages.h"

enum { max_seq = 1 << 20 }; /* every sequence is checked: a nonsense count must not take minutes */

static prism_status check_counts(prism_ctx *ctx, const prism_call *c)
{
    if (!c)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "call is NULL");
    if (c->struct_size < sizeof *c)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "call.struct_size is %zu, expected %zu: use prism_call_init()",
                          c->struct_size, sizeof *c);
    if (c->n_seq < 1 || c->n_q < 1 || c->n_kv < 1)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "n_seq %d, n_q %d, n_kv %d: each must be at least 1", c->n_seq,
                          c->n_q, c->n_kv);
    if (c->n_seq > max_seq)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "n_seq %d: at most %d", c->n_seq, max_seq);
    if (c->n_head < 1 || c->n_kv_head < 1 || c->n_head % c->n_kv_head)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "n_head %d is not a multiple of n_kv_head %d", c->n_head,
                          c->n_kv_head);
    if (c->d_head < 1 || c->d_head > PRISM_MAX_D_HEAD)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "d_head %d: 1 to %d are supported", c->d_head,
                          PRISM_MAX_D_HEAD);
    if (c->q_start < -1)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "q_start %d is negative", c->q_start);
    if (!(c->scale >= 0) || !isfinite(c->scale))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "scale %g: must be positive, or 0 for 1/sqrt(d_head)",
                          (double)c->scale);
    return PRISM_OK;
}

static prism_status check_features(prism_ctx *ctx, const prism_call *c)
{
    const char *asked = c->softcap != 0.0f ? "softcap"
                        : c->window != 0   ? "window"
                        : c->alibi_slope   ? "alibi_slope"
                        : c->sink_logit    ? "sink_logit"
                                           : NULL;
    return asked ? prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "%s is not supported", asked) : PRISM_OK;
}

static prism_status check_sequence(prism_ctx *ctx, const prism_call *c, int32_t s)
{
    const int64_t n_q = c->n_q_of ? c->n_q_of[s] : c->n_q, n_kv = c->n_kv_of ? c->n_kv_of[s] : c->n_kv;
    const int64_t q_start = c->q_start_of ? c->q_start_of[s] : c->q_start >= 0 ? c->q_start : n_kv - n_q;
    if (n_q < 0 || n_q > c->n_q || n_kv < 0 || n_kv > c->n_kv)
        return prism_fail(ctx, PRISM_ERROR_INVALID,
                          "sequence %d: n_q %lld, n_kv %lld exceed the bounds n_q %d, n_kv %d or are negative", s,
                          (long long)n_q, (long long)n_kv, c->n_q, c->n_kv);
    if (q_start < 0 || q_start + n_q > n_kv)
        return prism_fail(ctx, PRISM_ERROR_INVALID,
                          "sequence %d: queries stand at %lld .. %lld but there are only %lld keys", s,
                          (long long)q_start, (long long)(q_start + n_q - 1), (long long)n_kv);
    return PRISM_OK;
}

static prism_status resolve_sequences(prism_ctx *ctx, prism_problem *p)
{
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_status status = check_sequence(ctx, p->call, s);
        if (status)
            return status;
        const prism_seq q = prism_problem_seq(p, s);
        p->n_qblk = q.n_qblk > p->n_qblk ? q.n_qblk : p->n_qblk;
        p->n_kblk = q.n_kblk > p->n_kblk ? q.n_kblk : p->n_kblk;
    }
    return PRISM_OK;
}

/* Takes upper bounds for lengths that only the device can read. Queries may start anywhere in a block, and so touch one
 * block more. */
static prism_status resolve_bounds(prism_ctx *ctx, prism_problem *p)
{
    const prism_call *c = p->call;
    if (c->n_q > c->n_kv)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the bound n_q %d exceeds the bound n_kv %d", c->n_q, c->n_kv);
    p->n_kblk = (c->n_kv - 1) / p->block_size + 1;
    p->n_qblk = (int32_t)(((int64_t)c->n_q + p->block_size - 2) / p->block_size + 1);
    p->n_qblk = p->n_qblk < p->n_kblk ? p->n_qblk : p->n_kblk;
    return PRISM_OK;
}

static prism_status resolve(prism_ctx *ctx, const prism_call *c, int32_t block_size, prism_problem *p)
{
    *p = (prism_problem){
        .call = c,
        .block_size = block_size,
        .group = c->n_head / c->n_kv_head,
        .scale = c->scale > 0 ? c->scale : 1.0f / sqrtf((float)c->d_head),
    };
    p->device_lengths = ctx->backend->own_memory && (c->n_q_of || c->n_kv_of || c->q_start_of);
    const prism_status status = p->device_lengths ? resolve_bounds(ctx, p) : resolve_sequences(ctx, p);
    if (status)
        return status;
    p->n_word = (p->n_kblk + 63) / 64;
    int64_t n_word;
    if (__builtin_mul_overflow((int64_t)c->n_seq * c->n_head, (int64_t)p->n_qblk, &p->n_row) ||
        __builtin_mul_overflow(p->n_row, (int64_t)p->n_word + 1, &n_word) || n_word > INT64_MAX / 64)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "n_seq %d x n_head %d x %d query blocks overflow", c->n_seq,
                          c->n_head, p->n_qblk);
    return PRISM_OK;
}

prism_status prism_check_call(prism_ctx *ctx, const prism_call *call, int32_t block_size, unsigned which,
                              prism_problem *problem)
{
    if (!ctx)
        return PRISM_ERROR_INVALID;
    if (block_size != 64 && block_size != 128)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "block_size %d: 64 and 128 are supported", block_size);
    prism_status status = check_counts(ctx, call);
    if (!status)
        status = check_features(ctx, call);
    if (!status)
        status = resolve(ctx, call, block_size, problem);
    if (!status)
        status = prism_check_tensors(ctx, problem, which);
    return status;
}
