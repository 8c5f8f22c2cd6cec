/* score and select in one pass: a tile of query blocks scores the key blocks that it can see, and each row becomes a
 * bitmap at once. Only the bits have quadratic size. */
#include <math.h>
#include <string.h>

#include "core/topp.h"
#include "cpu/cpu.h"

enum { tile_rows = 12 };

/* One band to score: logit(u, v) = factor(u) * sum over dim of q_mean(u) k_mean(v). */
typedef struct select_band {
    int16_t dim[PRISM_MAX_D_HEAD];
    int32_t n_dim;
    float *panels; /* keys packed: [n_kv_head][n_kblk rounded up x n_dim] */
} select_band;

typedef struct select_scratch {
    select_band band[PRISM_MAX_BAND];
    int32_t n_band;
    float *factor; /* [n_row][PRISM_MAX_BAND] */
    prism_energy *k_upto;
    char *thread;
    size_t thread_bytes;
} select_scratch;

typedef struct thread_scratch {
    float *query; /* [tile_rows][n_dim] */
    float *logit; /* [tile_rows][n_kblk rounded up] */
    uint64_t *fixed;
} thread_scratch;

static thread_scratch layout_thread(const prism_problem *p, prism_arena *a)
{
    thread_scratch t;
    t.query = prism_arena_take(a, tile_rows * PRISM_MAX_D_HEAD, sizeof *t.query);
    t.logit = prism_arena_take(a, (size_t)tile_rows * prism_padded_blocks(p), sizeof *t.logit);
    t.fixed = prism_arena_take(a, (size_t)p->n_kblk, sizeof *t.fixed);
    return t;
}

static select_scratch layout(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    select_scratch s;
    for (int b = 0; b < PRISM_MAX_BAND; b++)
        s.band[b].panels = prism_arena_take(
            a, prism_arena_count(a, p->call->n_kv_head, prism_padded_blocks(p), p->call->d_head, 1), sizeof(float));
    s.factor = prism_arena_take(a, prism_arena_count(a, p->n_row, PRISM_MAX_BAND, 1, 1), sizeof *s.factor);
    s.k_upto = prism_arena_take(a, (size_t)p->n_kblk, sizeof *s.k_upto);
    prism_arena one = {0};
    layout_thread(p, &one);
    s.thread_bytes = one.used;
    s.thread = prism_arena_take(a, (size_t)ctx->n_thread, s.thread_bytes);
    return s;
}

size_t prism_bits_bytes_cpu(const prism_problem *p)
{
    prism_arena a = {0};
    prism_arena_take(&a, prism_arena_count(&a, p->n_row, p->n_word, 1, 1), sizeof(uint64_t));
    return a.overflow ? SIZE_MAX : a.used;
}

