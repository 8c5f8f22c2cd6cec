/* The runner's operations on the CPU: float32, OpenMP over rows, products by a library (product.h). What products and
 * attention read is rounded to bfloat16 where they compute in it. */
#include "backend.h"
#include "linear.h"
#include "memory.h"
#include "ops.h"
#include "rope.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Tokens that go through the projections and the MLP together: enough to pay for widening each weight, few enough that
 * the MLP's activations stay a few megabytes. */
enum { TILE = 512, LOGIT_TILE = 64 };

typedef struct cpu {
    lm_backend base; /* first: the same pointer */
    const lm_config *config;
    int32_t n_thread;
    lm_dtype cache_type;
    lm_linear linear;
    lm_rope_table rope;
    double *marks;
    int32_t n_mark;
} cpu;

/* ---------------------------------------------------------------------------------------------- memory ---- */

static void *allocate(lm_backend *b, size_t bytes)
{
    (void)b;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void release(lm_backend *b, void *memory)
{
    (void)b;
    free(memory);
}

static uint64_t available(lm_backend *b)
{
    (void)b;
    return lm_memory_available();
}

static void copy(lm_backend *b, void *dst, const void *src, size_t bytes)
{
    (void)b;
    memcpy(dst, src, bytes);
}

/* ------------------------------------------------------------------------------------------ operations ---- */

static void embed(lm_backend *b, const int32_t *tokens, int32_t n, float *hidden)
{
    lm_linear_rows(&b->weights->embedding, tokens, n, hidden);
}

static void norm(lm_backend *b, const float *x, const float *weight, int32_t n, void *out)
{
    const cpu *c = (const cpu *)b;
    const int64_t d = c->config->d_model;
    const float eps = c->config->rms_eps;
#pragma omp parallel for schedule(static) num_threads(c->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++)
        if (b->type == PRISM_BF16)
            lm_rms_norm_bf16(x + i * d, weight, d, eps, (uint16_t *)out + i * d);
        else
            lm_rms_norm(x + i * d, weight, d, eps, (float *)out + i * d);
}

static void linear(lm_backend *b, const lm_product *p)
{
    lm_linear_apply(&((cpu *)b)->linear, p->w, p->bias, p->x, b->type == PRISM_BF16 ? LM_BF16 : LM_F32,
                    p->w->cols, p->position, p->n, p->y, p->w->rows, p->accumulate);
}

static void norm_heads(const lm_config *c, float *heads, int32_t n_head, const float *weight)
{
    for (int32_t h = 0; weight && h < n_head; h++)
        lm_rms_norm(heads + (int64_t)h * c->d_head, weight, c->d_head, c->rms_eps, heads + (int64_t)h * c->d_head);
}

/* n floats to a cache, which has rounded ones. */
static void keep(const cpu *c, const float *src, void *dst, int64_t n)
{
    if (c->cache_type == LM_BF16)
        lm_to_bf16(LM_F32, src, dst, n);
    else
        lm_from_float(c->cache_type, src, dst, n);
}

static void rotate(lm_backend *b, const lm_rotation *r)
{
    cpu *const self = (cpu *)b;
    const lm_config *c = self->config;
    const int64_t q_width = (int64_t)c->n_head * c->d_head, kv_width = (int64_t)c->n_kv_head * c->d_head;
    const size_t row_bytes = lm_row_bytes(self->cache_type, kv_width);
    lm_rope_table_set(&self->rope, r->position, r->n);
#pragma omp parallel for schedule(static) num_threads(self->n_thread) if (r->n > 1)
    for (int32_t i = 0; i < r->n; i++) {
        float *q = r->q + i * q_width, *k = r->k + i * kv_width;
        norm_heads(c, q, c->n_head, r->layer->q_norm);
        norm_heads(c, k, c->n_kv_head, r->layer->k_norm);
        lm_rope_apply(&self->rope, i, q, c->n_head);
        lm_rope_apply(&self->rope, i, k, c->n_kv_head);
        keep(self, k, (uint8_t *)r->k_row + (size_t)i * row_bytes, kv_width);
        keep(self, r->v + i * kv_width, (uint8_t *)r->v_row + (size_t)i * row_bytes, kv_width);
        if (b->type == PRISM_BF16)
            lm_to_bf16(LM_F32, q, (uint16_t *)r->q_out + i * q_width, q_width);
    }
}

static void swiglu(lm_backend *b, float *gate, const float *up, int32_t n, void *out)
{
    const cpu *c = (const cpu *)b;
    const int64_t width = c->config->d_ff;
#pragma omp parallel for schedule(static) num_threads(c->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++) {
        lm_swiglu(gate + i * width, up + i * width, width);
        if (b->type == PRISM_BF16)
            lm_to_bf16(LM_F32, gate + i * width, (uint16_t *)out + i * width, width);
    }
}

