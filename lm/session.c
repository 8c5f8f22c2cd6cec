#include "session.h"
#include "memory.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Sequences below this take the dense plan where the options leave it to us. The runner decides for the prompt as a
 * whole: left to the library, each step would be judged by the keys it sees, and a prompt's first steps would be dense
 * or not depending on how it was cut. */
#define DEFAULT_MIN_TOKENS 1024 /* the library's own */

double lm_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void lm_session_options_init(lm_session_options *options)
{
    *options = (lm_session_options){.n_ctx = 4096, .kv_type = PRISM_F16};
}

/* ---------------------------------------------------------------------------------------------- memory ---- */

/* Everything a session allocates by size, so that it can be counted before it is taken. */
typedef struct request {
    void **out;
    uint64_t n[4]; /* bytes are their product */
} request;

static bool request_bytes(const request *r, uint64_t *bytes)
{
    uint64_t product = 1;
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(product, r->n[i], &product))
            return false;
    *bytes = (product + 63) / 64 * 64;
    return product <= UINT64_MAX - 64;
}

static bool allocate(const request *requests, size_t n, uint64_t *total, lm_error *err)
{
    *total = 0;
    uint64_t bytes;
    for (size_t i = 0; i < n; i++)
        if (!request_bytes(&requests[i], &bytes) || __builtin_add_overflow(*total, bytes, total))
            return lm_fail(err, LM_ERROR_MEMORY,
                           "the session would need more bytes than a 64-bit number holds; "
                           "ask for a shorter context");
    const uint64_t available = lm_memory_available();
    if (*total > available || *total > SIZE_MAX / 2)
        return lm_fail(err, LM_ERROR_MEMORY,
                       "the session needs %.2f GiB for its KV cache and activations, the machine has %.2f GiB left; "
                       "shorten the context or prefill in chunks",
                       (double)*total / 0x1p30, (double)available / 0x1p30);
    for (size_t i = 0; i < n; i++) {
        request_bytes(&requests[i], &bytes);
        *requests[i].out = bytes ? aligned_alloc(64, (size_t)bytes) : NULL;
        if (bytes && !*requests[i].out)
            return lm_fail(err, LM_ERROR_MEMORY,
                           "no memory for %.2f GiB, a part of the %.2f GiB that the session needs; shorten the context "
                           "or prefill in chunks",
                           (double)bytes / 0x1p30, (double)*total / 0x1p30);
    }
    return true;
}

static bool allocate_buffers(lm_session *s, size_t pooled_bytes, lm_error *err)
{
    const lm_config *c = &s->model->config;
    const uint64_t step = (uint64_t)s->step, f = sizeof(float), tile = s->step < LM_TILE ? step : LM_TILE;
    const uint64_t n_layer = (uint64_t)c->n_layer, head = (uint64_t)c->d_head, n_head = (uint64_t)c->n_head;
    const uint64_t kv = (uint64_t)c->n_kv_head * head, d = (uint64_t)c->d_model, ff = (uint64_t)c->d_ff;
    const uint64_t element = prism_dtype_bytes(s->kv_type), n_ctx = (uint64_t)s->n_ctx;
    const uint64_t vocab = (uint64_t)c->n_vocab;
    const request requests[] = {
        {(void **)&s->k_cache, {n_layer, n_ctx, kv, element}},
        {(void **)&s->v_cache, {n_layer, n_ctx, kv, element}},
        {(void **)&s->pooled_memory, {n_layer, pooled_bytes, 1, 1}},
        {(void **)&s->hidden, {step, d, f, 1}},
        {(void **)&s->q, {step, n_head, head, f}},
        {(void **)&s->o, {step, n_head, head, f}},
        {(void **)&s->x, {tile, d, f, 1}},
        {(void **)&s->k, {tile, kv, f, 1}},
        {(void **)&s->v, {tile, kv, f, 1}},
        {(void **)&s->gate, {tile, ff, f, 1}},
        {(void **)&s->up, {tile, ff, f, 1}},
        {(void **)&s->logits, {vocab, f, 1, 1}},
        {(void **)&s->logit_tile, {s->on_logits ? LM_LOGIT_TILE : 0, vocab, f, 1}},
    };
    uint64_t total;
    if (!allocate(requests, sizeof requests / sizeof *requests, &total, err))
        return false;
    s->layer_bytes = (size_t)(n_ctx * kv * element);
    s->stats.kv_bytes = 2 * s->layer_bytes * (size_t)c->n_layer;
    s->stats.scratch_bytes = (size_t)total - s->stats.kv_bytes;
    return true;
}

