/* The list of methods, and the public functions that read it. */
#include <string.h>

#include "methods/method.h"

#define METHOD(value, name) extern const prism_method_impl prism_method_##name;
#include "methods/methods.def"
#undef METHOD

static const prism_method_impl *const methods[] = {
#define METHOD(value, name) [value] = &prism_method_##name,
#include "methods/methods.def"
#undef METHOD
};
enum { n_method = sizeof methods / sizeof methods[0] };

const prism_method_impl *prism_method_get(prism_method method)
{
    return (unsigned)method < n_method ? methods[method] : NULL;
}

int32_t prism_method_count(void)
{
    return n_method;
}

const char *prism_method_name(prism_method method)
{
    const prism_method_impl *m = prism_method_get(method);
    return m ? m->name : NULL;
}

const char *prism_method_text(prism_method method)
{
    const prism_method_impl *m = prism_method_get(method);
    return m ? m->text : NULL;
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

void prism_pool(const prism_plan_job *job, bool queries, const prism_bands *bands)
{
    const prism_backend *k = job->ctx->backend;
    if (job->timed)
        k->mark(job->ctx, PRISM_MARK_POOL);
    k->pool(job->ctx, &(prism_pool_job){.problem = job->problem,
                                        .bands = bands,
                                        .pooled = job->problem->call->pooled,
                                        .q_mean = queries ? job->q_mean : NULL,
                                        .k_mean = job->k_mean,
                                        .moments = job->moments,
                                        .reads_values = job->attends || job->problem->call->pooled});
    if (job->timed)
        k->mark(job->ctx, PRISM_MARK_POOLED);
}
