/* Moments of blocks: what pooling, selection and correction share on every backend. docs/moments.md has the
 * formulas. */
#ifndef PRISM_CORE_BLOCK_MOMENTS_H
#define PRISM_CORE_BLOCK_MOMENTS_H

#include "core/arena.h"
#include "core/block_moments_constants.h"
#include "prism_attn/prism.h"

static inline int32_t prism_moment_groups(int32_t d_head)
{
    return (d_head + PRISM_MOMENT_GROUP - 1) / PRISM_MOMENT_GROUP;
}

/* Sums q squared over each group of dimensions. Times the groups' mean variances this gives q^2 . variance. */
static inline void prism_moment_squares(const float *q, int32_t d, float *sum)
{
    for (int32_t g = 0; g < prism_moment_groups(d); g++)
        sum[g] = 0;
    for (int32_t l = 0; l < d; l++)
        sum[l / PRISM_MOMENT_GROUP] += q[l] * q[l];
}

/* Takes the mean of x over each group of dimensions: a group's variance is the mean of its dimensions' variances. */
static inline void prism_moment_group_means(const float *x, int32_t d, float *mean)
{
    for (int32_t g = 0; g < prism_moment_groups(d); g++) {
        const int32_t begin = g * PRISM_MOMENT_GROUP, left = d - begin;
        const int32_t n_dim = left < PRISM_MOMENT_GROUP ? left : PRISM_MOMENT_GROUP;
        float sum = 0;
        for (int32_t l = begin; l < begin + n_dim; l++)
            sum += x[l];
        mean[g] = sum / (float)n_dim;
    }
}

/* Whether the query token at this position is an asking token. The last token of a query block always is. */
static inline bool prism_moment_asks(int32_t position, int32_t last)
{
    return position % PRISM_MOMENT_STEP == PRISM_MOMENT_STEP - 1 || position == last;
}

/* Returns the slot that block b's covariance is summed in: 0 for block 0, j for blocks 2^(j-1) .. 2^j - 1. */
static inline int32_t prism_moment_slot(int32_t b)
{
    int32_t slot = 0;
    for (; b > 0; b /= 2)
        slot++;
    return slot;
}

static inline int32_t prism_moment_slots(int32_t n_block)
{
    return n_block > 0 ? prism_moment_slot(n_block - 1) + 1 : 0;
}

/* Returns the last slot that a row reads whose query block is own > 0: all its blocks lie before that block. */
static inline int32_t prism_moment_last_slot(int32_t own)
{
    return prism_moment_slot(own) - 1;
}

/* Returns the slot's first block, and the block after its last. */
static inline int32_t prism_moment_slot_begin(int32_t slot)
{
    return slot ? 1 << (slot - 1) : 0;
}
static inline int32_t prism_moment_slot_end(int32_t slot)
{
    return 1 << slot;
}

/* Returns the floats of a slot of one KV head: the covariance, then the sum of mean queries. */
static inline int64_t prism_moment_slot_floats(int32_t d)
{
    return (int64_t)d * (d + 1);
}

/* Cuts the arrays of n_seq sequences of n_block blocks out of the arena. */
static inline prism_block_moments prism_block_moments_cut(prism_arena *a, int32_t n_seq, int32_t n_block,
                                                          int32_t n_kv_head, int32_t d)
{
    const size_t rows = prism_arena_count(a, n_seq, n_block, n_kv_head, 1),
                 all = prism_arena_count(a, n_seq, n_block, n_kv_head, d),
                 slots = prism_arena_count(a, n_seq, prism_moment_slots(n_block), n_kv_head, 1);
    prism_block_moments m;
    m.key = (float *)prism_arena_take(a, all, sizeof(float));
    m.variance = (float *)prism_arena_take(a, prism_arena_count(a, n_seq, n_block, n_kv_head, prism_moment_groups(d)),
                                           sizeof(float));
    m.value = (float *)prism_arena_take(a, all, sizeof(float));
    m.log_count = (float *)prism_arena_take(a, rows, sizeof(float));
    m.query_sum = (float *)prism_arena_take(a, all, sizeof(float));
    m.n_query = (int32_t *)prism_arena_take(a, rows, sizeof(int32_t));
    m.covariance = (float *)prism_arena_take(a, slots, (size_t)prism_moment_slot_floats(d) * sizeof(float));
    return m;
}

/* Returns the arrays of sequence s, of those that prism_block_moments_cut() cut. */
static inline prism_block_moments prism_block_moments_seq(prism_block_moments m, int32_t s, int32_t n_block,
                                                          int32_t n_kv_head, int32_t d)
{
    const int64_t row = (int64_t)s * n_block * n_kv_head, slot = (int64_t)s * prism_moment_slots(n_block) * n_kv_head;
    return (prism_block_moments){m.key + row * d,
                                 m.variance + row * prism_moment_groups(d),
                                 m.value + row * d,
                                 m.log_count + row,
                                 m.query_sum + row * d,
                                 m.n_query + row,
                                 m.covariance + slot * prism_moment_slot_floats(d)};
}

#endif