static bool create_pooled(lm_session *s, size_t pooled_bytes, lm_error *err)
{
    const lm_config *c = &s->model->config;
    s->pooled = calloc((size_t)c->n_layer, sizeof *s->pooled);
    s->layer_stats = calloc((size_t)c->n_layer, sizeof *s->layer_stats);
    if (!s->pooled || !s->layer_stats)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for the state of %d layers", c->n_layer);
    for (int32_t i = 0; i < c->n_layer; i++)
        if (prism_pooled_init(&s->pooled[i], c->n_kv_head, c->d_head, s->options.block_size, s->n_ctx,
                              s->pooled_memory + (size_t)i * pooled_bytes, pooled_bytes) != PRISM_OK)
            return lm_fail(err, LM_ERROR_RUN, "the pooled keys of layer %d cannot be set up", i);
    return true;
}

/* A plan for the largest call: as many queries as a step has, at the end of the context, over one block more than they
 * fill, because a step may start inside a block. */
static bool create_plan(lm_session *s, lm_error *err)
{
    const lm_config *c = &s->model->config;
    const int64_t n_q = (int64_t)s->step + s->options.block_size;
    prism_call call;
    prism_call_init(&call);
    call.n_seq = 1;
    call.n_head = c->n_head;
    call.n_kv_head = c->n_kv_head;
    call.d_head = c->d_head;
    call.n_kv = s->n_ctx;
    call.n_q = n_q < s->n_ctx ? (int32_t)n_q : s->n_ctx;
    call.q_start = call.n_kv - call.n_q;
    call.q = prism_tensor_token_major(s->q, PRISM_F32, call.n_q, c->n_head, c->d_head);
    call.k = prism_tensor_token_major(s->k_cache, s->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    call.v = prism_tensor_token_major(s->v_cache, s->kv_type, call.n_kv, c->n_kv_head, c->d_head);
    call.o = prism_tensor_token_major(s->o, PRISM_F32, call.n_q, c->n_head, c->d_head);
    const prism_status status = prism_plan_create(s->ctx, &call, s->options.block_size, 0, &s->plan);
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
    if (!prism_dtype_bytes(o->kv_type))
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
    s->kv_type = o->kv_type;
    s->on_plan = o->on_plan;
    s->on_call = o->on_call;
    s->on_logits = o->on_logits;
    s->user = o->user;
    return true;
}

static bool create(lm_session *s, const lm_session_options *options, lm_error *err)
{
    const lm_config *c = &s->model->config;
    prism_info info = {.struct_size = sizeof info};
    if (prism_get_info(s->ctx, &info) != PRISM_OK)
        return lm_fail(err, LM_ERROR_USAGE, "the context of libprismattn cannot be used");
    s->n_thread = info.n_thread > 0 ? info.n_thread : 1;
    if (!set_options(s, options, err))
        return false;
    size_t pooled_bytes;
    if (prism_pooled_bytes(c->n_kv_head, c->d_head, s->options.block_size, s->n_ctx, &pooled_bytes) != PRISM_OK)
        return lm_fail(err, LM_ERROR_USAGE, "blocks of %d tokens in a context of %d cannot be pooled",
                       s->options.block_size, s->n_ctx);
    pooled_bytes = (pooled_bytes + 63) / 64 * 64; /* each layer's share must start aligned */
    int64_t max_cols = c->d_model > c->d_ff ? c->d_model : c->d_ff;
    const int64_t q_width = (int64_t)c->n_head * c->d_head;
    max_cols = max_cols > q_width ? max_cols : q_width;
    return allocate_buffers(s, pooled_bytes, err) && create_pooled(s, pooled_bytes, err) && create_plan(s, err) &&
           lm_linear_create(&s->linear, s->n_thread, s->options.block_size, max_cols, err) &&
           lm_rope_table_create(&s->rope, &s->model->rope, c, LM_TILE, err);
}

bool lm_session_create(const lm_model *model, prism_ctx *ctx, const lm_session_options *options, lm_session **out,
                       lm_error *err)
{
    lm_session *s = calloc(1, sizeof *s);
    if (!s)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a session");
    s->model = model;
    s->ctx = ctx;
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
    void *buffers[] = {s->k_cache,     s->v_cache,  s->pooled_memory, s->hidden, s->q,      s->o,          s->x,
                       s->k,           s->v,        s->gate,          s->up,     s->logits, s->logit_tile, s->pooled,
                       s->layer_stats, s->workspace};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        free(buffers[i]);
    prism_plan_destroy(s->plan);
    lm_linear_destroy(&s->linear);
    lm_rope_table_destroy(&s->rope);
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
    s->has_logits = false;
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

static bool check_logits(lm_session *s, lm_error *err)
{
    if (!lm_all_finite(s->logits, s->model->config.n_vocab))
        return lm_fail(
            err, LM_ERROR_RUN,
            "the logits at position %d are not finite: the weights hold NaN or infinite values, or overflow; "
            "check the model file",
            s->n_token - 1);
    s->has_logits = true;
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

bool lm_session_prefill(lm_session *s, const int32_t *tokens, int64_t n, lm_progress *progress, void *user,
                        lm_error *err)
{
    if (!check_tokens(s, tokens, n, err))
        return false;
    const double start = lm_seconds();
    prism_options options = s->options;
    const int32_t least = options.min_tokens >= 0 ? options.min_tokens : DEFAULT_MIN_TOKENS;
    options.min_tokens = s->n_token + n < least ? INT32_MAX : 0;
    s->has_logits = false;
    for (int64_t done = 0; done < n;) {
        const int32_t count = next_step(s, n - done);
        const lm_step step = {.tokens = tokens + done,
                              .n = count,
                              .last = done + count == n,
                              .options = &options,
                              .progress = progress,
                              .progress_user = user,
                              .done = done,
                              .total = n};
        if (!lm_forward(s, &step, err))
            return false;
        s->n_token += count;
        done += count;
    }
    s->stats.n_prefill += n;
    s->stats.total_seconds += lm_seconds() - start;
    return check_logits(s, err);
}

bool lm_session_decode(lm_session *s, int32_t token, lm_error *err)
{
    if (!check_tokens(s, &token, 1, err))
        return false;
    const double start = lm_seconds();
    const lm_step step = {.tokens = &token, .n = 1, .last = true, .decode = true, .options = &s->dense, .total = 1};
    s->has_logits = false;
    if (!lm_forward(s, &step, err))
        return false;
    s->n_token++;
    s->stats.n_decode++;
    s->stats.decode_seconds += lm_seconds() - start;
    return check_logits(s, err);
}

const float *lm_session_logits(const lm_session *s)
{
    return s->has_logits ? s->logits : NULL;
}
int32_t lm_session_n_token(const lm_session *s)
{
    return s->n_token;
}

int32_t lm_session_argmax(const lm_session *s)
{
    int32_t best = s->has_logits ? 0 : -1;
    for (int32_t i = 1; s->has_logits && i < s->model->config.n_vocab; i++)
        if (s->logits[i] > s->logits[best])
            best = i;
    return best;
}

void lm_session_read_stats(const lm_session *s, lm_session_stats *out)
{
    *out = s->stats;
    out->n_layer = s->model->config.n_layer;
    out->layers = s->layer_stats;
    for (int32_t i = 0; i < out->n_layer; i++) {
        const lm_layer_stats *l = &s->layer_stats[i];
        out->n_selected += l->n_selected;
        out->n_causal += l->n_causal;
        out->select_seconds += l->select_seconds;
        out->attend_seconds += l->attend_seconds;
    }
    out->density = out->n_causal ? (double)out->n_selected / (double)out->n_causal : 0;
}
