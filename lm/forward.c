/*
 * One step through the layers. Shapes, for n tokens after p earlier ones:
 *
 *   tokens [n] -> hidden [n][d_model]
 *   per layer:
 *     tile of 512: norm -> Wq -> q [n][n_head][d]; Wk, Wv -> head norm, RoPE -> cache rows p .. p+n-1
 *     whole step:  prism_attention(q, cache rows 0 .. p+n-1) -> o [n][n_head][d]
 *     tile of 512: hidden += Wo o; norm -> silu(Wgate x) * Wup x -> hidden += Wdown
 *   last row -> norm -> output matrix -> logits [n_vocab]
 */
#include "session.h"
#include "ops.h"

#include <stdlib.h>

/* x: rows first .. first + n - 1 of the step. */
static void linear(lm_session *s, const lm_step *step, const lm_matrix *w, const float *bias, const float *x,
                   int32_t first, int64_t n, float *y, bool accumulate)
{
    const double start = lm_seconds();
    lm_linear_apply(&s->linear, w, bias, x, w->cols, (int64_t)s->n_token + first, n, y, w->rows, accumulate);
    if (!step->decode)
        s->stats.linear_seconds += lm_seconds() - start;
}

static void norm_rows(const lm_session *s, const float *x, const float *weight, int32_t n, float *out)
{
    const int64_t d = s->model->config.d_model;
    const float eps = s->model->config.rms_eps;
#pragma omp parallel for schedule(static) num_threads(s->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++)
        lm_rms_norm(x + i * d, weight, d, eps, out + i * d);
}

static void norm_heads(const lm_config *c, float *heads, int32_t n_head, const float *weight)
{
    for (int32_t h = 0; weight && h < n_head; h++)
        lm_rms_norm(heads + (int64_t)h * c->d_head, weight, c->d_head, c->rms_eps, heads + (int64_t)h * c->d_head);
}

static lm_dtype cache_type(const lm_session *s)
{
    return s->kv_type == PRISM_F16 ? LM_F16 : s->kv_type == PRISM_BF16 ? LM_BF16 : LM_F32;
}

/* hidden rows first .. first + n - 1 -> q, and keys and values into the cache. */
static void project(lm_session *s, const lm_step *step, int32_t layer, int32_t first, int32_t n)
{
    const lm_config *c = &s->model->config;
    const lm_layer *l = &s->model->weights.layers[layer];
    const int64_t q_width = (int64_t)c->n_head * c->d_head, kv_width = (int64_t)c->n_kv_head * c->d_head;
    float *q = s->q + first * q_width;
    norm_rows(s, s->hidden + (int64_t)first * c->d_model, l->attn_norm, n, s->x);
    linear(s, step, &l->q, l->q_bias, s->x, first, n, q, false);
    linear(s, step, &l->k, l->k_bias, s->x, first, n, s->k, false);
    linear(s, step, &l->v, l->v_bias, s->x, first, n, s->v, false);
    const int64_t position = (int64_t)s->n_token + first;
    const size_t row_bytes = (size_t)kv_width * prism_dtype_bytes(s->kv_type);
    uint8_t *k_rows = s->k_cache + (size_t)layer * s->layer_bytes + (size_t)position * row_bytes;
    uint8_t *v_rows = s->v_cache + (size_t)layer * s->layer_bytes + (size_t)position * row_bytes;
    const lm_dtype type = cache_type(s);
    lm_rope_table_set(&s->rope, position, n);
#pragma omp parallel for schedule(static) num_threads(s->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++) {
        float *q_row = q + i * q_width, *k_row = s->k + i * kv_width;
        norm_heads(c, q_row, c->n_head, l->q_norm);
        norm_heads(c, k_row, c->n_kv_head, l->k_norm);
        lm_rope_apply(&s->rope, i, q_row, c->n_head);
        lm_rope_apply(&s->rope, i, k_row, c->n_kv_head);
        lm_from_float(type, k_row, k_rows + (size_t)i * row_bytes, kv_width);
        lm_from_float(type, s->v + i * kv_width, v_rows + (size_t)i * row_bytes, kv_width);
    }
}

/* The rest of the layer for the same rows. */
static void output(lm_session *s, const lm_step *step, const lm_layer *l, int32_t first, int32_t n)
{
    const lm_config *c = &s->model->config;
    float *hidden = s->hidden + (int64_t)first * c->d_model;
    linear(s, step, &l->o, l->o_bias, s->o + (int64_t)first * c->n_head * c->d_head, first, n, hidden, true);
    norm_rows(s, hidden, l->ffn_norm, n, s->x);
    linear(s, step, &l->gate, NULL, s->x, first, n, s->gate, false);
    linear(s, step, &l->up, NULL, s->x, first, n, s->up, false);
#pragma omp parallel for schedule(static) num_threads(s->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++)
        lm_swiglu(s->gate + (int64_t)i * c->d_ff, s->up + (int64_t)i * c->d_ff, c->d_ff);
    linear(s, step, &l->down, NULL, s->gate, first, n, hidden, true);
}

