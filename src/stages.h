/*
 * The stages of one backend. A method is written once against this table; cpu/backend.c and cuda/host/backend.c fill it
 * in.
 *
 *   pool      Q, K -> means and sums of blocks, moments          [one read of Q and K]
 *   select    means -> bitmaps, calibration included             [O(blocks^2), nothing quadratic but the bits]
 *   fill      bitmaps -> plan                                    [O(blocks listed)]
 *   attend    Q, K, V, plan -> O; a correction adds what moments say of pruned blocks
 *
 * Other ways to choose blocks:
 *
 *   select_moments            Q, K, moments -> bitmaps from query tokens (docs/moments.md)      [O(n^2 / block)]
 *   select_tokens             Q, means -> bitmaps from query tokens                             [O(n^2 / block)]
 *   select_strided            Q, K -> bitmaps from antidiagonal sums                            [O(n^2 / stride)]
 *   probe                     last queries, K -> mass of every column and diagonal              [O(n)]
 *   select_lines              masses, means -> bitmaps of whole columns and diagonals of blocks
 *   pick_lines, list_lines    masses -> the best columns and diagonals -> rows of a plan        [O(rows * lines)]
 *
 * All arguments were checked at the API's door. The scratch has the size that the stage's bytes() returned.
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
    const prism_bands *bands; /* select will need the energies of these bands; NULL: of none */
    prism_pooled *pooled;     /* [n_seq]: pool appends the keys that it lacks; NULL: nothing is kept */
    void *q_mean;             /* out, [n_row][d_head]; NULL: not wanted */
    void *k_mean;             /* out, [n_seq][n_kv_head][n_kblk][d_head]; NULL: not wanted */
    void *moments;            /* out, moments_bytes(); NULL: not wanted. With pooled, pooled must keep moments */
    bool reads_values;        /* false: only a plan is wanted; call->v was not checked and must not be read */
} prism_pool_job;

enum { PRISM_MAX_BAND = 2 };

/* Scores block pairs (u, v): for each band z, factor(u, z) * sum over the band's dimensions of q_mean(u) k_mean(v).
 * Keeps top-p in each band, and unites the bands. */
typedef struct prism_select_job {
    const prism_problem *problem;
    const void *q_mean, *k_mean; /* from pool */
    const prism_bands *bands;    /* NULL: one band of all dimensions at the softmax's own scale */
    prism_calibration calibration;
    float top_p[PRISM_MAX_BAND]; /* high, low */
    bool keep_sink, keep_own;
    int32_t min_tokens; /* shorter sequences keep everything */
    void *bits;         /* out, overwritten */
    void *scratch;
} prism_select_job;

/* Computes softmax attention of a sequence's last n_query queries, and sums it along columns (keys) and diagonals
 * (distances). */
typedef struct prism_probe_job {
    const prism_problem *problem;
    int32_t n_query;    /* 1 .. PRISM_MAX_PROBE; fewer where a sequence has fewer */
    int32_t min_tokens; /* shorter sequences are left out, their outputs unset */
    int64_t stride;     /* at least the longest n_kv */
    float *column;      /* out, [n_seq][n_head][stride]: mass of key c; +inf where a score of that key is not finite */
    float *slash;       /* out, [n_seq][n_head][stride]: mass of a distance (query's position - key's position) */
    float *q_mean;      /* out, [n_seq][n_head][d_head]: mean of these queries; NULL: not wanted */
    void *scratch;
} prism_probe_job;

enum { PRISM_MAX_PROBE = 128 };

/* Chosen columns and diagonals of each (sequence, head): ascending keys, ascending distances. */
typedef struct prism_lines {
    int64_t stride;
    int32_t *column, *slash;     /* [n_seq * n_head][stride] */
    int32_t *n_column, *n_slash; /* [n_seq * n_head] */
} prism_lines;

typedef struct prism_pick_job {
    const prism_problem *problem;
    int32_t min_tokens;
    float *column, *slash;         /* from a probe, [n_seq][n_head][lines->stride]; forced entries become +inf */
    int32_t n_column, n_slash;     /* lines to choose, forced lines included */
    float budget;                  /* above 0: 0.2 and 0.8 of this part of the keys replace n_column and n_slash */
    int32_t n_first, n_near;       /* forced: the first keys, the shortest distances */
    int32_t min_column, min_slash; /* least lines to choose */
    prism_lines *lines;            /* out */
} prism_pick_job;

/* Makes rows of a plan from lines. plan NULL: counts blocks and keys. Else writes them; prism_plan_open() comes
 * between. */
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
    const float *column, *slash, *q_last; /* from a probe */
    const float *q_mean, *k_mean;         /* from pool */
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

/* Scores query tokens against pooled keys. A block's mass is the sum over the tokens of the query block. */
typedef struct prism_tokens_job {
    const prism_problem *problem;
    int32_t min_tokens;
    const float *k_mean; /* from pool */
    prism_row_rule rule;
    uint64_t *bits; /* out, [n_row][n_word], overwritten */
    void *scratch;
} prism_tokens_job;

/* Scores asking tokens against the moments of the blocks before their own: core/block_moments.h. */
typedef struct prism_moments_job {
    const prism_problem *problem;
    int32_t min_tokens;
    void *moments; /* from pool */
    float error;   /* options.moments_error */
    bool keep_sink, keep_own;
    void *bits; /* out, overwritten */
    void *scratch;
} prism_moments_job;

/* Computes exact attention over a plan. */
typedef struct prism_attend_job {
    const prism_problem *problem;
    const prism_plan *plan; /* has no single keys if corrects */
    bool corrects;          /* each row's softmax starts from the blocks before its own that the plan does not list */
    bool variances;         /* the correction is PRISM_CORRECTION_MOMENTS, else PRISM_CORRECTION_MEAN */
    void *moments;          /* from pool, if corrects */
    void *scratch;
} prism_attend_job;

