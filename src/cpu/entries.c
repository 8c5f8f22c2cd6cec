/* Entries of a KV head; see entries.h. */
#include "cpu/entries.h"

#include <math.h>
#include <string.h>

static const float log2_e = 1.44269504f;

prism_entries prism_entries_layout(const prism_problem *p, bool values, prism_arena *a)
{
    const int64_t n = (int64_t)prism_entry_strips(p) * PRISM_STRIP, d = p->call->d_head;
    prism_entries x;
    x.key = prism_arena_take(a, (size_t)(n * d), sizeof(float));
    x.spread = prism_arena_take(a, (size_t)(n * prism_moment_groups(p->call->d_head)), sizeof(float));
    x.value = values
                  ? prism_arena_take(a, (size_t)(n * prism_round_up(p->call->d_head, PRISM_MAX_PANEL)), sizeof(float))
                  : NULL;
    x.bias = prism_arena_take(a, (size_t)n, sizeof(float));
    x.usable = prism_arena_take(a, (size_t)n, 1);
    return x;
}

size_t prism_entries_stage(const prism_problem *p)
{
    return (size_t)PRISM_STRIP * (size_t)p->call->d_head;
}

/* Chooses the single tokens: the tokens of block 0 whose keys lie farthest from the block's mean. */
static void choose_single(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv, int32_t *single,
                          bool *is_single)
{
    const int32_t d = p->call->d_head;
    float distance[PRISM_MAX_BLOCK], row[PRISM_MAX_D_HEAD], mean[PRISM_MAX_D_HEAD] = {0};
    for (int32_t t = 0; t < p->block_size; t++) {
        prism_load_token(k, &p->call->k, s, t, h_kv, d, row);
        k->add_row[PRISM_F32](mean, row, d);
    }
    k->store_row[PRISM_F32](mean, mean, d, 1.0f / (float)p->block_size);
    for (int32_t t = 0; t < p->block_size; t++) {
        prism_load_token(k, &p->call->k, s, t, h_kv, d, row);
        distance[t] = 0;
        for (int32_t l = 0; l < d; l++)
            distance[t] += (row[l] - mean[l]) * (row[l] - mean[l]);
        if (!isfinite(distance[t]))
            distance[t] = INFINITY;
        is_single[t] = false;
    }
    for (int32_t j = 0; j < PRISM_MOMENT_SINGLE; j++) {
        int32_t best = -1;
        for (int32_t t = 0; t < p->block_size; t++)
            if (!is_single[t] && (best < 0 || distance[t] > distance[best]))
                best = t;
        is_single[best] = true;
        single[j] = best;
    }
}

prism_block_keys prism_block_keys_of(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv,
                                     int32_t b)
{
    prism_block_keys x = {.s = s, .h_kv = h_kv, .first = b * p->block_size};
    int32_t single[PRISM_MOMENT_SINGLE];
    bool is_single[PRISM_MAX_BLOCK] = {false};
    if (b == 0)
        choose_single(k, p, s, h_kv, single, is_single);
    for (int32_t t = 0; t < p->block_size; t++)
        if (!is_single[t])
            x.token[x.n++] = t;
    return x;
}

/* Returns the number of blocks that have moments. */
static int32_t whole_blocks(const prism_problem *p, int32_t s)
{
    return prism_problem_seq(p, s).n_kv / p->block_size;
}

/* Loads the rows of entries [first, first + PRISM_STRIP): the single tokens, then the means `moment`
 * [block][n_kv_head][d] of head h_kv, then zero past the last whole block. */
static void load_rows(const prism_tier *k, const prism_problem *p, const prism_tensor *x, const float *moment,
                      const int32_t *single, int32_t s, int32_t h_kv, int32_t first, float *rows)
{
    const int32_t d = p->call->d_head, n = PRISM_MOMENT_SINGLE + whole_blocks(p, s);
    for (int32_t e = first; e < first + PRISM_STRIP; e++, rows += d) {
        const int64_t b = e - PRISM_MOMENT_SINGLE;
        if (b < 0)
            prism_load_token(k, x, s, single[e], h_kv, d, rows);
        else if (e < n)
            memcpy(rows, moment + (b * p->call->n_kv_head + h_kv) * d, (size_t)d * sizeof *rows);
        else
            memset(rows, 0, (size_t)d * sizeof *rows);
    }
}

