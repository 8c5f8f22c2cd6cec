/*
 * The stages of one backend. A method is written once against this table; the CPU fills it in cpu/backend.c.
 *
 *   pool_queries, pool_keys   Q, K -> means and sums of blocks        [one read of Q and K]
 *   calibrate                 means -> factor of every row and band   [O(blocks)]
 *   select                    means, factors -> bitmaps               [O(blocks^2), nothing quadratic but the bits]
 *   attend                    Q, K, V, plan -> O
 *
 * All arguments were checked at the API's door; the scratch has the size that the _bytes function gave.
 */
#ifndef PRISM_KERNELS_H
#define PRISM_KERNELS_H

#include "core/calibrate.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/problem.h"

/* One band to score: logit(u, v) = factor(u) * sum over dim of q_mean(u) k_mean(v). */
typedef struct prism_band {
    const int16_t *dim;
    int32_t n_dim;
    float top_p;
} prism_band;

enum { PRISM_MAX_BAND = 2 };

typedef struct prism_select_job {
    const prism_problem *problem;
    const float *q_mean; /* [n_row][d_head] */
    const float *k_mean; /* [n_seq][n_kv_head][n_kblk][d_head] */
    prism_band band[PRISM_MAX_BAND];
    int32_t n_band;
    const float *factor; /* [n_row][PRISM_MAX_BAND] */
    bool keep_sink, keep_own;
    int32_t min_tokens; /* shorter sequences keep everything */
    uint64_t *bits;     /* out, [n_row][n_word], overwritten */
    void *scratch;
} prism_select_job;

typedef struct prism_calibrate_job {
    const prism_problem *problem;
    const prism_bands *bands;
    prism_calibration mode;
    const float *q_mean, *k_mean;
    float *factor; /* out, [n_row][PRISM_MAX_BAND]: high, low */
    void *scratch;
} prism_calibrate_job;

typedef struct prism_kernels {
    const char *name;
    void (*pool_queries)(const prism_ctx *ctx, const prism_problem *p, float *q_mean);
    /* Appends what pooled[s] lacks; k_mean NULL: only that. */
    void (*pool_keys)(const prism_ctx *ctx, const prism_problem *p, prism_pooled *pooled, float *k_mean);
    size_t (*calibrate_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*calibrate)(const prism_ctx *ctx, const prism_calibrate_job *job);
    size_t (*select_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select)(const prism_ctx *ctx, const prism_select_job *job);
    size_t (*attend_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*attend)(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch);
} prism_kernels;

#endif
