/* A call as the hook of a session sees it: where the data lie on a device and the hook reads them, copies. */
#include "session.h"

#include <stdlib.h>

static void *fetch(lm_session *s, const prism_tensor *t, int32_t n_token, int32_t n_head)
{
    const size_t bytes =
        (size_t)n_token * (size_t)n_head * (size_t)s->model->config.d_head * prism_dtype_bytes(t->dtype);
    void *copy = malloc(bytes);
    if (copy)
        s->backend->ops->copy_out(s->backend, copy, t->data, bytes);
    return copy;
}

bool lm_session_call_hook(lm_session *s, int32_t layer, const prism_call *call, lm_error *err)
{
    if (s->backend->on_host || !s->calls_on_host) {
        s->on_call(s->user, layer, call);
        return true;
    }
    prism_call host = *call;
    host.pooled = NULL;
    host.o.data = NULL;
    host.q.data = fetch(s, &call->q, call->n_q, call->n_head);
    host.k.data = fetch(s, &call->k, call->n_kv, call->n_kv_head);
    host.v.data = fetch(s, &call->v, call->n_kv, call->n_kv_head);
    bool ok = host.q.data && host.k.data && host.v.data;
    if (!ok)
        lm_fail(err, LM_ERROR_MEMORY, "no memory for copies of the queries, keys and values of %d tokens", call->n_kv);
    ok = ok && s->backend->ops->finish(s->backend, err);
    if (ok)
        s->on_call(s->user, layer, &host);
    free(host.q.data);
    free(host.k.data);
    free(host.v.data);
    return ok;
}
