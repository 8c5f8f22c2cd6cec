/*
 * prism_attn/prism_cuda.h - the library on NVIDIA GPUs.
 *
 * A context made with device = PRISM_DEVICE_CUDA serves the calls of prism.h on one GPU (sm_80 and later). The code
 * lies in a second library, libprismattn_cuda.so beside libprismattn.so, which prism_create() loads. Programs need not
 * be built for CUDA: the same binary runs where there is no GPU.
 *
 * On such a context
 *   - tensor data, pooled->key_sum, the arrays of pooled->moments, the workspace, and the arrays n_q_of, n_kv_of,
 *     q_start_of, row_start and page_table lie in memory that the GPU can read. Structs lie in the host's memory,
 *     prism_pooled too.
 *   - prism_plan_build(), prism_attend(), prism_attention() without stats and prism_pool_append() start work on the
 *     context's stream and return: they neither allocate nor wait, and may be captured in a CUDA graph. If a kernel
 *     fails while it runs, a later call returns the error.
 *   - where lengths are given as arrays, n_q and n_kv are upper bounds, and the arrays are not checked: the kernels
 *     read them when they run. prism_call.pooled is then UNSUPPORTED.
 *   - a plan with too little room does not fail, because no call waits for the result. The device makes it the full
 *     plan, and prism_plan_read() and prism_cuda_plan_counts() say so (PRISM_PATH_DENSE_OVERFLOW). A plan created with
 *     max_density 0 has room for everything.
 *   - prism_plan_fetch(), prism_plan_from_mask() and prism_attention() with stats wait for the stream.
 *     prism_plan_read() and prism_plan_mask() need prism_plan_fetch() first.
 *   - the methods are prism, moments, meanpool and dense. Queries and keys have one dtype and stride_dim 1. Other calls
 *     are refused with UNSUPPORTED and a sentence.
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

/* Describes GPU number `device`. The caller sets info->struct_size. DEVICE: the GPU cannot be used; info->problem says
 * why. */
PRISM_API prism_status prism_cuda_describe(int32_t device, prism_cuda_info *info);

/* Makes later calls on ctx work on this cudaStream_t (NULL: the default stream). INVALID: ctx is not a CUDA context. */
PRISM_API prism_status prism_cuda_set_stream(prism_ctx *ctx, void *stream);

/* Names the kernel of the last attention on ctx: "sm90" (wgmma), "sm80" (mma), "any" (no tensor cores, many times
 * slower: other head dimensions, float32, odd strides), "fp8" (precision fp8), "" before the first. docs/cuda.md says
 * which call gets which kernel. */
PRISM_API const char *prism_cuda_attend_kernel(const prism_ctx *ctx);

/* Writes 4 numbers to counts (device memory), in the stream's order: listed blocks, causal blocks, 1 if the plan
 * overflowed else 0, and 0. This gives statistics without waiting. */
PRISM_API prism_status prism_cuda_plan_counts(prism_ctx *ctx, const prism_plan *plan, int64_t *counts);

#ifdef __cplusplus
}
#endif
#endif
