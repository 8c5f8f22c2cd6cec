/* Weights of a block's tokens, by which the block's moments and covariance are made. */
#ifndef PRISM_CUDA_MOMENTS_TILT_CUH
#define PRISM_CUDA_MOMENTS_TILT_CUH

#include "cuda/moments/moments_first.cuh"

namespace prism
{

__device__ __forceinline__ int64_t row_of(const prism_cu_moments &p, int seq, int b, int head)
{
    return ((int64_t)seq * p.n_block_seq + b) * p.shape.n_kv_head + head;
}

/* By one warp: exponents of a block's tokens become weights of sum 1, 0 for its single tokens (place below kSingles;
 * NULL: none). Returns the logarithm of how many keys the weighted means stand for. factor: what exponents are scaled
 * by. */
__device__ __forceinline__ float tilt(float *t, const int *place, float &factor)
{
    constexpr int kEach = kBlockKeys / 32;
    const int n = place ? kBlockKeys - kSingles : kBlockKeys;
    float x[kEach], sum = 0, square = 0, lean = 0;
    bool counts[kEach];
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        int at = 32 * i + threadIdx.x % 32;
        counts[i] = !place || place[at] >= kSingles;
        x[i] = counts[i] ? t[at] : 0;
        sum += x[i];
    }
    float mean = warp_add(sum) / n;
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        x[i] -= mean;
        square += counts[i] ? x[i] * x[i] : 0;
    }
    float deviation = sqrtf(warp_add(square) / n);
    factor = deviation > PRISM_MOMENT_TILT ? PRISM_MOMENT_TILT / deviation : 1;
    float w[kEach];
    sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; i++) { /* no maximum to subtract: with that deviation none of n exceeds 0.8 sqrt(n) */
        x[i] *= factor;
        w[i] = counts[i] ? expf(x[i]) : 0;
        sum += w[i];
        lean += counts[i] ? w[i] * x[i] : 0;
    }
    sum = warp_add(sum), lean = warp_add(lean);
#pragma unroll
    for (int i = 0; i < kEach; i++)
        t[32 * i + threadIdx.x % 32] = w[i] / sum;
    return logf(sum) - lean / sum;
}

/* Tokens of a block, C columns: 16 bytes at row r, swizzled(r, column / 8). */
template <int C> using Tokens = uint4[kBlockKeys][C / 8];

/* Tokens from .. n of the block to a tile, by N threads; zeros elsewhere and, with `rank`, in the place of single
 * tokens. */
template <int N, class T, int C>
__device__ __forceinline__ void fetch_tokens(uint4 (&tile)[kBlockKeys][C], const prism_cu_view &t, int seq, int head,
                                             int first, int from, int n, const int *rank)
{
    constexpr int kSide = N / C;
    static_assert(kSide % 8 == 0, "all of a thread's rows have one order of columns");
    int c = threadIdx.x % C, r0 = threadIdx.x / C, at = swizzled(r0, c);
    const T *column = (const T *)t.data + head * t.stride_head + 8 * c;
    if (n - from == kBlockKeys && !rank && t.data && !t.page_table) {
        const T *x = column + token_offset(t, seq, first + r0);
#pragma unroll
        for (int i = 0; i < kBlockKeys; i += kSide)
            cp_async16(smem_addr(&tile[r0][at]) + i * (C * 16), x + i * t.stride_token);
    } else {
#pragma unroll 1
        for (int r = r0; r < kBlockKeys; r += kSide) {
            bool there = t.data && r >= from && r < n && (!rank || rank[r] >= kSingles);
            const T *x = there ? column + token_offset(t, seq, first + r) : column;
            cp_async16(smem_addr(&tile[r][at]), x, there);
        }
    }
    cp_async_commit();
}

/*
 * The weights, by a CTA of D / 16 warps. Sums over dimensions are products of one warp: parts of queries, three numbers
 * of 16 bits that add up to a float, times a tile. So they are as exact as sums in f32.
 */
template <int D, class T> struct Weights {
    static constexpr int kPad = 8;
    __align__(16) T query[3][D + kPad];
    float weight[kBlockKeys];

    /* Three numbers of 16 bits that add up to x. */
    static __device__ __forceinline__ void split(float x, T *part, int step)
    {
#pragma unroll
        for (int i = 0; i < 3; i++) {
            T high = T(x);
            part[i * step] = high, x -= (float)high;
        }
    }
    /* Right factors of two steps: rows 0 .. 2 are parts, the others whatever. */
    template <int N> static __device__ __forceinline__ void parts(uint32_t (&b)[4], const T (&part)[3][N], int step)
    {
        int lane = threadIdx.x % 32;
        ldmatrix4(b, smem_addr(&part[min(lane % 8, 2)][32 * step + lane / 8 * 8]));
    }
    /* Sum of a row's products with the three parts; c: two columns. In the first two lanes of four. */
    static __device__ __forceinline__ float whole(const float *c)
    {
        int lane = threadIdx.x % 4;
        float x = lane == 0 ? c[0] + c[1] : c[0];
        return x + __shfl_xor_sync(kAll, x, 1);
    }

    __device__ __forceinline__ void set_query(int dim, float x) { split(x, &query[0][dim], D + kPad); }
    /* The exponents of 16 tokens a warp at a time. */
    __device__ __forceinline__ void ask(const Tokens<D> &key)
    {
        int lane = threadIdx.x % 32;
        for (int r0 = threadIdx.x / 32 * 16; r0 < kBlockKeys; r0 += D) {
            float c[4] = {};
            int r = r0 + lane % 16;
#pragma unroll
            for (int k = 0; k < D / 32; k++) {
                uint32_t a[4], b[4];
                parts(b, query, k);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    ldmatrix4(a, smem_addr(&key[r][swizzled(r, 4 * k + 2 * h + lane / 16)]));
                    warp_mma<T>(c, a, b[2 * h], b[2 * h + 1]);
                }
            }
            float upper = whole(c), lower = whole(c + 2);
            if (lane % 4 == 0)
                weight[r0 + lane / 4] = upper, weight[r0 + lane / 4 + 8] = lower;
        }
    }
};

/* Launches pool_slots.cu's kernel. */
template <int D, class T> cudaError_t pool_slots(const prism_cu_moments &a, cudaStream_t stream);

} // namespace prism
#endif
