/*
 * select_strided: XAttention's antidiagonals. A group is `stride` tokens. Groups score(R, C) = sum over i of
 * q[stride R + stride - 1 - i] . k[stride C + i], a matrix product over stride * d dimensions.
 *
 * Keys of one KV head are packed group by group. Then tiles of query blocks (64 groups) score what they see, and each
 * row of blocks becomes bits at once. Missing tokens of a group count as zeros, as upstream's padding does.
 */
#include <math.h>
#include <string.h>

#include "core/topp.h"
#include "cpu/cpu.h"

enum { tile_groups = 64 };

static const float ones[tile_groups] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
};

typedef struct strided_scratch {
    float *panels; /* [groups rounded up][stride x d] */
    char *thread;
    size_t thread_bytes;
} strided_scratch;

typedef struct thread_scratch {
    float *query;    /* [tile_groups][stride x d] */
    float *logit;    /* [tile_groups][groups rounded up] */
    double *mass;    /* [n_kblk] */
    uint64_t *fixed; /* [n_kblk] */
} thread_scratch;

typedef struct strided_head {
    const prism_strided_job *job;
    const prism_tier *k;
    const strided_scratch *x;
    prism_seq q;
    int32_t s, h_kv, per_block; /* groups in a block */
} strided_head;

static int32_t padded_groups(const prism_problem *p, int32_t stride)
{
    return prism_round_up(p->n_kblk * (p->block_size / stride), PRISM_MAX_PANEL);
}

static thread_scratch layout_thread(const prism_problem *p, int32_t stride, prism_arena *a)
{
    thread_scratch t;
    t.query = prism_arena_take(a, (size_t)tile_groups * (size_t)stride * (size_t)p->call->d_head, sizeof(float));
    t.logit = prism_arena_take(a, (size_t)tile_groups * (size_t)padded_groups(p, stride), sizeof(float));
    t.mass = prism_arena_take(a, (size_t)p->n_kblk, sizeof *t.mass);
    t.fixed = prism_arena_take(a, (size_t)p->n_kblk, sizeof *t.fixed);
    return t;
}

static strided_scratch layout(const prism_ctx *ctx, const prism_problem *p, int32_t stride, prism_arena *a)
{
    strided_scratch x;
    prism_arena one = {0};
    x.panels =
        prism_arena_take(a, prism_arena_count(a, padded_groups(p, stride), stride, p->call->d_head, 1), sizeof(float));
    layout_thread(p, stride, &one);
    x.thread_bytes = one.used;
    x.thread = prism_arena_take(a, (size_t)ctx->n_thread, x.thread_bytes);
    return x;
}

