/* Prism (arXiv 2602.08426): pooled queries and keys score blocks twice, in a high- and a low-frequency band, each at a
 * strength restored from its energy; a row keeps the blocks that hold top_p of the mass in either band. */
#include "core/options.h"
#include "core/work.h"
#include "methods/methods.h"

static void select_prism(const prism_plan_job *job)
{
    const prism_kernels *k = job->ctx->kernels;
    const prism_options *opt = job->options;
    const prism_bands *bands = opt->bands;

    prism_pool_queries(job);
    prism_pool_keys(job);
    k->calibrate(job->ctx, &(prism_calibrate_job){
                               .problem = job->problem,
                               .bands = bands,
                               .mode = opt->calibration,
                               .q_mean = job->q_mean,
                               .k_mean = job->k_mean,
                               .factor = job->factor,
                               .scratch = job->scratch,
                           });
    k->select(job->ctx, &(prism_select_job){
                            .problem = job->problem,
                            .q_mean = job->q_mean,
                            .k_mean = job->k_mean,
                            .band = {{bands->high, bands->n_high, prism_options_top_p(opt, opt->top_p_high)},
                                     {bands->low, bands->n_low, prism_options_top_p(opt, opt->top_p_low)}},
                            .n_band = 2,
                            .factor = job->factor,
                            .keep_sink = opt->keep_sink,
                            .keep_own = opt->keep_own,
                            .min_tokens = job->min_tokens,
                            .bits = job->bits,
                            .scratch = job->scratch,
                        });
}

static double flop_prism(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    const int32_t n_dim = o->bands->n_high + o->bands->n_low;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) + prism_work_blocks(p, q, n_dim);
}

const prism_method_impl prism_method_prism = {
    .name = "prism",
    .needs_bands = true,
    .uses_top_p = true,
    .pools = true,
    .scratch_bytes = prism_pooled_scratch_bytes,
    .select = select_prism,
    .flop = flop_prism,
};
