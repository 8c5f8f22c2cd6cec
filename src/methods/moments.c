/* Moments (docs/moments.md): query tokens against mean and variance of the keys of a block; a row keeps the blocks that
 * their moments cannot stand for. */
#include "core/options.h"
#include "core/work.h"
#include "methods/methods.h"

static size_t scratch_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    (void)o;
    return ctx->backend->select_moments_bytes(ctx, p);
}

static void select_moments(const prism_plan_job *job)
{
    const prism_options *opt = job->options;
    prism_pool(job, false, NULL);
    job->ctx->backend->select_moments(
        job->ctx, &(prism_moments_job){
                      .problem = job->problem,
                      .min_tokens = job->min_tokens,
                      .moments = job->moments,
                      .error = opt->moments_error,
                      .keep_sink = opt->keep_sink &&
                                   prism_options_correction(opt) == PRISM_CORRECTION_NONE, /* else it is exact */
                      .keep_own = opt->keep_own,
                      .bits = job->bits,
                      .scratch = job->scratch,
                  });
}

static double flop_moments(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_moments(p, q, n_pooled) + prism_work_ask(p, q);
}

const prism_method_impl prism_method_moments = {
    .name = "moments",
    .needs_moments = true,
    .scratch_bytes = scratch_bytes,
    .select = select_moments,
    .flop = flop_moments,
};
