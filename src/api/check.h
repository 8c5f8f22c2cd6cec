/* Checks of a call's shape and tensors. */
#ifndef PRISM_API_CHECK_H
#define PRISM_API_CHECK_H

#include "core/context.h"
#include "core/problem.h"

enum prism_check_tensors {
    PRISM_CHECK_SHAPE = 0,
    PRISM_CHECK_K = 1,
    PRISM_CHECK_Q = 2,
    PRISM_CHECK_V = 4,
    PRISM_CHECK_O = 8, /* and lse, if it is wanted */
    PRISM_CHECK_ALL = 15
};

/* Checks the call's shape and the tensors named in `which`. Fills *problem. */
prism_status prism_check_call(prism_ctx *ctx, const prism_call *call, int32_t block_size, unsigned which,
                              prism_problem *problem);

/* Checks the tensors named in which, of a problem whose shape was checked. */
prism_status prism_check_tensors(prism_ctx *ctx, const prism_problem *problem, unsigned which);

#endif
