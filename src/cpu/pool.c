/* pool: sums, means and variances of blocks. Rows are added one after the other, so that appending in any number of
 * pieces gives the same bits as pooling at once, on every tier. */
#include <string.h>

#include "core/moments.h"
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

/* Where the state of one sequence's blocks stands: a caller's, or the outputs' own memory. NULL: not kept. */
typedef struct block_state {
    float *key_sum, *key_m2, *value_sum;
    int64_t stride_block, stride_head;
    int32_t n_token; /* in them already */
} block_state;

static block_state state_of(const prism_pool_job *job, int32_t s)
{
    const prism_call *c = job->problem->call;
    const int64_t d = c->d_head, n_kblk = job->problem->n_kblk, at = s * c->n_kv_head * n_kblk * d;
    if (job->pooled) {
        const prism_pooled *x = &job->pooled[s];
        return (block_state){x->key_sum, x->key_m2, x->value_sum, c->n_kv_head * d, d, x->n_token};
    }
    return (block_state){
        (float *)job->k_mean + at, NULL, job->v_mean ? (float *)job->v_mean + at : NULL, d, n_kblk * d, 0};
}

static float *variance_at(const prism_pool_job *job, int32_t s, int32_t h, int32_t b)
{
    const prism_problem *p = job->problem;
    return (float *)job->k_var +
           (((int64_t)s * p->call->n_kv_head + h) * p->n_kblk + b) * prism_moment_groups(p->call->d_head);
}

/* Keys of a block of which n stand in sum and m2 already. */
static void add_keys(const prism_cpu_kernels *k, const prism_tensor *x, int32_t s, int32_t h, prism_range tokens,
                     int32_t d, int32_t n, float *sum, float *m2)
{
    float row[PRISM_MAX_D_HEAD];
    for (int32_t t = tokens.begin; t < tokens.end; t++, n++) {
        prism_load_token(k, x, s, t, h, d, row);
        k->add_deviation(sum, m2, row, d, n);
    }
}

/* Tokens of block b, which starts at `lo`. */
static void append_block(const prism_ctx *ctx, const prism_pool_job *job, const block_state *x, int32_t s, int32_t h,
                         int32_t b, prism_range tokens, int32_t lo)
{
    const prism_call *c = job->problem->call;
    const int32_t d = c->d_head;
    const int64_t at = b * x->stride_block + h * x->stride_head;
    float m2_of_call[PRISM_MAX_D_HEAD];
    const bool writes_variance = job->k_var && !x->key_m2;
    float *sum = x->key_sum + at, *value = x->value_sum ? x->value_sum + at : NULL;
    float *m2 = x->key_m2 ? x->key_m2 + at : writes_variance ? m2_of_call : NULL;
    float *const sums[] = {sum, m2, value};
    for (int j = 0; j < 3; j++)
        if (tokens.begin == lo && sums[j])
            memset(sums[j], 0, (size_t)d * sizeof(float));
    if (m2)
        add_keys(ctx->cpu, &c->k, s, h, tokens, d, tokens.begin - lo, sum, m2);
    else
        add_tokens(ctx->cpu, &c->k, s, h, tokens.begin, tokens.end, d, sum);
    if (value)
        add_tokens(ctx->cpu, &c->v, s, h, tokens.begin, tokens.end, d, value);
    if (writes_variance)
        prism_moment_variances(m2, d, tokens.end - lo, variance_at(job, s, h, b));
}

static void append(const prism_ctx *ctx, const prism_pool_job *job, int32_t s, const block_state *x, int32_t end)
{
    const int32_t block = job->problem->block_size, begin = x->n_token;
    const int32_t first = begin / block, n_block = (end - 1) / block + 1 - first;
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(static)
    for (int32_t b = first; b < first + n_block; b++)
        for (int32_t h = 0; h < job->problem->call->n_kv_head; h++) {
            const int32_t lo = b * block;
            const prism_range tokens = {lo > begin ? lo : begin, end - lo < block ? end : lo + block};
            append_block(ctx, job, x, s, h, b, tokens, lo);
        }
}

/* Sums of blocks, divided by what each block has; out and sum may be one. */
static void divide(const prism_ctx *ctx, const prism_problem *p, int32_t s, const block_state *x, const float *sum,
                   float *out)
{
    const prism_call *c = p->call;
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < c->n_kv_head; h++)
        for (int32_t b = 0; b < q.n_kblk; b++)
            ctx->cpu->store_row[PRISM_F32](out + (((int64_t)s * c->n_kv_head + h) * p->n_kblk + b) * c->d_head,
                                           sum + b * x->stride_block + h * x->stride_head, c->d_head,
                                           1.0f / (float)prism_seq_keys(&q, b, p->block_size));
}

static void variances(const prism_pool_job *job, int32_t s, const block_state *x)
{
    const prism_problem *p = job->problem;
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < p->call->n_kv_head; h++)
        for (int32_t b = 0; b < q.n_kblk; b++)
            prism_moment_variances(x->key_m2 + b * x->stride_block + h * x->stride_head, p->call->d_head,
                                   prism_seq_keys(&q, b, p->block_size), variance_at(job, s, h, b));
}

static void pool_keys(const prism_ctx *ctx, const prism_pool_job *job)
{
    for (int32_t s = 0; s < job->problem->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(job->problem, s);
        const block_state x = state_of(job, s);
        if (q.n_q > 0 && x.n_token < q.n_kv) { /* a sequence without queries is not looked at, nor checked */
            append(ctx, job, s, &x, q.n_kv);
            if (job->pooled)
                job->pooled[s].n_token = q.n_kv;
        }
        if (job->k_mean)
            divide(ctx, job->problem, s, &x, x.key_sum, job->k_mean);
        if (job->k_var && x.key_m2)
            variances(job, s, &x);
        if (job->v_mean)
            divide(ctx, job->problem, s, &x, x.value_sum, job->v_mean);
    }
}

size_t prism_means_bytes_cpu(const prism_problem *p, int64_t n_mean)
{
    prism_arena a = {0};
    prism_arena_take(&a, prism_arena_count(&a, n_mean, p->call->d_head, 1, 1), sizeof(float));
    return a.overflow ? SIZE_MAX : a.used;
}

size_t prism_variances_bytes_cpu(const prism_problem *p, int64_t n_mean)
{
    prism_arena a = {0};
    prism_arena_take(&a, prism_arena_count(&a, n_mean, prism_moment_groups(p->call->d_head), 1, 1), sizeof(float));
    return a.overflow ? SIZE_MAX : a.used;
}

void prism_pool_cpu(const prism_ctx *ctx, const prism_pool_job *job)
{
    if (job->q_mean)
        pool_queries(ctx, job->problem, job->q_mean);
    if (job->pooled || job->k_mean)
        pool_keys(ctx, job);
}
