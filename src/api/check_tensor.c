/* Checks of a call's tensors: that what they address is there, and that outputs destroy no input. */
#include "api/check.h"
#include "stages.h"

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

/* The last element that sequence s addresses, as an index from data on; false if it cannot be represented. */
static bool last_element(const prism_ctx *ctx, const tensor_use *u, int32_t s, int64_t n_token, int64_t *last)
{
    const prism_tensor *x = u->x;
    *last = 0;
    bool ok = advance(last, u->n_head - 1, x->stride_head) && advance(last, u->d - 1, x->stride_dim);
    if (x->page_table)
        ok = ok && advance(last, x->n_page - 1, x->stride_page) && advance(last, x->page_size - 1, x->stride_token);
    else if (x->row_start && ctx->backend->own_memory) /* only the device can read it */
        ok = ok && advance(last, n_token - 1, x->stride_token);
    else if (x->row_start)
        ok = ok && x->row_start[s] >= 0 && advance(last, x->row_start[s] + n_token - 1, x->stride_token);
    else
        ok = ok && advance(last, s, x->stride_seq) && advance(last, n_token - 1, x->stride_token);
    return ok && *last <= INT64_MAX / 8;
}

/* Checks that the last element which sequence s addresses is representable and inside n_element. */
static prism_status check_extent(prism_ctx *ctx, const tensor_use *u, int32_t s, int64_t n_token)
{
    const prism_tensor *x = u->x;
    int64_t last;
    if (!last_element(ctx, u, s, n_token, &last))
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

/* ---------------------------------------------------------------------------------------------- outputs ---- */

/* Two elements of an output must not share an address. */
static prism_status check_distinct(prism_ctx *ctx, const prism_problem *p, const tensor_use *u)
{
    const prism_tensor *x = u->x;
    const bool placed = x->page_table || x->row_start;
    const char *same = p->call->n_q > 1 && x->stride_token == 0             ? "stride_token"
                       : u->n_head > 1 && x->stride_head == 0               ? "stride_head"
                       : u->d > 1 && x->stride_dim == 0                     ? "stride_dim"
                       : p->call->n_seq > 1 && !placed && x->stride_seq == 0 ? "stride_seq"
                                                                            : NULL;
    return same ? prism_fail(ctx, PRISM_ERROR_INVALID, "%s: %s is 0: several results would go to one place", u->name,
                             same)
                : PRISM_OK;
}

/* Bytes [begin, end) that a tensor addresses; dense: all of them. */
typedef struct byte_span {
    uintptr_t begin, end;
    bool dense;
} byte_span;

/* Of a paged tensor, and of rows that only the device can place, the first element alone: the rest may lie anywhere. */
static byte_span span_of(const prism_ctx *ctx, const prism_problem *p, const tensor_use *u)
{
    const prism_tensor *x = u->x;
    const bool known = !x->page_table && !(x->row_start && ctx->backend->own_memory) && !p->device_lengths;
    int64_t end = 1, n = 0;
    for (int32_t s = 0; known && s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        const int64_t n_token = u->of_keys ? q.n_kv : q.n_q;
        int64_t last;
        if (q.n_q == 0 || !last_element(ctx, u, s, n_token, &last))
            continue;
        n += n_token * u->n_head * u->d;
        end = last + 1 > end ? last + 1 : end;
    }
    const uintptr_t at = (uintptr_t)x->data;
    return (byte_span){at, at + (uintptr_t)prism_bytes_of(x->dtype, end), n == end};
}

/* Views of one buffer may interleave; what begins at one address, or has an end inside a dense span, does share bytes. */
static bool share_bytes(byte_span a, byte_span b)
{
    const bool b_in_a = (b.begin >= a.begin && b.begin < a.end) || (b.end > a.begin && b.end <= a.end);
    const bool a_in_b = (a.begin >= b.begin && a.begin < b.end) || (a.end > b.begin && a.end <= b.end);
    return a.begin == b.begin || (a.dense && b_in_a) || (b.dense && a_in_b);
}

static prism_status check_output(prism_ctx *ctx, const prism_problem *p, const tensor_use *out, const tensor_use *others,
                                 int n)
{
    const prism_status status = check_distinct(ctx, p, out);
    const byte_span span = span_of(ctx, p, out);
    for (int i = 0; !status && i < n; i++)
        if (others[i].x->data && share_bytes(span, span_of(ctx, p, &others[i])))
            return prism_fail(ctx, PRISM_ERROR_INVALID, "%s overlaps %s: results would destroy what is still read",
                              out->name, others[i].name);
    return status;
}

/* -------------------------------------------------------------------------------------------------- all ---- */

prism_status prism_check_tensors(prism_ctx *ctx, const prism_problem *p, unsigned which)
{
    const prism_call *c = p->call;
    const tensor_use uses[] = {
        {"k", &c->k, c->n_kv_head, c->d_head, true}, {"q", &c->q, c->n_head, c->d_head, false},
        {"v", &c->v, c->n_kv_head, c->d_head, true}, {"o", &c->o, c->n_head, c->d_head, false},
        {"lse", &c->lse, c->n_head, 1, false},
    };
    enum { o = 3, lse = 4 };
    prism_status status = PRISM_OK;
    for (int i = 0; !status && i <= o; i++)
        if (which & (1u << i))
            status = check_tensor(ctx, p, &uses[i]);
    if (status || !(which & PRISM_CHECK_O))
        return status;
    status = check_output(ctx, p, &uses[o], uses, o);
    if (status || !c->lse.data)
        return status;
    if (c->lse.dtype != PRISM_F32)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "lse: must be F32");
    status = check_tensor(ctx, p, &uses[lse]);
    return status ? status : check_output(ctx, p, &uses[lse], uses, lse);
}
