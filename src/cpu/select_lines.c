/* select_lines: FlexPrefill; each head is a work item. Only block-sparse heads keep the pooled scores of the whole
 * head: half of n_qblk x n_kblk probabilities for each thread. */
#include <math.h>
#include <string.h>

#include "core/flex.h"
#include "core/lines.h"
#include "core/topp.h"
#include "cpu/cpu.h"

typedef struct flex_scratch {
    float *token;          /* [n_kv]: a mass, infinities set to 0 */
    float *column, *slash; /* [n_kblk]: masses of blocks */
    float *pooled;         /* [n_kblk]: what the mean of the last queries attends to */
    int32_t *index;        /* [n_kblk] */
    uint64_t *fixed;       /* [n_kv or n_pair] */
    float *prob;           /* [n_pair] */
} flex_scratch;

typedef struct flex_head {
    const prism_flex_job *job;
    const prism_tier *k;
    prism_seq q;
    int32_t s, h;
    const float *column, *slash; /* of tokens */
    const float *k_mean;         /* [n_kblk][d] */
    uint64_t *bits;              /* [n_qblk][n_word] */
} flex_head;

static size_t pair_count(const prism_problem *p)
{
    return (size_t)p->n_qblk * (size_t)p->n_kblk;
}

static flex_scratch layout(const prism_problem *p, prism_arena *a)
{
    const size_t n_kblk = (size_t)p->n_kblk, n_kv = n_kblk * (size_t)p->block_size, n_pair = pair_count(p);
    flex_scratch x;
    x.token = prism_arena_take(a, n_kv, sizeof(float));
    x.column = prism_arena_take(a, n_kblk, sizeof(float));
    x.slash = prism_arena_take(a, n_kblk, sizeof(float));
    x.pooled = prism_arena_take(a, n_kblk, sizeof(float));
    x.index = prism_arena_take(a, n_kblk, sizeof(int32_t));
    x.fixed = prism_arena_take(a, n_kv > n_pair ? n_kv : n_pair, sizeof(uint64_t));
    x.prob = prism_arena_take(a, n_pair, sizeof(float));
    return x;
}

size_t prism_select_lines_bytes_cpu(const prism_ctx *ctx, const prism_flex_job *job)
{
    prism_arena one = {0}, all = {0};
    layout(job->problem, &one);
    prism_arena_take(&all, (size_t)ctx->n_thread, one.used);
    return one.overflow || all.overflow ? SIZE_MAX : all.used;
}

/* Computes the softmax of n pooled scores. A score that is not finite gets 0; its bit is set unless bits is NULL. */
static void pooled_softmax(const flex_head *t, const float *q_mean, int32_t n, float *prob, uint64_t *bits)
{
    const int32_t d = t->job->problem->call->d_head;
    bool finite;
    t->k->dot_rows(prob, t->k_mean, d, q_mean, n, d);
    float max = t->k->scale_max(prob, n, t->job->problem->scale, &finite);
    for (int32_t v = 0; v < n && !finite; v++)
        if (!isfinite(prob[v])) {
            if (bits)
                prism_bits_set(bits, v);
            prob[v] = -INFINITY;
        }
    if (!finite) {
        max = -INFINITY;
        for (int32_t v = 0; v < n; v++)
            max = fmaxf(max, prob[v]);
    }
    t->k->exp_row(prob, n, max == -INFINITY ? 0.0f : max);
    double sum = 0;
    for (int32_t v = 0; v < n; v++)
        sum += (double)prob[v];
    for (int32_t v = 0; v < n && sum > 0; v++)
        prob[v] = (float)((double)prob[v] / sum);
}

/* Keeps every pair (i, v) with v among the columns, or with i - v among the distances. */
static void keep_lines(const flex_head *t, const int32_t *index, int32_t n, bool are_columns)
{
    for (int32_t i = 0; i < t->q.n_qblk; i++) {
        const int32_t own = t->q.first_qblk + i;
        for (int32_t j = 0; j < n && index[j] <= own; j++)
            prism_bits_set(t->bits + (int64_t)i * t->job->problem->n_word, are_columns ? index[j] : own - index[j]);
    }
}

/* Keeps every column of blocks that holds a key with a score that is not finite, whatever the budget. */
static void keep_flagged(const flex_head *t, int32_t *index)
{
    const int32_t block = t->job->problem->block_size;
    int32_t n = 0;
    for (int32_t c = 0; c < t->q.n_kv; c++)
        if (t->column[c] == INFINITY && (n == 0 || index[n - 1] != c / block))
            index[n++] = c / block;
    keep_lines(t, index, n, true);
}

