/* Methods: each fills the bitmaps of a plan from Q and K, through the kernel table and nothing else. */
#ifndef PRISM_METHODS_METHODS_H
#define PRISM_METHODS_METHODS_H

#include "kernels.h"

/* What a method works with; buffers are cut from the caller's workspace. */
typedef struct prism_plan_job {
    const prism_ctx *ctx;
    const prism_problem *problem;
    const prism_options *options;
    int32_t min_tokens;   /* options->min_tokens, default resolved */
    prism_pooled *pooled; /* [n_seq]: the caller's, or temporary ones */
    float *q_mean, *k_mean, *factor;
    uint64_t *bits;
    void *scratch; /* for calibrate, then for select */
} prism_plan_job;

typedef struct prism_method_impl {
    const char *name;
    bool needs_bands;
    void (*select)(const prism_plan_job *job); /* NULL: the full plan */
} prism_method_impl;

extern const prism_method_impl prism_method_prism, prism_method_dense, prism_method_meanpool;

/* NULL for an unknown value. */
const prism_method_impl *prism_method_get(prism_method method);

#endif
