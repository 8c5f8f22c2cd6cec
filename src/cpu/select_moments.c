/* select_moments: scores asking tokens against the entries of the blocks before their own, a few tokens at a time. An
 * entry's weight is its share beside the exact sum of the own block. Weights times what the moments leave open are
 * summed over the query block, and the sums become bits at once. docs/moments.md has the formulas. */
#include <math.h>
#include <string.h>

#include "core/topp.h"
#include "cpu/entries.h"

enum { tile_rows = 24 };

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

typedef struct moments_scratch {
    char *head, *thread; /* [n_kv_head] entries, [n_thread] scratch */
    size_t head_bytes, thread_bytes;
} moments_scratch;

typedef struct thread_scratch {
    float *query, *square; /* [tile_rows][d], [tile_rows][n_group] */
    float *logit, *spread; /* [tile_rows][ld] */
    float *sum;            /* [ld] */
    float *rows, *key;     /* [block][d]: the own block's keys, and packed */
    float *own;            /* [tile_rows][block] */
    float *stage;          /* prism_entries_stage() */
} thread_scratch;

typedef struct moments_seq {
    const prism_moments_job *job;
    const prism_tier *k;
    const moments_scratch *x;
    prism_operand op;
    prism_seq q;
    int32_t s;
} moments_seq;

static int32_t row_entries(const prism_problem *p)
{
    return prism_entry_strips(p) * PRISM_STRIP;
}

static thread_scratch layout_thread(const prism_problem *p, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, d = (size_t)p->call->d_head, ld = (size_t)row_entries(p);
    thread_scratch t;
    t.query = prism_arena_take(a, tile_rows * d, sizeof(float));
    t.square = prism_arena_take(a, tile_rows * (size_t)prism_moment_groups(p->call->d_head), sizeof(float));
    t.logit = prism_arena_take(a, tile_rows * ld, sizeof(float));
    t.spread = prism_arena_take(a, tile_rows * ld, sizeof(float));
    t.sum = prism_arena_take(a, ld, sizeof(float));
    t.rows = prism_arena_take(a, block * d, sizeof(float));
    t.key = prism_arena_take(a, block * d, sizeof(float));
    t.own = prism_arena_take(a, tile_rows * block, sizeof(float));
    t.stage = prism_arena_take(a, prism_entries_stage(p), sizeof(float));
    return t;
}

static moments_scratch layout(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    moments_scratch x;
    prism_arena head = {0}, thread = {0};
    prism_entries_layout(p, false, &head);
    x.head_bytes = head.used;
    x.head = prism_arena_take(a, (size_t)p->call->n_kv_head, x.head_bytes);
    layout_thread(p, &thread);
    x.thread_bytes = thread.used;
    x.thread = prism_arena_take(a, (size_t)ctx->n_thread, x.thread_bytes);
    return x;
}