size_t prism_select_bytes_cpu(const prism_ctx *ctx, const prism_select_job *job)
{
    prism_arena a = {0};
    layout(ctx, job->problem, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Sets the two bands, calibrated; or one band of all dimensions at the softmax's own scale. */
static void set_bands(const prism_select_job *job, select_scratch *x)
{
    const prism_problem *p = job->problem;
    x->n_band = job->bands ? 2 : 1;
    if (job->bands) {
        x->band[0].n_dim = job->bands->n_high;
        x->band[1].n_dim = job->bands->n_low;
        memcpy(x->band[0].dim, job->bands->high, sizeof x->band[0].dim);
        memcpy(x->band[1].dim, job->bands->low, sizeof x->band[1].dim);
        prism_calibrate_cpu(job, x->factor, x->k_upto);
        return;
    }
    x->band[0].n_dim = p->call->d_head;
    for (int32_t j = 0; j < p->call->d_head; j++)
        x->band[0].dim[j] = (int16_t)j;
    for (int64_t row = 0; row < p->n_row; row++)
        x->factor[row * PRISM_MAX_BAND] = p->scale;
}

static float *head_panels(const prism_problem *p, const select_band *band, int32_t h_kv)
{
    return band->panels + (int64_t)h_kv * prism_padded_blocks(p) * band->n_dim;
}

/* Packs one panel of `width` blocks of a KV head: panel[l][j] = k_mean[first + j][dim[l]] */
static void pack_panel(const prism_select_job *job, const prism_seq *q, int32_t s, int32_t h_kv,
                       const select_band *band, int32_t first, int32_t width)
{
    const prism_problem *p = job->problem;
    const int32_t d = p->call->d_head;
    float *panel = head_panels(p, band, h_kv) + (int64_t)first * band->n_dim;
    const float *k_mean = (const float *)job->k_mean + ((int64_t)s * p->call->n_kv_head + h_kv) * p->n_kblk * d;
    for (int32_t l = 0; l < band->n_dim; l++)
        for (int32_t j = 0; j < width; j++)
            panel[l * width + j] = first + j < q->n_kblk ? k_mean[(int64_t)(first + j) * d + band->dim[l]] : 0.0f;
}

static void select_row(const prism_tier *k, float *logit, int32_t n, float factor, float top_p, uint64_t *fixed,
                       uint64_t *bits)
{
    bool finite;
    float max = k->scale_max(logit, n, factor, &finite);
    if (!finite)
        max = prism_keep_non_finite(logit, n, bits);
    if (max == -INFINITY)
        return;
    k->exp_row(logit, n, max);
    prism_topp_row(logit, n, top_p, fixed, bits);
}

/* Selects for query blocks [i0, i0 + m) of one head. */
static void select_tile(const prism_ctx *ctx, const prism_select_job *job, const prism_seq *q, int64_t row0,
                        int32_t h_kv, int32_t i0, int32_t m, const select_scratch *scratch, thread_scratch *t)
{
    const prism_tier *k = ctx->cpu;
    const prism_problem *p = job->problem;
    const int32_t d = p->call->d_head, ld = prism_padded_blocks(p), first = q->first_qblk + i0;
    const int32_t n_visible = prism_round_up(first + m, k->panel);
    const float *q_mean = job->q_mean;
    uint64_t *all_bits = job->bits;
    for (int b = 0; b < scratch->n_band; b++) {
        const select_band *band = &scratch->band[b];
        if (band->n_dim == 0)
            continue;
        for (int32_t i = 0; i < m; i++)
            for (int32_t l = 0; l < band->n_dim; l++)
                t->query[i * band->n_dim + l] = q_mean[(row0 + i) * d + band->dim[l]];
        k->gemm(t->logit, ld, NULL, t->query, band->n_dim, head_panels(p, band, h_kv), m, n_visible, band->n_dim);
        for (int32_t i = 0; i < m; i++)
            select_row(k, t->logit + (int64_t)i * ld, first + i + 1, scratch->factor[(row0 + i) * PRISM_MAX_BAND + b],
                       job->top_p[b], t->fixed, all_bits + (row0 + i) * p->n_word);
    }
    for (int32_t i = 0; i < m; i++) {
        uint64_t *bits = all_bits + (row0 + i) * p->n_word, any = 0;
        if (job->keep_sink)
            prism_bits_set(bits, 0);
        for (int32_t w = 0; w < p->n_word; w++)
            any |= bits[w];
        if (job->keep_own || !any)
            prism_bits_set(bits, first + i);
    }
}

static void select_sequence(const prism_ctx *ctx, const prism_select_job *job, int32_t s, const select_scratch *scratch)
{
    const prism_problem *p = job->problem;
    const prism_seq q = prism_problem_seq(p, s);
    const int32_t n_head = p->call->n_head, n_kv_head = p->call->n_kv_head, width = ctx->cpu->panel;
    const int32_t n_panel = (q.n_kblk + width - 1) / width, n_tile = (q.n_qblk + tile_rows - 1) / tile_rows;
#pragma omp parallel num_threads(ctx->n_thread)
    {
#pragma omp for schedule(static)
        for (int32_t item = 0; item < n_panel * n_kv_head; item++) {
            const int32_t h_kv = item / n_panel, first = item % n_panel * width;
            for (int b = 0; b < scratch->n_band; b++)
                pack_panel(job, &q, s, h_kv, &scratch->band[b], first, width);
        }
        prism_arena arena = {.base = scratch->thread + (size_t)prism_thread_index() * scratch->thread_bytes};
        thread_scratch t = layout_thread(p, &arena);
        /* Later query blocks see more: longest first. */
#pragma omp for schedule(dynamic, 1)
        for (int32_t item = 0; item < n_tile * n_head; item++) {
            const int32_t i0 = (n_tile - 1 - item / n_head) * tile_rows, h = item % n_head;
            const int32_t m = q.n_qblk - i0 < tile_rows ? q.n_qblk - i0 : tile_rows;
            select_tile(ctx, job, &q, prism_problem_row(p, s, h, i0), h / p->group, i0, m, scratch, &t);
        }
    }
}

void prism_keep_all_cpu(const prism_problem *p, int32_t s, uint64_t *bits)
{
    const prism_seq q = prism_problem_seq(p, s);
    for (int32_t h = 0; h < p->call->n_head; h++)
        for (int32_t i = 0; i < q.n_qblk; i++)
            prism_bits_fill(bits + prism_problem_row(p, s, h, i) * p->n_word, 0, q.first_qblk + i + 1);
}

void prism_select_cpu(const prism_ctx *ctx, const prism_select_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    select_scratch scratch = layout(ctx, p, &arena);
    set_bands(job, &scratch);
    memset(job->bits, 0, (size_t)(p->n_row * p->n_word) * sizeof(uint64_t));
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        if (q.n_kv < job->min_tokens)
            prism_keep_all_cpu(p, s, job->bits);
        else
            select_sequence(ctx, job, s, &scratch);
    }
}