/* ------------------------------------------------------------------------------------------- attention ---- */

static prism_call make_call(lm_session *s, int32_t layer, int32_t n)
{
    const lm_config *c = &s->model->config;
    const size_t at = (size_t)layer * s->layer_bytes;
    prism_call call;
    prism_call_init(&call);
    call.n_seq = 1;
    call.n_head = c->n_head;
    call.n_kv_head = c->n_kv_head;
    call.d_head = c->d_head;
    call.n_q = n;
    call.n_kv = s->n_token + n;
    call.q_start = s->n_token;
    call.q = prism_tensor_token_major(s->q, PRISM_F32, n, c->n_head, c->d_head);
    call.o = prism_tensor_token_major(s->o, PRISM_F32, n, c->n_head, c->d_head);
    call.k = prism_tensor_token_major(s->k_cache + at, s->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    call.v = prism_tensor_token_major(s->v_cache + at, s->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    call.pooled = &s->pooled[layer];
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
    free(s->workspace);
    s->workspace = aligned_alloc(64, bytes);
    s->workspace_bytes = s->workspace ? bytes : 0;
    if (!s->workspace)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a workspace of %.2f GiB", (double)bytes / 0x1p30);
    return true;
}

static bool attention(lm_session *s, const lm_step *step, int32_t layer, lm_error *err)
{
    const prism_call call = make_call(s, layer, step->n);
    if (!step->decode && s->on_call)
        s->on_call(s->user, layer, &call);
    prism_stats stats = {.struct_size = sizeof stats};
    if (!ensure_workspace(s, step->options, &call, err))
        return false;
    if (prism_attention(s->ctx, step->options, &call, s->plan, s->workspace, s->workspace_bytes, &stats) != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "attention of layer %d, tokens %d to %d: %s", layer, s->n_token,
                       s->n_token + step->n - 1, prism_last_error(s->ctx));
    if (step->decode)
        return true;
    lm_layer_stats *l = &s->layer_stats[layer];
    l->n_selected += stats.n_selected;
    l->n_causal += stats.n_causal;
    l->density = l->n_causal ? (double)l->n_selected / (double)l->n_causal : 0;
    l->select_seconds += stats.select_seconds;
    l->attend_seconds += stats.attend_seconds;
    l->path = stats.path;
    if (s->on_plan)
        s->on_plan(s->user, layer, s->n_token, s->plan);
    return true;
}

/* ---------------------------------------------------------------------------------------------- logits ---- */

static void logits_of(lm_session *s, const lm_step *step, int32_t first, int32_t n, float *out)
{
    const lm_weights *w = &s->model->weights;
    norm_rows(s, s->hidden + (int64_t)first * s->model->config.d_model, w->output_norm, n, s->x);
    linear(s, step, &w->output, NULL, s->x, first, n, out, false);
}

static bool all_logits(lm_session *s, const lm_step *step, lm_error *err)
{
    for (int32_t first = 0; first < step->n; first += LM_LOGIT_TILE) {
        const int32_t n = step->n - first < LM_LOGIT_TILE ? step->n - first : LM_LOGIT_TILE;
        logits_of(s, step, first, n, s->logit_tile);
        if (!s->on_logits(s->user, s->n_token + first, n, s->logit_tile))
            return lm_fail(err, LM_ERROR_RUN, "stopped at position %d by the reader of the logits", s->n_token + first);
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------ step ---- */

static bool run_layer(lm_session *s, const lm_step *step, int32_t layer, lm_error *err)
{
    const lm_config *c = &s->model->config;
    for (int32_t first = 0; first < step->n; first += LM_TILE)
        project(s, step, layer, first, step->n - first < LM_TILE ? step->n - first : LM_TILE);
    if (!attention(s, step, layer, err))
        return false;
    /* After the last layer's attention only the rows whose logits are wanted have anything to say. */
    int32_t first = 0;
    if (layer == c->n_layer - 1 && !(s->on_logits && !step->decode))
        first = step->last ? step->n - 1 : step->n;
    for (; first < step->n; first += LM_TILE)
        output(s, step, &s->model->weights.layers[layer], first, step->n - first < LM_TILE ? step->n - first : LM_TILE);
    return true;
}

bool lm_forward(lm_session *s, const lm_step *step, lm_error *err)
{
    const lm_config *c = &s->model->config;
    lm_linear_rows(&s->model->weights.embedding, step->tokens, step->n, s->hidden);
    for (int32_t layer = 0; layer < c->n_layer; layer++) {
        if (!run_layer(s, step, layer, err))
            return false;
        if (step->progress)
            step->progress(step->progress_user, step->done + (int64_t)step->n * (layer + 1) / c->n_layer, step->total);
    }
    if (s->on_logits && !step->decode && !all_logits(s, step, err))
        return false;
    if (step->last)
        logits_of(s, step, step->n - 1, 1, s->logits);
    return true;
}