size_t prism_select_moments_bytes_cpu(const prism_ctx *ctx, const prism_moments_job *job)
{
    prism_arena a = {0};
    layout(ctx, job->problem, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static prism_entries head_entries(const moments_seq *t, int32_t h_kv)
{
    prism_arena a = {.base = t->x->head + (size_t)h_kv * t->x->head_bytes};
    return prism_entries_layout(t->job->problem, false, &a);
}

static void pack_own_keys(const moments_seq *t, int32_t h_kv, int32_t own, const thread_scratch *x)
{
    const prism_problem *p = t->job->problem;
    prism_operand_load_rows(&t->op, &p->call->k, t->s, own * p->block_size, prism_seq_keys(&t->q, own, p->block_size),
                            p->block_size, h_kv, x->rows);
    prism_operand_pack_keys(&t->op, x->rows, p->block_size, x->key);
}

/* Keeps the block of every entry whose estimate is not finite, and sets the entry's weight to 0. */
static void keep_non_finite(float *logit, float *spread, const float *bias, int32_t n, uint64_t *bits)
{
    for (int32_t e = 0; e < n; e++) {
        if (bias[e] > -INFINITY && (!isfinite(logit[e]) || !isfinite(spread[e])))
            prism_bits_set(bits, e < PRISM_MOMENT_SINGLE ? 0 : e - PRISM_MOMENT_SINGLE);
        if (!isfinite(logit[e]) || !isfinite(spread[e])) {
            logit[e] = -INFINITY;
            spread[e] = 0;
        }
    }
}

/* Scores m tokens of head h: adds to x->sum[e] the weight of entry e times its spread^1.5. */
static void score_tokens(const moments_seq *t, int32_t h, int32_t own, const int32_t *token, int32_t m,
                         const thread_scratch *x, uint64_t *bits)
{
    const prism_problem *p = t->job->problem;
    const prism_tier *k = t->k;
    const prism_entries entries = head_entries(t, h / p->group);
    const int32_t d = p->call->d_head, n_group = prism_moment_groups(d), block = p->block_size, ld = row_entries(p);
    const int32_t n = PRISM_MOMENT_SINGLE + own, n_pad = prism_round_up(n, k->panel);
    prism_softmax state[tile_rows];
    float alpha[tile_rows];
    int32_t n_own[tile_rows], n_before[tile_rows];
    for (int32_t r = 0; r < m; r++) {
        prism_entries_query(k, p, t->s, token[r], h, x->query + (int64_t)r * d, x->square + (int64_t)r * n_group);
        state[r] = (prism_softmax){-INFINITY, 0};
        n_own[r] = t->q.q_start + token[r] - own * block + 1;
        n_before[r] = n;
    }
    k->gemm(x->own, block, NULL, x->query, d, x->key, m, block, d);
    k->softmax(x->own, block, m, block, n_own, state, alpha);
    k->gemm(x->logit, ld, NULL, x->query, d, entries.key, m, n_pad, d);
    k->gemm(x->spread, ld, NULL, x->square, n_group, entries.spread, m, n_pad, n_group);
    for (int32_t r = 0; r < m; r++) {
        float *logit = x->logit + (int64_t)r * ld, *spread = x->spread + (int64_t)r * ld;
        bool finite, finite_spread;
        k->scale_max(logit, n, 1.0f, &finite);
        k->scale_max(spread, n, ln_2 * ln_2, &finite_spread);
        if (!finite || !finite_spread)
            keep_non_finite(logit, spread, entries.bias, n, bits);
        k->add_spread(logit, spread, entries.bias, n_pad, 0.5f * log2_e, 0.25f, INFINITY);
    }
    k->softmax(x->logit, ld, m, n_pad, n_before, state, alpha);
    for (int32_t r = 0; r < m; r++)
        if (isfinite(state[r].max) && isfinite(state[r].sum)) /* else no block can save the token */
            k->add_error(x->sum, x->logit + (int64_t)r * ld, x->spread + (int64_t)r * ld, n_pad, 1.0f / state[r].sum);
}

/* Scores the asking tokens of a row. Returns their number. */
static int32_t ask(const moments_seq *t, int32_t h, int32_t own, prism_range rows, const thread_scratch *x,
                   uint64_t *bits)
{
    const int32_t last = t->q.q_start + rows.end - 1;
    int32_t token[tile_rows], m = 0, n_asked = 0;
    for (int32_t r = rows.begin; r < rows.end; r++) {
        if (prism_moment_asks(t->q.q_start + r, last))
            token[m++] = r;
        if (m == tile_rows || (m > 0 && r == rows.end - 1)) {
            score_tokens(t, h, own, token, m, x, bits);
            n_asked += m;
            m = 0;
        }
    }
    return n_asked;
}

/* Returns the least x such that x times the sum of the errors up to x is at least `bound`; infinity: none is. */
static float lowest_kept(const float *error, int32_t n, double bound)
{
    uint32_t low = 0, high = 0x7f800000; /* floats that are not negative are ordered as their bits are */
    float x;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        double sum = 0;
        memcpy(&x, &middle, sizeof x);
        for (int32_t b = 0; b < n; b++)
            sum += error[b] <= x ? error[b] : 0.0f;
        if (x * sum >= bound)
            high = middle;
        else
            low = middle + 1;
    }
    memcpy(&x, &low, sizeof x);
    return x;
}

static void select_row(const moments_seq *t, int32_t h, int32_t i, const thread_scratch *x)
{
    const prism_moments_job *job = t->job;
    const prism_problem *p = job->problem;
    const prism_entries entries = head_entries(t, h / p->group);
    const int32_t own = t->q.first_qblk + i;
    uint64_t *bits = (uint64_t *)job->bits + prism_problem_row(p, t->s, h, i) * p->n_word, any = 0;
    memset(x->sum, 0, (size_t)row_entries(p) * sizeof *x->sum);
    if (own > 0) {
        pack_own_keys(t, h / p->group, own, x);
        const int32_t n_asked = ask(t, h, own, prism_seq_rows(&t->q, i, p->block_size), x, bits);
        const float *error = x->sum + PRISM_MOMENT_SINGLE;
        const float cut = lowest_kept(error, own, pow((double)job->error * n_asked, 2));
        for (int32_t b = 0; b < own; b++)
            if (error[b] >= cut || !entries.usable[PRISM_MOMENT_SINGLE + b])
                prism_bits_set(bits, b);
        for (int32_t e = 0; e < PRISM_MOMENT_SINGLE; e++)
            if (!entries.usable[e])
                prism_bits_set(bits, 0);
    }
    if (job->keep_sink)
        prism_bits_set(bits, 0);
    for (int32_t w = 0; w < p->n_word; w++)
        any |= bits[w];
    if (job->keep_own || !any)
        prism_bits_set(bits, own);
}

static void select_sequence(const prism_ctx *ctx, const moments_seq *t)
{
    const prism_moments_job *job = t->job;
    const prism_problem *p = job->problem;
    const int32_t n_strip = t->q.n_kblk > 1 ? prism_entry_strips(p) : 0, n_head = p->call->n_head;
    const prism_block_moments moments = prism_moments_of_cpu(p, job->moments, t->s);
#pragma omp parallel num_threads(ctx->n_thread)
    {
        prism_arena arena = {.base = t->x->thread + (size_t)prism_thread_index() * t->x->thread_bytes};
        const thread_scratch x = layout_thread(p, &arena);
#pragma omp for schedule(static)
        for (int32_t item = 0; item < n_strip * p->call->n_kv_head; item++) {
            const prism_entries entries = head_entries(t, item / n_strip);
            prism_entries_pack(ctx->cpu, p, &moments, true, t->s, item / n_strip, item % n_strip, &entries, x.stage);
        }
        /* Later query blocks see more: longest first. */
#pragma omp for schedule(dynamic, 1)
        for (int32_t item = 0; item < t->q.n_qblk * n_head; item++)
            select_row(t, item % n_head, t->q.n_qblk - 1 - item / n_head, &x);
    }
}

void prism_select_moments_cpu(const prism_ctx *ctx, const prism_moments_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    const moments_scratch x = layout(ctx, p, &arena);
    memset(job->bits, 0, (size_t)(p->n_row * p->n_word) * sizeof(uint64_t));
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const moments_seq t = {job, ctx->cpu, &x, prism_operand_make(ctx->cpu, p, false), prism_problem_seq(p, s), s};
        if (t.q.n_kv < job->min_tokens)
            prism_keep_all_cpu(p, s, job->bits);
        else if (t.q.n_q > 0)
            select_sequence(ctx, &t);
    }
}
