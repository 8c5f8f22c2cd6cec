/*
 * The stages of one backend. A method is written once against this table; cpu/backend.c and cuda/host/backend.c fill it in.
 *
 *   pool      Q, K -> means and sums of blocks                  [one read of Q and K]
 *   select    means -> bitmaps, calibration included            [O(blocks^2), nothing quadratic but the bits]
 *   fill      bitmaps -> plan                                   [O(blocks listed)]
 *   attend    Q, K, V, plan -> O
 *
 * and what the rivals need beside pooling:
 *
 *   probe                     last queries, K -> mass of every column and diagonal              [O(n)]
 *   pick_lines, list_lines    masses -> the best columns and diagonals -> rows of a plan        [O(rows * lines)]
 *   select_lines              masses, means -> bitmaps of whole columns and diagonals of blocks
 *   select_strided            Q, K -> bitmaps from antidiagonal sums                            [O(n^2 / stride)]
 *   select_tokens             Q, means -> bitmaps from query tokens                             [O(n^2 / block)]
 *
 * and past the paper (docs/moments.md):
 *
 *   select_moments            Q, K, moments -> bitmaps from query tokens                               [O(n^2 / block)]
 *   attend_corrected          attend, and what the pruned blocks contribute through their moments
 *
 * All arguments were checked at the API's door; the scratch has the size that the _bytes function gave. Means and
 * bitmaps are the backend's own formats: means_bytes() and bits_bytes() say how large.
 *
 * A backend of another device computes on its own memory and in its own time: its stages start work and return. The
 * table's second half is for such a device: contexts, plans, time, failures.
 */
#ifndef PRISM_STAGES_H
#define PRISM_STAGES_H

#include "core/context.h"
#include "core/plan.h"
#include "core/problem.h"
#include "core/rule.h"
#include "prism_attn/prism_cuda.h"

typedef struct prism_pool_job {
    const prism_problem *problem;
    const prism_bands *bands; /* whose energies select will ask for; NULL: none */
    prism_pooled *pooled;     /* [n_seq], what it lacks is appended; NULL: nothing is kept */
    void *q_mean;             /* out, [n_row][d_head]; NULL: not wanted */
    void *k_mean;             /* out, [n_seq][n_kv_head][n_kblk][d_head]; NULL: not wanted */
    void *moments;            /* out, moments_bytes(); NULL: not wanted. With pooled only of states that keep them */
    bool reads_values;        /* false: moments are for a plan alone, and nobody looked at call->v */
} prism_pool_job;

enum { PRISM_MAX_BAND = 2 };

/* Scores of block pairs: per band z, factor(u, z) * sum over its dim of q_mean(u) k_mean(v); top-p in each; union. */
typedef struct prism_select_job {
    const prism_problem *problem;
    const void *q_mean, *k_mean; /* of pool */
    const prism_bands *bands;    /* NULL: one band of all dimensions at the softmax's own scale */
    prism_calibration calibration;
    float top_p[PRISM_MAX_BAND]; /* high, low */
    bool keep_sink, keep_own;
    int32_t min_tokens; /* shorter sequences keep everything */
    void *bits;         /* out, overwritten */
    void *scratch;
} prism_select_job;

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
    const float *q_mean, *k_mean;         /* of pool */
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
    uint64_t *bits; /* out, [n_row][n_word], overwritten */
    void *scratch;
} prism_strided_job;

/* Query tokens against pooled keys. The mass of a block is summed over a query block's rows. */
typedef struct prism_tokens_job {
    const prism_problem *problem;
    int32_t min_tokens;
    const float *k_mean; /* of pool */
    prism_row_rule rule;
    uint64_t *bits; /* out, [n_row][n_word], overwritten */
    void *scratch;
} prism_tokens_job;

/* Query tokens against the moments of the blocks before their own: core/block_moments.h. */
typedef struct prism_moments_job {
    const prism_problem *problem;
    int32_t min_tokens;
    void *moments; /* of pool */
    float error;   /* options.moments_error */
    bool keep_sink, keep_own;
    void *bits; /* out, overwritten */
    void *scratch;
} prism_moments_job;