/* The stages that a backend may refuse. ATTEND and CORRECT are parts of attend; the others choose blocks. */
typedef enum prism_stage {
    PRISM_STAGE_ATTEND,
    PRISM_STAGE_CORRECT,
    PRISM_STAGE_SELECT,
    PRISM_STAGE_SELECT_MOMENTS,
    PRISM_STAGE_SELECT_TOKENS,
    PRISM_STAGE_SELECT_STRIDED,
    PRISM_STAGE_SELECT_LINES,
    PRISM_STAGE_LIST_LINES,
    PRISM_N_STAGE
} prism_stage;

/* Every stage with scratch, and its job. The entries of the table below, and the CPU's prototypes and rows, come from
 * here: stage foo is prism_foo_bytes_cpu() and prism_foo_cpu(). */
#define PRISM_STAGES(STAGE)                                                                                            \
    STAGE(select, prism_select_job)                                                                                    \
    STAGE(select_moments, prism_moments_job)                                                                           \
    STAGE(select_tokens, prism_tokens_job)                                                                             \
    STAGE(select_strided, prism_strided_job)                                                                           \
    STAGE(probe, prism_probe_job)                                                                                      \
    STAGE(select_lines, prism_flex_job)                                                                                \
    STAGE(list_lines, prism_list_job)                                                                                  \
    STAGE(attend, prism_attend_job)

/* bytes returns the scratch that run needs for this job. It reads the job's problem and sizes, but no buffer. */
#define PRISM_STAGE_ENTRY(stage, job)                                                                                  \
    struct {                                                                                                           \
        size_t (*bytes)(const prism_ctx *, const job *);                                                               \
        void (*run)(const prism_ctx *, const job *);                                                                   \
    } stage;

typedef enum prism_mark {
    PRISM_MARK_START,
    PRISM_MARK_POOL,
    PRISM_MARK_POOLED,
    PRISM_MARK_PLANNED,
    PRISM_MARK_END,
    PRISM_N_MARK
} prism_mark;

typedef struct prism_backend {
    const char *name;
    prism_device device;
    int32_t min_tokens; /* below this many keys the full plan is at least as fast (docs/architecture.md) */
    bool own_memory;    /* the device has its own memory and time: stages start work and return */
    /* Returns a sentence that says why the stage cannot compute this call; NULL: it can. Refuses every missing
     * stage. */
    const char *(*refuses)(const prism_ctx *ctx, const prism_problem *p, prism_stage stage);

    /* Return bytes of what stages hand to each other, in the backend's own formats. keys true: means of all keys, else
     * of all queries. */
    size_t (*means_bytes)(const prism_problem *p, bool keys);
    size_t (*moments_bytes)(const prism_problem *p);
    size_t (*bits_bytes)(const prism_problem *p);

    void (*pool)(const prism_ctx *ctx, const prism_pool_job *job);
    void (*pick_lines)(const prism_ctx *ctx, const prism_pick_job *job);
    PRISM_STAGES(PRISM_STAGE_ENTRY)
    /* Makes the plan from bits. false: no room for *n_selected blocks. A device cannot tell without waiting: it returns
     * true and makes a plan that overflowed full. */
    bool (*fill)(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan, int64_t *n_selected);

    /* mark notes the device's time. seconds waits for two marks and returns the time between them. */
    void (*mark)(const prism_ctx *ctx, prism_mark mark);
    double (*seconds)(const prism_ctx *ctx, prism_mark from, prism_mark to);

    /* Opens the context's device. PRISM_ERROR_DEVICE or _MEMORY, with a sentence in ctx->error. */
    prism_status (*open)(prism_ctx *ctx, int32_t ordinal);
    void (*close)(prism_ctx *ctx); /* called if ctx->device is not NULL */
    bool (*is_readable)(const prism_ctx *ctx, const void *data); /* whether the device can read this memory */
    /* Returns the first failure since the last call, with its sentence in ctx->error; PRISM_OK: none. */
    prism_status (*status)(prism_ctx *ctx);

    /* Keep the device's side of a plan, plan->device. The host's arrays are a copy, which plan_fetch makes current. */
    prism_status (*plan_create)(prism_ctx *ctx, prism_plan *plan);
    void (*plan_destroy)(prism_plan *plan); /* called if plan->device is not NULL */
    void (*plan_begin)(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan); /* before fill or a full plan */
    prism_status (*plan_fetch)(prism_plan *plan);                                       /* waits */
    void (*plan_push)(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);

    const struct prism_cuda_functions *cuda; /* for prism_cuda.h; NULL: not a CUDA backend */
} prism_backend;

/* The work of the functions of prism_cuda.h, which check the arguments. */
typedef struct prism_cuda_functions {
    prism_status (*describe)(int32_t ordinal, prism_cuda_info *info);
    void (*set_stream)(prism_ctx *ctx, void *stream);
    const char *(*attend_name)(const prism_ctx *ctx); /* kernel of the last attend */
    void (*plan_counts)(const prism_ctx *ctx, const prism_plan *plan, int64_t *counts);
} prism_cuda_functions;

/* ---- the CUDA backend lies in a library of its own ---- */

/* Returns the backend, or NULL if `version` is not the plug-in's PRISM_CUDA_PLUGIN_VERSION: plugin_version.cmake. */
typedef const prism_backend *prism_cuda_plugin_entry(uint32_t version);
#define PRISM_CUDA_PLUGIN_ENTRY "prism_cuda_plugin_backend"

#endif
