/* Attention as a launch. */
#include "cuda/host/host.h"

/* Scratch of attention: parts of split rows; K and V in 8 bits with precision fp8. */
typedef struct attend_layout {
    size_t parts_bytes;
    void *parts, *fp8_image;
} attend_layout;

static attend_layout cut_attend(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    const int ordinal = prism_cuda_of(ctx)->ordinal, before = prism_cuda_enter(ordinal);
    attend_layout x = {.parts_bytes = prism_attend_scratch_bytes(&shape, p->block_size)};
    prism_cuda_leave(before, ordinal);
    x.parts = prism_arena_take(a, x.parts_bytes, 1);
    if (p->precision == PRISM_PRECISION_FP8)
        x.fp8_image = prism_arena_take(a, prism_fp8_image_bytes(&shape), 1);
    return x;
}

size_t prism_cuda_attend_bytes(const prism_ctx *ctx, const prism_problem *p)
{
    prism_arena a = {0};
    cut_attend(ctx, p, &a);
    return prism_cuda_counted(&a);
}

prism_cu_attend prism_cuda_attention(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan,
                                     void *scratch)
{
    const prism_cuda_plan *d = plan->device;
    const prism_call *c = p->call;
    prism_arena arena = {.base = scratch};
    const attend_layout x = cut_attend(ctx, p, &arena);
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
                             .scratch = x.parts,
                             .scratch_bytes = x.parts_bytes,
                             .fp8_image = x.fp8_image};
}

void prism_cuda_launch_attend(prism_cuda_device *device, const prism_cu_attend *a)
{
    prism_cuda_ok(device, prism_attend_cuda(a, device->stream, &device->attend_kernel), "attention");
}

void prism_cuda_attend(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_cu_attend a = prism_cuda_attention(ctx, p, plan, scratch);
    const int before = prism_cuda_enter(device->ordinal);
    prism_cuda_launch_attend(device, &a);
    prism_cuda_leave(before, device->ordinal);
}

const char *prism_cuda_attend_name(const prism_ctx *ctx)
{
    const int32_t kernel = prism_cuda_of(ctx)->attend_kernel;
    return kernel < 0 ? "" : prism_cu_kernel_name(kernel);
}
