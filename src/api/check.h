/* All argument checks of the API. What passes here is computed without further questions. */
#ifndef PRISM_API_CHECK_H
#define PRISM_API_CHECK_H

#include "core/context.h"
#include "core/plan.h"
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
/* moments: states without them will not do. */
prism_status prism_check_pooled(prism_ctx *ctx, const prism_problem *problem, bool moments);
/* What this context's backend does not compute. options NULL: only attention is wanted. */
prism_status prism_check_backend(prism_ctx *ctx, const prism_problem *problem, const prism_options *options);
/* CAPACITY: the plan lacks room for n_index blocks of this call, or for its rows. */
prism_status prism_plan_no_room(prism_ctx *ctx, const prism_plan *plan, const prism_problem *p, int64_t n_index);
/* What the device has to say about the work it was given so far; always PRISM_OK on the CPU. */
prism_status prism_device_status(prism_ctx *ctx);
prism_status prism_check_workspace(prism_ctx *ctx, const void *workspace, size_t have, size_t need);

#endif
