/* XAttention (arXiv 2503.16428): the sum along the antidiagonal of a stride x stride tile is the tile's score. After a
 * softmax over tiles, a row keeps the blocks that hold the threshold's share of the row's mass. */
#include <float.h>

#include "core/work.h"
#include "methods/method.h"

static const prism_option_row stride = {
    PRISM_ROW(xattn_stride, 8, 2, 64, "tokens in a tile's side, a power of two"), .power_of_two = true};
static const prism_option_row threshold = {
    PRISM_ROW(xattn_threshold, 0.9, FLT_TRUE_MIN, 1, "mass that the kept blocks must reach; 1 is dense")};
static const prism_option_row *const options[] = {&stride, &threshold, &prism_option_keep_sink, &prism_option_keep_own,
                                                  NULL};

static prism_strided_job job_of(const prism_plan_job *job)
{
    const prism_options *o = job->options;
    return (prism_strided_job){
        .problem = job->problem,
        .min_tokens = job->min_tokens,
        .stride = o->xattn_stride,
        .rule = {.kind = PRISM_RULE_MASS,
                 .threshold = o->xattn_threshold,
                 .n_sink = o->keep_sink,
                 .n_window = o->keep_own},
        .bits = job->bits,
        .scratch = job->scratch,
    };
}

static size_t scratch_bytes(const prism_plan_job *job)
{
    const prism_strided_job stage = job_of(job);
    return job->ctx->backend->select_strided.bytes(job->ctx, &stage);
}

static void select_xattention(const prism_plan_job *job)
{
    const prism_strided_job stage = job_of(job);
    job->ctx->backend->select_strided.run(job->ctx, &stage);
}

static double flop_xattention(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)n_pooled;
    return prism_work_strided(p, q, o->xattn_stride);
}

const prism_method_impl prism_method_xattention = {
    .name = "xattention",
    .text = "antidiagonal sums of strided queries and keys",
    .flop_text = "(n²/s)dH",
    .workspace_text = "4nd + 256(n/s + sd) per thread",
    .options = options,
    .stage = PRISM_STAGE_SELECT_STRIDED,
    .scratch_bytes = scratch_bytes,
    .select = select_xattention,
    .flop = flop_xattention,
};
