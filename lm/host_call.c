/* The host's part in a session on a device: copies of a call, for hooks and for plans that the device cannot make. */
#include "session.h"

#include <stdlib.h>

/* ------------------------------------------------------------------------------------------------ copies ---- */

static void *fetch(lm_session *s, const prism_tensor *t, int32_t n_token, int32_t n_head)
{
    const size_t bytes =
        (size_t)n_token * (size_t)n_head * (size_t)s->model->config.d_head * prism_dtype_bytes(t->dtype);
    void *copy = malloc(bytes);
    if (copy)
        s->backend->ops->copy_out(s->backend, copy, t->data, bytes);
    return copy;
}

static void free_call(prism_call *host)
{
    free(host->q.data);
    free(host->k.data);
    free(host->v.data);
}

/* q, k and, if wanted, v of a call; waits for them. free_call() in any case. */
static bool fetch_call(lm_session *s, const prism_call *call, bool values, prism_call *host, lm_error *err)
{
    *host = *call;
    host->pooled = NULL;
    host->o.data = NULL;
    host->q.data = fetch(s, &call->q, call->n_q, call->n_head);
    host->k.data = fetch(s, &call->k, call->n_kv, call->n_kv_head);
    host->v.data = values ? fetch(s, &call->v, call->n_kv, call->n_kv_head) : NULL;
    if (!host->q.data || !host->k.data || (values && !host->v.data))
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for copies of the queries, keys and values of %d tokens",
                       call->n_kv);
    return s->backend->ops->finish(s->backend, err);
}

bool lm_session_call_hook(lm_session *s, int32_t layer, const prism_call *call, lm_error *err)
{
    if (s->backend->on_host || !s->asked.calls_on_host) {
        s->asked.on_call(s->asked.user, layer, call);
        return true;
    }
    prism_call host;
    const bool ok = fetch_call(s, call, true, &host, err);
    if (ok)
        s->asked.on_call(s->asked.user, layer, &host);
    free_call(&host);
    return ok;
}

/* ------------------------------------------------------------------------------------------------- plans ---- */

struct lm_host_planner {
    prism_ctx *ctx;
    prism_plan *plan;
    void *workspace;
    size_t workspace_bytes;
    uint8_t *mask;
};

bool lm_host_planner_create(const prism_call *largest, int32_t block_size, lm_host_planner **out, lm_error *err)
{
    lm_host_planner *p = *out = calloc(1, sizeof *p);
    if (!p || prism_create(NULL, &p->ctx) != PRISM_OK ||
        prism_plan_create(p->ctx, largest, block_size, 0, &p->plan) != PRISM_OK)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory to plan %d queries by %d keys on the CPU", largest->n_q,
                       largest->n_kv);
    return true;
}

void lm_host_planner_destroy(lm_host_planner *p)
{
    if (!p)
        return;
    prism_plan_destroy(p->plan);
    prism_destroy(p->ctx);
    free(p->workspace);
    free(p->mask);
    free(p);
}

static bool make_mask(lm_host_planner *p, const prism_options *options, const prism_call *host, size_t *bytes,
                      lm_error *err)
{
    prism_plan_view view = {.struct_size = sizeof view};
    size_t need;
    prism_status status = prism_workspace_bytes(p->ctx, options, host, &need);
    if (status == PRISM_OK && need > p->workspace_bytes) {
        free(p->workspace);
        p->workspace_bytes = (need + 63) / 64 * 64;
        p->workspace = aligned_alloc(64, p->workspace_bytes);
        if (!p->workspace) {
            p->workspace_bytes = 0;
            return lm_fail(err, LM_ERROR_MEMORY, "no memory for a workspace of %zu bytes", need);
        }
    }
    if (status == PRISM_OK)
        status = prism_plan_build(p->ctx, options, host, p->plan, p->workspace, p->workspace_bytes);
    if (status == PRISM_OK)
        status = prism_plan_read(p->plan, &view);
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "planning on the CPU: %s", prism_last_error(p->ctx));
    if (view.key_ptr)
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "method %s lists single keys, which plans for the GPU do not hold; use --device cpu",
                       prism_method_name(options->method));
    if (view.correct != PRISM_CORRECTION_NONE)
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "plans for the GPU that the CPU makes cannot be corrected; use --device cpu, or correct=none");
    *bytes = (size_t)view.n_row * (size_t)view.n_kblk;
    uint8_t *mask = realloc(p->mask, *bytes);
    if (!mask)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a mask of %zu bytes", *bytes);
    p->mask = mask;
    prism_plan_mask(p->plan, p->mask, *bytes);
    return true;
}

bool lm_host_planner_build(lm_session *s, const prism_options *options, const prism_call *call, lm_error *err)
{
    lm_host_planner *p = s->host_planner;
    prism_call host;
    size_t bytes;
    const bool ok = fetch_call(s, call, false, &host, err) && make_mask(p, options, &host, &bytes, err);
    free_call(&host);
    if (!ok)
        return false;
    if (prism_plan_from_mask(s->ctx, call, options->block_size, p->mask, bytes, s->plan) != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "a plan from the CPU: %s", prism_last_error(s->ctx));
    return true;
}

const prism_plan *lm_host_plan(const lm_session *s)
{
    return s->host_planner ? s->host_planner->plan : s->plan;
}
