/* Memory and time of the device that a context computes on, for measurements without a model. */
#include <stdlib.h>

#include "bench_device.h"

bool bench_device_open(prism_ctx *ctx, prism_dtype dtype, lm_backend **out, lm_error *err)
{
    const lm_backend_spec spec = {.block_size = 128, .n_ctx = 1, .step = 1, .kv_type = dtype};
    return lm_backend_create(&spec, ctx, out, err);
}

void bench_device_close(lm_backend *b, prism_ctx *ctx)
{
    if (!b)
        return;
    if (!b->on_host)
        prism_cuda_set_stream(ctx, NULL); /* it ends with the backend */
    b->ops->destroy(b);
}

static void *take(lm_backend *b, const void *host, size_t bytes)
{
    void *copy = b->ops->allocate(b, bytes);
    if (copy && host)
        b->ops->copy_in(b, copy, host, bytes);
    return copy;
}

bool bench_device_call(lm_backend *b, const bench_tensors *t, int32_t n_token, prism_call *out, lm_error *err)
{
    *out = bench_tensors_call(t, n_token);
    if (b->on_host)
        return true;
    const size_t head = (size_t)n_token * (size_t)t->d_head * prism_dtype_bytes(t->dtype);
    out->q.data = take(b, t->q, head * (size_t)t->n_head);
    out->k.data = take(b, t->k, head * (size_t)t->n_kv_head);
    out->v.data = take(b, t->v, head * (size_t)t->n_kv_head);
    out->o.data = take(b, NULL, head * (size_t)t->n_head);
    return (out->q.data && out->k.data && out->v.data && out->o.data) ||
           lm_fail(err, LM_ERROR_MEMORY, "no memory on the GPU for Q, K, V and O of %d tokens", n_token);
}

/* ------------------------------------------------------------------------------------------------ peaks ---- */

enum { REPS = 12 };

/* Returns the seconds of the best of REPS runs, or 0 after a failure. */
static double best_of(lm_backend *b, void (*run)(lm_backend *, void *), void *job, lm_error *err)
{
    double best = 0;
    for (int i = 0; i < REPS; i++) {
        b->ops->mark(b, 2 * i);
        run(b, job);
        b->ops->mark(b, 2 * i + 1);
    }
    if (!b->ops->finish(b, err))
        return 0;
    for (int i = 0; i < REPS; i++) {
        const double seconds = b->ops->seconds(b, 2 * i, 2 * i + 1);
        best = i == 0 || seconds < best ? seconds : best;
    }
    return best;
}

enum { PRODUCT = 8192 };
static const size_t copied_bytes = (size_t)1 << 30; /* far more than any cache */

typedef struct peak_job {
    lm_matrix w;
    void *x;
    float *y;
    void *from, *to;
} peak_job;

static void multiply(lm_backend *b, void *user)
{
    const peak_job *job = user;
    const lm_product p = {.w = &job->w, .x = job->x, .n = PRODUCT, .y = job->y};
    b->ops->linear(b, &p);
}

static void copy(lm_backend *b, void *user)
{
    const peak_job *job = user;
    b->ops->copy(b, job->to, job->from, copied_bytes);
}

/* Noise: a product of zeros takes less power, and a GPU then runs faster than it does at work. */
static bool fill_noise(lm_backend *b, void *dst, size_t bytes, lm_error *err)
{
    uint16_t *noise = malloc(bytes);
    uint64_t state = 1;
    if (!noise)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for noise");
    for (size_t i = 0; i < bytes / 2; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        noise[i] = (uint16_t)((state >> 48 & 0x83ff) | 0x3c00); /* +-1 .. 2 as float16, +-0.008 .. 0.03 as bfloat16 */
    }
    b->ops->copy_in(b, dst, noise, bytes);
    free(noise);
    return true;
}

static bool measure(lm_backend *b, prism_dtype dtype, bench_peaks *out, lm_error *err)
{
    const size_t square = (size_t)PRODUCT * PRODUCT, element = prism_dtype_bytes(dtype);
    peak_job job = {.w = {.data = b->ops->allocate(b, square * element), .rows = PRODUCT, .cols = PRODUCT},
                    .x = b->ops->allocate(b, square * element),
                    .y = b->ops->allocate(b, square * sizeof *job.y),
                    .from = b->ops->allocate(b, copied_bytes),
                    .to = b->ops->allocate(b, copied_bytes)};
    if (!job.w.data || !job.x || !job.y || !job.from || !job.to)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory on the GPU to measure its peaks");
    if (!b->ops->reserve_marks(b, 2 * REPS, err) || !fill_noise(b, (void *)job.w.data, square * element, err) ||
        !fill_noise(b, job.x, square * element, err))
        return false;
    const double product = best_of(b, multiply, &job, err), copied = product ? best_of(b, copy, &job, err) : 0;
    if (!copied)
        return false;
    *out = (bench_peaks){.fma_flops = 2.0 * PRODUCT * PRODUCT * PRODUCT / product,
                         .copy_bytes_s = 2 * (double)copied_bytes / copied,
                         .n_tier = 1};
    out->dot_flops = out->fma_flops;
    out->read_bytes_s = out->copy_bytes_s;
    out->tiers[0].name = "cuda";
    out->tiers[0].what = dtype == PRISM_BF16 ? "bf16 product" : "f16 product";
    out->tiers[0].flops = out->fma_flops;
    return true;
}

bool bench_device_peaks(prism_ctx *ctx, prism_dtype dtype, bench_peaks *out, lm_error *err)
{
    lm_backend *b;
    if (!bench_device_open(ctx, dtype, &b, err))
        return false;
    const bool ok = measure(b, dtype, out, err);
    bench_device_close(b, ctx); /* and what it allocated */
    return ok;
}
