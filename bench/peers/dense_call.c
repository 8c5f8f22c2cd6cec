#include "dense_call.h"

#include <stdlib.h>

#include "prism_attn/prism.h"

struct dense_call {
    prism_ctx *ctx;
    prism_options options;
    prism_call call;
    prism_plan *plan;
    void *workspace;
    size_t workspace_bytes;
};

dense_call *dense_call_new(const dense_shape *s, void *q, void *k, void *v, void *o)
{
    dense_call *c = calloc(1, sizeof *c);
    prism_config config;
    prism_config_init(&config);
    config.n_thread = s->n_thread;
    if (!c || prism_create(&config, &c->ctx)) {
        dense_call_free(c);
        return NULL;
    }
    prism_options_init(&c->options);
    c->options.method = PRISM_METHOD_DENSE;
    prism_call_init(&c->call);
    c->call.n_head = s->n_head;
    c->call.n_kv_head = s->n_kv_head;
    c->call.d_head = s->d_head;
    c->call.n_q = s->n_q;
    c->call.n_kv = s->n_kv;
    c->call.q = prism_tensor_head_major(q, (prism_dtype)s->q_dtype, s->n_q, s->n_head, s->d_head);
    c->call.k = prism_tensor_head_major(k, (prism_dtype)s->kv_dtype, s->n_kv, s->n_kv_head, s->d_head);
    c->call.v = prism_tensor_head_major(v, (prism_dtype)s->kv_dtype, s->n_kv, s->n_kv_head, s->d_head);
    c->call.o = prism_tensor_head_major(o, (prism_dtype)s->q_dtype, s->n_q, s->n_head, s->d_head);
    if (prism_workspace_bytes(c->ctx, &c->options, &c->call, &c->workspace_bytes) ||
        prism_plan_create(c->ctx, &c->call, c->options.block_size, 0, &c->plan) ||
        !(c->workspace = aligned_alloc(64, (c->workspace_bytes + 63) / 64 * 64))) {
        dense_call_free(c);
        return NULL;
    }
    return c;
}

int dense_call_run(dense_call *c)
{
    return (int)prism_attention(c->ctx, &c->options, &c->call, c->plan, c->workspace, c->workspace_bytes, NULL);
}

void dense_call_free(dense_call *c)
{
    if (!c)
        return;
    prism_plan_destroy(c->plan);
    prism_destroy(c->ctx);
    free(c->workspace);
    free(c);
}
