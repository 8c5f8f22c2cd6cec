/* attention: one node as one call of the library, all sequences of the ubatch at once. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plugin_engine {
    prism_ctx *ctx;
    int n_thread; /* of ctx */
    prism_plan *plan;
    prism_call plan_shape; /* what the plan has room for */
    plugin_groups groups;
    plugin_pooled_set *pooled;
    plugin_buffer workspace, lengths, q_copy, k_copy, k_index, v_index;
    char error[300];
};

plugin_engine *plugin_engine_create(void)
{
    plugin_engine *e = calloc(1, sizeof *e);
    if (e && !(e->pooled = plugin_pooled_create())) {
        free(e);
        return NULL;
    }
    return e;
}

void plugin_engine_destroy(plugin_engine *e)
{
    if (!e)
        return;
    prism_plan_destroy(e->plan);
    prism_destroy(e->ctx);
    plugin_groups_free(&e->groups);
    plugin_pooled_destroy(e->pooled);
    plugin_buffer *buffers[] = {&e->workspace, &e->lengths, &e->q_copy, &e->k_copy, &e->k_index, &e->v_index};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        plugin_buffer_free(buffers[i]);
    free(e);
}

static const char *fail(plugin_engine *e, const char *what)
{
    snprintf(e->error, sizeof e->error, "%s: %s", what, e->ctx ? prism_last_error(e->ctx) : "no context");
    return e->error;
}

static bool open_context(plugin_engine *e, int n_thread)
{
    if (e->ctx && e->n_thread == n_thread)
        return true;
    prism_plan_destroy(e->plan);
    prism_destroy(e->ctx);
    e->plan = NULL;
    e->ctx = NULL;
    prism_config config;
    prism_config_init(&config);
    config.n_thread = n_thread;
    e->n_thread = n_thread;
    return prism_create(&config, &e->ctx) == PRISM_OK;
}

/* ---------------------------------------------------------------------------------------------------- the call ---- */

/* Fills in the call's lengths. Returns the groups' first rows in q, then their first rows in o; NULL: no memory. */
static const int32_t *fill_lengths(plugin_engine *e, int64_t q_stream_rows, int64_t n_q, prism_call *call)
{
    const int32_t n = e->groups.n_group;
    int32_t *row = plugin_buffer_reserve(&e->lengths, (size_t)n * 5 * sizeof *row);
    if (!row)
        return NULL;
    int32_t *o_row = row + n, *n_q_of = row + 2 * n, *n_kv_of = row + 3 * n, *q_start_of = row + 4 * n;
    for (int32_t i = 0; i < n; i++) {
        const plugin_group *g = &e->groups.group[i];
        row[i] = (int32_t)(g->stream * q_stream_rows + g->row);
        o_row[i] = (int32_t)(g->stream * n_q + g->row);
        n_q_of[i] = g->n_row;
        n_kv_of[i] = g->n_kv;
        q_start_of[i] = g->n_kv - g->n_row;
        call->n_q = call->n_q > g->n_row ? call->n_q : g->n_row;
        call->n_kv = call->n_kv > g->n_kv ? call->n_kv : g->n_kv;
    }
    call->n_seq = n;
    call->n_q_of = n_q_of;
    call->n_kv_of = n_kv_of;
    call->q_start_of = q_start_of;
    return row;
}

/* The queries as they were before the Hadamard mixing, [stream][n_q][n_head][d]. */
static float *unmixed_queries(plugin_engine *e, const ggml_tensor *q, int32_t n_mixed)
{
    const int32_t d = (int32_t)q->ne[0];
    const int64_t n_q = q->ne[1], n_head = q->ne[2], n_row = n_q * q->ne[3];
    float *out = plugin_buffer_reserve(&e->q_copy, (size_t)(n_row * n_head * d) * sizeof *out);
    if (!out)
        return NULL;
#pragma omp parallel for num_threads(e->n_thread) schedule(static)
    for (int64_t row = 0; row < n_row; row++)
        for (int64_t h = 0; h < n_head; h++) {
            const char *from = (const char *)q->data + (size_t)(row / n_q) * q->nb[3] + (size_t)(row % n_q) * q->nb[1] +
                               (size_t)h * q->nb[2];
            float *to = out + (row * n_head + h) * d;
            memcpy(to, from, (size_t)d * sizeof *to);
            plugin_unmix(to, d, n_mixed);
        }
    return out;
}

/* Makes views of queries and keys. n_mixed: order of the mixing to undo in both; 0: none. */
static const char *view_operands(plugin_engine *e, const ggml_tensor *q, const ggml_tensor *k, int32_t n_mixed,
                                 prism_call *call)
{
    if (!n_mixed) {
        call->q = (prism_tensor){.data = q->data,
                                 .dtype = PRISM_F32,
                                 .stride_token = (int64_t)(q->nb[1] / 4),
                                 .stride_head = (int64_t)(q->nb[2] / 4),
                                 .stride_dim = 1};
        return plugin_cache_view(k, &e->groups, call->n_kv, &e->k_index, &call->k) ? NULL : "no memory";
    }
    if (k->type != GGML_TYPE_Q8_0)
        return "keys are mixed in a cache that is not Q8_0";
    float *copy = unmixed_queries(e, q, n_mixed);
    call->q = prism_tensor_token_major(copy, PRISM_F32, q->ne[1] * q->ne[3], q->ne[2], q->ne[0]);
    return copy && plugin_cache_unmix(k, &e->groups, n_mixed, e->n_thread, &e->k_copy, &e->k_index, &call->k)
               ? NULL
               : "no memory";
}

