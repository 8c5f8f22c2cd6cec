/*
 * probe: softmax attention of the last queries over all keys, summed along columns and along diagonals.
 *
 * Takes one head at a time, its keys split over the threads. Scores lie as [key][query]: so the queries are the packed
 * operand of the product, keys need no packing, and both sums run along contiguous memory.
 */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

enum { chunk_keys = 128 };

typedef struct probe_scratch {
    float *panel;      /* [d][queries], packed */
    float *score;      /* [keys rounded up to chunks][queries] */
    float *chunk;      /* [chunks][queries]: largest score, then sum of weights */
    float *max, *rate; /* [queries]: largest score; 1 / sum of weights, 0 for a query that is not finite */
    char *thread;      /* [threads][chunk_keys][d] */
    size_t thread_bytes;
} probe_scratch;

typedef struct probe_head {
    const prism_probe_job *job;
    const prism_tier *k;
    const probe_scratch *x;
    prism_seq q;
    int32_t s, h, n, ld, n_chunk; /* n queries, padded to ld */
    int32_t first;                /* position of the first query */
    float *column, *slash;
} probe_head;

static int32_t chunks_of(int32_t n_kv)
{
    return (n_kv + chunk_keys - 1) / chunk_keys;
}

static probe_scratch layout(const prism_ctx *ctx, const prism_problem *p, int32_t n_query, prism_arena *a)
{
    const size_t d = (size_t)p->call->d_head, ld = (size_t)prism_round_up(n_query, PRISM_MAX_PANEL);
    const size_t n_chunk = (size_t)p->n_kblk * (size_t)p->block_size / chunk_keys + 1;
    probe_scratch x;
    x.panel = prism_arena_take(a, d * ld, sizeof(float));
    x.score = prism_arena_take(a, n_chunk * chunk_keys, ld * sizeof(float));
    x.chunk = prism_arena_take(a, n_chunk, ld * sizeof(float));
    x.max = prism_arena_take(a, ld, sizeof(float));
    x.rate = prism_arena_take(a, ld, sizeof(float));
    x.thread_bytes = chunk_keys * d * sizeof(float);
    x.thread = prism_arena_take(a, (size_t)ctx->n_thread, x.thread_bytes);
    return x;
}

