/* A call as the kernels see it: lengths, tensors, what it asks of a kernel. */
#include "cuda/host/host.h"

_Static_assert(PRISM_CU_F32 == (int)PRISM_F32 && PRISM_CU_F16 == (int)PRISM_F16 && PRISM_CU_BF16 == (int)PRISM_BF16,
               "a kernel's types are the API's");

prism_cu_shape prism_cuda_shape(const prism_problem *p)
{
    const prism_call *c = p->call;
    prism_cu_shape s = {.n_seq = c->n_seq,
                        .n_head = c->n_head,
                        .n_kv_head = c->n_kv_head,
                        .d_head = c->d_head,
                        .dtype = (int32_t)c->q.dtype,
                        .n_qblk = p->n_qblk,
                        .n_kblk = p->n_kblk};
    if (p->device_lengths) {
        s.n_q = c->n_q, s.n_kv = c->n_kv, s.q_start = c->n_kv - c->n_q;
        s.n_q_of = c->n_q_of, s.n_kv_of = c->n_kv_of, s.q_start_of = c->q_start_of;
        return s;
    }
    const prism_seq q = prism_problem_seq(p, 0); /* all sequences are alike */
    s.n_q = q.n_q, s.n_kv = q.n_kv, s.q_start = q.q_start;
    return s;
}

prism_cu_shape prism_cuda_shape_one(const prism_problem *p, int32_t s)
{
    const prism_seq q = prism_problem_seq(p, s);
    prism_cu_shape one = prism_cuda_shape(p);
    one.n_seq = 1;
    one.n_q = q.n_q, one.n_kv = q.n_kv, one.q_start = q.q_start;
    return one;
}

/* Tokens that exist. The copy engine fills what it reads past them with zeros. With row_start the host cannot see their
 * number and infers it from n_element; 0: n_element is not given, and the copy engine is not used. */
static int64_t tokens_of(const prism_tensor *x, int32_t n_head, int32_t d, int32_t n_token)
{
    if (!x->row_start)
        return n_token;
    const int64_t last = x->n_element - (n_head - 1) * x->stride_head - d;
    return x->n_element > 0 && x->stride_token > 0 && last >= 0 ? last / x->stride_token + 1 : 0;
}

static prism_cu_view view_of(const prism_tensor *x, int32_t n_head, int32_t d, int32_t n_token)
{
    return (prism_cu_view){.data = x->data,
                           .stride_seq = x->stride_seq,
                           .stride_token = x->stride_token,
                           .stride_head = x->stride_head,
                           .row_start = x->row_start,
                           .page_table = x->page_table,
                           .stride_table = x->stride_table,
                           .stride_page = x->stride_page,
                           .page_size = x->page_size,
                           .n_page = x->n_page,
                           .n_token = tokens_of(x, n_head, d, n_token)};
}

prism_cu_view prism_cuda_queries(const prism_problem *p, const prism_tensor *x)
{
    return view_of(x, p->call->n_head, p->call->d_head, p->call->n_q);
}

prism_cu_view prism_cuda_keys(const prism_problem *p, const prism_tensor *x)
{
    return view_of(x, p->call->n_kv_head, p->call->d_head, p->call->n_kv);
}

prism_cu_view prism_cuda_view_one(const prism_tensor *x, prism_cu_view view, int32_t s)
{
    if (view.page_table)
        view.page_table += s * view.stride_table;
    else if (view.row_start)
        view.row_start += s;
    else if (view.data)
        view.data = (char *)view.data + prism_bytes_of(x->dtype, s * view.stride_seq);
    return view;
}

prism_cu_ask prism_cuda_ask(const prism_ctx *ctx, const prism_problem *p)
{
    const prism_call *c = p->call;
    const prism_tensor *const all[] = {&c->q, &c->k, &c->v, &c->o};
    const prism_cu_shape shape = prism_cuda_shape(p);
    const prism_cu_view q = prism_cuda_queries(p, &c->q), k = prism_cuda_keys(p, &c->k), v = prism_cuda_keys(p, &c->v),
                        o = prism_cuda_queries(p, &c->o);
    prism_cu_ask ask = {.capability = prism_cuda_of(ctx)->gpu->capability,
                        .block_size = p->block_size,
                        .fp8 = p->precision == PRISM_PRECISION_FP8,
                        .paged_lse = c->lse.data && c->lse.page_table,
                        .scale = p->scale};
    for (int i = 0; i < 4; i++)
        if (all[i]->data) {
            ask.dtypes |= UINT32_C(1) << all[i]->dtype;
            ask.stride_dim |= all[i]->stride_dim != 1;
        }
    if (!ask.dtypes) /* a workspace is asked for */
        ask.dtypes = UINT32_C(1) << c->q.dtype;
    prism_cu_ask_tensors(&ask, &shape, &q, &k, &v, &o);
    return ask;
}

prism_cuda_bits prism_cuda_cut_bits(const prism_problem *p, prism_arena *a)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    prism_cuda_bits x;
    x.count = prism_arena_take(a, (size_t)p->n_row, sizeof *x.count);
    x.bitmap = prism_arena_take(a, (size_t)prism_select_bitmap_words(&shape, p->block_size), sizeof *x.bitmap);
    return x;
}
