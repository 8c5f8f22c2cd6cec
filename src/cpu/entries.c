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
    return (size_t)(PRISM_STRIP + 2) * (size_t)p->call->d_head;
}

/* The tokens of block 0 whose keys lie farthest from its mean. */
static void choose_single(const prism_cpu_kernels *k, const prism_problem *p, const float *mean, int32_t s,
                          int32_t h_kv, float *row, int32_t *single, bool *is_single)
{
    const int32_t d = p->call->d_head;
    float distance[PRISM_MAX_BLOCK];
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

/* Rows of entries [first, first + PRISM_STRIP): the single tokens, then `moment`, zero past the last block. */
static void load_rows(const prism_cpu_kernels *k, const prism_problem *p, const prism_tensor *x, const float *moment,
                      const int32_t *single, int32_t s, int32_t h_kv, int32_t first, float *rows)
{
    const int32_t d = p->call->d_head, n = PRISM_MOMENT_SINGLE + prism_problem_seq(p, s).n_kblk;
    for (int32_t e = first; e < first + PRISM_STRIP; e++, rows += d) {
        if (e < PRISM_MOMENT_SINGLE)
            prism_load_token(k, x, s, single[e], h_kv, d, rows);
        else if (e < n)
            memcpy(rows, moment + (int64_t)(e - PRISM_MOMENT_SINGLE) * d, (size_t)d * sizeof *rows);
        else
            memset(rows, 0, (size_t)d * sizeof *rows);
    }
}

/* Mean of block 0 without the single tokens; variances of groups if asked for. stage [2][d] */
static void rest_of_block(const prism_cpu_kernels *k, const prism_problem *p, const prism_tensor *x,
                          const bool *is_single, int32_t s, int32_t h_kv, float *mean, float *variance, float *stage)
{
    const int32_t d = p->call->d_head;
    float *row = stage, *m2 = stage + d;
    int32_t n = 0;
    memset(mean, 0, (size_t)d * sizeof *mean);
    memset(m2, 0, (size_t)d * sizeof *m2);
    for (int32_t t = 0; t < p->block_size; t++) {
        if (is_single[t])
            continue;
        prism_load_token(k, x, s, t, h_kv, d, row);
        k->add_deviation(mean, m2, row, d, n++);
    }
    k->store_row[PRISM_F32](mean, mean, d, 1.0f / (float)n);
    if (variance)
        prism_moment_variances(m2, d, n, variance);
}

/* Rows that are not finite become zero: their entries are left out. */
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

static void pack_spread(const prism_cpu_kernels *k, const prism_problem *p, const float *k_var, int32_t s,
                        int32_t first, const float *of_first_block, float *out)
{
    const int32_t n_group = prism_moment_groups(p->call->d_head), width = k->panel;
    const int32_t n = PRISM_MOMENT_SINGLE + prism_problem_seq(p, s).n_kblk;
    for (int32_t c = first; c < first + PRISM_STRIP; c += width)
        for (int32_t g = 0; g < n_group; g++)
            for (int32_t e = c; e < c + width; e++) {
                const int32_t b = e - PRISM_MOMENT_SINGLE;
                *out++ = b < 0 || e >= n ? 0.0f : b == 0 ? of_first_block[g] : k_var[(int64_t)b * n_group + g];
            }
}

static void write_bias(const prism_problem *p, int32_t n_entry, int32_t first, const prism_entries *out)
{
    for (int32_t e = first; e < first + PRISM_STRIP; e++) {
        const int32_t b = e - PRISM_MOMENT_SINGLE;
        const int32_t count = b < 0 ? 1 : b == 0 ? p->block_size - PRISM_MOMENT_SINGLE : p->block_size;
        out->bias[e] = e < n_entry && out->usable[e] ? log2f((float)count) : -INFINITY;
    }
}

void prism_entries_pack(const prism_cpu_kernels *k, const prism_problem *p, const float *k_mean, const float *k_var,
                        const float *v_mean, int32_t s, int32_t h_kv, int32_t strip, const prism_entries *out,
                        float *stage)
{
    const prism_call *c = p->call;
    const prism_operand op = prism_operand_make(k, p, false);
    const int32_t d = op.d, n_group = prism_moment_groups(d), first = strip * PRISM_STRIP;
    const int64_t block0 = ((int64_t)s * c->n_kv_head + h_kv) * p->n_kblk;
    float *rows = stage, *row0 = rows + (int64_t)PRISM_MOMENT_SINGLE * d, *spare = rows + (int64_t)PRISM_STRIP * d;
    float variance0[PRISM_MAX_D_HEAD / PRISM_MOMENT_GROUP];
    int32_t single[PRISM_MOMENT_SINGLE] = {0};
    bool is_single[PRISM_MAX_BLOCK];
    if (strip == 0)
        choose_single(k, p, k_mean + block0 * d, s, h_kv, spare, single, is_single);
    memset(out->usable + first, 1, PRISM_STRIP);
    load_rows(k, p, &c->k, k_mean + block0 * d, single, s, h_kv, first, rows);
    if (strip == 0)
        rest_of_block(k, p, &c->k, is_single, s, h_kv, row0, variance0, spare);
    clear_unusable(&op, rows, out->usable + first);
    prism_operand_pack_keys(&op, rows, PRISM_STRIP, out->key + (int64_t)first * d);
    if (k_var)
        pack_spread(k, p, k_var + block0 * n_group, s, first, variance0, out->spread + (int64_t)first * n_group);
    if (out->value) {
        load_rows(k, p, &c->v, v_mean + block0 * d, single, s, h_kv, first, rows);
        if (strip == 0)
            rest_of_block(k, p, &c->v, is_single, s, h_kv, row0, NULL, spare);
        clear_unusable(&op, rows, out->usable + first);
        prism_operand_pack_values(&op, rows, PRISM_STRIP, out->value + (int64_t)first * op.d_pad);
    }
    write_bias(p, PRISM_MOMENT_SINGLE + prism_problem_seq(p, s).n_kblk, first, out);
}

void prism_entries_query(const prism_cpu_kernels *k, const prism_problem *p, int32_t s, int32_t t, int32_t h,
                         float *query, float *square)
{
    const int32_t d = p->call->d_head;
    prism_load_token(k, &p->call->q, s, t, h, d, query);
    k->store_row[PRISM_F32](query, query, d, p->scale * log2_e);
    prism_moment_squares(query, d, square);
}