/* Sets rows that are not finite to zero and marks their entries as not usable. */
static void clear_unusable(const prism_operand *op, float *rows, uint8_t *usable)
{
    for (int32_t j = 0; j < PRISM_STRIP; j++) {
        float *row = rows + (int64_t)j * op->d;
        if (!prism_operand_all_finite(op, row, 1)) {
            usable[j] = 0;
            memset(row, 0, (size_t)op->d * sizeof *row);
        }
    }
}

static void pack_spread(const prism_tier *k, const prism_problem *p, const float *variance, int32_t s,
                        int32_t h_kv, int32_t first, float *out)
{
    const int32_t n_group = prism_moment_groups(p->call->d_head), width = k->panel;
    const int32_t n = PRISM_MOMENT_SINGLE + whole_blocks(p, s);
    for (int32_t c = first; c < first + PRISM_STRIP; c += width)
        for (int32_t g = 0; g < n_group; g++)
            for (int32_t e = c; e < c + width; e++) {
                const int64_t b = e - PRISM_MOMENT_SINGLE;
                *out++ = b < 0 || e >= n ? 0.0f : variance[(b * p->call->n_kv_head + h_kv) * n_group + g];
            }
}

static void write_bias(const prism_problem *p, const float *log_count, int32_t s, int32_t h_kv, int32_t first,
                       const prism_entries *out)
{
    const int32_t n = PRISM_MOMENT_SINGLE + whole_blocks(p, s);
    for (int32_t e = first; e < first + PRISM_STRIP; e++) {
        const int64_t b = e - PRISM_MOMENT_SINGLE;
        const float bias = b < 0 || e >= n ? 0.0f : log2_e * log_count[b * p->call->n_kv_head + h_kv];
        out->bias[e] = e < n && out->usable[e] ? bias : -INFINITY;
    }
}

void prism_entries_pack(const prism_tier *k, const prism_problem *p, const prism_block_moments *m,
                        bool variances, int32_t s, int32_t h_kv, int32_t strip, const prism_entries *out, float *stage)
{
    const prism_operand op = prism_operand_make(k, p, false);
    const int32_t d = op.d, first = strip * PRISM_STRIP;
    int32_t single[PRISM_MOMENT_SINGLE] = {0};
    bool is_single[PRISM_MAX_BLOCK];
    if (strip == 0)
        choose_single(k, p, s, h_kv, single, is_single);
    memset(out->usable + first, 1, PRISM_STRIP);
    load_rows(k, p, &p->call->k, m->key, single, s, h_kv, first, stage);
    clear_unusable(&op, stage, out->usable + first);
    prism_operand_pack_keys(&op, stage, PRISM_STRIP, out->key + (int64_t)first * d);
    if (variances)
        pack_spread(k, p, m->variance, s, h_kv, first, out->spread + (int64_t)first * prism_moment_groups(d));
    if (out->value) {
        load_rows(k, p, &p->call->v, m->value, single, s, h_kv, first, stage);
        clear_unusable(&op, stage, out->usable + first);
        prism_operand_pack_values(&op, stage, PRISM_STRIP, out->value + (int64_t)first * op.d_pad);
    }
    write_bias(p, m->log_count, s, h_kv, first, out);
}

void prism_entries_query(const prism_tier *k, const prism_problem *p, int32_t s, int32_t t, int32_t h,
                         float *query, float *square)
{
    const int32_t d = p->call->d_head;
    prism_load_token(k, &p->call->q, s, t, h, d, query);
    k->store_row[PRISM_F32](query, query, d, p->scale * log2_e);
    prism_moment_squares(query, d, square);
}
