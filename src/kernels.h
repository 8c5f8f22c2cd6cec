/*
 * The stages of one backend. A method is written once against this table; the CPU fills it in cpu/backend.c.
 *
 *   pool_queries, pool_keys   Q, K -> means and sums of blocks        [one read of Q and K]
 *   calibrate                 means -> factor of every row and band   [O(blocks)]
 *   select                    means, factors -> bitmaps               [O(blocks^2), nothing quadratic but the bits]
 *   attend                    Q, K, V, plan -> O
 *
 * and what the rivals need beside pooling:
 *
 *   probe                     last queries, K -> mass of every column and diagonal              [O(n)]
 *   pick_lines, list_lines    masses -> the best columns and diagonals -> rows of a plan        [O(rows * lines)]
 *   select_lines              masses, means -> bitmaps of whole columns and diagonals of blocks
 *   select_strided            Q, K -> bitmaps from antidiagonal sums                            [O(n^2 / stride)]
 *   select_tokens             Q, means -> bitmaps from query tokens                             [O(n^2 / block)]
 *
 * All arguments were checked at the API's door; the scratch has the size that the _bytes function gave.
 */
#ifndef PRISM_KERNELS_H
#define PRISM_KERNELS_H

#include "core/calibrate.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/problem.h"
#include "core/rule.h"

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

/* Softmax attention of a sequence's last n_query queries, summed along columns (keys) and diagonals (distances). */
typedef struct prism_probe_job {
    const prism_problem *problem;
    int32_t n_query;    /* 1 .. PRISM_MAX_PROBE; fewer where a sequence has fewer */
    int32_t min_tokens; /* shorter sequences are left out, their outputs unset */
    int64_t stride;     /* at least the longest n_kv */
    float *column;      /* out, [n_seq][n_head][stride]: of key c; +inf where a score of that key is not finite */
    float *slash;       /* out, the same: of distance (query's position - key's) */
    float *q_mean;      /* out, [n_seq][n_head][d_head]: mean of the asked queries; NULL: not wanted */
    void *scratch;
} prism_probe_job;

enum { PRISM_MAX_PROBE = 128 };

/* Columns and diagonals, for each (sequence, head): ascending keys, ascending distances. */
typedef struct prism_lines {
    int64_t stride;
    int32_t *column, *slash;     /* [n_seq * n_head][stride] */
    int32_t *n_column, *n_slash; /* [n_seq * n_head] */
} prism_lines;

typedef struct prism_pick_job {
    const prism_problem *problem;
    int32_t min_tokens;
    float *column, *slash;         /* of a probe, [n_seq][n_head][lines->stride]; forced ones become +inf */
    int32_t n_column, n_slash;     /* the best so many, forced ones among them */
    float budget;                  /* above 0: a part of each sequence's keys replaces the two, 0.2 and 0.8 of it */
    int32_t n_first, n_near;       /* forced: the first keys, the shortest distances */
    int32_t min_column, min_slash; /* at least so many */
    prism_lines *lines;            /* out */
} prism_pick_job;

/* Rows of a plan from lines: plan NULL counts, else writes (prism_plan_open() in between). */
typedef struct prism_list_job {
    const prism_problem *problem;
    int32_t min_tokens; /* shorter sequences list everything */
    const prism_lines *lines;
    int32_t *n_block, *n_key; /* [n_row] */
    prism_plan *plan;
    void *scratch;
} prism_list_job;

/* FlexPrefill: see core/flex.h. */
typedef struct prism_flex_job {
    const prism_problem *problem;
    int32_t min_tokens;
    int64_t stride;
    const float *column, *slash, *q_last; /* of a probe */
    const float *q_mean, *k_mean;         /* pooled */
    float gamma, tau;
    int32_t min_budget, max_budget; /* keys; max 0: none */
    bool keep_sink, keep_own;
    uint64_t *bits; /* out, [n_row][n_word], overwritten */
    void *scratch;
} prism_flex_job;

typedef struct prism_strided_job {
    const prism_problem *problem;
    int32_t min_tokens;
    int32_t stride; /* tokens in a group; divides 64 */
    prism_row_rule rule;
    uint64_t *bits;
    void *scratch;
} prism_strided_job;

/* Query tokens against pooled keys. The mass of a block is summed over a query block's rows; a variance of the keys
 * beside k_mean, and masses normalised row by row, would be further fields of this job. */
typedef struct prism_tokens_job {
    const prism_problem *problem;
    int32_t min_tokens;
    const float *k_mean; /* [n_seq][n_kv_head][n_kblk][d_head] */
    prism_row_rule rule;
    uint64_t *bits;
    void *scratch;
} prism_tokens_job;

typedef struct prism_kernels {
    const char *name;
    void (*pool_queries)(const prism_ctx *ctx, const prism_problem *p, float *q_mean);
    /* Appends what pooled[s] lacks; k_mean NULL: only that. */
    void (*pool_keys)(const prism_ctx *ctx, const prism_problem *p, prism_pooled *pooled, float *k_mean);
    size_t (*calibrate_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*calibrate)(const prism_ctx *ctx, const prism_calibrate_job *job);
    size_t (*select_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select)(const prism_ctx *ctx, const prism_select_job *job);
    size_t (*probe_bytes)(const prism_ctx *ctx, const prism_problem *p, int32_t n_query);
    void (*probe)(const prism_ctx *ctx, const prism_probe_job *job);
    void (*pick_lines)(const prism_ctx *ctx, const prism_pick_job *job);
    size_t (*list_lines_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*list_lines)(const prism_ctx *ctx, const prism_list_job *job);
    size_t (*select_lines_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select_lines)(const prism_ctx *ctx, const prism_flex_job *job);
    size_t (*select_strided_bytes)(const prism_ctx *ctx, const prism_problem *p, int32_t stride);
    void (*select_strided)(const prism_ctx *ctx, const prism_strided_job *job);
    size_t (*select_tokens_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select_tokens)(const prism_ctx *ctx, const prism_tokens_job *job);
    size_t (*attend_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*attend)(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch);
} prism_kernels;

#endif
