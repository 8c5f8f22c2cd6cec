/* Plain mean pooling: one band of all dimensions at the softmax's own scale. What Prism improves on. */
#include "core/options.h"
#include "core/work.h"
#include "methods/methods.h"

static void select_meanpool(const prism_plan_job *job)
{
    const prism_kernels *k = job->ctx->kernels;
    const prism_options *opt = job->options;
    const prism_problem *p = job->problem;
    int16_t every_dim[PRISM_MAX_D_HEAD];
    for (int32_t j = 0; j < p->call->d_head; j++)
        every_dim[j] = (int16_t)j;
    for (int64_t row = 0; row < p->n_row; row++)
        job->factor[row * PRISM_MAX_BAND] = p->scale;

    prism_pool_queries(job);
    prism_pool_keys(job);
    k->select(job->ctx, &(prism_select_job){
                            .problem = p,
                            .q_mean = job->q_mean,
                            .k_mean = job->k_mean,
                            .band = {{every_dim, p->call->d_head, opt->top_p}},
                            .n_band = 1,
                            .factor = job->factor,
                            .keep_sink = opt->keep_sink,
                            .keep_own = opt->keep_own,
                            .min_tokens = job->min_tokens,
                            .bits = job->bits,
                            .scratch = job->scratch,
                        });
}

static double flop_meanpool(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) +
           prism_work_blocks(p, q, p->call->d_head);
}

const prism_method_impl prism_method_meanpool = {
    .name = "meanpool",
    .uses_top_p = true,
    .pools = true,
    .scratch_bytes = prism_pooled_scratch_bytes,
    .select = select_meanpool,
    .flop = flop_meanpool,
};
