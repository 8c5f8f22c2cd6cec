/*
 * eval/exact.h - full attention of single query blocks in double precision: which key holds which share of the mass.
 *
 * What sparse plans are judged by. Slow on purpose: every logit is computed (twice), by double matrix products.
 */
#ifndef EVAL_EXACT_H
#define EVAL_EXACT_H

#include "lm/error.h"

#include <prism_attn/prism.h>

/* Keys and values of one KV head as doubles, token-major. */
typedef struct eval_exact_kv {
    int32_t n, d;
    double *k, *v; /* [n][d] */
} eval_exact_kv;

bool eval_exact_kv_load(const prism_call *call, int32_t kv_head, eval_exact_kv *out, lm_error *err);
void eval_exact_kv_free(eval_exact_kv *kv); /* {0} is allowed */

/* Queries first .. first + n - 1 of head: o [n][d] their attention outputs, mass [n_kv] the probability of each key,
 * mean over the queries (keys past the last query: 0). Of sequence 0 of the call. Runs on the caller's thread. */
bool eval_exact_rows(const prism_call *call, int32_t head, int32_t first, int32_t n, const eval_exact_kv *kv, double *o,
                     double *mass, lm_error *err);

/* Element (token, head, dimension) of sequence 0 of a tensor of any type, strides or pages. */
double eval_tensor_at(const prism_tensor *t, int32_t token, int32_t head, int32_t dim);

#endif
