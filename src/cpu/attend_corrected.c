/* The start of a corrected row: entries are scored like keys and added like values. */
#include "cpu/attend_corrected.h"

#include <math.h>
#include <string.h>

static const float ln_2 = 0.69314718f;

prism_correct_tile prism_correct_layout(const prism_problem *p, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, d = (size_t)p->call->d_head;
    prism_correct_tile t;
    t.query = prism_arena_take(a, block * d, sizeof(float));
    t.square = prism_arena_take(a, block * (size_t)prism_moment_groups(p->call->d_head), sizeof(float));
    t.logit = prism_arena_take(a, block * PRISM_STRIP, sizeof(float));
    t.spread = prism_arena_take(a, block * PRISM_STRIP, sizeof(float));
    t.bias = prism_arena_take(a, PRISM_STRIP, sizeof(float));
    t.linear = prism_arena_take(a, block * (size_t)prism_round_up(p->call->d_head, PRISM_MAX_PANEL), sizeof(float));
    t.stage = prism_arena_take(a, prism_entries_stage(p), sizeof(float));
    return t;
}

/* ------------------------------------------------------------------------------------------------ slopes ---- */

prism_slopes prism_slopes_layout(const prism_problem *p, prism_arena *a)
{
    const size_t n_slot = (size_t)prism_moment_slots(p->n_kblk), d = (size_t)p->call->d_head,
                 d_pad = (size_t)prism_round_up(p->call->d_head, PRISM_MAX_PANEL);
    prism_slopes x;
    x.matrix = prism_arena_take(a, n_slot * d * d_pad, sizeof(float));
    x.shift = prism_arena_take(a, n_slot * d_pad, sizeof(float));
    return x;
}

/* Computes the sum over slots 0 .. slot of row `row` of the covariances, times factor. */
static void sum_slots(const prism_tier *k, const prism_problem *p, const prism_block_moments *m, int32_t h_kv,
                      int32_t slot, int32_t row, float factor, float *sum)
{
    const int32_t d = p->call->d_head;
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int32_t j = 0; j <= slot; j++)
        k->add_row[PRISM_F32](sum, m->covariance + ((int64_t)j * p->call->n_kv_head + h_kv) *
                                       prism_moment_slot_floats(d) + (int64_t)row * d, d);
    k->store_row[PRISM_F32](sum, sum, d, factor);
}

void prism_slopes_pack(const prism_tier *k, const prism_problem *p, const prism_block_moments *m, int32_t h_kv,
                       int32_t slot, const prism_slopes *out, float *stage)
{
    const prism_operand op = prism_operand_make(k, p, false);
    const int32_t d = op.d, d_pad = op.d_pad;
    float *matrix = out->matrix + (int64_t)slot * d * d_pad, *shift = out->shift + (int64_t)slot * d_pad;
    const float mean = 1.0f / (float)prism_moment_slot_end(slot);
    float query[PRISM_MAX_D_HEAD];
    bool finite = true;
    sum_slots(k, p, m, h_kv, slot, d, p->scale * mean, query);
    memset(shift, 0, (size_t)d_pad * sizeof *shift);
    for (int32_t first = 0; first < d_pad; first += PRISM_STRIP) {
        memset(stage, 0, (size_t)PRISM_STRIP * (size_t)d * sizeof *stage);
        for (int32_t e = first; e < first + PRISM_STRIP && e < d; e++) {
            float *row = stage + (int64_t)(e - first) * d;
            sum_slots(k, p, m, h_kv, slot, e, mean, row);
            k->dot_rows(&shift[e], row, d, query, 1, d);
            k->store_row[PRISM_F32](row, row, d, ln_2);
            finite = finite && isfinite(shift[e]) && prism_operand_all_finite(&op, row, 1);
        }
        prism_operand_pack_keys(&op, stage, PRISM_STRIP, matrix + (int64_t)first * d);
    }
    if (!finite) { /* then the row's blocks keep their mean values */
        memset(matrix, 0, (size_t)d * (size_t)d_pad * sizeof *matrix);
        memset(shift, 0, (size_t)d_pad * sizeof *shift);
    }
}

/* ----------------------------------------------------------------------------------------------- correct ---- */

/* Copies the bias of entries [first, first + n); -inf where the list has the entry's block. *at: how far the list has
 * been read. false: no entry is left. */
