#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <prism_attn/prism_cuda.h>

double lm_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void lm_session_options_init(lm_session_options *options)
{
    *options = (lm_session_options){.n_ctx = 4096, .kv_type = LM_KV_AUTO};
}

static bool create_pooled(lm_session *s, size_t pooled_bytes, lm_error *err)
{
    const lm_config *c = &s->model->config;
    s->pooled = calloc((size_t)c->n_layer, sizeof *s->pooled);
    s->layer_stats = calloc((size_t)c->n_layer, sizeof *s->layer_stats);
    if (!s->pooled || !s->layer_stats)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for the state of %d layers", c->n_layer);
    for (int32_t i = 0; i < c->n_layer; i++)
        if (prism_pooled_init(&s->pooled[i], &s->options, c->n_kv_head, c->d_head, s->n_ctx,
                              s->pooled_memory + (size_t)i * pooled_bytes, pooled_bytes) != PRISM_OK)
            return lm_fail(err, LM_ERROR_RUN, "the pooled keys of layer %d cannot be set up", i);
    return true;
}

/* A plan for the largest call: as many queries as a step has, at the end of the context, over one block more than they
 * fill, because a step may start inside a block. */
static bool create_plan(lm_session *s, lm_error *err)
{
    const int64_t most = (int64_t)s->step + s->options.block_size;
    const int32_t n_q = most < s->n_ctx ? (int32_t)most : s->n_ctx;
    const prism_call call = lm_session_call(s, 0, s->n_ctx - n_q, n_q);
    const prism_status status = prism_plan_create(s->ctx, &call, s->options.block_size, 0, &s->plan);
    size_t bytes;
    if (status == PRISM_OK && prism_workspace_bytes(s->ctx, &s->options, &call, &bytes) == PRISM_ERROR_UNSUPPORTED)
        return s->asked.plan_on_host && !s->backend->on_host
                   ? lm_host_planner_create(&call, s->options.block_size, &s->host_planner, err)
                   : lm_fail(err, LM_ERROR_UNSUPPORTED, "%s", prism_last_error(s->ctx));
    if (status == PRISM_ERROR_MEMORY)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a plan of %d queries by %d keys: %s", call.n_q, call.n_kv,
                       prism_last_error(s->ctx));
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "no plan for %d queries by %d keys: %s", call.n_q, call.n_kv,
                       prism_last_error(s->ctx));
    return true;
}

/* -------------------------------------------------------------------------------------------- life cycle ---- */

static bool set_options(lm_session *s, const lm_session_options *o, lm_error *err)
{
    if (o->n_ctx < 1)
        return lm_fail(err, LM_ERROR_USAGE,
                       "a context of %d tokens is too short; it must hold the prompt and the answer", o->n_ctx);
    if (o->chunk < 0)
        return lm_fail(err, LM_ERROR_USAGE, "a chunk of %d tokens makes no sense; 0 means the whole prompt", o->chunk);
    if (o->kv_type != LM_KV_AUTO && !prism_dtype_bytes(o->kv_type))
        return lm_fail(err, LM_ERROR_USAGE, "unknown type %d for the KV cache", (int)o->kv_type);
    prism_options_init(&s->options);
    if (o->options)
        s->options = *o->options;
    const int32_t block = s->options.block_size;
    if (block < 1)
        return lm_fail(err, LM_ERROR_USAGE, "a block size of %d makes no sense; use 64 or 128", block);
    if (s->options.bands)
        s->bands = *s->options.bands;
    else if (!lm_model_bands(s->model, block, &s->bands, err))
        return false;
    s->options.bands = &s->bands;
    prism_options_init(&s->dense);
    s->dense.method = PRISM_METHOD_DENSE;
    s->dense.block_size = block;
    s->n_ctx = o->n_ctx;
    s->step = o->chunk == 0 ? o->n_ctx : o->chunk / block * block;
    s->step = s->step < block ? block : s->step;
    s->step = s->step > o->n_ctx ? o->n_ctx : s->step;
    s->asked = *o;
    return true;
}

/* The device is the context's. */
static bool create_backend(lm_session *s, lm_error *err)
{
    const lm_backend_spec spec = {.model = s->model,
                                  .block_size = s->options.block_size,
                                  .n_ctx = s->n_ctx,
                                  .step = s->step,
                                  .kv_type = s->asked.kv_type,
                                  .product = s->asked.product};
    return lm_backend_create(&spec, s->ctx, &s->backend, err);
}

static bool create(lm_session *s, const lm_session_options *options, lm_error *err)
{
    const lm_config *c = &s->model->config;
    if (!set_options(s, options, err))
        return false;
    size_t pooled_bytes;
    if (prism_pooled_bytes(&s->options, c->n_kv_head, c->d_head, s->n_ctx, &pooled_bytes) != PRISM_OK)
        return lm_fail(err, LM_ERROR_USAGE, "blocks of %d tokens in a context of %d cannot be pooled",
                       s->options.block_size, s->n_ctx);
    pooled_bytes = (pooled_bytes + 63) / 64 * 64; /* each layer's share must start aligned */
    return create_backend(s, err) && lm_session_allocate(s, pooled_bytes, err) &&
           s->backend->ops->reserve_marks(s->backend, lm_session_mark(s, s->most_kept, 0, 0), err) &&
           create_pooled(s, pooled_bytes, err) && create_plan(s, err);
}

