/* Plain mean pooling: one band of all dimensions at the softmax's own scale. What Prism improves on. */
#include "core/work.h"
#include "methods/methods.h"

static void select_meanpool(const prism_plan_job *job)
{
    prism_select_pooled(job, NULL);
}

static double flop_meanpool(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) +
           prism_work_blocks(p, q, p->call->d_head);
}

const prism_method_impl prism_method_meanpool = {
    .name = "meanpool",
    .pools = true,
    .scratch_bytes = prism_select_pooled_bytes,
    .select = select_meanpool,
    .flop = flop_meanpool,
};
