/* Second moments: what selection and correction share, on every backend. docs/moments.md has the formulas. */
#ifndef PRISM_CORE_MOMENTS_H
#define PRISM_CORE_MOMENTS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PRISM_MOMENT_GROUP = 8,   /* neighbouring dimensions that share a variance */
    PRISM_MOMENT_SINGLE = 16, /* tokens of block 0 that stand for themselves */
    PRISM_MOMENT_STEP = 4     /* every so manieth query token is asked, by position */
};

/* The estimate's second-order term is at most this (natural logarithm). */
static const float prism_moment_cap = 6.0f;

static inline int32_t prism_moment_groups(int32_t d_head)
{
    return (d_head + PRISM_MOMENT_GROUP - 1) / PRISM_MOMENT_GROUP;
}

/* Sums over groups of dimensions: of q squared, so that with group means of variances q^2 . variance comes out. */
static inline void prism_moment_squares(const float *q, int32_t d, float *sum)
{
    for (int32_t g = 0; g < prism_moment_groups(d); g++)
        sum[g] = 0;
    for (int32_t l = 0; l < d; l++)
        sum[l / PRISM_MOMENT_GROUP] += q[l] * q[l];
}

/* Variances of groups from key_m2 of n keys. */
static inline void prism_moment_variances(const float *m2, int32_t d, int32_t n, float *variance)
{
    for (int32_t g = 0; g < prism_moment_groups(d); g++) {
        const int32_t begin = g * PRISM_MOMENT_GROUP, left = d - begin;
        const int32_t n_dim = left < PRISM_MOMENT_GROUP ? left : PRISM_MOMENT_GROUP;
        float sum = 0;
        for (int32_t l = begin; l < begin + n_dim; l++)
            sum += m2[l];
        variance[g] = sum / (float)(n * n_dim);
    }
}

/* Whether the query at this position is asked; the last of a query block always is. */
static inline bool prism_moment_asks(int32_t position, int32_t last)
{
    return position % PRISM_MOMENT_STEP == PRISM_MOMENT_STEP - 1 || position == last;
}

#endif
