/*
 * Work: the floating-point operations of each stage. A multiply-add of a matrix product counts 2, an addition in
 * pooling counts 1. Exponentials, comparisons and sorting do not count. The diagonal counts as it is computed, in whole
 * tiles. Numbers are doubles: past 2^53 their last digits do not matter.
 */
#ifndef PRISM_CORE_WORK_H
#define PRISM_CORE_WORK_H

#include "core/block_moments.h"
#include "core/plan.h"
#include "core/problem.h"

/* Returns the (query, listed key) pairs that attend computes for query block i of a sequence. */
static inline double prism_work_pairs(const prism_problem *p, const prism_seq *q, int32_t i, int64_t n_block,
                                      int64_t n_key)
{
    const prism_range r = prism_seq_rows(q, i, p->block_size);
    return (double)(r.end - r.begin) * ((double)n_block * p->block_size + (double)n_key);
}

/* Returns the work of Q K^T and P V over what the plan lists; plan NULL: over every causal block. */
static inline double prism_work_attend(const prism_problem *p, const prism_plan *plan)
{
    const prism_call *c = p->call;
    double pairs = 0;
    for (int32_t s = 0; s < c->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        for (int32_t i = 0; i < q.n_qblk; i++)
            for (int32_t h = 0; h < c->n_head; h++) {
                const int64_t row = prism_problem_row(p, s, h, i);
                pairs +=
                    plan ? prism_work_pairs(p, &q, i, prism_plan_get_row(plan, row).n, prism_plan_get_keys(plan, row).n)
                         : prism_work_pairs(p, &q, i, q.first_qblk + i + 1, 0);
            }
    }
    return 4.0 * c->d_head * pairs;
}

/* Block means of the queries. */
static inline double prism_work_pool_queries(const prism_problem *p, const prism_seq *q)
{
    return (double)p->call->d_head * p->call->n_head * q->n_q;
}

/* Block sums of the keys that were not pooled before. */
static inline double prism_work_pool_keys(const prism_problem *p, const prism_seq *q, int32_t n_pooled)
{
    return (double)p->call->d_head * p->call->n_kv_head * (q->n_kv > n_pooled ? q->n_kv - n_pooled : 0);
}

/* Moments of these keys: the exponent of a weight; weighted sums of keys, of squared deviations and of values; the
 * covariance of values and keys; and one addition for every 16th query. */
static inline double prism_work_pool_moments(const prism_problem *p, const prism_seq *q, int32_t n_pooled)
{
    return prism_work_pool_keys(p, q, n_pooled) * (2 + 2 + 4 + 2 + 2.0 * p->call->d_head) + prism_work_pool_queries(p, q) / PRISM_MOMENT_SAMPLE;
}

/* Operations of one query token on one entry: its mean key, its variances, its value. */
static inline double prism_work_entry(const prism_problem *p, bool variances, bool value)
{
    const int32_t d = p->call->d_head;
    return 2.0 * (d + (variances ? prism_moment_groups(d) : 0) + (value ? d : 0));
}

static inline int32_t prism_work_entries(const prism_seq *q, int32_t i)
{
    const int32_t own = q->first_qblk + i;
    return own > 0 ? own + PRISM_MOMENT_SINGLE : 0;
}

/* Asking tokens against the entries before their block, and their own block's keys. */
static inline double prism_work_ask(const prism_problem *p, const prism_seq *q)
{
    double flop = 0;
    for (int32_t i = 0; i < q->n_qblk; i++) {
        const prism_range r = prism_seq_rows(q, i, p->block_size);
        const int32_t n_entry = prism_work_entries(q, i);
        for (int32_t t = r.begin; t < r.end; t++)
            if (n_entry && prism_moment_asks(q->q_start + t, q->q_start + r.end - 1))
                flop += prism_work_entry(p, true, false) * n_entry + 2.0 * p->call->d_head * p->block_size;
    }
    return flop * p->call->n_head;
}

/* Every query token against the entries before its block, listed or not, and their values; and the part of the values
 * that is linear in the query. */
static inline double prism_work_correct(const prism_problem *p, const prism_seq *q, bool variances)
{
    const double linear = variances ? 2.0 * p->call->d_head * p->call->d_head : 0;
    double flop = 0;
    for (int32_t i = 0; i < q->n_qblk; i++) {
        const prism_range r = prism_seq_rows(q, i, p->block_size);
        const int32_t n_entry = prism_work_entries(q, i);
        if (n_entry)
            flop += (r.end - r.begin) * (n_entry * prism_work_entry(p, variances, true) + linear);
    }
    return flop * p->call->n_head;
}

/* Every causal pair of blocks, once, over n_dim dimensions. */
static inline double prism_work_blocks(const prism_problem *p, const prism_seq *q, int32_t n_dim)
{
    return 2.0 * n_dim * p->call->n_head * (double)prism_seq_causal_blocks(q);
}

/* The last n queries against every key. */
static inline double prism_work_probe(const prism_problem *p, const prism_seq *q, int32_t n)
{
    return 2.0 * p->call->d_head * p->call->n_head * (double)(n < q->n_q ? n : q->n_q) * q->n_kv;
}

/* Antidiagonals: groups of `stride` queries against groups of `stride` keys, stride * d_head products for each pair. */
static inline double prism_work_strided(const prism_problem *p, const prism_seq *q, int32_t stride)
{
    const double per_block = (double)p->block_size / stride;
    return 2.0 * stride * p->call->d_head * p->call->n_head * per_block * per_block *
           (double)prism_seq_causal_blocks(q);
}

/* Every query token against the mean of every block of which it sees a key. */
static inline double prism_work_tokens(const prism_problem *p, const prism_seq *q)
{
    double pairs = 0;
    for (int32_t i = 0; i < q->n_qblk; i++) {
        const prism_range r = prism_seq_rows(q, i, p->block_size);
        pairs += (double)(r.end - r.begin) * (q->first_qblk + i + 1);
    }
    return 2.0 * p->call->d_head * p->call->n_head * pairs;
}

#endif
