/* The list of methods. */
#include "methods/methods.h"

#include <string.h>

#include "core/clock.h"

static const prism_method_impl *const methods[] = {
    [PRISM_METHOD_PRISM] = &prism_method_prism,
    [PRISM_METHOD_DENSE] = &prism_method_dense,
    [PRISM_METHOD_MEANPOOL] = &prism_method_meanpool,
    [PRISM_METHOD_MINFERENCE] = &prism_method_minference,
    [PRISM_METHOD_FLEXPREFILL] = &prism_method_flexprefill,
    [PRISM_METHOD_XATTENTION] = &prism_method_xattention,
    [PRISM_METHOD_FLASHPREFILL] = &prism_method_flashprefill,
};
enum { n_method = sizeof methods / sizeof methods[0] };

const prism_method_impl *prism_method_get(prism_method method)
{
    return (unsigned)method < n_method ? methods[method] : NULL;
}

void prism_pool_queries(const prism_plan_job *job)
{
    const double start = prism_seconds();
    job->ctx->kernels->pool_queries(job->ctx, job->problem, job->q_mean);
    *job->pool_seconds += prism_seconds() - start;
}

void prism_pool_keys(const prism_plan_job *job)
{
    const double start = prism_seconds();
    job->ctx->kernels->pool_keys(job->ctx, job->problem, job->pooled, job->k_mean);
    *job->pool_seconds += prism_seconds() - start;
}

size_t prism_pooled_scratch_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    (void)o;
    return prism_max_bytes(ctx->kernels->calibrate_bytes(ctx, p), ctx->kernels->select_bytes(ctx, p));
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
