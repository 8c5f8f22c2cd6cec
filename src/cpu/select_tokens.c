/* select_tokens: scores every query token of a block against the means of the key blocks. A key block's mass is the sum
 * over the tokens, and the row of masses becomes bits at once. */
#include <math.h>
#include <string.h>

#include "core/topp.h"
#include "cpu/cpu.h"

typedef struct tokens_scratch {
    float *panels; /* [n_kv_head][n_kblk rounded up x d] */
    char *thread;
    size_t thread_bytes;
} tokens_scratch;

typedef struct thread_scratch {
    float *query;    /* [block][d] */
    float *logit;    /* [block][n_kblk rounded up] */
    float *sum;      /* [n_kblk] */
    double *mass;    /* [n_kblk] */
    uint64_t *fixed; /* [n_kblk] */
} thread_scratch;

typedef struct tokens_seq {
    const prism_tokens_job *job;
    const prism_tier *k;
    const tokens_scratch *x;
    prism_seq q;
    int32_t s;
} tokens_seq;

static thread_scratch layout_thread(const prism_problem *p, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, n_kblk = (size_t)p->n_kblk;
    thread_scratch t;
    t.query = prism_arena_take(a, block * (size_t)p->call->d_head, sizeof(float));
    t.logit = prism_arena_take(a, block * (size_t)prism_padded_blocks(p), sizeof(float));
    t.sum = prism_arena_take(a, n_kblk, sizeof *t.sum);
    t.mass = prism_arena_take(a, n_kblk, sizeof *t.mass);
    t.fixed = prism_arena_take(a, n_kblk, sizeof *t.fixed);
    return t;
}

static tokens_scratch layout(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    tokens_scratch x;
    prism_arena one = {0};
    x.panels = prism_arena_take(a, prism_arena_count(a, p->call->n_kv_head, prism_padded_blocks(p), p->call->d_head, 1),
                                sizeof(float));
    layout_thread(p, &one);
    x.thread_bytes = one.used;
    x.thread = prism_arena_take(a, (size_t)ctx->n_thread, x.thread_bytes);
    return x;
}

size_t prism_select_tokens_bytes_cpu(const prism_ctx *ctx, const prism_tokens_job *job)
{
    prism_arena a = {0};
    layout(ctx, job->problem, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static float *head_panels(const tokens_seq *t, int32_t h_kv)
{
    const prism_problem *p = t->job->problem;
    return t->x->panels + (int64_t)h_kv * prism_padded_blocks(p) * p->call->d_head;
}

static void pack_panel(const tokens_seq *t, int32_t h_kv, int32_t first, int32_t width)
{
    const prism_problem *p = t->job->problem;
    const int32_t d = p->call->d_head;
    const float *mean = t->job->k_mean + (((int64_t)t->s * p->call->n_kv_head + h_kv) * p->n_kblk + first) * d;
    float *panel = head_panels(t, h_kv) + (int64_t)first * d;
    for (int32_t l = 0; l < d; l++)
        for (int32_t j = 0; j < width; j++)
            panel[l * width + j] = first + j < t->q.n_kblk ? mean[(int64_t)j * d + l] : 0.0f;
}

/* Selects for query block i of head h: mass(v) = sum over tokens of e^(score - the tile's best). A token counts for the
 * blocks that end at or before its position. */
static void select_row(const tokens_seq *t, int32_t h, int32_t i, const thread_scratch *x)
{
    const prism_problem *p = t->job->problem;
    const prism_call *c = p->call;
    const int32_t d = c->d_head, ld = prism_padded_blocks(p), own = t->q.first_qblk + i;
    const prism_range rows = prism_seq_rows(&t->q, i, p->block_size);
    const int32_t m = rows.end - rows.begin, first = t->q.q_start + rows.begin;
    uint64_t *bits = t->job->bits + prism_problem_row(p, t->s, h, i) * p->n_word;
    for (int32_t r = 0; r < m; r++)
        prism_load_token(t->k, &c->q, t->s, rows.begin + r, h, d, x->query + (int64_t)r * d);
    t->k->gemm(x->logit, ld, NULL, x->query, d, head_panels(t, h / p->group), m, prism_round_up(own + 1, t->k->panel),
               d);
    float best = -INFINITY;
    for (int32_t r = 0; r < m; r++) {
        float *logit = x->logit + (int64_t)r * ld;
        bool finite;
        const int32_t n = (first + r + 1) / p->block_size;
        const float max = t->k->scale_max(logit, n, p->scale, &finite);
        best = fmaxf(best, finite ? max : prism_keep_non_finite(logit, n, bits));
    }
    memset(x->sum, 0, (size_t)(own + 1) * sizeof *x->sum);
    for (int32_t r = 0; r < m && best > -INFINITY; r++) {
        const int32_t n = (first + r + 1) / p->block_size;
        t->k->exp_row(x->logit + (int64_t)r * ld, n, best);
        t->k->add_row[PRISM_F32](x->sum, x->logit + (int64_t)r * ld, n);
    }
    for (int32_t v = 0; v <= own; v++)
        x->mass[v] = (double)x->sum[v];
    prism_rule_apply(&t->job->rule, x->mass, own + 1, t->q.n_qblk - 1 - i, x->fixed, bits);
}

static void select_sequence(const prism_ctx *ctx, const tokens_seq *t)
{
    const prism_problem *p = t->job->problem;
    const int32_t width = ctx->cpu->panel, n_panel = (t->q.n_kblk + width - 1) / width, n_head = p->call->n_head;
#pragma omp parallel num_threads(ctx->n_thread)
    {
        prism_arena arena = {.base = t->x->thread + (size_t)prism_thread_index() * t->x->thread_bytes};
        const thread_scratch x = layout_thread(p, &arena);
#pragma omp for schedule(static)
        for (int32_t item = 0; item < n_panel * p->call->n_kv_head; item++)
            pack_panel(t, item / n_panel, item % n_panel * width, width);
        /* Later query blocks see more: longest first. */
#pragma omp for schedule(dynamic, 1)
        for (int32_t item = 0; item < t->q.n_qblk * n_head; item++)
            select_row(t, item % n_head, t->q.n_qblk - 1 - item / n_head, &x);
    }
}

void prism_select_tokens_cpu(const prism_ctx *ctx, const prism_tokens_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    const tokens_scratch x = layout(ctx, p, &arena);
    memset(job->bits, 0, (size_t)(p->n_row * p->n_word) * sizeof *job->bits);
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const tokens_seq t = {job, ctx->cpu, &x, prism_problem_seq(p, s), s};
        if (t.q.n_kv < job->min_tokens)
            prism_keep_all_cpu(p, s, job->bits);
        else if (t.q.n_q > 0)
            select_sequence(ctx, &t);
    }
}
