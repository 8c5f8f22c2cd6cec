/* Plain mean pooling, which Prism improves on: one band of all dimensions at the softmax's own scale. */
#include "core/work.h"
#include "methods/pooled.h"

static const prism_option_row *const options[] = {&prism_option_top_p, &prism_option_keep_sink, &prism_option_keep_own,
                                                  NULL};

static bool is_full(const prism_options *o)
{
    return o->top_p >= 1;
}

static void select_meanpool(const prism_plan_job *job)
{
    prism_select_pooled(job, NULL, job->options->top_p, job->options->top_p);
}

static double flop_meanpool(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) +
           prism_work_blocks(p, q, p->call->d_head);
}

const prism_method_impl prism_method_meanpool = {
    .name = "meanpool",
    .text = "block means scored in one band, uncalibrated: what the paper improves on",
    .flop_text = "2ndH + (n/B)²dH",
    .workspace_text = "4(n/B)d per head",
    .options = options,
    .needs_means = true,
    .stage = PRISM_STAGE_SELECT,
    .is_full = is_full,
    .scratch_bytes = prism_select_pooled_bytes,
    .select = select_meanpool,
    .flop = flop_meanpool,
};
