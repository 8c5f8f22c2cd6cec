/* XAttention (arXiv 2503.16428): sums along the antidiagonals of stride x stride tiles stand for the tiles' scores;
 * after a softmax over them, a row keeps the blocks that hold the threshold's share of its mass. */
#include "core/work.h"
#include "methods/methods.h"

static size_t scratch_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    return ctx->backend->select_strided_bytes(ctx, p, o->xattn_stride);
}

static void select_xattention(const prism_plan_job *job)
{
    const prism_options *opt = job->options;
    job->ctx->backend->select_strided(job->ctx, &(prism_strided_job){
                                                    .problem = job->problem,
                                                    .min_tokens = job->min_tokens,
                                                    .stride = opt->xattn_stride,
                                                    .rule = {.kind = PRISM_RULE_MASS,
                                                             .threshold = opt->xattn_threshold,
                                                             .n_sink = opt->keep_sink,
                                                             .n_window = opt->keep_own},
                                                    .bits = job->bits,
                                                    .scratch = job->scratch,
                                                });
}

static double flop_xattention(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)n_pooled;
    return prism_work_strided(p, q, o->xattn_stride);
}

const prism_method_impl prism_method_xattention = {
    .name = "xattention",
    .scratch_bytes = scratch_bytes,
    .select = select_xattention,
    .flop = flop_xattention,
};
