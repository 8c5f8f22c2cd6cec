/* FlashPrefill (arXiv 2603.06199): scores query tokens against block means of keys. A row keeps the blocks whose summed
 * exponentials reach a part of the best block's sum, some first blocks, and a window. The last rows keep everything. */
#include "core/work.h"
#include "methods/method.h"

static const prism_option_row alpha = {
    PRISM_ROW(flash_alpha, 0.12, 0, 1, "blocks below this part of the row's best are pruned")};
static const prism_option_row sink = {PRISM_ROW(flash_sink, 2, 0, INT32_MAX, "first blocks that every row keeps")};
static const prism_option_row window = {
    PRISM_ROW(flash_window, 4, 1, INT32_MAX, "blocks up to a row's own that it keeps, its own included")};
static const prism_option_row last = {
    PRISM_ROW(flash_last, 2, 0, INT32_MAX, "query blocks at the call's end that keep everything")};
static const prism_option_row *const options[] = {&alpha, &sink, &window, &last, NULL};

static prism_tokens_job job_of(const prism_plan_job *job)
{
    const prism_options *o = job->options;
    return (prism_tokens_job){
        .problem = job->problem,
        .min_tokens = job->min_tokens,
        .k_mean = job->k_mean,
        .rule = {.kind = PRISM_RULE_RELATIVE,
                 .threshold = o->flash_alpha,
                 .n_sink = o->flash_sink,
                 .n_window = o->flash_window,
                 .n_last = o->flash_last},
        .bits = job->bits,
        .scratch = job->scratch,
    };
}

static size_t scratch_bytes(const prism_plan_job *job)
{
    const prism_tokens_job stage = job_of(job);
    return job->ctx->backend->select_tokens.bytes(job->ctx, &stage);
}

static void select_flashprefill(const prism_plan_job *job)
{
    const prism_tokens_job stage = job_of(job);
    prism_pool(job, false, NULL);
    job->ctx->backend->select_tokens.run(job->ctx, &stage);
}

static double flop_flashprefill(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_keys(p, q, n_pooled) + prism_work_tokens(p, q);
}

const prism_method_impl prism_method_flashprefill = {
    .name = "flashprefill",
    .text = "query tokens against block means of keys, threshold relative to the row's best",
    .flop_text = "(n²/B)dH + pooling",
    .workspace_text = "4(n/B)d per head + 4n per thread",
    .options = options,
    .needs_means = true,
    .stage = PRISM_STAGE_SELECT_TOKENS,
    .scratch_bytes = scratch_bytes,
    .select = select_flashprefill,
    .flop = flop_flashprefill,
};
