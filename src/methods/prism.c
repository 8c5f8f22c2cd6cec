/* Prism (arXiv 2602.08426): pooled queries and keys score blocks twice, in a high- and a low-frequency band, each at a
 * strength restored from its energy; a row keeps the blocks that hold top_p of the mass in either band. */
#include "core/work.h"
#include "methods/methods.h"

static void select_prism(const prism_plan_job *job)
{
    prism_select_pooled(job, job->options->bands);
}

static double flop_prism(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    const int32_t n_dim = o->bands->n_high + o->bands->n_low;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) + prism_work_blocks(p, q, n_dim);
}

const prism_method_impl prism_method_prism = {
    .name = "prism",
    .needs_bands = true,
    .pools = true,
    .scratch_bytes = prism_select_pooled_bytes,
    .select = select_prism,
    .flop = flop_prism,
};
