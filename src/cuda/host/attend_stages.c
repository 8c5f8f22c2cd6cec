/* Attention as launches: the correction, if there is one, then attention. */
#include "cuda/host/host.h"

/* Scratch of attention. */
typedef struct attend_layout {
    size_t parts_bytes;
    void *parts;     /* of split rows */
    void *fp8_image; /* K and V in 8 bits; NULL: precision is not fp8 */
    float *lse;      /* [n_seq][n_q][n_head] of the correction, for calls that want no log-sum-exp; NULL: none */
} attend_layout;

static attend_layout cut_attend(const prism_ctx *ctx, const prism_attend_job *job, prism_arena *a)
{
    const prism_problem *p = job->problem;
    const prism_call *c = p->call;
    const prism_cu_shape shape = prism_cuda_shape(p);
    const int ordinal = prism_cuda_of(ctx)->ordinal, before = prism_cuda_enter(ordinal);
    attend_layout x = {.parts_bytes = prism_attend_scratch_bytes(&shape, p->block_size)};
    prism_cuda_leave(before, ordinal);
    x.parts = prism_arena_take(a, x.parts_bytes, 1);
    if (p->precision == PRISM_PRECISION_FP8)
        x.fp8_image = prism_arena_take(a, prism_fp8_image_bytes(&shape), 1);
    if (job->corrects)
        x.lse = prism_arena_take(a, prism_arena_count(a, c->n_seq, c->n_q, c->n_head, 1), sizeof(float));
    return x;
}

size_t prism_cuda_attend_bytes(const prism_ctx *ctx, const prism_attend_job *job)
{
    prism_arena a = {0};
    cut_attend(ctx, job, &a);
    return prism_cuda_counted(&a);
}

static prism_cu_attend attention_of(const prism_attend_job *job, const attend_layout *x)
{
    const prism_problem *p = job->problem;
    const prism_plan *plan = job->plan;
    const prism_cuda_plan *d = plan->device;
    const prism_call *c = p->call;
    const bool listed = !plan->full || plan->path == PRISM_PATH_DENSE_OVERFLOW;
    return (prism_cu_attend){.shape = prism_cuda_shape(p),
                             .q = prism_cuda_queries(p, &c->q),
                             .k = prism_cuda_keys(p, &c->k),
                             .v = prism_cuda_keys(p, &c->v),
                             .o = prism_cuda_queries(p, &c->o),
                             .lse = c->lse.data,
                             .lse_stride_seq = c->lse.stride_seq,
                             .lse_stride_token = c->lse.stride_token,
                             .lse_stride_head = c->lse.stride_head,
                             .lse_row_start = c->lse.row_start,
                             .row_ptr = listed ? d->row_ptr : NULL,
                             .index = listed ? d->index : NULL,
                             .order = listed && d->has_order ? d->order : NULL,
                             .ticket = d->ticket,
                             .scale = p->scale,
                             .block_size = p->block_size,
                             .full = listed ? d->full : NULL,
                             .scratch = x->parts,
                             .scratch_bytes = x->parts_bytes,
                             .fp8_image = x->fp8_image};
}

/* Launches the correction, which writes to the call's output; attention will start from there. */
static void correct(prism_cuda_device *device, const prism_attend_job *job, float *lse, prism_cu_attend *a)
{
    const prism_call *c = job->problem->call;
    prism_cu_moments m = prism_cuda_moments_of(job->problem, job->moments);
    if (!a->lse) {
        a->lse_stride_seq = (int64_t)c->n_q * c->n_head, a->lse_stride_token = c->n_head, a->lse_stride_head = 1;
        a->lse_row_start = NULL;
    }
    m.mean = !job->variances;
    m.row_ptr = a->row_ptr, m.index = a->index, m.full = a->full;
    m.o = a->o, m.init_o = a->o.data, m.init_lse = a->lse ? a->lse : lse;
    m.lse_stride_seq = a->lse_stride_seq, m.lse_stride_token = a->lse_stride_token;
    m.lse_stride_head = a->lse_stride_head, m.lse_row_start = a->lse_row_start;
    a->init_o = m.init_o, a->init_lse = m.init_lse;
    prism_cuda_ok(device, prism_moments_correct_cuda(&m, device->stream), "correction");
}

void prism_cuda_attend(const prism_ctx *ctx, const prism_attend_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_arena arena = {.base = job->scratch};
    const attend_layout x = cut_attend(ctx, job, &arena);
    prism_cu_attend a = attention_of(job, &x);
    const int before = prism_cuda_enter(device->ordinal);
    if (job->corrects && a.index)
        correct(device, job, x.lse, &a);
    prism_cuda_ok(device, prism_attend_cuda(&a, device->stream, &device->attend_kernel), "attention");
    prism_cuda_leave(before, device->ordinal);
}

const char *prism_cuda_attend_name(const prism_ctx *ctx)
{
    const int32_t kernel = prism_cuda_of(ctx)->attend_kernel;
    return kernel < 0 ? "" : prism_cu_kernel_name(kernel);
}