static bool mask_listed(const prism_entries *entries, prism_plan_row list, int32_t first, int32_t n, int64_t *at,
                        float *bias)
{
    bool any = false;
    for (int32_t j = 0; j < n; j++) {
        const int32_t b = first + j < PRISM_MOMENT_SINGLE ? 0 : first + j - PRISM_MOMENT_SINGLE;
        while (*at < list.n && list.index[*at] < b)
            ++*at;
        bias[j] = *at < list.n && list.index[*at] == b ? -INFINITY : entries->bias[first + j];
        any |= bias[j] > -INFINITY;
    }
    for (int32_t j = n; j < PRISM_STRIP; j++)
        bias[j] = -INFINITY;
    return any;
}

/* Adds the part of a pruned block's value that is linear in the query: open[i] is the weight of these blocks. */
static void add_linear(const prism_tier *k, const prism_problem *p, const prism_slopes *slopes, int32_t slot, int32_t m,
                       const float *open, const prism_correct_tile *t, float *output)
{
    const int32_t d = p->call->d_head, d_pad = prism_round_up(d, PRISM_MAX_PANEL);
    const float *shift = slopes->shift + (int64_t)slot * d_pad;
    k->gemm(t->linear, d_pad, NULL, t->query, d, slopes->matrix + (int64_t)slot * d * d_pad, m, d_pad, d);
    for (int32_t i = 0; i < m; i++)
        for (int32_t e = 0; e < d; e++)
            output[(int64_t)i * d_pad + e] += open[i] * (t->linear[(int64_t)i * d_pad + e] - shift[e]);
}

void prism_correct_start(const prism_tier *k, const prism_attend_job *job, int32_t s, int32_t h,
                         prism_range rows, int32_t own, prism_plan_row list, const prism_entries *entries,
                         const prism_slopes *slopes, const prism_correct_tile *t, prism_softmax *state, float *output)
{
    const prism_problem *p = job->problem;
    const int32_t d = p->call->d_head, d_pad = prism_round_up(d, PRISM_MAX_PANEL), m = rows.end - rows.begin;
    const int32_t n_group = prism_moment_groups(d), n_entry = own > 0 ? PRISM_MOMENT_SINGLE + own : 0;
    const float cap = 0.5f * log2f((float)p->block_size);
    float alpha[PRISM_MAX_BLOCK], open[PRISM_MAX_BLOCK] = {0}; /* open: the sums of weights without single tokens */
    int32_t n_valid[PRISM_MAX_BLOCK];
    int64_t at = 0;
    for (int32_t i = 0; i < m && n_entry; i++)
        prism_entries_query(k, p, s, rows.begin + i, h, t->query + (int64_t)i * d, t->square + (int64_t)i * n_group);
    for (int32_t first = 0; first < n_entry; first += PRISM_STRIP) {
        const int32_t n = n_entry - first < PRISM_STRIP ? n_entry - first : PRISM_STRIP;
        const int32_t n_pad = prism_round_up(n, k->panel);
        if (!mask_listed(entries, list, first, n, &at, t->bias))
            continue;
        k->gemm(t->logit, PRISM_STRIP, NULL, t->query, d, entries->key + (int64_t)first * d, m, n_pad, d);
        if (job->variances)
            k->gemm(t->spread, PRISM_STRIP, NULL, t->square, n_group, entries->spread + (int64_t)first * n_group, m,
                    n_pad, n_group);
        for (int32_t i = 0; i < m; i++) {
            k->add_spread(t->logit + i * PRISM_STRIP, job->variances ? t->spread + i * PRISM_STRIP : NULL, t->bias,
                          n_pad, 0.5f * ln_2, 0.0f, cap);
            n_valid[i] = n;
        }
        k->softmax(t->logit, PRISM_STRIP, m, PRISM_STRIP, n_valid, state, alpha);
        k->gemm(output, d_pad, alpha, t->logit, PRISM_STRIP, entries->value + (int64_t)first * d_pad, m, d_pad,
                PRISM_STRIP);
        for (int32_t i = 0; i < m; i++) {
            open[i] *= alpha[i];
            for (int32_t e = first < PRISM_MOMENT_SINGLE ? PRISM_MOMENT_SINGLE : first; e < first + n; e++)
                open[i] += t->logit[i * PRISM_STRIP + e - first];
        }
    }
    if (job->variances && n_entry)
        add_linear(k, p, slopes, prism_moment_last_slot(own), m, open, t, output);
}