bool lm_session_create(const lm_model *model, prism_ctx *ctx, const lm_session_options *options, lm_session **out,
                       lm_error *err)
{
    lm_session *s = calloc(1, sizeof *s);
    if (!s)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a session");
    s->model = model;
    s->ctx = ctx;
    s->best = -1;
    if (!create(s, options, err)) {
        lm_session_destroy(s);
        return false;
    }
    *out = s;
    return true;
}

void lm_session_destroy(lm_session *s)
{
    if (!s)
        return;
    prism_plan_destroy(s->plan);
    lm_host_planner_destroy(s->host_planner);
    lm_session_release(s);
    free(s->pooled);
    free(s->layer_stats);
    if (s->backend) {
        if (!s->backend->on_host)
            prism_cuda_set_stream(s->ctx, NULL); /* it ends with the backend */
        s->backend->ops->destroy(s->backend);
    }
    free(s);
}

void lm_session_reset(lm_session *s)
{
    const size_t kv = s->stats.kv_bytes, scratch = s->stats.scratch_bytes;
    s->stats = (lm_session_stats){.kv_bytes = kv, .scratch_bytes = scratch};
    memset(s->layer_stats, 0, (size_t)s->model->config.n_layer * sizeof *s->layer_stats);
    for (int32_t i = 0; i < s->model->config.n_layer; i++)
        s->pooled[i].n_token = 0;
    s->n_token = 0;
    s->n_kept = 0;
    s->best = -1;
}

/* ---------------------------------------------------------------------------------------------- running ---- */

static bool check_tokens(const lm_session *s, const int32_t *tokens, int64_t n, lm_error *err)
{
    if (n < 1)
        return lm_fail(err, LM_ERROR_USAGE, "the prompt is empty; give at least one token");
    if (n > s->n_ctx - s->n_token)
        return lm_fail(err, LM_ERROR_USAGE, "%lld tokens do not fit: the session holds %d, of which %d are used",
                       (long long)n, s->n_ctx, s->n_token);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->config.n_vocab)
            return lm_fail(err, LM_ERROR_USAGE, "token %lld has id %d; the vocabulary ends at %d", (long long)i,
                           tokens[i], s->model->config.n_vocab - 1);
    return true;
}

/* The logits of the last token, to the host; the device is waited for. */
static bool take_logits(lm_session *s, lm_error *err)
{
    lm_backend *const b = s->backend;
    const int32_t best = b->ops->choose(b, s->logits);
    if (!b->on_host)
        b->ops->copy_out(b, s->host_logits, s->logits, (size_t)s->model->config.n_vocab * sizeof *s->logits);
    if (!b->ops->finish(b, err))
        return false;
    if (best < 0)
        return lm_fail(
            err, LM_ERROR_RUN,
            "the logits at position %d are not finite: the weights hold NaN or infinite values, or overflow; "
            "check the model file",
            s->n_token - 1);
    s->best = best;
    return true;
}

static prism_path path_of(const lm_session *s, const lm_plan_count *count)
{
    if (count->overflowed)
        return PRISM_PATH_DENSE_OVERFLOW;
    return s->is_short                            ? PRISM_PATH_DENSE_SHORT
           : count->n_selected == count->n_causal ? PRISM_PATH_DENSE
                                                  : PRISM_PATH_SPARSE;
}

static double seconds(const lm_session *s, int32_t step, int32_t layer, int32_t from, int32_t to)
{
    return s->backend->ops->seconds(s->backend, lm_session_mark(s, step, layer, from),
                                    lm_session_mark(s, step, layer, to));
}

static void collect_step(lm_session *s, int32_t step)
{
    const int32_t n_layer = s->model->config.n_layer;
    for (int32_t i = 0; i < n_layer; i++) {
        lm_layer_stats *l = &s->layer_stats[i];
        l->select_seconds += seconds(s, step, i, LM_MARK_CALL, LM_MARK_PLANNED);
        l->attend_seconds += seconds(s, step, i, LM_MARK_PLANNED, LM_MARK_ATTENDED);
        s->stats.linear_seconds += seconds(s, step, i, LM_MARK_START, LM_MARK_PROJECTED);
        s->stats.linear_seconds += seconds(s, step, i, LM_MARK_REST, LM_MARK_END);
        if (!s->counts)
            continue;
        const lm_plan_count *count = &s->host_counts[(int64_t)step * n_layer + i];
        l->n_selected += count->n_selected;
        l->n_causal += count->n_causal;
        l->path = path_of(s, count);
    }
    s->stats.linear_seconds += seconds(s, step, n_layer, LM_MARK_START, LM_MARK_PROJECTED);
}

