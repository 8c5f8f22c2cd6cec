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

void prism_pool_queries_cpu(const prism_ctx *ctx, const prism_problem *p, float *q_mean)
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

static void append_sequence(const prism_ctx *ctx, const prism_problem *p, int32_t s, prism_pooled *pooled)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head, block = p->block_size, end = prism_problem_seq(p, s).n_kv;
    const int32_t begin = pooled->n_token, first = begin / block, n_block = (end - 1) / block + 1 - first;
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(static)
    for (int32_t b = 0; b < n_block; b++)
        for (int32_t h = 0; h < c->n_kv_head; h++) {
            const int32_t lo = (first + b) * block, from = lo > begin ? lo : begin;
            const int32_t to = end - lo < block ? end : lo + block;
            float *sum = pooled->key_sum + ((int64_t)(first + b) * c->n_kv_head + h) * d;
            if (from == lo)
                memset(sum, 0, (size_t)d * sizeof *sum);
            add_tokens(ctx->cpu, &c->k, s, h, from, to, d, sum);
        }
    pooled->n_token = end;
}

static void key_means(const prism_ctx *ctx, const prism_problem *p, int32_t s, const prism_pooled *pooled,
                      float *k_mean)
{
    const prism_call *c = p->call;
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < c->n_kv_head; h++)
        for (int32_t b = 0; b < q.n_kblk; b++) {
            const int32_t left = q.n_kv - b * p->block_size;
            const float *sum = pooled->key_sum + ((int64_t)b * c->n_kv_head + h) * c->d_head;
            float *mean = k_mean + (((int64_t)s * c->n_kv_head + h) * p->n_kblk + b) * c->d_head;
            ctx->cpu->store_row[PRISM_F32](mean, sum, c->d_head,
                                           1.0f / (float)(left < p->block_size ? left : p->block_size));
        }
}

void prism_pool_keys_cpu(const prism_ctx *ctx, const prism_problem *p, prism_pooled *pooled, float *k_mean)
{
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        if (q.n_q > 0 && pooled[s].n_token < q.n_kv) /* a sequence without queries is not looked at, nor checked */
            append_sequence(ctx, p, s, &pooled[s]);
        if (k_mean)
            key_means(ctx, p, s, &pooled[s], k_mean);
    }
}
