/*
 * One step through the layers, on whatever device the session's backend is. Shapes, for n tokens after p earlier ones:
 *
 *   tokens [n] -> hidden [n][d_model]
 *   per layer:
 *     tile:       norm -> Wq -> q [n][n_head][d]; Wk, Wv -> head norm, RoPE -> cache rows p .. p+n-1
 *     whole step: plan and attention by libprismattn (q, cache rows 0 .. p+n-1) -> o [n][n_head][d]
 *     tile:       hidden += Wo o; norm -> silu(Wgate x) * Wup x -> hidden += Wdown
 *   last row -> norm -> output matrix -> logits [n_vocab]
 */
#include "session.h"

#include <prism_attn/prism_cuda.h>

static void mark(lm_session *s, const lm_step *step, int32_t layer, int32_t moment)
{
    if (!step->decode)
        s->backend->ops->mark(s->backend, lm_session_mark(s, s->n_kept, layer, moment));
}

/* x: rows first .. of the step. */
static void linear(lm_session *s, const lm_matrix *w, const float *bias, const void *x, int32_t first, int32_t n,
                   float *y, bool accumulate)
{
    const lm_product p = {w, bias, x, (int64_t)s->n_token + first, n, y, accumulate};
    s->backend->ops->linear(s->backend, &p);
}

/* hidden rows first .. first + n - 1 -> q, and keys and values into the cache. */
static void project(lm_session *s, int32_t layer, int32_t first, int32_t n)
{
    const lm_config *c = &s->model->config;
    lm_backend *const b = s->backend;
    const lm_layer *l = &b->weights->layers[layer];
    const size_t q_bytes = (size_t)c->n_head * (size_t)c->d_head * prism_dtype_bytes(b->type);
    const size_t row_bytes = (size_t)c->n_kv_head * (size_t)c->d_head * prism_dtype_bytes(s->backend->kv_type);
    const size_t at = (size_t)layer * s->layer_bytes + (size_t)(s->n_token + first) * row_bytes;
    void *q = s->q + (size_t)first * q_bytes;
    float *q_tile = s->q_tile ? s->q_tile : q;
    b->ops->norm(b, s->hidden + (int64_t)first * c->d_model, l->attn_norm, n, s->x);
    linear(s, &l->q, l->q_bias, s->x, first, n, q_tile, false);
    linear(s, &l->k, l->k_bias, s->x, first, n, s->k, false);
    linear(s, &l->v, l->v_bias, s->x, first, n, s->v, false);
    const lm_rotation r = {l, q_tile, s->k, s->v, (int64_t)s->n_token + first, n, q, s->k_cache + at, s->v_cache + at};
    b->ops->rotate(b, &r);
}

/* The rest of the layer for the same rows. */
static void output(lm_session *s, const lm_layer *l, int32_t first, int32_t n)
{
    const lm_config *c = &s->model->config;
    lm_backend *const b = s->backend;
    const size_t o_bytes = (size_t)c->n_head * (size_t)c->d_head * prism_dtype_bytes(b->type);
    float *hidden = s->hidden + (int64_t)first * c->d_model;
    linear(s, &l->o, l->o_bias, s->o + (size_t)first * o_bytes, first, n, hidden, true);
    b->ops->norm(b, hidden, l->ffn_norm, n, s->x);
    linear(s, &l->gate, NULL, s->x, first, n, s->gate, false);
    linear(s, &l->up, NULL, s->x, first, n, s->up, false);
    b->ops->swiglu(b, s->gate, s->up, n, s->act);
    linear(s, &l->down, NULL, s->act, first, n, hidden, true);
}

/* ------------------------------------------------------------------------------------------- attention ---- */

