/*
 * lm/cuda/operations.h - the operations between the matrix products. Device pointers; every launch goes to the stream
 * and returns. "16" stands for float16, or bfloat16 where bf16. Each reads its operands once and writes its result
 * once.
 */
#ifndef LM_CUDA_OPERATIONS_H
#define LM_CUDA_OPERATIONS_H

#include "../tensor.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rounds n weights, a whole number of blocks of their type, to 16. */
cudaError_t lm_cu_round(lm_dtype dtype, const void *src, int64_t n, bool bf16, void *out, cudaStream_t stream);
/* out [n][d] = rows of table [n_vocab][d], 16 */
cudaError_t lm_cu_embed(const void *table, bool bf16, const int32_t *tokens, int32_t n, int32_t d, float *out,
                        cudaStream_t stream);
/* out [n][d] 16 = x / sqrt(mean(x^2) + eps) * weight; d a multiple of 4 */
cudaError_t lm_cu_norm(const float *x, const float *weight, int32_t n, int32_t d, float eps, bool bf16, void *out,
                       cudaStream_t stream);
/* out [count] 16 = silu(gate) * up; count a multiple of 4 */
cudaError_t lm_cu_swiglu(const float *gate, const float *up, int64_t count, bool bf16, void *out, cudaStream_t stream);
/* y [n][d] += bias [d] */
cudaError_t lm_cu_bias(float *y, const float *bias, int32_t n, int32_t d, cudaStream_t stream);
/* nll [n] = log-sum-exp of row i of logits - logits[i][targets[i]]; 0 where the target is negative */
cudaError_t lm_cu_nll(const float *logits, const int32_t *targets, int32_t n, int32_t n_vocab, double *nll,
                      cudaStream_t stream);
/* *best: the lowest index among the largest of n; -1 if one is not finite */
cudaError_t lm_cu_argmax(const float *x, int32_t n, int32_t *best, cudaStream_t stream);

/* Positions whose rotation is the product of two: of the last multiple of LM_CU_ROPE_STEP, and of what is left. */
enum { LM_CU_ROPE_STEP = 1024 };

/* Head norm, RoPE and rounding; one warp a head. */
typedef struct lm_cu_rotation {
    const float *q, *k, *v;       /* [n][n_head][d], [n][n_kv_head][d] */
    const float *q_norm, *k_norm; /* [d] or NULL */
    const float *coarse, *fine;   /* [position / step][n_pair][2] cos and sin, [LM_CU_ROPE_STEP][n_pair][2] */
    int64_t position;             /* of row 0 */
    int32_t n, n_head, n_kv_head, d, n_pair;
    bool interleaved, bf16;
    float eps;
    void *q_out, *k_out, *v_out; /* as q, k, v; 16 */
} lm_cu_rotation;
cudaError_t lm_cu_rotate(const lm_cu_rotation *r, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
