/* lm/ops.h - the small operations between the matrix products, over rows of floats. */
#ifndef LM_OPS_H
#define LM_OPS_H

#include <stdbool.h>
#include <stdint.h>

/* The sum of a[i] b[i]; in float32, in an order of its own. */
float lm_dot(const float *a, const float *b, int64_t n);
/* out = x / sqrt(mean(x^2) + eps) * weight. out may be x. */
void lm_rms_norm(const float *x, const float *weight, int64_t n, float eps, float *out);
void lm_rms_norm_bf16(const float *x, const float *weight, int64_t n, float eps, uint16_t *out);
/* gate = silu(gate) * up. exp within 2 units in the last place. */
void lm_swiglu(float *gate, const float *up, int64_t n);
bool lm_all_finite(const float *x, int64_t n);
/* -log p of one token of n, p the softmax of x; in double. */
double lm_nll(const float *x, int64_t n, int32_t token);
/* The lowest index among the largest of n >= 1 numbers; -1 if one is not finite. */
int32_t lm_argmax(const float *x, int64_t n);

#endif