static void nll(lm_backend *b, const float *logits, const int32_t *targets, int32_t n, double *out)
{
    const cpu *c = (const cpu *)b;
    const int64_t n_vocab = c->config->n_vocab;
#pragma omp parallel for schedule(static) num_threads(c->n_thread) if (n > 1)
    for (int32_t i = 0; i < n; i++)
        out[i] = targets[i] < 0 ? 0 : lm_nll(logits + i * n_vocab, n_vocab, targets[i]);
}

static int32_t choose(lm_backend *b, const float *logits)
{
    return lm_argmax(logits, ((cpu *)b)->config->n_vocab);
}

/* ------------------------------------------------------------------------------------------------ time ---- */

static bool reserve_marks(lm_backend *b, int32_t n, lm_error *err)
{
    cpu *const c = (cpu *)b;
    c->marks = calloc((size_t)n, sizeof *c->marks);
    c->n_mark = c->marks ? n : 0;
    return c->marks || lm_fail(err, LM_ERROR_MEMORY, "no memory for %d times", n);
}

static void mark(lm_backend *b, int32_t i)
{
    const cpu *c = (const cpu *)b;
    assert(i >= 0 && i < c->n_mark);
    c->marks[i] = lm_seconds();
}

static double seconds(lm_backend *b, int32_t from, int32_t to)
{
    const cpu *c = (const cpu *)b;
    return c->marks[to] - c->marks[from];
}

static bool finish(lm_backend *b, lm_error *err)
{
    lm_linear *l = &((cpu *)b)->linear;
    const bool ok = !l->failed;
    l->failed = false;
    return ok || lm_fail(err, LM_ERROR_MEMORY, "no memory for a product of matrices");
}

/* ---------------------------------------------------------------------------------------- life cycle ---- */

static void destroy(lm_backend *b)
{
    cpu *const c = (cpu *)b;
    lm_linear_destroy(&c->linear);
    lm_rope_table_destroy(&c->rope);
    free(c->marks);
    free(c);
}

static bool open_model(cpu *c, const lm_backend_spec *spec, lm_error *err)
{
    if (!spec->model)
        return lm_linear_create(&c->linear, spec->product, spec->n_thread, spec->block_size, 1, 1, err);
    const lm_config *config = c->config = &spec->model->config;
    const int32_t q_width = config->n_head * config->d_head;
    int32_t max_cols = config->d_model > config->d_ff ? config->d_model : config->d_ff;
    max_cols = max_cols > q_width ? max_cols : q_width;
    return lm_linear_create(&c->linear, spec->product, spec->n_thread, spec->block_size, c->base.tile, max_cols, err) &&
           lm_rope_table_create(&c->rope, &spec->model->rope, config, TILE, err);
}

bool lm_backend_cpu(const lm_backend_spec *spec, lm_backend **out, lm_error *err)
{
    static const lm_backend_ops ops = {
        .destroy = destroy,
        .allocate = allocate,
        .release = release,
        .available = available,
        .copy = copy,
        .copy_in = copy,
        .copy_out = copy,
        .embed = embed,
        .norm = norm,
        .linear = linear,
        .rotate = rotate,
        .swiglu = swiglu,
        .nll = nll,
        .choose = choose,
        .reserve_marks = reserve_marks,
        .mark = mark,
        .seconds = seconds,
        .finish = finish,
    };
    cpu *const c = calloc(1, sizeof *c);
    if (!c)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a session");
    const int32_t tile = spec->step < TILE ? spec->step : TILE;
    c->base = (lm_backend){.ops = &ops,
                           .weights = spec->model ? &spec->model->weights : NULL,
                           .tile = tile,
                           .logit_tile = tile < LOGIT_TILE ? tile : LOGIT_TILE,
                           .type = spec->attention,
                           .on_host = true};
    c->n_thread = spec->n_thread;
    c->cache_type = spec->kv_type == PRISM_F16 ? LM_F16 : spec->kv_type == PRISM_BF16 ? LM_BF16 : LM_F32;
    if (open_model(c, spec, err)) {
        *out = &c->base;
        return true;
    }
    destroy(&c->base);
    return false;
}
