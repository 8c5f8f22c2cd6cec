/* Q, K and V to measure on: noise, or a layer's own. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

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

bool bench_tensors_bands(const bench_tensors *t, int32_t block_size, prism_bands *out, lm_error *err)
{
    const prism_status status =
        t->d_head == 128 ? prism_bands_split(out, &t->rope, 64, 96) : prism_bands_auto(out, &t->rope, block_size);
    return !status || lm_fail(err, LM_ERROR_USAGE, "heads of %d dimensions cannot be split into bands: %s", t->d_head,
                              prism_status_name(status));
}

/* -------------------------------------------------------------------------------------------- rounding ---- */

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static uint16_t to_bf16(float x)
{
    const uint32_t u = bits_of(x);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t to_f16(float x)
{
    const uint32_t u = bits_of(x), magnitude = u & 0x7fffffff, sign = u >> 16 & 0x8000;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* rounds to 2^16 */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude >= 0x38800000) { /* normal: rebias the exponent, round 13 bits away */
        const uint32_t v = magnitude - (112u << 23);
        return (uint16_t)(sign | (v + 0xfff + (v >> 13 & 1)) >> 13);
    }
    if (magnitude < 0x33000000) /* below half of the smallest subnormal */
        return (uint16_t)sign;
    const uint32_t shift = 126 - (magnitude >> 23), m = (magnitude & 0x7fffff) | 0x800000;
    const uint32_t half = 1u << (shift - 1), whole = m >> shift;
    const uint32_t rest = m & ((1u << shift) - 1);
    return (uint16_t)(sign | (whole + (rest > half || (rest == half && (whole & 1)))));
}

void bench_store(void *dst, prism_dtype dtype, const float *src, int64_t n)
{
    if (dtype == PRISM_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    uint16_t *out = dst;
    for (int64_t i = 0; i < n; i++)
        out[i] = dtype == PRISM_BF16 ? to_bf16(src[i]) : to_f16(src[i]);
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
        bench_store((char *)data + (size_t)(r * width) * prism_dtype_bytes(dtype), dtype, row, width);
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
        bench_store((char *)dst + (size_t)(i * d) * prism_dtype_bytes(dtype), dtype,
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
