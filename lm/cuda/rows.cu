/* Operations on rows: embedding, norm, SwiGLU, bias, and the weights' way from their file. */
#include "../blocks.h"
#include "operations.h"
#include "round.cuh"

enum { WARPS = 8, THREADS = 256 };

static unsigned blocks_of(int64_t n, int64_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

/* -------------------------------------------------------------------------------------------- weights ---- */

/* A thread unpacks one block, as the CPU does: this runs once, when a session starts. */
template <void (*unpack)(const uint8_t *, float *), int n, int bytes, typename T>
__global__ void round_blocks(const uint8_t *src, int64_t n_block, T *out)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float x[n];
    if (i >= n_block)
        return;
    unpack(src + i * bytes, x);
    for (int j = 0; j < n; j++)
        round_to(x[j], &out[i * n + j]);
}

template <typename T> static void round_to_type(lm_dtype dtype, const void *src, int64_t n, T *out, cudaStream_t stream)
{
#define ROUND(NAME, name, ggml, file, block, bytes, ...)                                                               \
    case LM_##NAME:                                                                                                    \
        round_blocks<lm_unpack_##name, block, bytes>                                                                   \
            <<<blocks_of(n / (block), THREADS), THREADS, 0, stream>>>((const uint8_t *)src, n / (block), out);         \
        break;
    switch (dtype) {
        LM_WEIGHT_TYPES(ROUND)
    default: break; /* weights.c: no matrix has another type */
    }
}

cudaError_t lm_cu_round(lm_dtype dtype, const void *src, int64_t n, bool bf16, void *out, cudaStream_t stream)
{
    return in_type(bf16, out, [=](auto *to) { round_to_type(dtype, src, n, to, stream); });
}

template <typename T> __global__ void embed_rows(const T *table, const int32_t *tokens, int32_t d, float *out)
{
    const T *row = table + (int64_t)tokens[blockIdx.x] * d;
    for (int32_t j = threadIdx.x; j < d; j += blockDim.x)
        out[(int64_t)blockIdx.x * d + j] = widen(row[j]);
}

cudaError_t lm_cu_embed(const void *table, bool bf16, const int32_t *tokens, int32_t n, int32_t d, float *out,
                        cudaStream_t stream)
{
    return in_type(bf16, (void *)table,
                   [=](auto *rows) { embed_rows<<<(unsigned)n, 128, 0, stream>>>(rows, tokens, d, out); });
}

/* ----------------------------------------------------------------------------------------------- rows ---- */

/* One warp a row; the second reading finds the row in the cache. */
template <typename T>
__global__ void norm_rows(const float *x, const float *weight, int32_t n, int32_t d, float eps, T *out)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (row >= n)
        return;
    const float4 *in = (const float4 *)(x + row * d);
    float sum = 0;
    for (int32_t j = threadIdx.x; j < d / 4; j += 32) {
        const float4 v = in[j];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    const float scale = 1.0f / sqrtf(sum_of_warp(sum) / (float)d + eps);
    for (int32_t j = threadIdx.x; j < d / 4; j += 32) {
        const float4 v = in[j], w = ((const float4 *)weight)[j];
        store4(out + row * d + 4 * j, v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
}

cudaError_t lm_cu_norm(const float *x, const float *weight, int32_t n, int32_t d, float eps, bool bf16, void *out,
                       cudaStream_t stream)
{
    return in_type(bf16, out, [=](auto *to) {
        norm_rows<<<blocks_of(n, WARPS), dim3(32, WARPS), 0, stream>>>(x, weight, n, d, eps, to);
    });
}

static __device__ __forceinline__ float silu(float x)
{
    return x / (1.0f + expf(-x));
}

template <typename T> __global__ void swiglu_fours(const float4 *gate, const float4 *up, int64_t n, T *out)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    const float4 g = gate[i], u = up[i];
    store4(out + 4 * i, silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w);
}

cudaError_t lm_cu_swiglu(const float *gate, const float *up, int64_t count, bool bf16, void *out, cudaStream_t stream)
{
    const int64_t n = count / 4;
    const float4 *g = (const float4 *)gate, *u = (const float4 *)up;
    return in_type(bf16, out, [=](auto *to) {
        swiglu_fours<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(g, u, n, to);
    });
}

__global__ void add_bias(float *y, const float *bias, int64_t count, int32_t d)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        y[i] += bias[i % d];
}

cudaError_t lm_cu_bias(float *y, const float *bias, int32_t n, int32_t d, cudaStream_t stream)
{
    add_bias<<<blocks_of((int64_t)n * d, THREADS), THREADS, 0, stream>>>(y, bias, (int64_t)n * d, d);
    return cudaGetLastError();
}
