/* Operations on rows: embedding, norm, SwiGLU, bias, and the weights' way from their file. */
#include "operations.h"
#include "round.cuh"

enum { WARPS = 8, THREADS = 256 };

static unsigned blocks_of(int64_t n, int64_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

/* -------------------------------------------------------------------------------------------- weights ---- */

/* Q8_0: 32 signed bytes after their scale, a float16. */
static __device__ float weight_at(lm_cu_source source, const void *src, int64_t i)
{
    if (source == LM_CU_Q8_0) {
        const unsigned char *block = (const unsigned char *)src + i / 32 * 34;
        const __half scale = __ushort_as_half((unsigned short)(block[0] | block[1] << 8));
        return __half2float(scale) * (float)(signed char)block[2 + i % 32];
    }
    return source == LM_CU_F32   ? ((const float *)src)[i]
           : source == LM_CU_F16 ? widen(((const __half *)src)[i])
                                 : widen(((const __nv_bfloat16 *)src)[i]);
}

template <typename T> __global__ void round_weights(lm_cu_source source, const void *src, int64_t n, T *out)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n)
        round_to(weight_at(source, src, i), &out[i]);
}

cudaError_t lm_cu_round(lm_cu_source source, const void *src, int64_t n, bool bf16, void *out, cudaStream_t stream)
{
    if (bf16)
        round_weights<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(source, src, n, (__nv_bfloat16 *)out);
    else
        round_weights<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(source, src, n, (__half *)out);
    return cudaGetLastError();
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
    if (bf16)
        embed_rows<<<(unsigned)n, 128, 0, stream>>>((const __nv_bfloat16 *)table, tokens, d, out);
    else
        embed_rows<<<(unsigned)n, 128, 0, stream>>>((const __half *)table, tokens, d, out);
    return cudaGetLastError();
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
    const dim3 threads(32, WARPS);
    if (bf16)
        norm_rows<<<blocks_of(n, WARPS), threads, 0, stream>>>(x, weight, n, d, eps, (__nv_bfloat16 *)out);
    else
        norm_rows<<<blocks_of(n, WARPS), threads, 0, stream>>>(x, weight, n, d, eps, (__half *)out);
    return cudaGetLastError();
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
    if (bf16)
        swiglu_fours<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(g, u, n, (__nv_bfloat16 *)out);
    else
        swiglu_fours<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(g, u, n, (__half *)out);
    return cudaGetLastError();
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
