/*
 * Block means of Q and K in one pass over memory.
 *
 *   x [block_size tokens][2 heads][d] -> 8 partial sums a head and dimension (registers)
 *     -> mean -> energy -> split mean
 *
 * A CTA takes one block of two neighbouring heads, so that a warp reads 512 contiguous bytes of a token (d = 128,
 * 16-bit); a thread adds 8 dimensions of every 8th token, all its loads in flight at once. Summation order is fixed:
 * the result does not depend on the grid.
 */
#include "cuda/device.cuh"
#include "cuda/select/split.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace prism
{

constexpr int kLanes = 8; /* tokens read side by side */
constexpr int kBatch = 8; /* loads in flight a thread; 4 are as fast, 16 leave room for two CTAs only */

__device__ __forceinline__ float2 widen(uint32_t x, __nv_bfloat16)
{
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}
__device__ __forceinline__ float2 widen(uint32_t x, __half)
{
    return __half22float2(*(__half2 *)&x);
}

/* Loads are kept raw until all of a thread's are in flight. */
template <class T> struct Eight {
    uint4 raw;
    __device__ __forceinline__ void load(const T *p) { raw = __ldcs((const uint4 *)p); }
    __device__ __forceinline__ void add(float (&s)[8]) const
    {
        const uint32_t w[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 f = widen(w[i], T());
            s[2 * i] += f.x;
            s[2 * i + 1] += f.y;
        }
    }
};
template <> struct Eight<float> {
    float4 a, b;
    __device__ __forceinline__ void load(const float *p)
    {
        a = __ldcs((const float4 *)p);
        b = __ldcs((const float4 *)p + 1);
    }
    __device__ __forceinline__ void add(float (&s)[8]) const
    {
        s[0] += a.x, s[1] += a.y, s[2] += a.z, s[3] += a.w;
        s[4] += b.x, s[5] += b.y, s[6] += b.z, s[7] += b.w;
    }
};

/* Sum over tokens [lo, hi) of this thread's share. kBatch loads in flight. */
template <class T, int N>
__device__ __forceinline__ void add_tokens(float (&s)[8], const prism_cu_view &t, int seq, int lo, int hi,
                                           int64_t column)
{
    const T *data = (const T *)t.data + column;
    for (; lo + (N - 1) * kLanes < hi; lo += N * kLanes) {
        Eight<T> x[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i].load(data + token_offset(t, seq, lo + i * kLanes));
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i].add(s);
    }
    for (; lo < hi; lo += kLanes) {
        Eight<T> x;
        x.load(data + token_offset(t, seq, lo));
        x.add(s);
    }
}

