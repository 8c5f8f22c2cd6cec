/* Methods: each turns Q and K into a plan, through the kernel table and nothing else. */
#ifndef PRISM_METHODS_METHODS_H
#define PRISM_METHODS_METHODS_H

#include "stages.h"

/* What a method works with; buffers are cut from the caller's workspace. */
typedef struct prism_plan_job {
    prism_ctx *ctx;
    const prism_problem *problem;
    const prism_options *options;
    int32_t min_tokens;       /* options->min_tokens, default resolved */
    void *q_mean, *k_mean;    /* the backend's formats */
    void *moments;            /* the backend's, too; NULL: not wanted */
    bool attends;             /* the plan is attended in the same call */
    void *bits;               /* out of select(), unless the method lists */
    int32_t *n_block, *n_key; /* [n_row]: out of select() if the method lists */
    void *scratch;            /* scratch_bytes() */
} prism_plan_job;

/*
 * select() fills the bitmaps, and the plan is made from them. A method with single keys has list(), too: select() then
 * only counts each row's blocks and keys, and list() writes them into the plan that was opened for them.
 */
typedef struct prism_method_impl {
    const char *name;
    bool needs_bands;
    bool needs_moments;
    bool pools; /* wants pooled queries and keys */
    size_t (*scratch_bytes)(const prism_ctx *ctx, const prism_problem *p, const prism_options *o);
    void (*select)(const prism_plan_job *job); /* NULL: the full plan */
    void (*list)(const prism_plan_job *job, prism_plan *plan);
    /* Operations that select() spends on one sequence of which n_pooled keys were pooled before (core/work.h). */
    double (*flop)(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled);
} prism_method_impl;

extern const prism_method_impl prism_method_prism, prism_method_dense, prism_method_meanpool, prism_method_minference,
    prism_method_flexprefill, prism_method_xattention, prism_method_flashprefill, prism_method_moments;

/* NULL for an unknown value. */
const prism_method_impl *prism_method_get(prism_method method);

/* Into job->k_mean and moments, where these are not NULL, and, if wanted, job->q_mean; bands: as in prism_pool_job. */
void prism_pool(const prism_plan_job *job, bool queries, const prism_bands *bands);

/* Scores of pooled queries and keys, top-p, union. bands NULL: one band of all dimensions. */
size_t prism_select_pooled_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o);
void prism_select_pooled(const prism_plan_job *job, const prism_bands *bands);

static inline size_t prism_max_bytes(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Entries of a per-key buffer of one head. */
static inline int64_t prism_key_stride(const prism_problem *p)
{
    return (int64_t)p->n_kblk * p->block_size;
}

#endif
