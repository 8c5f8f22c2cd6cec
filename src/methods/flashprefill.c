/* FlashPrefill (arXiv 2603.06199): query tokens against block means of keys; a row keeps the blocks whose summed
 * exponentials reach a part of its best block's, some sinks, a window, and everything in the last rows. */
#include "core/work.h"
#include "methods/methods.h"

static size_t scratch_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    (void)o;
    return ctx->backend->select_tokens_bytes(ctx, p);
}

static void select_flashprefill(const prism_plan_job *job)
{
    const prism_options *opt = job->options;
    prism_pool(job, false, NULL);
    job->ctx->backend->select_tokens(job->ctx, &(prism_tokens_job){
                                                   .problem = job->problem,
                                                   .min_tokens = job->min_tokens,
                                                   .k_mean = job->k_mean,
                                                   .rule = {.kind = PRISM_RULE_RELATIVE,
                                                            .threshold = opt->flash_alpha,
                                                            .n_sink = opt->flash_sink,
                                                            .n_window = opt->flash_window,
                                                            .n_last = opt->flash_last},
                                                   .bits = job->bits,
                                                   .scratch = job->scratch,
                                               });
}

static double flop_flashprefill(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_keys(p, q, n_pooled) + prism_work_tokens(p, q);
}

const prism_method_impl prism_method_flashprefill = {
    .name = "flashprefill",
    .pools = true,
    .scratch_bytes = scratch_bytes,
    .select = select_flashprefill,
    .flop = flop_flashprefill,
};
