/* Weights and rotation tables, from the host to the device. */
#include "device.h"
#include "operations.h"

#include <math.h>
#include <stdlib.h>

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static size_t matrix_bytes(const lm_matrix *m)
{
    return padded((size_t)m->rows * (size_t)m->cols * 2);
}

/* Where the next tensor goes, and where a matrix waits as it stands in its file. With base NULL everything is only
 * counted. */
typedef struct upload {
    lm_cuda *c;
    uint8_t *base, *staging;
    size_t used, most_staged;
} upload;

static void put_matrix(upload *u, lm_matrix *m)
{
    const size_t bytes = (size_t)m->rows * lm_row_bytes(m->dtype, m->cols);
    void *out = u->base ? u->base + u->used : NULL;
    u->used += matrix_bytes(m);
    u->most_staged = bytes > u->most_staged ? bytes : u->most_staged;
    if (!u->base)
        return;
    lm_cuda_note(u->c, cudaMemcpyAsync(u->staging, m->data, bytes, cudaMemcpyHostToDevice, u->c->stream), "weights");
    lm_cuda_note(u->c, lm_cu_round(m->dtype, u->staging, m->rows * m->cols, u->c->bf16, out, u->c->stream), "weights");
    m->data = out;
    m->dtype = u->c->bf16 ? LM_BF16 : LM_F16;
}

static void put_vector(upload *u, float **v, int64_t n)
{
    if (!*v)
        return;
    const size_t bytes = (size_t)n * sizeof **v;
    float *out = u->base ? (float *)(u->base + u->used) : NULL;
    u->used += padded(bytes);
    if (!u->base)
        return;
    lm_cuda_note(u->c, cudaMemcpyAsync(out, *v, bytes, cudaMemcpyHostToDevice, u->c->stream), "weights");
    *v = out;
}

static void put_layer(upload *u, lm_layer *l)
{
    const lm_config *c = u->c->config;
    const int64_t q = l->q.rows, kv = l->k.rows;
    lm_matrix *matrices[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        put_matrix(u, matrices[i]);
    put_vector(u, &l->attn_norm, c->d_model);
    put_vector(u, &l->ffn_norm, c->d_model);
    put_vector(u, &l->q_norm, c->d_head);
    put_vector(u, &l->k_norm, c->d_head);
    put_vector(u, &l->q_bias, q);
    put_vector(u, &l->k_bias, kv);
    put_vector(u, &l->v_bias, kv);
    put_vector(u, &l->o_bias, c->d_model);
}

static void put_all(upload *u, const lm_weights *from)
{
    lm_weights *w = &u->c->weights;
    lm_layer *layers = w->layers;
    const bool tied = from->output.data == from->embedding.data;
    *w = *from;
    w->layers = layers;
    for (int32_t i = 0; i < w->n_layer; i++)
        layers[i] = from->layers[i];
    put_matrix(u, &w->embedding);
    if (tied)
        w->output = w->embedding;
    else
        put_matrix(u, &w->output);
    put_vector(u, &w->output_norm, u->c->config->d_model);
    for (int32_t i = 0; i < w->n_layer; i++)
        put_layer(u, &layers[i]);
}

bool lm_cuda_upload(lm_cuda *c, const lm_weights *from, lm_error *err)
{
    c->weights.layers = calloc((size_t)from->n_layer, sizeof *c->weights.layers);
    if (!c->weights.layers)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a list of layers");
    upload count = {.c = c};
    put_all(&count, from);
    upload u = {.c = c,
                .base = lm_cuda_allocate(&c->base, count.used),
                .staging = lm_cuda_allocate(&c->base, padded(count.most_staged))};
    if (!u.base || !u.staging)
        return lm_fail(err, LM_ERROR_MEMORY, "the weights need %.2f GiB on the GPU, which has %.2f GiB left",
                       (double)(count.used + count.most_staged) / 0x1p30,
                       (double)c->base.ops->available(&c->base) / 0x1p30);
    put_all(&u, from);
    c->base.weights = &c->weights;
    const bool ok = c->base.ops->finish(&c->base, err);
    lm_cuda_release(&c->base, u.staging);
    return ok;
}

/* ------------------------------------------------------------------------------------------- rotation ---- */

/* cos and sin, times scale, of the angles of positions 0, step, 2 step, ... */
static float *table(lm_cuda *c, int32_t n, int32_t step, double scale)
{
    const int32_t n_pair = c->rope.n_pair;
    const size_t count = (size_t)n * (size_t)n_pair * 2;
    float *host = malloc((count + 1) * sizeof *host), *at = host;
    float *out = host ? lm_cuda_allocate(&c->base, (count + 1) * sizeof *out) : NULL;
    for (int32_t i = 0; out && i < n; i++)
        for (int32_t j = 0; j < n_pair; j++) {
            const double angle = (double)i * step * c->rope.frequency[j];
            *at++ = (float)(scale * cos(angle));
            *at++ = (float)(scale * sin(angle));
        }
    if (out)
        c->base.ops->copy_in(&c->base, out, host, count * sizeof *out);
    free(host);
    return out;
}

bool lm_cuda_rotation_tables(lm_cuda *c, int32_t n_ctx, double scale, lm_error *err)
{
    c->coarse = table(c, (n_ctx - 1) / LM_CU_ROPE_STEP + 1, LM_CU_ROPE_STEP, scale);
    c->fine = table(c, LM_CU_ROPE_STEP, 1, 1);
    return (c->coarse && c->fine) || lm_fail(err, LM_ERROR_MEMORY, "no memory for rotation tables");
}
