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

/* ---------------------------------------------------------------------------------------------- tensors ---- */

typedef struct tensor_use {
    const char *name;
    const prism_tensor *x;
    int32_t n_head, d;
    bool of_keys; /* tokens are keys, else queries */
} tensor_use;

/* Adds n * stride to *at. false: overflow. */
static bool advance(int64_t *at, int64_t n, int64_t stride)
{
    int64_t step;
    return !__builtin_mul_overflow(n, stride, &step) && !__builtin_add_overflow(*at, step, at);
}

static prism_status check_pages(prism_ctx *ctx, const tensor_use *u, int32_t s, int64_t n_token)
{
    const prism_tensor *x = u->x;
    const int64_t n_entry = (n_token + x->page_size - 1) / x->page_size;
    if (x->stride_table < n_entry)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: stride_table %lld, but sequence %d needs %lld pages", u->name,
                          (long long)x->stride_table, s, (long long)n_entry);
    int64_t first = 0;
    if (!advance(&first, s, x->stride_table) || first > INT64_MAX / 8)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: stride_table overflows", u->name);
    for (int64_t e = 0; e < n_entry && !ctx->backend->own_memory; e++) {
        const int32_t page = x->page_table[first + e];
        if (page < 0 || page >= x->n_page)
            return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: page_table[%d][%lld] is %d, outside 0 .. %d", u->name, s,
                              (long long)e, page, x->n_page - 1);
    }
    return PRISM_OK;
}

/* Checks that the last element which sequence s addresses is representable and inside n_element. */
static prism_status check_extent(prism_ctx *ctx, const tensor_use *u, int32_t s, int64_t n_token)
{
    const prism_tensor *x = u->x;
    int64_t last = 0;
    bool ok = advance(&last, u->n_head - 1, x->stride_head) && advance(&last, u->d - 1, x->stride_dim);
    if (x->page_table)
        ok = ok && advance(&last, x->n_page - 1, x->stride_page) && advance(&last, x->page_size - 1, x->stride_token);
    else if (x->row_start && ctx->backend->own_memory) /* only the device can read it */
        ok = ok && advance(&last, n_token - 1, x->stride_token);
    else if (x->row_start)
        ok = ok && x->row_start[s] >= 0 && advance(&last, x->row_start[s] + n_token - 1, x->stride_token);
    else
        ok = ok && advance(&last, s, x->stride_seq) && advance(&last, n_token - 1, x->stride_token);
    if (!ok || last > INT64_MAX / 8)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: sequence %d: its strides or row_start overflow", u->name, s);
    if (x->n_element > 0 && last >= x->n_element)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: sequence %d addresses element %lld of %lld", u->name, s,
                          (long long)last, (long long)x->n_element);
    return PRISM_OK;
}

/* Checks that no block of 32 elements is cut. */
static prism_status check_q8_0(prism_ctx *ctx, const tensor_use *u)
{
    const prism_tensor *x = u->x;
    const int64_t odd = (x->stride_seq | x->stride_token | x->stride_head | x->stride_page | u->d) % PRISM_Q8_0_BLOCK;
    if (!u->of_keys || ctx->backend->own_memory)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "%s: Q8_0 is for k and v, on the CPU", u->name);
    if (odd || x->stride_dim != 1)
        return prism_fail(ctx, PRISM_ERROR_INVALID,
                          "%s: of Q8_0, head size and strides must be multiples of 32, stride_dim 1", u->name);
    return PRISM_OK;
}

static prism_status check_tensor(prism_ctx *ctx, const prism_problem *p, const tensor_use *u)
{
    const prism_tensor *x = u->x;
    const bool q8_0 = x->dtype == PRISM_Q8_0;
    const size_t bytes = q8_0 ? sizeof(uint16_t) : prism_dtype_bytes(x->dtype);
    if (!x->data || !bytes || (uintptr_t)x->data % bytes)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: %s", u->name,
                          !x->data ? "data is NULL"
                          : !bytes ? "unknown dtype"
                                   : "data is not aligned to its dtype");
    if (!ctx->backend->is_readable(ctx, x->data))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: data is not in memory that the device can read", u->name);
    if (x->stride_seq < 0 || x->stride_token < 0 || x->stride_head < 0 || x->stride_dim < 0 || x->n_element < 0)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: a stride or n_element is negative", u->name);
    if (x->page_table && (x->page_size < 1 || x->n_page < 1 || x->stride_page < 0 || x->stride_table < 0))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "%s: paged, with page_size %d and n_page %d", u->name, x->page_size,
                          x->n_page);
    const prism_status blocks = q8_0 ? check_q8_0(ctx, u) : PRISM_OK;
    if (blocks)
        return blocks;
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        const int64_t n_token = u->of_keys ? q.n_kv : q.n_q;
        if (q.n_q == 0 || (p->device_lengths && s > 0)) /* all sequences have the same bounds */
            continue;
        prism_status status = x->page_table ? check_pages(ctx, u, s, n_token) : PRISM_OK;
        if (!status)
            status = check_extent(ctx, u, s, n_token);
        if (status)
            return status;
    }
    return PRISM_OK;
}

static prism_status check_tensors(prism_ctx *ctx, const prism_problem *p, unsigned which)
{
    const prism_call *c = p->call;
    const tensor_use uses[] = {
        {"k", &c->k, c->n_kv_head, c->d_head, true}, {"q", &c->q, c->n_head, c->d_head, false},
        {"v", &c->v, c->n_kv_head, c->d_head, true}, {"o", &c->o, c->n_head, c->d_head, false},
        {"lse", &c->lse, c->n_head, 1, false},
    };
    for (int i = 0; i < 4; i++)
        if (which & (1u << i)) {
            const prism_status status = check_tensor(ctx, p, &uses[i]);
            if (status)
                return status;
        }
    if (!(which & PRISM_CHECK_O) || !c->lse.data)
        return PRISM_OK;
    if (c->lse.dtype != PRISM_F32)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "lse: must be F32");
    return check_tensor(ctx, p, &uses[4]);
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
        status = check_tensors(ctx, problem, which);
    return status;
}