size_t prism_select_strided_bytes_cpu(const prism_ctx *ctx, const prism_strided_job *job)
{
    prism_arena a = {0};
    layout(ctx, job->problem, job->stride, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Packs a panel: `width` groups of keys from group `first` on. */
static void pack_groups(const strided_head *t, int32_t first, int32_t width)
{
    const prism_call *c = t->job->problem->call;
    const int32_t d = c->d_head, stride = t->job->stride;
    float *panel = t->x->panels + (int64_t)first * stride * d, row[PRISM_MAX_D_HEAD];
    for (int32_t g = 0; g < width; g++)
        for (int32_t i = 0; i < stride; i++) {
            const int32_t token = (first + g) * stride + i;
            if (token < t->q.n_kv)
                prism_load_token(t->k, &c->k, t->s, token, t->h_kv, d, row);
            else
                memset(row, 0, (size_t)d * sizeof *row);
            for (int32_t l = 0; l < d; l++)
                panel[((int64_t)i * d + l) * width + g] = row[l];
        }
}

/* Takes a group of queries: softmax over the groups of keys that it may see, added to mass block by block. */
static void add_group_row(const strided_head *t, float *logit, int32_t n, double *mass, uint64_t *bits)
{
    const int32_t per_block = t->per_block;
    bool finite;
    float max = t->k->scale_max(logit, n, t->job->problem->scale / (float)t->job->stride, &finite);
    for (int32_t c = 0; c < n && !finite; c++)
        if (!isfinite(logit[c])) {
            prism_bits_set(bits, c / per_block);
            logit[c] = -INFINITY;
        }
    if (!finite) {
        max = -INFINITY;
        for (int32_t c = 0; c < n; c++)
            max = fmaxf(max, logit[c]);
    }
    if (max == -INFINITY)
        return;
    t->k->exp_row(logit, n, max);
    double sum = 0;
    for (int32_t c = 0; c < n; c++)
        sum += (double)logit[c];
    for (int32_t v = 0; v * per_block < n; v++) {
        const int32_t end = (v + 1) * per_block < n ? (v + 1) * per_block : n;
        double block = 0;
        for (int32_t c = v * per_block; c < end; c++)
            block += (double)logit[c];
        mass[v] += block / sum;
    }
}

/* Loads groups of queries [first, first + m); zero where the call has no such query. */
static void load_groups(const strided_head *t, int32_t h, int32_t first, int32_t m, float *query)
{
    const prism_call *c = t->job->problem->call;
    const int32_t d = c->d_head, stride = t->job->stride;
    for (int32_t g = 0; g < m; g++)
        for (int32_t i = 0; i < stride; i++, query += d) {
            const int32_t row = (first + g) * stride + stride - 1 - i - t->q.q_start;
            if (row >= 0 && row < t->q.n_q)
                prism_load_token(t->k, &c->q, t->s, row, h, d, query);
            else
                memset(query, 0, (size_t)d * sizeof *query);
        }
}

/* Scores m groups of queries against the first n groups of keys. Goes token by token of the stride, so that a slice of
 * the packed keys stays in the first cache. */
static void score_groups(const strided_head *t, const float *query, float *logit, int32_t ld, int32_t m, int32_t n)
{
    const int32_t d = t->job->problem->call->d_head, stride = t->job->stride, width = t->k->panel;
    for (int32_t c = 0; c < n; c += width)
        for (int32_t i = 0; i < stride; i++)
            t->k->gemm(logit + c, ld, i ? ones : NULL, query + (int64_t)i * d, (int64_t)stride * d,
                       t->x->panels + ((int64_t)c * stride + (int64_t)i * width) * d, m, width, d);
}

/* Selects for query blocks [i0, i1) of head h. */
static void select_tile(const strided_head *t, int32_t h, int32_t i0, int32_t i1, const thread_scratch *x)
{
    const prism_problem *p = t->job->problem;
    const int32_t stride = t->job->stride, ld = padded_groups(p, stride), first_blk = t->q.first_qblk + i0;
    const int32_t first = first_blk * t->per_block, m = (i1 - i0) * t->per_block;
    load_groups(t, h, first, m, x->query);
    score_groups(t, x->query, x->logit, ld, m, prism_round_up(first + m, t->k->panel));
    for (int32_t i = i0; i < i1; i++) {
        const int32_t own = t->q.first_qblk + i, at = (i - i0) * t->per_block;
        uint64_t *bits = t->job->bits + prism_problem_row(p, t->s, h, i) * p->n_word;
        memset(x->mass, 0, (size_t)(own + 1) * sizeof *x->mass);
        for (int32_t g = at; g < at + t->per_block; g++) {
            const int32_t token = (first + g) * stride - t->q.q_start; /* of the group, as a row of the call */
            if (token + stride > 0 && token < t->q.n_q)
                add_group_row(t, x->logit + (int64_t)g * ld, first + g + 1, x->mass, bits);
        }
        prism_rule_apply(&t->job->rule, x->mass, own + 1, t->q.n_qblk - 1 - i, x->fixed, bits);
    }
}

static void select_kv_head(const prism_ctx *ctx, const strided_head *t)
{
    const prism_problem *p = t->job->problem;
    const int32_t width = ctx->cpu->panel, n_group = t->q.n_kblk * t->per_block;
    const int32_t per_tile = tile_groups / t->per_block, n_tile = (t->q.n_qblk + per_tile - 1) / per_tile;
#pragma omp parallel num_threads(ctx->n_thread)
    {
        prism_arena arena = {.base = t->x->thread + (size_t)prism_thread_index() * t->x->thread_bytes};
        const thread_scratch x = layout_thread(p, t->job->stride, &arena);
#pragma omp for schedule(static)
        for (int32_t first = 0; first < n_group; first += width)
            pack_groups(t, first, width);
        /* Later query blocks see more: longest first. */
#pragma omp for schedule(dynamic, 1)
        for (int32_t item = 0; item < n_tile * p->group; item++) {
            const int32_t i0 = (n_tile - 1 - item / p->group) * per_tile, i1 = i0 + per_tile;
            select_tile(t, t->h_kv * p->group + item % p->group, i0, i1 < t->q.n_qblk ? i1 : t->q.n_qblk, &x);
        }
    }
}

void prism_select_strided_cpu(const prism_ctx *ctx, const prism_strided_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    const strided_scratch x = layout(ctx, p, job->stride, &arena);
    memset(job->bits, 0, (size_t)(p->n_row * p->n_word) * sizeof *job->bits);
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        strided_head t = {job, ctx->cpu, &x, prism_problem_seq(p, s), s, 0, p->block_size / job->stride};
        if (t.q.n_kv < job->min_tokens)
            prism_keep_all_cpu(p, s, job->bits);
        else
            for (; t.h_kv < p->call->n_kv_head && t.q.n_q > 0; t.h_kv++)
                select_kv_head(ctx, &t);
    }
}
