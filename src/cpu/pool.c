/* pool: sums and means of blocks. Tokens are added one after the other, so that appending in any number of pieces gives
 * the same bits as pooling at once, on every tier. */
#include <string.h>

#include "cpu/cpu.h"

static void add_tokens(const prism_tier *k, const prism_tensor *x, int32_t s, int32_t h, int32_t begin,
                       int32_t end, int32_t d, float *sum)
{
    float row[PRISM_MAX_D_HEAD];
    for (int32_t t = begin; t < end; t++) {
        if (x->stride_dim == 1) {
            k->add_row[x->dtype](sum, prism_tensor_at(x, s, t, h), d);
        } else {
            prism_load_token(k, x, s, t, h, d, row);
            k->add_row[PRISM_F32](sum, row, d);
        }
    }
}

static void pool_queries(const prism_ctx *ctx, const prism_problem *p, float *q_mean)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head;
#pragma omp parallel for num_threads(ctx->n_thread) schedule(static)
    for (int64_t row = 0; row < p->n_row; row++) {
        const int32_t i = (int32_t)(row % p->n_qblk), h = (int32_t)(row / p->n_qblk % c->n_head);
        const int32_t s = (int32_t)(row / p->n_qblk / c->n_head);
        const prism_seq q = prism_problem_seq(p, s);
        float *mean = q_mean + row * d;
        memset(mean, 0, (size_t)d * sizeof *mean);
        if (i >= q.n_qblk)
            continue;
        const prism_range r = prism_seq_rows(&q, i, p->block_size);
        add_tokens(ctx->cpu, &c->q, s, h, r.begin, r.end, d, mean);
        ctx->cpu->store_row[PRISM_F32](mean, mean, d, 1.0f / (float)(r.end - r.begin));
    }
}

/* The sums of one sequence's blocks: in a caller's state, or in the memory of the means. */
typedef struct block_sums {
    float *key;
    int64_t stride_block, stride_head;
    int32_t n_token; /* tokens in the sums already */
} block_sums;

static block_sums sums_of(const prism_pool_job *job, int32_t s)
{
    const prism_call *c = job->problem->call;
    const int64_t d = c->d_head, n_kblk = job->problem->n_kblk;
    if (job->pooled)
        return (block_sums){job->pooled[s].key_sum, c->n_kv_head * d, d, job->pooled[s].n_token};
    if (!job->k_mean)
        return (block_sums){0};
    return (block_sums){(float *)job->k_mean + s * c->n_kv_head * n_kblk * d, d, n_kblk * d, 0};
}

static void append(const prism_ctx *ctx, const prism_pool_job *job, int32_t s, const block_sums *x, int32_t end)
{
    const prism_call *c = job->problem->call;
    const int32_t block = job->problem->block_size, first = x->n_token / block, last = (end - 1) / block, d = c->d_head;
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(static)
    for (int32_t b = first; b <= last; b++)
        for (int32_t h = 0; h < c->n_kv_head; h++) {
            const int32_t lo = b * block, hi = end - lo < block ? end : lo + block;
            float *sum = x->key + b * x->stride_block + h * x->stride_head;
            if (lo >= x->n_token)
                memset(sum, 0, (size_t)d * sizeof *sum);
            add_tokens(ctx->cpu, &c->k, s, h, lo > x->n_token ? lo : x->n_token, hi, d, sum);
        }
}

/* Divides each block's sum by the tokens that the block has. out may be the sums' own memory. */
static void divide(const prism_ctx *ctx, const prism_problem *p, int32_t s, const block_sums *x, float *out)
{
    const prism_call *c = p->call;
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < c->n_kv_head; h++)
        for (int32_t b = 0; b < q.n_kblk; b++)
            ctx->cpu->store_row[PRISM_F32](out + (((int64_t)s * c->n_kv_head + h) * p->n_kblk + b) * c->d_head,
                                           x->key + b * x->stride_block + h * x->stride_head, c->d_head,
                                           1.0f / (float)prism_seq_keys(&q, b, p->block_size));
}

static void pool_keys(const prism_ctx *ctx, const prism_pool_job *job)
{
    for (int32_t s = 0; s < job->problem->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(job->problem, s);
        const int32_t n_done = job->pooled ? job->pooled[s].n_token : 0;
        const bool keeps = job->pooled && job->pooled[s].moments.key;
        const block_sums x = sums_of(job, s);
        if (q.n_q > 0 && n_done < q.n_kv) { /* a sequence without queries is not read: it was not checked */
            if (x.key)
                append(ctx, job, s, &x, q.n_kv);
            if (keeps || job->moments)
                prism_pool_moments_cpu(ctx, job, s, n_done);
            if (job->pooled)
                job->pooled[s].n_token = q.n_kv;
        }
        if (job->k_mean)
            divide(ctx, job->problem, s, &x, job->k_mean);
    }
}

size_t prism_means_bytes_cpu(const prism_problem *p, bool keys)
{
    const prism_call *c = p->call;
    prism_arena a = {0};
    prism_arena_take(&a,
                     keys ? prism_arena_count(&a, c->n_seq, c->n_kv_head, p->n_kblk, c->d_head)
                          : prism_arena_count(&a, p->n_row, c->d_head, 1, 1),
                     sizeof(float));
    return a.overflow ? SIZE_MAX : a.used;
}

void prism_pool_cpu(const prism_ctx *ctx, const prism_pool_job *job)
{
    if (job->q_mean)
        pool_queries(ctx, job->problem, job->q_mean);
    if (job->pooled || job->k_mean || job->moments)
        pool_keys(ctx, job);
}