static const char *describe_call(plugin_engine *e, const ggml_tensor *node, int32_t n_mixed, prism_call *call)
{
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2];
    prism_call_init(call);
    call->n_head = (int32_t)q->ne[2];
    call->n_kv_head = (int32_t)k->ne[2];
    call->d_head = (int32_t)q->ne[0];
    call->scale = float_param(node, 0);
    const int64_t q_stream_rows = n_mixed ? q->ne[1] : (int64_t)(q->nb[3] / q->nb[1]);
    const int32_t *row = fill_lengths(e, q_stream_rows, q->ne[1], call);
    if (!row)
        return "no memory";
    const char *why = view_operands(e, q, k, n_mixed, call);
    if (why)
        return why;
    call->q.row_start = row;
    call->o = prism_tensor_token_major(node->data, PRISM_F32, q->ne[1] * q->ne[3], q->ne[2], q->ne[0]);
    call->o.row_start = row + call->n_seq;
    return plugin_cache_view(v, &e->groups, call->n_kv, &e->v_index, &call->v) ? NULL : "no memory";
}

/* ----------------------------------------------------------------------------------------------------- running ---- */

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static bool open_plan(plugin_engine *e, const prism_call *call, int32_t block_size)
{
    prism_call *s = &e->plan_shape;
    if (e->plan && call->n_seq <= s->n_seq && call->n_head <= s->n_head && call->n_q <= s->n_q && call->n_kv <= s->n_kv)
        return true;
    prism_call shape = *call;
    shape.n_q_of = shape.n_kv_of = shape.q_start_of = NULL;
    shape.q_start = 0;
    if (e->plan) {
        shape.n_seq = larger(shape.n_seq, s->n_seq);
        shape.n_head = larger(shape.n_head, s->n_head);
        shape.n_q = larger(shape.n_q, s->n_q);
        shape.n_kv = larger(shape.n_kv, s->n_kv);
    }
    shape.n_kv = (shape.n_kv + 8191) / 8192 * 8192; /* prompts grow: not a new plan for each ubatch */
    shape.n_q = shape.n_q < shape.n_kv ? shape.n_q : shape.n_kv;
    shape.q_start = shape.n_kv - shape.n_q;
    prism_plan_destroy(e->plan);
    e->plan = NULL;
    *s = shape;
    return prism_plan_create(e->ctx, &shape, block_size, 0, &e->plan) == PRISM_OK;
}

static const char *run(plugin_engine *e, const prism_options *options, const prism_call *call, plugin_report *report)
{
    size_t bytes;
    if (!open_plan(e, call, options->block_size))
        return fail(e, "plan");
    if (prism_workspace_bytes(e->ctx, options, call, &bytes))
        return fail(e, "workspace");
    void *workspace = plugin_buffer_reserve(&e->workspace, bytes);
    if (!workspace)
        return "no memory";
    report->stats.struct_size = sizeof report->stats;
    if (prism_attention(e->ctx, options, call, e->plan, workspace, e->workspace.bytes, &report->stats))
        return fail(e, "attention");
    static const char *const paths[] = {"sparse", "dense", "short"};
    report->path = paths[report->stats.path];
    report->n_group = call->n_seq;
    return NULL;
}

const char *plugin_engine_compute(plugin_engine *e, int n_thread, const ggml_tensor *node, plugin_report *report)
{
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2];
    const char *why = plugin_groups_find(&e->groups, node->src[3], q->ne[1], q->ne[3]);
    if (why)
        return why;
    if (!open_context(e, n_thread))
        return fail(e, "context");
    prism_options options = plugin_options.options;
    prism_bands bands;
    plugin_rotation rotation;
    plugin_rotation_find(q, (int32_t)q->ne[0], &rotation);
    if (rotation.found && prism_bands_auto(&bands, &rotation.rope, options.block_size) == PRISM_OK)
        options.bands = &bands;
    else if (prism_method_uses(options.method, "bands"))
        options.method = PRISM_METHOD_DENSE;
    const bool choose = options.method != PRISM_METHOD_DENSE;
    prism_call call;
    why = describe_call(e, node, choose ? rotation.n_mixed : 0, &call);
    if (why)
        return why;
    if (choose)
        call.pooled = plugin_pooled_load(e->pooled, k, v, &e->groups, &options);
    for (int32_t i = 0; call.pooled && i < call.n_seq; i++)
        report->n_reused += call.pooled[i].n_token;
    why = run(e, &options, &call, report);
    if (!why && call.pooled)
        plugin_pooled_store(e->pooled, k, v, &e->groups);
    return why;
}
