/* Q, K and V to measure on: noise, or a layer's own. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "lm/tensor.h"

static const char no_memory[] = "no memory for Q, K, V and O of %d tokens";

static bool create(const bench_shape *s, bench_tensors *t, lm_error *err)
{
    *t = (bench_tensors){
        .n_token = s->n_token, .n_head = s->n_head, .n_kv_head = s->n_kv_head, .d_head = s->d_head, .dtype = s->dtype};
    const size_t row = (size_t)s->d_head * prism_dtype_bytes(s->dtype);
    const size_t q = ((size_t)s->n_token * (size_t)s->n_head * row + 63) / 64 * 64;
    const size_t kv = ((size_t)s->n_token * (size_t)s->n_kv_head * row + 63) / 64 * 64;
    t->q = aligned_alloc(64, q);
    t->k = aligned_alloc(64, kv);
    t->v = aligned_alloc(64, kv);
    t->o = aligned_alloc(64, q);
    if (!t->q || !t->k || !t->v || !t->o)
        return lm_fail(err, LM_ERROR_MEMORY, no_memory, s->n_token);
    memset(t->o, 0, q); /* committed now, not in the first measurement */
    return true;
}

void bench_tensors_free(bench_tensors *t)
{
    free(t->q);
    free(t->k);
    free(t->v);
    free(t->o);
    *t = (bench_tensors){0};
}

prism_call bench_tensors_call(const bench_tensors *t, int32_t n_token)
{
    prism_call call;
    prism_call_init(&call);
    call.n_head = t->n_head;
    call.n_kv_head = t->n_kv_head;
    call.d_head = t->d_head;
    call.n_q = call.n_kv = n_token;
    call.q = prism_tensor_token_major(t->q, t->dtype, n_token, t->n_head, t->d_head);
    call.k = prism_tensor_token_major(t->k, t->dtype, n_token, t->n_kv_head, t->d_head);
    call.v = prism_tensor_token_major(t->v, t->dtype, n_token, t->n_kv_head, t->d_head);
    call.o = prism_tensor_token_major(t->o, t->dtype, n_token, t->n_head, t->d_head);
    return call;
}

static void store(void *dst, prism_dtype dtype, int64_t at, const float *src, int64_t n)
{
    static const lm_dtype types[] = {[PRISM_F32] = LM_F32, [PRISM_F16] = LM_F16, [PRISM_BF16] = LM_BF16};
    lm_from_float(types[dtype], src, (char *)dst + (size_t)at * prism_dtype_bytes(dtype), n);
}

/* ------------------------------------------------------------------------------------------------ noise ---- */

static uint64_t mix(uint64_t x) /* splitmix64: a counter in, 64 random bits out */
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static void fill(void *data, prism_dtype dtype, int64_t n_row, int64_t width, uint64_t seed, int32_t n_thread)
{
    const float unit = 1.7320508f / 32768; /* 16 bits to +-sqrt(3) */
#pragma omp parallel for num_threads(n_thread) schedule(static)
    for (int64_t r = 0; r < n_row; r++) {
        float row[PRISM_MAX_D_HEAD];
        for (int64_t j = 0; j < width; j += 4) {
            const uint64_t bits = mix(seed ^ (uint64_t)(r * width + j));
            for (int64_t i = j; i < j + 4 && i < width; i++)
                row[i] = ((float)(bits >> (16 * (i - j)) & 0xffff) - 32767.5f) * unit;
        }
        store(data, dtype, r * width, row, width);
    }
}

