/*
 * A request is a call with its options, checked once; below it nothing is checked again. Every public function that
 * computes makes one request and hands it down.
 */
#ifndef PRISM_API_REQUEST_H
#define PRISM_API_REQUEST_H

#include "api/check.h"
#include "core/plan.h"
#include "methods/method.h"

typedef struct prism_request {
    prism_problem problem;
    const prism_options *options;    /* NULL: nothing is chosen */
    const prism_method_impl *method; /* NULL: nothing is chosen */
    prism_correction correct;        /* never PRISM_CORRECTION_DEFAULT */
    int32_t min_tokens;              /* never -1 */
    bool full;                       /* the options keep every block */
} prism_request;

/* Checks call, the tensors in `which`, options, and what the backend refuses. Checks call->pooled unless which is 0. */
prism_status prism_request_make(prism_ctx *ctx, const prism_options *options, const prism_call *call, unsigned which,
                                prism_request *out);
/* Makes the request for attention over a plan that was built before. */
prism_status prism_request_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, prism_request *out);
/* Makes the request for pooling keys alone. */
prism_status prism_request_pool(prism_ctx *ctx, const prism_call *call, prism_request *out);

/* Checks the plan. INVALID: plan is NULL, or of another backend. */
prism_status prism_check_plan(prism_ctx *ctx, const prism_plan *plan);
prism_status prism_check_workspace(prism_ctx *ctx, const void *workspace, size_t have, size_t need);
/* Returns CAPACITY with its sentence: the plan lacks room for n_index blocks of this call, or for its rows. */
prism_status prism_plan_no_room(prism_ctx *ctx, const prism_plan *plan, const prism_problem *p, int64_t n_index);

#endif
