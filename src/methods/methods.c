/* The list of methods. */
#include "methods/methods.h"

#include <string.h>

#include "core/options.h"

static const prism_method_impl *const methods[] = {
    [PRISM_METHOD_PRISM] = &prism_method_prism,
    [PRISM_METHOD_DENSE] = &prism_method_dense,
    [PRISM_METHOD_MEANPOOL] = &prism_method_meanpool,
    [PRISM_METHOD_MINFERENCE] = &prism_method_minference,
    [PRISM_METHOD_FLEXPREFILL] = &prism_method_flexprefill,
    [PRISM_METHOD_XATTENTION] = &prism_method_xattention,
    [PRISM_METHOD_FLASHPREFILL] = &prism_method_flashprefill,
    [PRISM_METHOD_MOMENTS] = &prism_method_moments,
};
enum { n_method = sizeof methods / sizeof methods[0] };

const prism_method_impl *prism_method_get(prism_method method)
{
    return (unsigned)method < n_method ? methods[method] : NULL;
}

void prism_pool(const prism_plan_job *job, bool queries, const prism_bands *bands)
{
    const prism_backend *k = job->ctx->backend;
    if (job->ctx->timed)
        k->mark(job->ctx, PRISM_MARK_POOL);
    k->pool(job->ctx, &(prism_pool_job){.problem = job->problem,
                                        .bands = bands,
                                        .pooled = job->problem->call->pooled,
                                        .q_mean = queries ? job->q_mean : NULL,
                                        .k_mean = job->k_mean,
                                        .moments = job->moments,
                                        .reads_values = job->attends || job->problem->call->pooled});
    if (job->ctx->timed)
        k->mark(job->ctx, PRISM_MARK_POOLED);
}

size_t prism_select_pooled_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    (void)o;
    return ctx->backend->select_bytes(ctx, p);
}

void prism_select_pooled(const prism_plan_job *job, const prism_bands *bands)
{
    const prism_options *opt = job->options;
    prism_pool(job, true, bands);
    job->ctx->backend->select(job->ctx, &(prism_select_job){
                                            .problem = job->problem,
                                            .q_mean = job->q_mean,
                                            .k_mean = job->k_mean,
                                            .bands = bands,
                                            .calibration = opt->calibration,
                                            .top_p = {bands ? prism_options_top_p(opt, opt->top_p_high) : opt->top_p,
                                                      prism_options_top_p(opt, opt->top_p_low)},
                                            .keep_sink = opt->keep_sink,
                                            .keep_own = opt->keep_own,
                                            .min_tokens = job->min_tokens,
                                            .bits = job->bits,
                                            .scratch = job->scratch,
                                        });
}

const char *prism_method_name(prism_method method)
{
    const prism_method_impl *m = prism_method_get(method);
    return m ? m->name : NULL;
}

prism_status prism_method_find(const char *name, prism_method *out)
{
    for (int i = 0; name && out && i < n_method; i++)
        if (!strcmp(name, methods[i]->name)) {
            *out = (prism_method)i;
            return PRISM_OK;
        }
    return PRISM_ERROR_INVALID;
}

int32_t prism_method_count(void)
{
    return n_method;
}
