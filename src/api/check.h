/* All argument checks of the API. What passes here is computed without further questions. */
#ifndef PRISM_API_CHECK_H
#define PRISM_API_CHECK_H

#include "core/context.h"
#include "core/problem.h"

enum prism_check_tensors {
    PRISM_CHECK_SHAPE = 0,
    PRISM_CHECK_K = 1,
    PRISM_CHECK_Q = 2,
    PRISM_CHECK_V = 4,
    PRISM_CHECK_O = 8
};

/* Checks the call's shape and the tensors named in which; fills *problem. */
prism_status prism_check_call(prism_ctx *ctx, const prism_call *call, int32_t block_size, unsigned which,
                              prism_problem *problem);
/* Options in two steps: whether the struct can be read at all, before anything reads it; what it says. */
prism_status prism_check_options_struct(prism_ctx *ctx, const prism_options *options);
prism_status prism_check_options(prism_ctx *ctx, const prism_options *options, int32_t d_head);
prism_status prism_check_pooled(prism_ctx *ctx, const prism_problem *problem);
prism_status prism_check_workspace(prism_ctx *ctx, const void *workspace, size_t have, size_t need);

#endif
