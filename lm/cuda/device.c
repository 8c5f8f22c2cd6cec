/* The runner's operations on an NVIDIA GPU: the plug-in's face. */
#include "device.h"
#include "operations.h"

#include <assert.h>
#include <stdlib.h>

/* Rows that go through projections and MLP together: enough to fill a large GPU and to keep the launches few. And room
 * for their logits. */
enum { TILE = 8192, LOGIT_BYTES = 64 << 20, LEAST_LOGIT_TILE = 64 };

static bool finish(lm_backend *b, lm_error *err)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, cudaStreamSynchronize(c->stream), "running");
    if (!c->problem[0])
        return true;
    lm_error_set(err, LM_ERROR_RUN, "the GPU failed, %s", c->problem);
    c->problem[0] = '\0';
    return false;
}

static uint64_t available(lm_backend *b)
{
    size_t left = 0, all = 0;
    lm_cuda_note((lm_cuda *)b, cudaMemGetInfo(&left, &all), "asking for memory");
    return left;
}

static void copy(lm_backend *b, void *dst, const void *src, size_t bytes)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, c->stream), "copying");
}

/* The first operation of every step: its thread may be another one than that of the step before. */
static void copy_in(lm_backend *b, void *dst, const void *src, size_t bytes)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, cudaSetDevice(c->ordinal), "choosing the GPU");
    lm_cuda_note(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, c->stream), "copying to the GPU");
}

static void copy_out(lm_backend *b, void *dst, const void *src, size_t bytes)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, c->stream), "copying from the GPU");
    lm_cuda_note(c, cudaStreamSynchronize(c->stream), "running");
}

/* ----------------------------------------------------------------------------------------- operations ---- */

static void embed(lm_backend *b, const int32_t *tokens, int32_t n, float *hidden)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, lm_cu_embed(c->weights.embedding.data, c->bf16, tokens, n, c->config->d_model, hidden, c->stream),
                 "embedding");
}

static void norm(lm_backend *b, const float *x, const float *weight, int32_t n, void *out)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, lm_cu_norm(x, weight, n, c->config->d_model, c->config->rms_eps, c->bf16, out, c->stream), "norm");
}

static void linear(lm_backend *b, const lm_product *p)
{
    lm_cuda *const c = (lm_cuda *)b;
    const char *why = lm_blas_product(&c->blas, p->w->data, p->w->rows, p->w->cols, p->x, p->n, p->y, p->accumulate);
    if (why)
        lm_cuda_note_text(c, why, "matrix product");
    if (p->bias)
        lm_cuda_note(c, lm_cu_bias(p->y, p->bias, p->n, (int32_t)p->w->rows, c->stream), "bias");
}

static void rotate(lm_backend *b, const lm_rotation *r)
{
    lm_cuda *const c = (lm_cuda *)b;
    const lm_cu_rotation rotation = {
        .q = r->q,
        .k = r->k,
        .v = r->v,
        .q_norm = r->layer->q_norm,
        .k_norm = r->layer->k_norm,
        .coarse = c->coarse,
        .fine = c->fine,
        .position = r->position,
        .n = r->n,
        .n_head = c->config->n_head,
        .n_kv_head = c->config->n_kv_head,
        .d = c->config->d_head,
        .n_pair = c->rope.n_pair,
        .interleaved = c->config->rope.layout == PRISM_ROPE_INTERLEAVED,
        .bf16 = c->bf16,
        .eps = c->config->rms_eps,
        .q_out = r->q_out,
        .k_out = r->k_row,
        .v_out = r->v_row,
    };
    lm_cuda_note(c, lm_cu_rotate(&rotation, c->stream), "rotation");
}

static void swiglu(lm_backend *b, float *gate, const float *up, int32_t n, void *out)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, lm_cu_swiglu(gate, up, (int64_t)n * c->config->d_ff, c->bf16, out, c->stream), "MLP");
}

static void nll(lm_backend *b, const float *logits, const int32_t *targets, int32_t n, double *out)
{
    lm_cuda *const c = (lm_cuda *)b;
    lm_cuda_note(c, lm_cu_nll(logits, targets, n, c->config->n_vocab, out, c->stream), "losses");
}

static int32_t choose(lm_backend *b, const float *logits)
{
    lm_cuda *const c = (lm_cuda *)b;
    int32_t best = -1;
    lm_cuda_note(c, lm_cu_argmax(logits, c->config->n_vocab, c->best, c->stream), "argmax");
    copy_out(b, &best, c->best, sizeof best);
    return best;
}

/* ----------------------------------------------------------------------------------------------- time ---- */

static bool reserve_marks(lm_backend *b, int32_t n, lm_error *err)
{
    lm_cuda *const c = (lm_cuda *)b;
    c->marks = calloc((size_t)n, sizeof *c->marks);
    c->n_mark = c->marks ? n : 0;
    return c->marks || lm_fail(err, LM_ERROR_MEMORY, "no memory for %d times", n);
}