prism_call lm_session_call(const lm_session *s, int32_t layer, int32_t q_start, int32_t n_q)
{
    const lm_config *c = &s->model->config;
    const prism_dtype type = s->backend->type;
    const size_t at = (size_t)layer * s->layer_bytes;
    prism_call call;
    prism_call_init(&call);
    call.n_seq = 1;
    call.n_head = c->n_head;
    call.n_kv_head = c->n_kv_head;
    call.d_head = c->d_head;
    call.n_q = n_q;
    call.n_kv = q_start + n_q;
    call.q_start = q_start;
    call.q = prism_tensor_token_major(s->q, type, n_q, c->n_head, c->d_head);
    call.o = prism_tensor_token_major(s->o, type, n_q, c->n_head, c->d_head);
    call.k = prism_tensor_token_major(s->k_cache + at, s->backend->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    call.v = prism_tensor_token_major(s->v_cache + at, s->backend->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    return call;
}

/* The bound depends on shapes only, and the first layer of the first step usually sets it for good. */
static bool ensure_workspace(lm_session *s, const prism_options *options, const prism_call *call, lm_error *err)
{
    size_t bytes;
    if (prism_workspace_bytes(s->ctx, options, call, &bytes) != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "attention over %d keys: %s", call->n_kv, prism_last_error(s->ctx));
    if (bytes <= s->workspace_bytes && s->workspace)
        return true;
    bytes = (bytes + 64) / 64 * 64;
    s->backend->ops->release(s->backend, s->workspace);
    s->workspace = s->backend->ops->allocate(s->backend, bytes);
    s->workspace_bytes = s->workspace ? bytes : 0;
    if (!s->workspace)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a workspace of %.2f GiB", (double)bytes / 0x1p30);
    return true;
}

/* Counts of a plan on a device are written there, and read when the device is waited for anyway. */
static bool note_plan(lm_session *s, int32_t layer, lm_error *err)
{
    prism_plan_view view = {.struct_size = sizeof view};
    lm_layer_stats *l = &s->layer_stats[layer];
    prism_status status;
    if (s->backend->on_host) {
        status = prism_plan_read(s->plan, &view);
        l->n_selected += (int64_t)(view.density * (double)view.n_causal + 0.5); /* single keys: parts of blocks */
        l->n_causal += view.n_causal;
        l->path = view.path;
    } else {
        lm_plan_count *count = &s->counts[(int64_t)s->n_kept * s->model->config.n_layer + layer];
        status = prism_cuda_plan_counts(s->ctx, s->plan, &count->n_selected);
        if (status == PRISM_OK && s->asked.on_plan && !s->host_planner)
            status = prism_plan_fetch(s->ctx, s->plan);
    }
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "the plan of layer %d cannot be read: %s", layer, prism_last_error(s->ctx));
    if (s->asked.on_plan)
        s->asked.on_plan(s->asked.user, layer, s->n_token, lm_host_plan(s));
    return true;
}

static bool attention(lm_session *s, const lm_step *step, int32_t layer, lm_error *err)
{
    prism_call call = lm_session_call(s, layer, s->n_token, step->n);
    if (s->options.method != PRISM_METHOD_DENSE) /* else no plan is ever chosen by them */
        call.pooled = &s->pooled[layer];
    if (!step->decode && s->asked.on_call && !lm_session_call_hook(s, layer, &call, err))
        return false;
    const bool on_host = s->host_planner && !step->decode;
    if (!ensure_workspace(s, on_host ? &s->dense : step->options, &call, err))
        return false;
    mark(s, step, layer, LM_MARK_CALL);
    prism_status status = PRISM_OK;
    if (!on_host)
        status = prism_plan_build(s->ctx, step->options, &call, s->plan, s->workspace, s->workspace_bytes);
    else if (!lm_host_planner_build(s, step->options, &call, err))
        return false;
    mark(s, step, layer, LM_MARK_PLANNED);
    if (status == PRISM_OK)
        status = prism_attend(s->ctx, &call, s->plan, s->workspace, s->workspace_bytes);
    mark(s, step, layer, LM_MARK_ATTENDED);
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "attention of layer %d, tokens %d to %d: %s", layer, s->n_token,
                       s->n_token + step->n - 1, prism_last_error(s->ctx));
    return step->decode || note_plan(s, layer, err);
}

/* ---------------------------------------------------------------------------------------------- logits ---- */