/* Threads: 2 D, first as [token lane][head][8 dimensions], then as [head][dimension]. */
template <int D, class T>
__global__ void __launch_bounds__(2 * D) pool(const __grid_constant__ prism_cu_pool p, int n_q_cta)
{
    __shared__ float part[kLanes][2 * D];
    __shared__ float energy[2 * D / 32][3];
    const prism_cu_shape &s = p.shape;
    let_next_begin();
    bool keys = blockIdx.x >= n_q_cta;
    int i = keys ? blockIdx.x - n_q_cta : blockIdx.x, n_head = keys ? s.n_kv_head : s.n_head, pairs = (n_head + 1) / 2;
    int head0 = i % pairs * 2, n_blk = keys ? s.n_kblk : s.n_qblk, row = i / pairs % n_blk, seq = i / pairs / n_blk;
    Lengths n = lengths(s, seq);

    /* Tokens of this block: of the view from `from` on; `count` of them in all, of which those before `lo` are in the
     * sum. */
    int first = keys ? row * p.block_size : (n.q_start / p.block_size + row) * p.block_size - n.q_start;
    int from = max(first, 0), hi = min(first + p.block_size, keys ? n.n_kv : n.n_q),
        lo = keys ? max(from, p.n_done) : from;
    if (from >= hi)
        return;

    int tid = threadIdx.x, column = tid % (D / 8) * 8, sub = tid / (D / 8) % 2, lane = tid / (D / 4);
    float sum[8] = {};
    const prism_cu_view &t = keys ? p.k : p.q;
    if (head0 + sub < n_head)
        add_tokens<T, kBatch>(sum, t, seq, lo + lane, hi, (head0 + sub) * t.stride_head + column);
    float4 *dst = (float4 *)&part[lane][sub * D + column];
    dst[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    dst[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
    __syncthreads();

    int head = head0 + tid / D, j = tid % D;
    float x = 0;
#pragma unroll
    for (int l = 0; l < kLanes; l++)
        x += part[l][tid];
    if (head < n_head && keys && p.k_sum) {
        float *out = p.k_sum + seq * p.k_sum_stride_seq + ((int64_t)row * n_head + head) * D + j;
        if (lo > from)
            x += *out;
        if (lo < hi)
            *out = x;
    }
    if (keys && !p.key_image) /* their sums alone are wanted */
        return;
    float mean = x / (hi - from), e[3] = {mean * mean, 0, 0};
    if (p.high[j / 32] >> j % 32 & 1)
        e[1] = e[0];
    if (p.low[j / 32] >> j % 32 & 1)
        e[2] = e[0];
#pragma unroll
    for (int b = 0; b < 3; b++) {
        for (int m = 16; m; m /= 2)
            e[b] += __shfl_xor_sync(~0u, e[b], m);
        if (tid % 32 == 0)
            energy[tid / 32][b] = e[b];
    }
    __syncthreads();
    if (head >= n_head)
        return;
    float all = 0, band = 0;
    for (int w = tid / D * (D / 32); w < (tid / D + 1) * (D / 32); w++) {
        all += energy[w][0];
        if (j < 3)
            band += energy[w][j];
    }
    float scale = scale_for(all / D), y = mean * scale;
    if (j < 4)
        (keys ? p.k_energy : p.q_energy)[(((int64_t)seq * n_head + head) * n_blk + row) * 4 + j] =
            j < 3 ? band : 1 / scale;
    __half high = __float2half_rn(y), low = __float2half_rn(y - __half2float(high));
    char *out;
    if (keys) {
        char *image = (char *)p.key_image + key_images_before(s, (int64_t)seq * n_head + head) +
                      (int64_t)(row / kKeys) * key_image_bytes(D);
        out = image + key_byte(row, j);
        if (j == 0)
            ((float *)(image + key_scales(D)))[row % kKeys] = 1 / scale;
    } else {
        out = (char *)p.q_split + (((int64_t)seq * n_blk + row) * n_head + head) * D * 4 + query_byte(j);
    }
    *(__half *)out = high;
    *(__half *)(out + (keys ? kKeyLow : kQueryLow)) = low;
}

template <class T> static cudaError_t pool_launch(const prism_cu_pool *a, cudaStream_t stream)
{
    const prism_cu_shape &s = a->shape;
    int n_q_cta = s.n_seq * s.n_qblk * ((s.n_head + 1) / 2),
        n_cta = n_q_cta + s.n_seq * s.n_kblk * ((s.n_kv_head + 1) / 2);
    if (n_cta == 0)
        return cudaSuccess;
    switch (s.d_head) {
    case 64: pool<64, T><<<n_cta, 128, 0, stream>>>(*a, n_q_cta); break;
    case 96: pool<96, T><<<n_cta, 192, 0, stream>>>(*a, n_q_cta); break;
    case 128: pool<128, T><<<n_cta, 256, 0, stream>>>(*a, n_q_cta); break;
    case 192: pool<192, T><<<n_cta, 384, 0, stream>>>(*a, n_q_cta); break;
    case 256: pool<256, T><<<n_cta, 512, 0, stream>>>(*a, n_q_cta); break;
    default: return cudaErrorNotSupported;
    }
    return cudaGetLastError();
}

} // namespace prism

extern "C" cudaError_t prism_pool_cuda(const prism_cu_pool *a, cudaStream_t stream)
{
    switch (a->shape.dtype) {
    case PRISM_CU_F32: return prism::pool_launch<float>(a, stream);
    case PRISM_CU_F16: return prism::pool_launch<__half>(a, stream);
    case PRISM_CU_BF16: return prism::pool_launch<__nv_bfloat16>(a, stream);
    }
    return cudaErrorNotSupported;
}

extern "C" int64_t prism_key_image_bytes(const prism_cu_shape *s)
{
    return prism::key_images_before(*s, (int64_t)s->n_seq * s->n_kv_head);
}