/* Makes the event when its mark is set first. */
static void mark(lm_backend *b, int32_t i)
{
    lm_cuda *const c = (lm_cuda *)b;
    assert(i >= 0 && i < c->n_mark);
    if (!c->marks[i])
        lm_cuda_note(c, cudaEventCreate(&c->marks[i]), "making an event");
    lm_cuda_note(c, cudaEventRecord(c->marks[i], c->stream), "noting the time");
}

static double seconds(lm_backend *b, int32_t from, int32_t to)
{
    lm_cuda *const c = (lm_cuda *)b;
    float milliseconds = 0;
    lm_cuda_note(c, cudaEventElapsedTime(&milliseconds, c->marks[from], c->marks[to]), "reading the time");
    return (double)milliseconds * 1e-3;
}

/* ----------------------------------------------------------------------------------------- life cycle ---- */

static void destroy(lm_backend *b)
{
    lm_cuda *const c = (lm_cuda *)b;
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    lm_blas_destroy(&c->blas);
    for (int32_t i = 0; i < c->n_mark; i++)
        if (c->marks[i])
            cudaEventDestroy(c->marks[i]);
    for (int i = 0; i < LM_CUDA_MAX_BLOCKS; i++)
        if (c->blocks[i].data)
            cudaFree(c->blocks[i].data);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c->marks);
    free(c->weights.layers);
    free(c);
}

static const lm_backend_ops ops = {
    .destroy = destroy,
    .allocate = lm_cuda_allocate,
    .release = lm_cuda_release,
    .available = available,
    .copy = copy,
    .copy_in = copy_in,
    .copy_out = copy_out,
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

static bool check(const lm_backend_spec *spec, lm_error *err)
{
    if (!spec->model)
        return true;
    const lm_config *config = &spec->model->config;
    if (spec->kv_type == PRISM_F32)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "on a GPU the KV cache is float16 or bfloat16, not float32");
    if (config->d_model % 4 || config->d_ff % 4)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "on a GPU rows must be multiples of 4: the model has %d and %d",
                       config->d_model, config->d_ff);
    return true;
}

static bool start(lm_cuda *c, const lm_backend_spec *spec, lm_error *err)
{
    cudaError_t status = cudaSetDevice(spec->ordinal);
    if (status == cudaSuccess)
        status = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (status != cudaSuccess)
        return lm_fail(err, LM_ERROR_RUN, "GPU %d cannot be used: %s", spec->ordinal, cudaGetErrorString(status));
    c->base.stream = c->stream;
    c->best = lm_cuda_allocate(&c->base, sizeof *c->best);
    if (!c->best)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory on GPU %d", spec->ordinal);
    if (!spec->model) { /* cuBLAS is wanted by those who multiply: linear() tells of its absence */
        lm_blas_create(&c->blas, c->bf16, c->stream, NULL);
        return true;
    }
    c->config = &spec->model->config;
    c->rope = spec->model->rope;
    return lm_blas_create(&c->blas, c->bf16, c->stream, err) && lm_cuda_upload(c, &spec->model->weights, err) &&
           lm_cuda_rotation_tables(c, spec->n_ctx, c->config->rope.attention_factor, err) && finish(&c->base, err);
}

static int32_t logit_tile(int32_t tile, int32_t n_vocab)
{
    int32_t n = LOGIT_BYTES / (int32_t)sizeof(float) / n_vocab;
    n = n < LEAST_LOGIT_TILE ? LEAST_LOGIT_TILE : n;
    return n < tile ? n : tile;
}

static bool create(const lm_backend_spec *spec, lm_backend **out, lm_error *err)
{
    if (!check(spec, err))
        return false;
    lm_cuda *const c = calloc(1, sizeof *c);
    if (!c)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a session");
    const int32_t tile = spec->step < TILE ? spec->step : TILE;
    c->base = (lm_backend){.ops = &ops,
                           .tile = tile,
                           .logit_tile = spec->model ? logit_tile(tile, spec->model->config.n_vocab) : 0,
                           .type = spec->kv_type};
    c->ordinal = spec->ordinal;
    c->bf16 = spec->kv_type == PRISM_BF16;
    if (!start(c, spec, err)) {
        destroy(&c->base);
        return false;
    }
    *out = &c->base;
    return true;
}

lm_cuda_plugin_entry lm_cuda_plugin_of __attribute__((visibility("default")));

const lm_cuda_plugin *lm_cuda_plugin_of(uint32_t version)
{
    static const lm_cuda_plugin plugin = {create, lm_blas_describe};
    return version == LM_CUDA_PLUGIN_VERSION ? &plugin : NULL;
}