size_t prism_probe_bytes_cpu(const prism_ctx *ctx, const prism_probe_job *job)
{
    prism_arena a = {0};
    layout(ctx, job->problem, job->n_query, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Packs the queries. A query that is not finite does not count: its scores say nothing about the keys. */
static void load_queries(const probe_head *t)
{
    const prism_call *c = t->job->problem->call;
    const int32_t d = c->d_head, width = t->k->panel;
    float row[PRISM_MAX_D_HEAD], sum[PRISM_MAX_D_HEAD] = {0};
    int32_t n_asked = 0;
    memset(t->x->panel, 0, (size_t)d * (size_t)t->ld * sizeof *row);
    for (int32_t i = 0; i < t->ld; i++) {
        bool finite = i < t->n;
        if (finite) {
            prism_load_token(t->k, &c->q, t->s, t->q.n_q - t->n + i, t->h, d, row);
            t->k->scale_max(row, d, 1.0f, &finite);
        }
        t->x->rate[i] = finite ? 1.0f : 0.0f;
        for (int32_t l = 0; l < d && finite; l++) {
            t->x->panel[(int64_t)(i / width) * width * d + (int64_t)l * width + i % width] = row[l];
            sum[l] += row[l];
        }
        n_asked += finite;
    }
    if (t->job->q_mean) {
        const int32_t n_head = c->n_head;
        t->k->store_row[PRISM_F32](t->job->q_mean + ((int64_t)t->s * n_head + t->h) * d, sum, d,
                                   n_asked ? 1.0f / (float)n_asked : 0.0f);
    }
}

/* Sets scores that do not count to -inf: keys after the query, and scores that are not finite. Flags the column of the
 * latter. */
static void drop_scores(const probe_head *t, int32_t key, float *score, bool finite)
{
    const int32_t hidden = key - t->first < t->n ? key - t->first : t->n; /* queries before the key */
    for (int32_t i = 0; i < hidden; i++)
        score[i] = -INFINITY;
    for (int32_t i = hidden > 0 ? hidden : 0; i < t->n && !finite; i++)
        if (!isfinite(score[i])) {
            t->column[key] = INFINITY;
            score[i] = -INFINITY;
        }
}

/* Computes the scores of chunk c, and the largest score of each query. */
static void score_chunk(const probe_head *t, int32_t c, float *rows)
{
    const prism_call *call = t->job->problem->call;
    const int32_t d = call->d_head, begin = c * chunk_keys, h_kv = t->h / t->job->problem->group;
    const int32_t m = t->q.n_kv - begin < chunk_keys ? t->q.n_kv - begin : chunk_keys;
    float *score = t->x->score + (int64_t)begin * t->ld, *max = t->x->chunk + (int64_t)c * t->ld;
    for (int32_t j = 0; j < m; j++)
        prism_load_token(t->k, &call->k, t->s, begin + j, h_kv, d, rows + (int64_t)j * d);
    t->k->gemm(score, t->ld, NULL, rows, d, t->x->panel, m, t->ld, d);
    for (int32_t i = 0; i < t->ld; i++)
        max[i] = -INFINITY;
    for (int32_t j = 0; j < m; j++, score += t->ld) {
        bool finite;
        t->k->scale_max(score, t->ld, t->job->problem->scale, &finite);
        t->column[begin + j] = 0;
        if (!finite || begin + j > t->first)
            drop_scores(t, begin + j, score, finite);
        for (int32_t i = 0; i < t->ld; i++)
            max[i] = max[i] > score[i] ? max[i] : score[i];
    }
}

/* Turns the scores of chunk c into weights, and sums them for each query. */
static void weigh_chunk(const probe_head *t, int32_t c)
{
    const int32_t begin = c * chunk_keys, m = t->q.n_kv - begin < chunk_keys ? t->q.n_kv - begin : chunk_keys;
    float *weight = t->x->score + (int64_t)begin * t->ld, *sum = t->x->chunk + (int64_t)c * t->ld;
    for (int32_t i = 0; i < t->ld; i++)
        sum[i] = 0;
    for (int32_t j = 0; j < m; j++, weight += t->ld) {
        for (int32_t i = 0; i < t->ld; i++)
            weight[i] -= t->x->max[i];
        t->k->exp_row(weight, t->ld, 0.0f);
        for (int32_t i = 0; i < t->ld; i++)
            sum[i] += weight[i];
    }
}

/* Merges chunks in their order, so that the result does not depend on the threads. */
static void merge_max(const probe_head *t)
{
    for (int32_t i = 0; i < t->ld; i++) {
        float max = -INFINITY;
        for (int32_t c = 0; c < t->n_chunk; c++)
            max = fmaxf(max, t->x->chunk[(int64_t)c * t->ld + i]);
        t->x->max[i] = max == -INFINITY ? 0.0f : max;
    }
}

static void merge_sums(const probe_head *t)
{
    for (int32_t i = 0; i < t->ld; i++) {
        double sum = 0;
        for (int32_t c = 0; c < t->n_chunk; c++)
            sum += (double)t->x->chunk[(int64_t)c * t->ld + i];
        t->x->rate[i] = sum > 0 ? (float)((double)t->x->rate[i] / sum) : 0.0f;
    }
}

static void sum_columns(const probe_head *t, int32_t c)
{
    const int32_t begin = c * chunk_keys, m = t->q.n_kv - begin < chunk_keys ? t->q.n_kv - begin : chunk_keys;
    float sum[chunk_keys];
    t->k->dot_rows(sum, t->x->score + (int64_t)begin * t->ld, t->ld, t->x->rate, m, t->ld);
    for (int32_t j = 0; j < m; j++)
        t->column[begin + j] += sum[j];
}

/* Sums the weights at distances [begin, end): query i stands at distance first + i - key from a key. */
static void sum_diagonals(const probe_head *t, int32_t begin, int32_t end)
{
    const int32_t last = t->first + t->n - 1, lo = t->first - end + 1 > 0 ? t->first - end + 1 : 0;
    memset(t->slash + begin, 0, (size_t)(end - begin) * sizeof *t->slash);
    for (int32_t key = lo; key <= last - begin; key++) {
        const int32_t shift = key - t->first; /* query i is at distance i - shift */
        const int32_t i0 = begin + shift > 0 ? begin + shift : 0, i1 = end + shift < t->n ? end + shift : t->n;
        const float *weight = t->x->score + (int64_t)key * t->ld;
        for (int32_t i = i0; i < i1; i++)
            t->slash[i - shift] += weight[i] * t->x->rate[i];
    }
}

/* Called by every thread of a parallel region. */
static void probe_one(const probe_head *t, float *rows)
{
#pragma omp single
    load_queries(t);
#pragma omp for schedule(static)
    for (int32_t c = 0; c < t->n_chunk; c++)
        score_chunk(t, c, rows);
#pragma omp single
    merge_max(t);
#pragma omp for schedule(static)
    for (int32_t c = 0; c < t->n_chunk; c++)
        weigh_chunk(t, c);
#pragma omp single
    merge_sums(t);
#pragma omp for schedule(static) nowait
    for (int32_t c = 0; c < t->n_chunk; c++)
        sum_columns(t, c);
#pragma omp for schedule(static)
    for (int32_t c = 0; c < t->n_chunk; c++)
        sum_diagonals(t, c * chunk_keys, (c + 1) * chunk_keys < t->q.n_kv ? (c + 1) * chunk_keys : t->q.n_kv);
}

void prism_probe_cpu(const prism_ctx *ctx, const prism_probe_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    const probe_scratch x = layout(ctx, p, job->n_query, &arena);
#pragma omp parallel num_threads(ctx->n_thread)
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        for (int32_t h = 0; h < p->call->n_head && q.n_q > 0 && q.n_kv >= job->min_tokens; h++) {
            const int64_t at = ((int64_t)s * p->call->n_head + h) * job->stride;
            const int32_t n = q.n_q < job->n_query ? q.n_q : job->n_query;
            const probe_head t = {
                .job = job,
                .k = ctx->cpu,
                .x = &x,
                .q = q,
                .s = s,
                .h = h,
                .n = n,
                .ld = prism_round_up(n, ctx->cpu->panel),
                .n_chunk = chunks_of(q.n_kv),
                .first = q.q_start + q.n_q - n,
                .column = job->column + at,
                .slash = job->slash + at,
            };
            probe_one(&t, (float *)(x.thread + (size_t)prism_thread_index() * x.thread_bytes));
        }
    }
}