bool bench_tensors_random(const bench_shape *s, uint64_t seed, int32_t n_thread, bench_tensors *out, lm_error *err)
{
    *out = (bench_tensors){0};
    if (s->n_token < 1 || s->n_head < 1 || s->n_kv_head < 1 || s->n_head % s->n_kv_head || s->d_head < 2 ||
        s->d_head > PRISM_MAX_D_HEAD || s->d_head % 2 || !prism_dtype_bytes(s->dtype))
        return lm_fail(err, LM_ERROR_USAGE,
                       "%d heads, %d KV heads of %d dimensions: heads must be a multiple of KV heads, dimensions even "
                       "and at most %d",
                       s->n_head, s->n_kv_head, s->d_head, PRISM_MAX_D_HEAD);
    if (!create(s, out, err))
        return false;
    const int64_t n = s->n_token, d = s->d_head;
    fill(out->q, s->dtype, n * s->n_head, d, mix(3 * seed), n_thread);
    fill(out->k, s->dtype, n * s->n_kv_head, d, mix(3 * seed + 1), n_thread);
    fill(out->v, s->dtype, n * s->n_kv_head, d, mix(3 * seed + 2), n_thread);
    prism_rope_init(&out->rope, s->d_head);
    prism_rope_add(&out->rope, PRISM_ROPE_HALF_SPLIT, 0, s->d_head, 1e6);
    return true;
}

/* ---------------------------------------------------------------------------------------------- capture ---- */

typedef struct capture {
    bench_tensors *t;
    int32_t layer;
    prism_dtype from;
    bool captured;
} capture;

static void copy_rows(void *dst, prism_dtype dtype, const prism_tensor *src, int32_t n_token, int32_t n_head, int32_t d)
{
    if (src->dtype == dtype) {
        memcpy(dst, src->data, (size_t)n_token * (size_t)n_head * (size_t)d * prism_dtype_bytes(dtype));
        return;
    }
    for (int64_t i = 0; i < (int64_t)n_token * n_head; i++)
        store(dst, dtype, i * d,
              (const float *)src->data + i / n_head * src->stride_token + i % n_head * src->stride_head, d);
}

/* The session's tensors are contiguous. On the CPU they are float32: Q always, K and V because its cache was asked for
 * so. On a GPU they have the type that was asked for already. */
static void keep_layer(void *user, int32_t layer, const prism_call *call)
{
    capture *c = user;
    bench_tensors *t = c->t;
    if (layer != c->layer)
        return;
    c->captured = call->n_q == t->n_token && call->n_kv == t->n_token && call->q.dtype == c->from &&
                  call->k.dtype == c->from && call->v.dtype == c->from;
    if (!c->captured)
        return;
    copy_rows(t->q, t->dtype, &call->q, t->n_token, t->n_head, t->d_head);
    copy_rows(t->k, t->dtype, &call->k, t->n_token, t->n_kv_head, t->d_head);
    copy_rows(t->v, t->dtype, &call->v, t->n_token, t->n_kv_head, t->d_head);
}

bool bench_tensors_capture(const lm_model *model, prism_ctx *ctx, const int32_t *tokens, int32_t n_token, int32_t layer,
                           prism_dtype dtype, lm_progress *progress, void *user, bench_tensors *out, lm_error *err)
{
    const lm_config *config = lm_model_config(model);
    *out = (bench_tensors){0};
    if (layer < 0 || layer >= config->n_layer)
        return lm_fail(err, LM_ERROR_USAGE, "layer %d: the model has layers 0 to %d", layer, config->n_layer - 1);
    const bench_shape shape = {n_token, config->n_head, config->n_kv_head, config->d_head, dtype};
    if (!create(&shape, out, err))
        return false;
    out->rope = *lm_model_rope(model);
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(ctx, &info);
    capture c = {.t = out, .layer = layer, .from = info.device == PRISM_DEVICE_CPU ? PRISM_F32 : dtype};
    prism_options dense;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    lm_session_options options;
    lm_session_options_init(&options);
    options.n_ctx = n_token;
    options.kv_type = c.from; /* rounded once, to dtype */
    options.calls_on_host = true;
    options.options = &dense;
    options.on_call = keep_layer;
    options.user = &c;
    lm_session *session;
    if (!lm_session_create(model, ctx, &options, &session, err))
        return false;
    const bool ok = lm_session_prefill(session, tokens, n_token, progress, user, err);
    lm_session_destroy(session);
    return ok && (c.captured || lm_fail(err, LM_ERROR_RUN, "layer %d gave no tensors of %d tokens", layer, n_token));
}