/* attend, each row's softmax starting from the blocks before its own that the plan does not list. */
typedef struct prism_correct_job {
    const prism_problem *problem;
    const prism_plan *plan; /* without single keys */
    void *moments;          /* of pool */
    bool variances;         /* false: PRISM_CORRECTION_MEAN */
    void *scratch;
} prism_correct_job;

typedef enum prism_mark {
    PRISM_MARK_START,
    PRISM_MARK_POOL,
    PRISM_MARK_POOLED,
    PRISM_MARK_PLANNED,
    PRISM_MARK_END,
    PRISM_N_MARK
} prism_mark;

/* A device with memory of its own. */
typedef struct prism_device_backend {
    /* PRISM_ERROR_DEVICE or _MEMORY with a sentence in ctx->error. ctx->device is the backend's. */
    prism_status (*open)(prism_ctx *ctx, int32_t ordinal);
    void (*close)(prism_ctx *ctx);
    void (*set_stream)(prism_ctx *ctx, void *stream);
    prism_status (*describe)(int32_t ordinal, prism_cuda_info *info);
    bool (*is_readable)(const prism_ctx *ctx, const void *data); /* memory that this device can read */
    /* The first failure since the last call, PRISM_OK if none; its sentence is in ctx->error. */
    prism_status (*status)(prism_ctx *ctx);

    const char *(*attend_name)(const prism_ctx *ctx); /* kernel of the last attend */

    /* The device's side of a plan, plan->device; the host's arrays are its mirror, filled by fetch. */
    prism_status (*plan_create)(prism_ctx *ctx, prism_plan *plan);
    void (*plan_destroy)(prism_plan *plan);
    void (*plan_begin)(const prism_ctx *ctx, const prism_problem *p,
                       prism_plan *plan);         /* before fill, or for a full one */
    prism_status (*plan_fetch)(prism_plan *plan); /* waits */
    void (*plan_push)(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);
    void (*plan_view)(const prism_plan *plan, prism_cuda_plan_view *view);
    void (*plan_counts)(const prism_ctx *ctx, const prism_plan *plan, int64_t *counts);
} prism_device_backend;

typedef struct prism_backend {
    const char *name;
    prism_device device;
    int32_t min_tokens; /* below this many keys the full plan is at least as fast (docs/architecture.md) */
    /* A sentence about what of this call the backend cannot compute; NULL: nothing. options NULL: only attention. */
    const char *(*refuses)(const prism_ctx *ctx, const prism_problem *p, const prism_options *options);

    size_t (*means_bytes)(const prism_problem *p, bool keys); /* of all keys, or of all queries */
    void (*pool)(const prism_ctx *ctx, const prism_pool_job *job);
    size_t (*bits_bytes)(const prism_problem *p);
    size_t (*select_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select)(const prism_ctx *ctx, const prism_select_job *job);
    /* false: no room, *n_selected says for how many blocks. A device that cannot tell without waiting returns true, and
     * marks a plan that overflowed as full. */
    bool (*fill)(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan, int64_t *n_selected);
    size_t (*attend_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*attend)(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch);

    /* NULL where a backend lacks the stage: methods that need it are refused. */
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
    size_t (*select_moments_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*select_moments)(const prism_ctx *ctx, const prism_moments_job *job);
    size_t (*moments_bytes)(const prism_problem *p); /* with either stage of moments */
    size_t (*attend_corrected_bytes)(const prism_ctx *ctx, const prism_problem *p);
    void (*attend_corrected)(const prism_ctx *ctx, const prism_correct_job *job);

    /* Time passes at the device: mark notes the time, seconds says how long it was between two, waiting for them. */
    void (*mark)(const prism_ctx *ctx, prism_mark mark);
    double (*seconds)(const prism_ctx *ctx, prism_mark from, prism_mark to);

    /* Of a device with memory of its own; NULL on the CPU. */
    const prism_device_backend *other;
} prism_backend;

/* ---- the CUDA backend lies in a library of its own ---- */

/* Returns the backend, or NULL if `version` is not the plug-in's PRISM_CUDA_PLUGIN_VERSION: plugin_version.cmake. */
typedef const prism_backend *prism_cuda_plugin_entry(uint32_t version);
#define PRISM_CUDA_PLUGIN_ENTRY "prism_cuda_plugin_backend"

#endif
