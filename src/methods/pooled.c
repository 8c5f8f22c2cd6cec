#include "methods/pooled.h"

size_t prism_select_pooled_bytes(const prism_plan_job *job)
{
    return job->ctx->backend->select.bytes(job->ctx, &(prism_select_job){.problem = job->problem});
}

void prism_select_pooled(const prism_plan_job *job, const prism_bands *bands, float top_p_high, float top_p_low)
{
    const prism_options *o = job->options;
    prism_pool(job, true, bands);
    job->ctx->backend->select.run(job->ctx, &(prism_select_job){.problem = job->problem,
                                                                .q_mean = job->q_mean,
                                                                .k_mean = job->k_mean,
                                                                .bands = bands,
                                                                .calibration = o->calibration,
                                                                .top_p = {top_p_high, top_p_low},
                                                                .keep_sink = o->keep_sink,
                                                                .keep_own = o->keep_own,
                                                                .min_tokens = job->min_tokens,
                                                                .bits = job->bits,
                                                                .scratch = job->scratch});
}
