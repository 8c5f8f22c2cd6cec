/* pool: sums and means of blocks. Rows are added one after the other, so that appending in any number of pieces gives
 * the same bits as pooling at once, on every tier. */
#include <string.h>

#include "cpu/cpu.h"

static void add_tokens(const prism_cpu_kernels *k, const prism_tensor *x, int32_t s, int32_t h, int32_t begin,
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

/* Where the sums of one sequence's blocks stand: those of a caller, or k_mean's own memory. */
typedef struct key_sums {
    float *sum;
    int64_t stride_block, stride_head;
    int32_t n_token; /* in them already */
} key_sums;

static key_sums sums_of(const prism_pool_job *job, int32_t s)
{
    const prism_call *c = job->problem->call;
    const int64_t d = c->d_head, n_kblk = job->problem->n_kblk;
    if (job->pooled)
        return (key_sums){job->pooled[s].key_sum, c->n_kv_head * d, d, job->pooled[s].n_token};
    return (key_sums){(float *)job->k_mean + s * c->n_kv_head * n_kblk * d, d, n_kblk * d, 0};
}

static void append(const prism_ctx *ctx, const prism_problem *p, int32_t s, const key_sums *sums, int32_t end)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head, block = p->block_size;
    const int32_t begin = sums->n_token, first = begin / block, n_block = (end - 1) / block + 1 - first;
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(static)
    for (int32_t b = 0; b < n_block; b++)
        for (int32_t h = 0; h < c->n_kv_head; h++) {
            const int32_t lo = (first + b) * block, from = lo > begin ? lo : begin;
            const int32_t to = end - lo < block ? end : lo + block;
            float *sum = sums->sum + (first + b) * sums->stride_block + h * sums->stride_head;
            if (from == lo)
                memset(sum, 0, (size_t)d * sizeof *sum);
            add_tokens(ctx->cpu, &c->k, s, h, from, to, d, sum);
        }
}

static void key_means(const prism_ctx *ctx, const prism_problem *p, int32_t s, const key_sums *sums, float *k_mean)
{
    const prism_call *c = p->call;
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < c->n_kv_head; h++)
        for (int32_t b = 0; b < q.n_kblk; b++) {
            const int32_t left = q.n_kv - b * p->block_size;
            const float *sum = sums->sum + b * sums->stride_block + h * sums->stride_head;
            float *mean = k_mean + (((int64_t)s * c->n_kv_head + h) * p->n_kblk + b) * c->d_head;
            ctx->cpu->store_row[PRISM_F32](mean, sum, c->d_head,
                                           1.0f / (float)(left < p->block_size ? left : p->block_size));
        }
}

static void pool_keys(const prism_ctx *ctx, const prism_pool_job *job)
{
    for (int32_t s = 0; s < job->problem->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(job->problem, s);
        const key_sums sums = sums_of(job, s);
        if (q.n_q > 0 && sums.n_token < q.n_kv) { /* a sequence without queries is not looked at, nor checked */
            append(ctx, job->problem, s, &sums, q.n_kv);
            if (job->pooled)
                job->pooled[s].n_token = q.n_kv;
        }
        if (job->k_mean)
            key_means(ctx, job->problem, s, &sums, job->k_mean);
    }
}

size_t prism_means_bytes_cpu(const prism_problem *p, int64_t n_mean)
{
    prism_arena a = {0};
    prism_arena_take(&a, prism_arena_count(&a, n_mean, p->call->d_head, 1, 1), sizeof(float));
    return a.overflow ? SIZE_MAX : a.used;
}

void prism_pool_cpu(const prism_ctx *ctx, const prism_pool_job *job)
{
    if (job->q_mean)
        pool_queries(ctx, job->problem, job->q_mean);
    if (job->pooled || job->k_mean)
        pool_keys(ctx, job);
}
