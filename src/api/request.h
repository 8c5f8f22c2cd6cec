/*
 * A call with its options, checked once: what passes here is computed without further questions. Every public function
 * that computes makes one request and hands it down.
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
    prism_correction correct;        /* resolved */
    int32_t min_tokens;              /* resolved */
    bool full;                       /* the options keep every block */
} prism_request;

/* Checks call, the tensors in which, options, what the backend refuses and, with any tensor, call->pooled. */
prism_status prism_request_make(prism_ctx *ctx, const prism_options *options, const prism_call *call, unsigned which,
                                prism_request *out);
/* The same for attention over a plan that was built before. */
prism_status prism_request_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, prism_request *out);
/* The same for pooling keys alone. */
prism_status prism_request_pool(prism_ctx *ctx, const prism_call *call, prism_request *out);

/* INVALID: plan is NULL, or of another backend. */
prism_status prism_check_plan(prism_ctx *ctx, const prism_plan *plan);
prism_status prism_check_workspace(prism_ctx *ctx, const void *workspace, size_t have, size_t need);
/* CAPACITY: the plan lacks room for n_index blocks of this call, or for its rows. */
prism_status prism_plan_no_room(prism_ctx *ctx, const prism_plan *plan, const prism_problem *p, int64_t n_index);

#endif
