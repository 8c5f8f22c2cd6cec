/* Everything a session allocates by size: counted before it is taken. */
#include "session.h"

#include <stdlib.h>

/* Marks between two collections: enough for many steps, few enough to be cheap. */
enum { MANY_MARKS = 8192 };

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

static bool allocate(lm_session *s, const request *requests, size_t n, uint64_t *total, lm_error *err)
{
    lm_backend *const b = s->backend;
    *total = 0;
    uint64_t bytes;
    if (n > (size_t)(LM_SESSION_BUFFERS - s->n_owned))
        return lm_fail(err, LM_ERROR_MEMORY, "a session holds at most %d buffers", LM_SESSION_BUFFERS);
    for (size_t i = 0; i < n; i++)
        if (!request_bytes(&requests[i], &bytes) || __builtin_add_overflow(*total, bytes, total))
            return lm_fail(err, LM_ERROR_MEMORY,
                           "the session would need more bytes than a 64-bit number holds; "
                           "ask for a shorter context");
    const uint64_t available = b->ops->available(b);
    if (*total > available || *total > SIZE_MAX / 2)
        return lm_fail(err, LM_ERROR_MEMORY,
                       "the session needs %.2f GiB for its KV cache and activations, %s has %.2f GiB left; "
                       "shorten the context or prefill in chunks",
                       (double)*total / 0x1p30, b->on_host ? "the machine" : "the GPU", (double)available / 0x1p30);
    for (size_t i = 0; i < n; i++) {
        request_bytes(&requests[i], &bytes);
        *requests[i].out = bytes ? b->ops->allocate(b, (size_t)bytes) : NULL;
        s->owned[s->n_owned++] = *requests[i].out;
        if (bytes && !*requests[i].out)
            return lm_fail(err, LM_ERROR_MEMORY,
                           "no memory for %.2f GiB, a part of the %.2f GiB that the session needs; shorten the context "
                           "or prefill in chunks",
                           (double)bytes / 0x1p30, (double)*total / 0x1p30);
    }
    return true;
}

/* Memory of the caller's own, where the backend's cannot be read from the host. */
static bool allocate_host(lm_session *s, lm_error *err)
{
    const size_t row = (size_t)s->model->config.n_vocab;
    const size_t n_tile = s->asked.on_logits ? (size_t)s->backend->logit_tile : 0;
    if (s->backend->on_host) {
        s->host_logits = s->logits;
        s->host_logit_tile = s->logit_tile;
        return true;
    }
    s->host_logits = malloc(row * sizeof *s->host_logits);
    s->host_logit_tile = n_tile ? malloc(n_tile * row * sizeof *s->host_logit_tile) : NULL;
    s->host_counts = malloc((size_t)s->most_kept * (size_t)s->model->config.n_layer * sizeof *s->host_counts);
    return (s->host_logits && s->host_counts && (s->host_logit_tile || !n_tile)) ||
           lm_fail(err, LM_ERROR_MEMORY, "no memory for logits");
}

bool lm_session_allocate(lm_session *s, size_t pooled_bytes, lm_error *err)
{
    const lm_config *c = &s->model->config;
    lm_backend *const b = s->backend;
    const uint64_t step = (uint64_t)s->step, f = sizeof(float), tile = (uint64_t)b->tile;
    const uint64_t n_layer = (uint64_t)c->n_layer, head = (uint64_t)c->d_head, n_head = (uint64_t)c->n_head;
    const uint64_t kv = (uint64_t)c->n_kv_head * head, d = (uint64_t)c->d_model, ff = (uint64_t)c->d_ff;
    const uint64_t element = prism_dtype_bytes(s->backend->kv_type);
    const uint64_t n_ctx = (uint64_t)s->n_ctx, x = prism_dtype_bytes(b->type);
    const uint64_t vocab = (uint64_t)c->n_vocab, rounded = b->type == PRISM_F32 ? 0 : tile;
    const int32_t per_step = lm_session_mark(s, 1, 0, 0);
    s->most_kept = per_step < MANY_MARKS ? MANY_MARKS / per_step : 1;
    const request requests[] = {
        {(void **)&s->k_cache, {n_layer, n_ctx, kv, element}},
        {(void **)&s->v_cache, {n_layer, n_ctx, kv, element}},
        {(void **)&s->pooled_memory, {n_layer, pooled_bytes, 1, 1}},
        {(void **)&s->tokens, {step, sizeof *s->tokens, 1, 1}},
        {(void **)&s->hidden, {step, d, f, 1}},
        {(void **)&s->q, {step, n_head, head, x}},
        {(void **)&s->o, {step, n_head, head, x}},
        {&s->x, {tile, d, x, 1}},
        {(void **)&s->q_tile, {rounded, n_head, head, f}},
        {(void **)&s->k, {tile, kv, f, 1}},
        {(void **)&s->v, {tile, kv, f, 1}},
        {(void **)&s->gate, {tile, ff, f, 1}},
        {(void **)&s->up, {tile, ff, f, 1}},
        {&s->act, {rounded, ff, x, 1}},
        {(void **)&s->logits, {vocab, f, 1, 1}},
        {(void **)&s->logit_tile, {s->asked.on_logits ? (uint64_t)b->logit_tile : 0, vocab, f, 1}},
        {(void **)&s->counts, {b->on_host ? 0 : (uint64_t)s->most_kept, n_layer, sizeof *s->counts, 1}},
    };
    uint64_t total;
    if (!allocate(s, requests, sizeof requests / sizeof *requests, &total, err))
        return false;
    if (!s->act)
        s->act = s->gate;
    s->layer_bytes = (size_t)(n_ctx * kv * element);
    s->stats.kv_bytes = 2 * s->layer_bytes * (size_t)c->n_layer;
    s->stats.scratch_bytes = (size_t)total - s->stats.kv_bytes;
    return allocate_host(s, err);
}

bool lm_session_allocate_scores(lm_session *s, lm_error *err)
{
    lm_backend *const b = s->backend;
    const uint64_t step = (uint64_t)s->step, tile = (uint64_t)b->logit_tile, vocab = (uint64_t)s->model->config.n_vocab;
    uint64_t total;
    if (s->nll)
        return true;
    const request requests[] = {
        {(void **)&s->logit_tile, {tile, vocab, sizeof(float), 1}},
        {(void **)&s->targets, {step, sizeof *s->targets, 1, 1}},
        {(void **)&s->nll, {step, sizeof *s->nll, 1, 1}},
    };
    const size_t first = s->logit_tile ? 1 : 0; /* a hook may have asked for it already */
    if (!allocate(s, requests + first, sizeof requests / sizeof *requests - first, &total, err))
        return false;
    s->stats.scratch_bytes += (size_t)total;
    return true;
}

void lm_session_release(lm_session *s)
{
    lm_backend *const b = s->backend;
    if (b && !b->on_host) {
        free(s->host_logits);
        free(s->host_logit_tile);
    }
    for (int32_t i = 0; i < s->n_owned; i++)
        b->ops->release(b, s->owned[i]);
    if (b)
        b->ops->release(b, s->workspace);
    free(s->host_counts);
}