static void keep_pooled(const flex_head *t, const flex_scratch *x)
{
    const prism_problem *p = t->job->problem;
    const int64_t row = prism_problem_row(p, t->s, t->h, 0);
    float *prob = x->prob;
    for (int32_t i = 0; i < t->q.n_qblk; prob += t->q.first_qblk + i + 1, i++)
        pooled_softmax(t, t->job->q_mean + (row + i) * p->call->d_head, t->q.first_qblk + i + 1, prob,
                       t->bits + (int64_t)i * p->n_word);
    prism_flex_keep_flat(x->prob, t->q.first_qblk, t->q.n_qblk, (double)t->job->gamma, x->fixed, t->bits, p->n_word);
}

static int32_t budget(const flex_head *t, const float *mass, int32_t min_block, int32_t max_block,
                      const flex_scratch *x)
{
    const int32_t n = t->q.n_kv;
    for (int32_t i = 0; i < n; i++)
        x->token[i] = mass[i] < INFINITY ? mass[i] : 0.0f;
    return prism_flex_budget(x->token, n, t->job->problem->block_size, (double)t->job->gamma, min_block, max_block,
                             x->fixed);
}

static void select_head(const flex_head *t, const flex_scratch *x)
{
    const prism_flex_job *job = t->job;
    const prism_problem *p = job->problem;
    const int32_t n_kblk = t->q.n_kblk, block = p->block_size, d = p->call->d_head;
    int32_t max_block = job->max_budget ? (job->max_budget - 1) / block + 1 : n_kblk;
    int32_t min_block = job->min_budget ? (job->min_budget - 1) / block + 1 : 1;
    max_block = max_block < n_kblk ? max_block : n_kblk;
    min_block = min_block < max_block ? min_block : max_block;

    prism_flex_block_sums(t->column, t->q.n_kv, block, x->column);
    prism_flex_block_sums(t->slash, t->q.n_kv, block, x->slash);
    pooled_softmax(t, job->q_last + ((int64_t)t->s * p->call->n_head + t->h) * d, n_kblk, x->pooled, NULL);
    const bool block_sparse = prism_flex_distance(x->pooled, x->column, n_kblk) < (double)job->tau;
    const int32_t n_column = block_sparse ? min_block : budget(t, t->column, min_block, max_block, x);
    const int32_t n_slash = block_sparse ? min_block : budget(t, t->slash, min_block, max_block, x);

    if (job->keep_sink)
        x->column[0] = INFINITY;
    if (job->keep_own)
        x->slash[0] = INFINITY;
    keep_lines(t, x->index, prism_top_k(x->column, n_kblk, n_column, x->index), true);
    keep_lines(t, x->index, prism_top_k(x->slash, n_kblk, n_slash, x->index), false);
    keep_flagged(t, x->index);
    if (block_sparse)
        keep_pooled(t, x);
    for (int32_t i = 0; i < t->q.n_qblk; i++) {
        uint64_t any = 0;
        for (int32_t w = 0; w < p->n_word; w++)
            any |= t->bits[(int64_t)i * p->n_word + w];
        if (!any)
            prism_bits_set(t->bits + (int64_t)i * p->n_word, t->q.first_qblk + i);
    }
}

void prism_select_lines_cpu(const prism_ctx *ctx, const prism_flex_job *job)
{
    const prism_problem *p = job->problem;
    const int32_t n_head = p->call->n_head, d = p->call->d_head;
    prism_arena one = {0};
    layout(p, &one);
    memset(job->bits, 0, (size_t)(p->n_row * p->n_word) * sizeof *job->bits);
    for (int32_t s = 0; s < p->call->n_seq; s++)
        if (prism_problem_seq(p, s).n_kv < job->min_tokens)
            prism_keep_all_cpu(p, s, job->bits);
#pragma omp parallel for num_threads(ctx->n_thread) schedule(dynamic, 1)
    for (int64_t head = 0; head < (int64_t)p->call->n_seq * n_head; head++) {
        const int32_t s = (int32_t)(head / n_head), h = (int32_t)(head % n_head);
        prism_arena arena = {.base = (char *)job->scratch + (size_t)prism_thread_index() * one.used};
        const flex_scratch x = layout(p, &arena);
        const flex_head t = {
            .job = job,
            .k = ctx->cpu,
            .q = prism_problem_seq(p, s),
            .s = s,
            .h = h,
            .column = job->column + head * job->stride,
            .slash = job->slash + head * job->stride,
            .k_mean = job->k_mean + ((int64_t)s * p->call->n_kv_head + h / p->group) * p->n_kblk * d,
            .bits = job->bits + prism_problem_row(p, s, h, 0) * p->n_word,
        };
        if (t.q.n_q > 0 && t.q.n_kv >= job->min_tokens)
            select_head(&t, &x);
    }
}