static void logits_of(lm_session *s, int32_t first, int32_t n, float *out)
{
    lm_backend *const b = s->backend;
    b->ops->norm(b, s->hidden + (int64_t)first * s->model->config.d_model, b->weights->output_norm, n, s->x);
    linear(s, &b->weights->output, NULL, s->x, first, n, out, false);
}

/* Logits of every row, in tiles: to the hook, or scored where they are made. */
static bool all_logits(lm_session *s, const lm_step *step, lm_error *err)
{
    lm_backend *const b = s->backend;
    const size_t row_bytes = (size_t)s->model->config.n_vocab * sizeof(float);
    if (step->nll)
        b->ops->copy_in(b, s->targets, step->targets, (size_t)step->n * sizeof *s->targets);
    for (int32_t first = 0; first < step->n; first += b->logit_tile) {
        const int32_t n = step->n - first < b->logit_tile ? step->n - first : b->logit_tile;
        logits_of(s, first, n, s->logit_tile);
        if (step->nll)
            b->ops->nll(b, s->logit_tile, s->targets + first, n, s->nll + first);
        if (!s->asked.on_logits)
            continue;
        if (!b->on_host)
            b->ops->copy_out(b, s->host_logit_tile, s->logit_tile, (size_t)n * row_bytes);
        if (!s->asked.on_logits(s->asked.user, s->n_token + first, n, s->host_logit_tile))
            return lm_fail(err, LM_ERROR_RUN, "stopped at position %d by the reader of the logits", s->n_token + first);
    }
    if (step->nll)
        b->ops->copy_out(b, step->nll, s->nll, (size_t)step->n * sizeof *s->nll);
    return true;
}

/* ------------------------------------------------------------------------------------------------ step ---- */

/* Whether rows other than the last are wanted after the last layer. */
static bool wants_all_logits(const lm_session *s, const lm_step *step)
{
    return (s->asked.on_logits && !step->decode) || step->nll;
}

static bool run_layer(lm_session *s, const lm_step *step, int32_t layer, lm_error *err)
{
    const lm_config *c = &s->model->config;
    const int32_t tile = s->backend->tile;
    mark(s, step, layer, LM_MARK_START);
    for (int32_t first = 0; first < step->n; first += tile)
        project(s, layer, first, step->n - first < tile ? step->n - first : tile);
    mark(s, step, layer, LM_MARK_PROJECTED);
    if (!attention(s, step, layer, err))
        return false;
    /* After the last layer's attention only the rows whose logits are wanted have anything to say. */
    int32_t first = 0;
    if (layer == c->n_layer - 1 && !wants_all_logits(s, step))
        first = step->last ? step->n - 1 : step->n;
    mark(s, step, layer, LM_MARK_REST);
    for (; first < step->n; first += tile)
        output(s, &s->backend->weights->layers[layer], first, step->n - first < tile ? step->n - first : tile);
    mark(s, step, layer, LM_MARK_END);
    return true;
}

bool lm_forward(lm_session *s, const lm_step *step, lm_error *err)
{
    const lm_config *c = &s->model->config;
    lm_backend *const b = s->backend;
    if (!b->on_host && prism_cuda_set_stream(s->ctx, b->stream) != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "the library does not take the runner's stream: %s",
                       prism_last_error(s->ctx));
    b->ops->copy_in(b, s->tokens, step->tokens, (size_t)step->n * sizeof *s->tokens);
    b->ops->embed(b, s->tokens, step->n, s->hidden);
    for (int32_t layer = 0; layer < c->n_layer; layer++) {
        if (!run_layer(s, step, layer, err))
            return false;
        if (step->progress)
            step->progress(step->progress_user, step->done + (int64_t)step->n * (layer + 1) / c->n_layer, step->total);
    }
    mark(s, step, c->n_layer, LM_MARK_START);
    if (wants_all_logits(s, step) && !all_logits(s, step, err))
        return false;
    if (step->last)
        logits_of(s, step->n - 1, 1, s->logits);
    mark(s, step, c->n_layer, LM_MARK_PROJECTED);
    return true;
}
