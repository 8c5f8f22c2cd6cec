/* The stages of moments (docs/moments.md) as launches. */
#include "core/block_moments.h"
#include "cuda/host/host.h"

/* The workspace: images as the kernels read them; the moments of blocks, unless the caller keeps them. */
typedef struct moments_layout {
    char *image;                /* prism_moments_image_bytes() */
    prism_block_moments blocks; /* [n_seq * n_kblk] */
} moments_layout;

static moments_layout cut_moments(const prism_problem *p, prism_arena *a)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    moments_layout x;
    x.image = prism_arena_take(a, (size_t)prism_moments_image_bytes(&shape), 1);
    x.blocks = prism_block_moments_cut(a, p->call->n_seq, p->n_kblk, p->call->n_kv_head, p->call->d_head);
    return x;
}

size_t prism_cuda_moments_bytes(const prism_problem *p)
{
    prism_arena a = {0};
    cut_moments(p, &a);
    return prism_cuda_counted(&a);
}

static void set_blocks(prism_cu_moments *m, const prism_block_moments *of)
{
    m->key = of->key, m->variance = of->variance, m->value = of->value;
    m->log_count = of->log_count, m->query_sum = of->query_sum, m->n_query = of->n_query;
    m->covariance = of->covariance;
}

prism_cu_moments prism_cuda_moments_of(const prism_problem *p, void *memory)
{
    const prism_call *c = p->call;
    prism_arena a = {.base = memory};
    prism_cu_moments m = {.shape = prism_cuda_shape(p),
                          .q = prism_cuda_queries(p, &c->q),
                          .k = prism_cuda_keys(p, &c->k),
                          .v = prism_cuda_keys(p, &c->v),
                          .block_size = p->block_size,
                          .scale = p->scale};
    if (memory) {
        const moments_layout x = cut_moments(p, &a);
        m.moments_image = x.image;
        m.n_block_seq = p->n_kblk;
        set_blocks(&m, &x.blocks);
    }
    return m;
}

static bool pool_and_image(prism_cuda_device *device, const prism_cu_moments *m)
{
    return prism_cuda_ok(device, prism_moments_pool_cuda(m, device->stream), "pooling moments") &&
           (!m->moments_image ||
            prism_cuda_ok(device, prism_moments_image_cuda(m, device->stream), "moments of blocks"));
}

bool prism_cuda_pool_moments(const prism_ctx *ctx, const prism_pool_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    const bool kept = job->pooled && job->pooled[0].moments.key;
    if (!job->moments && !kept)
        return false;
    prism_cu_moments all = prism_cuda_moments_of(p, job->moments);
    if (!job->reads_values)
        all.v.data = NULL;
    const int before = prism_cuda_enter(device->ordinal);
    if (!kept)
        pool_and_image(device, &all);
    for (int32_t s = 0; kept && s < p->call->n_seq; s++) {
        prism_pooled *pooled = &job->pooled[s];
        prism_cu_moments one = all;
        one.shape = prism_cuda_shape_one(p, s);
        one.q = prism_cuda_view_one(&p->call->q, one.q, s);
        one.k = prism_cuda_view_one(&p->call->k, one.k, s), one.v = prism_cuda_view_one(&p->call->v, one.v, s);
        one.k_sum = pooled->key_sum;
        set_blocks(&one, &pooled->moments);
        one.n_done = pooled->n_token;
        if (one.moments_image)
            one.moments_image = (char *)one.moments_image + s * prism_moments_image_bytes(&one.shape);
        if (one.shape.n_q > 0 && pool_and_image(device, &one))
            pooled->n_token = one.shape.n_kv;
    }
    prism_cuda_leave(before, device->ordinal);
    return true;
}

size_t prism_cuda_select_moments_bytes(const prism_ctx *ctx, const prism_moments_job *job)
{
    const prism_cu_shape shape = prism_cuda_shape(job->problem);
    prism_arena a = {0};
    const int before = prism_cuda_enter(prism_cuda_of(ctx)->ordinal);
    prism_arena_take(&a, (size_t)prism_moments_select_floats(&shape), sizeof(float));
    prism_cuda_leave(before, prism_cuda_of(ctx)->ordinal);
    return prism_cuda_counted(&a);
}

void prism_cuda_select_moments(const prism_ctx *ctx, const prism_moments_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->bits};
    const prism_cuda_bits bits = prism_cuda_cut_bits(p, &arena);
    prism_cu_moments m = prism_cuda_moments_of(p, job->moments);
    m.keep_sink = job->keep_sink, m.keep_own = job->keep_own, m.min_tokens = job->min_tokens;
    m.error = job->error, m.scratch = job->scratch;
    m.bitmap = bits.bitmap, m.count = bits.count;
    const int before = prism_cuda_enter(device->ordinal);
    prism_cuda_ok(device, prism_moments_select_cuda(&m, device->stream), "choosing blocks by moments");
    prism_cuda_leave(before, device->ordinal);
}
