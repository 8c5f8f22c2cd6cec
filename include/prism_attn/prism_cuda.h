/*
 * prism_attn/prism_cuda.h - the library on NVIDIA GPUs.
 *
 * A context made with device = PRISM_DEVICE_CUDA serves the calls of prism.h on one GPU (sm_80 and later). The code
 * lies in a library of its own, libprismattn_cuda.so beside libprismattn.so, which prism_create() loads: programs need
 * not be built for CUDA, and the same binary runs where there is no GPU.
 *
 * On such a context
 *   - the data of all tensors, pooled->key_sum and the arrays of pooled->moments, the workspace, and the arrays n_q_of,
 * n_kv_of, q_start_of, row_start and page_table are in memory that the GPU can read; structs and prism_pooled itself
 * are in the host's.
 *   - prism_plan_build(), prism_attend(), prism_attention() without stats and prism_pool_append() start work on the
 *     context's stream and return: they neither allocate nor wait, and may be captured in a CUDA graph. A failure of a
 *     kernel while it runs shows in a later call, as always with CUDA.
 *   - where lengths are given as arrays, n_q and n_kv are upper bounds and nothing of the arrays is checked; the
 *     kernels read them when they run. prism_call.pooled then is UNSUPPORTED.
 *   - a plan with too little room does not fail, since nobody waits to see it: it turns into the full plan on the
 * device, and prism_plan_read() and the counts say so (PRISM_PATH_DENSE_OVERFLOW). max_density 0 excludes that.
 *   - prism_plan_read(), prism_plan_mask(), prism_plan_from_mask() and prism_attention() with stats wait for the
 * stream.
 *   - methods prism, moments, meanpool and dense; queries and keys of one type with stride_dim 1. What is not computed
 * there is refused with UNSUPPORTED and a sentence.
 */
#ifndef PRISM_ATTN_PRISM_CUDA_H
#define PRISM_ATTN_PRISM_CUDA_H

#include "prism_attn/prism.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prism_cuda_info {
    size_t struct_size;
    char name[64]; /* "NVIDIA H200" */
    int32_t n_device;
    int32_t compute_major, compute_minor, n_multiprocessor;
    size_t memory_bytes;
    int32_t driver_version, runtime_version; /* 13000: CUDA 13.0 */
    char problem[256];                       /* why there is no such device; "" if there is */
} prism_cuda_info;

/* Looks at GPU number `device`. Caller sets info->struct_size. DEVICE if it cannot be used: info->problem says why. */
PRISM_API prism_status prism_cuda_describe(int32_t device, prism_cuda_info *info);

/* Later calls on ctx work on this cudaStream_t (NULL: the default stream). INVALID if ctx is not a CUDA context. */
PRISM_API prism_status prism_cuda_set_stream(prism_ctx *ctx, void *stream);

/* The kernel that the last attention on ctx ran: "sm90" (wgmma), "sm80" (mma), "any" (no tensor cores: other head
 * dimensions, float32, odd strides; many times slower), "fp8" (with that precision), "" before the first. docs/cuda.md says which call gets which.
 */
PRISM_API const char *prism_cuda_attend_kernel(const prism_ctx *ctx);

/* Writes to counts (device memory, [4]), in the stream's order: blocks listed, causal blocks, 1 if the plan overflowed,
 * 0. For statistics without waiting. */
PRISM_API prism_status prism_cuda_plan_counts(prism_ctx *ctx, const prism_plan *plan, int64_t *counts);

#ifdef __cplusplus
}
#endif
#endif
