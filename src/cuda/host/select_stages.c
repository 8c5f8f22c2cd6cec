/* Pooling, selection from means, and lists of a plan, as launches. */
#include "cuda/host/host.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------------ pool ---- */

/* What pool.cu writes. mean: means of queries, or the image of key means. */
typedef struct cuda_means {
    void *mean;
    float *energy;
} cuda_means;

static cuda_means cut_means(const prism_problem *p, bool keys, prism_arena *a)
{
    const prism_call *c = p->call;
    const prism_cu_shape shape = prism_cuda_shape(p);
    cuda_means x;
    x.mean = keys ? prism_arena_take(a, (size_t)prism_key_image_bytes(&shape), 1)
                  : prism_arena_take(a, prism_arena_count(a, p->n_row, c->d_head, 1, 1), sizeof(float));
    x.energy = prism_arena_take(
        a, keys ? prism_arena_count(a, c->n_seq, c->n_kv_head, p->n_kblk, 4) : prism_arena_count(a, p->n_row, 4, 1, 1),
        sizeof(float));
    return x;
}

size_t prism_cuda_means_bytes(const prism_problem *p, bool keys)
{
    prism_arena a = {0};
    cut_means(p, keys, &a);
    return prism_cuda_counted(&a);
}

static cuda_means means_in(const void *memory, const prism_problem *p, bool keys)
{
    prism_arena a = {.base = (char *)memory};
    return memory ? cut_means(p, keys, &a) : (cuda_means){0};
}

static void set_bits(uint32_t bits[8], const int16_t *dim, int32_t n)
{
    memset(bits, 0, 8 * sizeof *bits);
    for (int32_t j = 0; j < n; j++)
        bits[dim[j] / 32] |= UINT32_C(1) << dim[j] % 32;
}

/* Sets both bands. bands NULL: one band of all dimensions. */
static void set_bands(uint32_t high[8], uint32_t low[8], const prism_bands *bands)
{
    memset(high, 0xff, 8 * sizeof *high);
    memset(low, 0, 8 * sizeof *low);
    if (bands) {
        set_bits(high, bands->high, bands->n_high);
        set_bits(low, bands->low, bands->n_low);
    }
}

/* Keys of sequence s alone: the caller's sums are one buffer per sequence. */
static prism_cu_pool keys_of(const prism_problem *p, const prism_cu_pool *all, int32_t s, prism_pooled *pooled)
{
    prism_cu_pool one = *all;
    const int64_t first = (int64_t)s * p->n_kblk * p->call->n_kv_head;
    one.shape = prism_cuda_shape_one(p, s);
    one.shape.dtype = all->shape.dtype;
    one.shape.n_qblk = 0;
    one.k = prism_cuda_view_one(&p->call->k, one.k, s);
    if (one.key_image) {
        one.key_image = (char *)one.key_image + s * prism_key_image_bytes(&one.shape);
        one.k_energy += first * 4;
    }
    one.k_sum = pooled->key_sum;
    one.n_done = pooled->n_token;
    return one;
}

void prism_cuda_pool(const prism_ctx *ctx, const prism_pool_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    const cuda_means q = means_in(job->q_mean, p, false), k = means_in(job->k_mean, p, true);
    prism_cu_pool a = {.shape = prism_cuda_shape(p),
                       .q = prism_cuda_queries(p, &p->call->q),
                       .k = prism_cuda_keys(p, &p->call->k),
                       .q_split = q.mean,
                       .key_image = k.mean,
                       .q_energy = q.energy,
                       .k_energy = k.energy,
                       .block_size = p->block_size};
    if (job->bands)
        set_bands(a.high, a.low, job->bands);
    a.shape.dtype = (int32_t)p->call->k.dtype;
    if (prism_cuda_pool_moments(ctx, job) && !job->q_mean)
        return; /* only keys and their moments are wanted */
    const int before = prism_cuda_enter(device->ordinal);
    for (int32_t s = 0; job->pooled && s < p->call->n_seq; s++) {
        const prism_cu_pool one = keys_of(p, &a, s, &job->pooled[s]);
        if (one.shape.n_q > 0 && prism_cuda_ok(device, prism_pool_cuda(&one, device->stream), "pooling keys"))
            job->pooled[s].n_token = one.shape.n_kv;
    }
    if (job->pooled)
        a.shape.n_kblk = 0; /* done */
    if (!job->q_mean)
        a.shape.n_qblk = 0;
    if (a.shape.n_kblk || a.shape.n_qblk)
        prism_cuda_ok(device, prism_pool_cuda(&a, device->stream), "pooling");
    prism_cuda_leave(before, device->ordinal);
}

/* ---------------------------------------------------------------------------------------------------- select ---- */

size_t prism_cuda_bits_bytes(const prism_problem *p)
{
    prism_arena a = {0};
    prism_cuda_cut_bits(p, &a);
    return prism_cuda_counted(&a);
}

size_t prism_cuda_select_bytes(const prism_ctx *ctx, const prism_select_job *job)
{
    const prism_cu_shape shape = prism_cuda_shape(job->problem);
    (void)ctx;
    return (size_t)prism_select_scratch_bytes(&shape);
}

void prism_cuda_select(const prism_ctx *ctx, const prism_select_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    const cuda_means q = means_in(job->q_mean, p, false), k = means_in(job->k_mean, p, true);
    prism_arena arena = {.base = job->bits};
    const prism_cuda_bits bits = prism_cuda_cut_bits(p, &arena);
    prism_cu_select a = {.shape = prism_cuda_shape(p),
                         .q_split = q.mean,
                         .key_image = k.mean,
                         .q_energy = q.energy,
                         .k_energy = k.energy,
                         .block_size = p->block_size,
                         .n_band = job->bands ? 2 : 1,
                         .causal_calibration = job->calibration == PRISM_CALIBRATION_CAUSAL,
                         .keep_sink = job->keep_sink,
                         .keep_own = job->keep_own,
                         .min_tokens = job->min_tokens,
                         .scale = p->scale,
                         .top_p = {job->top_p[0], job->top_p[1]},
                         .scratch = job->scratch,
                         .bitmap = bits.bitmap,
                         .count = bits.count};
    set_bands(a.high, a.low, job->bands);
    const int before = prism_cuda_enter(device->ordinal);
    prism_cuda_ok(device, prism_select_cuda(&a, device->stream), "choosing blocks");
    prism_cuda_leave(before, device->ordinal);
}

bool prism_cuda_fill(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan,
                     int64_t *n_selected)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_cuda_plan *d = plan->device;
    prism_arena arena = {.base = (char *)bits};
    const prism_cuda_bits x = prism_cuda_cut_bits(p, &arena);
    const prism_cu_select a = {.shape = prism_cuda_shape(p),
                               .block_size = p->block_size,
                               .bitmap = x.bitmap,
                               .count = x.count,
                               .row_ptr = d->row_ptr,
                               .index = d->index,
                               .order = d->order,
                               .capacity = plan->n_index_max,
                               .full = d->full};
    *n_selected = -1; /* only the device knows */
    const int before = prism_cuda_enter(device->ordinal);
    d->has_order = prism_cuda_ok(device, prism_plan_emit_cuda(&a, device->stream), "listing blocks");
    prism_cuda_leave(before, device->ordinal);
    return true;
}