/* Adds the times and the plans' counts of the kept steps to their sums; waits for the device. */
static bool collect(lm_session *s, lm_error *err)
{
    lm_backend *const b = s->backend;
    if (s->counts)
        b->ops->copy_out(b, s->host_counts, s->counts,
                         (size_t)s->n_kept * (size_t)s->model->config.n_layer * sizeof *s->counts);
    if (!b->ops->finish(b, err))
        return false;
    for (int32_t i = 0; i < s->n_kept; i++)
        collect_step(s, i);
    s->n_kept = 0;
    return true;
}

/* Tokens of the next step: up to a block boundary unless it is the last. */
static int32_t next_step(const lm_session *s, int64_t n_left)
{
    if (n_left <= s->step)
        return (int32_t)n_left;
    const int64_t end = ((int64_t)s->n_token + s->step) / s->options.block_size * s->options.block_size;
    return end > s->n_token ? (int32_t)(end - s->n_token) : s->step;
}

static bool prefill(lm_session *s, const lm_step *whole, lm_error *err)
{
    const int64_t n = whole->total;
    const double start = lm_seconds();
    prism_options options = s->options;
    /* Decided for the prompt as a whole: left to the library, each step would be judged by the keys it sees, and a
     * prompt's first steps would be dense or not depending on how it was cut. */
    const int32_t least = options.min_tokens >= 0 ? options.min_tokens : s->backend->min_tokens;
    s->is_short = s->n_token + n < least;
    options.min_tokens = s->is_short ? INT32_MAX : 0;
    s->best = -1;
    for (int64_t done = 0; done < n;) {
        lm_step step = *whole;
        step.options = &options;
        step.n = next_step(s, n - done);
        step.tokens = whole->tokens + done;
        step.targets = whole->targets ? whole->targets + done : NULL;
        step.nll = whole->nll ? whole->nll + done : NULL;
        step.done = done;
        step.last = done + step.n == n;
        if (s->n_kept == s->most_kept && !collect(s, err))
            return false;
        if (!lm_forward(s, &step, err))
            return false;
        s->n_kept++;
        s->n_token += step.n;
        done += step.n;
    }
    if (!take_logits(s, err) || !collect(s, err))
        return false;
    s->stats.n_prefill += n;
    s->stats.total_seconds += lm_seconds() - start;
    return true;
}

bool lm_session_prefill(lm_session *s, const int32_t *tokens, int64_t n, lm_progress *progress, void *user,
                        lm_error *err)
{
    const lm_step whole = {.tokens = tokens, .progress = progress, .progress_user = user, .total = n};
    return check_tokens(s, tokens, n, err) && prefill(s, &whole, err);
}

bool lm_session_score(lm_session *s, const int32_t *tokens, const int32_t *targets, int64_t n, double *nll,
                      lm_progress *progress, void *user, lm_error *err)
{
    const lm_step whole = {
        .tokens = tokens, .targets = targets, .nll = nll, .progress = progress, .progress_user = user, .total = n};
    if (!check_tokens(s, tokens, n, err))
        return false;
    for (int64_t i = 0; i < n; i++)
        if (targets[i] >= s->model->config.n_vocab)
            return lm_fail(err, LM_ERROR_USAGE, "target %lld has id %d; the vocabulary ends at %d", (long long)i,
                           targets[i], s->model->config.n_vocab - 1);
    return lm_session_allocate_scores(s, err) && prefill(s, &whole, err);
}

bool lm_session_decode(lm_session *s, int32_t token, lm_error *err)
{
    if (!check_tokens(s, &token, 1, err))
        return false;
    const double start = lm_seconds();
    const lm_step step = {.tokens = &token, .n = 1, .last = true, .decode = true, .options = &s->dense, .total = 1};
    s->best = -1;
    if (!lm_forward(s, &step, err))
        return false;
    s->n_token++;
    if (!take_logits(s, err))
        return false;
    s->stats.n_decode++;
    s->stats.decode_seconds += lm_seconds() - start;
    return true;
}

const float *lm_session_logits(const lm_session *s)
{
    return s->best < 0 ? NULL : s->host_logits;
}
int32_t lm_session_argmax(const lm_session *s)
{
    return s->best;
}

void lm_session_read_stats(const lm_session *s, lm_session_stats *out)
{
    *out = s->stats;
    out->n_layer = s->model->config.n_layer;
    out->layers = s->layer_stats;
    for (int32_t i = 0; i < out->n_layer; i++) {
        lm_layer_stats *l = &s->layer_stats[i];
        l->density = l->n_causal ? (double)l->n_selected / (double)l->n_causal : 0;
        out->n_selected += l->n_selected;
        out->n_causal += l->n_causal;
        out->select_seconds += l->select_seconds;
        out->attend_seconds += l->attend_seconds;
    }
    out->device_bytes = s->backend->device_bytes;
    out->density = out->n_causal ? (double)out->n_selected / (double)out->n_causal : 0;
}
