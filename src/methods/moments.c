/* Moments (docs/moments.md): scores asking tokens against mean and variance of a block's keys. A row keeps the blocks
 * that their moments describe badly. */
#include <float.h>

#include "core/work.h"
#include "methods/method.h"

static const prism_option_row error = {
    PRISM_ROW(moments_error, 0.08, 0, FLT_MAX, "the error of pruned blocks that a row allows; 0 is dense")};
static const prism_option_row *const options[] = {&error, &prism_option_keep_sink, &prism_option_keep_own, NULL};

static bool is_full(const prism_options *o)
{
    return o->moments_error == 0;
}

static prism_moments_job job_of(const prism_plan_job *job)
{
    const prism_options *o = job->options;
    return (prism_moments_job){
        .problem = job->problem,
        .min_tokens = job->min_tokens,
        .moments = job->moments,
        .error = o->moments_error,
        .keep_sink = o->keep_sink && prism_options_correction(o) == PRISM_CORRECTION_NONE, /* else exact */
        .keep_own = o->keep_own,
        .bits = job->bits,
        .scratch = job->scratch,
    };
}

static size_t scratch_bytes(const prism_plan_job *job)
{
    const prism_moments_job stage = job_of(job);
    return job->ctx->backend->select_moments.bytes(job->ctx, &stage);
}

static void select_moments(const prism_plan_job *job)
{
    const prism_moments_job stage = job_of(job);
    prism_pool(job, false, NULL);
    job->ctx->backend->select_moments.run(job->ctx, &stage);
}

static double flop_moments(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_moments(p, q, n_pooled) + prism_work_ask(p, q);
}

const prism_method_impl prism_method_moments = {
    .name = "moments",
    .text = "query tokens against mean and variance of a block's keys; pruned blocks contribute through them",
    .flop_text = "(n²/4B)(d + d/8)H + nBdH/2 + pooling",
    .workspace_text = "4(n/B)(4d + d/4) per KV head + 200n/B per thread",
    .options = options,
    .needs_moments = true,
    .correct = PRISM_CORRECTION_MOMENTS,
    .stage = PRISM_STAGE_SELECT_MOMENTS,
    .is_full = is_full,
    .scratch_bytes = scratch_bytes,
    .select = select_moments,
    .flop = flop_moments,
};
