/* The start of a corrected row: entries are scored like keys and added like values. */
#include "cpu/attend_corrected.h"

#include <math.h>
#include <string.h>

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

prism_correct_tile prism_correct_layout(const prism_problem *p, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, d = (size_t)p->call->d_head;
    prism_correct_tile t;
    t.query = prism_arena_take(a, block * d, sizeof(float));
    t.square = prism_arena_take(a, block * (size_t)prism_moment_groups(p->call->d_head), sizeof(float));
    t.logit = prism_arena_take(a, block * PRISM_STRIP, sizeof(float));
    t.spread = prism_arena_take(a, block * PRISM_STRIP, sizeof(float));
    t.bias = prism_arena_take(a, PRISM_STRIP, sizeof(float));
    t.stage = prism_arena_take(a, prism_entries_stage(p), sizeof(float));
    return t;
}

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

void prism_correct_start(const prism_tier *k, const prism_attend_job *job, int32_t s, int32_t h,
                         prism_range rows, int32_t own, prism_plan_row list, const prism_entries *entries,
                         const prism_correct_tile *t, prism_softmax *state, float *output)
{
    const prism_problem *p = job->problem;
    const int32_t d = p->call->d_head, d_pad = prism_round_up(d, PRISM_MAX_PANEL), m = rows.end - rows.begin;
    const int32_t n_group = prism_moment_groups(d), n_entry = own > 0 ? PRISM_MOMENT_SINGLE + own : 0;
    float alpha[PRISM_MAX_BLOCK];
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
                          n_pad, 0.5f * ln_2, PRISM_MOMENT_CAP * log2_e);
            n_valid[i] = n;
        }
        k->softmax(t->logit, PRISM_STRIP, m, PRISM_STRIP, n_valid, state, alpha);
        k->gemm(output, d_pad, alpha, t->logit, PRISM_STRIP, entries->value + (int64_t)first * d_pad, m, d_pad,
                PRISM_STRIP);
    }
}
