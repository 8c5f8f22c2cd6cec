/* What selection and correction by moments share: images through a ring in shared memory, and the logits of 64 queries
 * against the 64 entries of one. Logits are in units of log 2, relative to a block of 128 keys. */
#ifndef PRISM_CUDA_MOMENTS_SCORE_CUH
#define PRISM_CUDA_MOMENTS_SCORE_CUH

#include "cuda/bitmap.cuh"
#include "cuda/moments/moments_shape.cuh"

namespace prism
{

constexpr int kScorers = 256; /* two warpgroups of 64 rows */

/* Barriers of a ring of N slots. */
template <int N> struct Slots {
    uint64_t full[N], empty[N];
    __device__ __forceinline__ void init() /* by one thread, which makes them known */
    {
        for (int i = 0; i < N; i++)
            mbar_init(smem_addr(&full[i]), 1), mbar_init(smem_addr(&empty[i]), kScorers / 32);
    }
};
/* A place in the ring, the same walk on both sides. */
template <int N> struct Ring {
    Slots<N> &slots;
    int slot;
    uint32_t phase;
    __device__ __forceinline__ void next()
    {
        if (++slot == N)
            slot = 0, phase ^= 1;
    }
    __device__ __forceinline__ void skip(int n)
    {
        slot += n;
        phase ^= slot / N & 1;
        slot %= N;
    }
    /* The copying thread. bytes: a multiple of 16. */
    __device__ __forceinline__ void copy(void *to, const void *from, int bytes)
    {
        mbar_wait(smem_addr(&slots.empty[slot]), phase ^ 1);
        uint32_t full = smem_addr(&slots.full[slot]);
        mbar_arrive_expect(full, bytes);
        bulk_copy(smem_addr(to), from, bytes, full);
        next();
    }
    __device__ __forceinline__ void wait() { mbar_wait(smem_addr(&slots.full[slot]), phase); }
    __device__ __forceinline__ void release()
    {
        if (threadIdx.x % 32 == 0)
            mbar_arrive(smem_addr(&slots.empty[slot]));
        next();
    }
};

__device__ __forceinline__ void sync_some(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Rows of 32 bytes, swizzled over 32 bytes. */
__device__ __forceinline__ uint64_t desc32(uint32_t addr)
{
    return (uint64_t)((addr & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(256 >> 4) << 32 | (uint64_t)3 << 62;
}

/* Queries as fragments in f16, and that of their squares: summed by groups, scaled so that the product with variances
 * is half the variance of the logits in units of the scale. */
template <int D, class T>
__device__ __forceinline__ void prepare(const Rows<D> &rows, uint32_t (&q)[D / 4], uint32_t (&square)[4], float scale)
{
    float sum[2][4] = {};
    rows.fragments(q);
#pragma unroll
    for (int j = 0; j < D / 4; j++) {
        float2 x = widen2<T>(q[j]);
        sum[j % 2][j / 8] = fmaf(x.x, x.x, fmaf(x.y, x.y, sum[j % 2][j / 8]));
        q[j] = pack2<__half>(x.x, x.y);
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        square[j] = pack2<__half>(sum[j % 2][j / 2 * 2] * (0.5f * scale), sum[j % 2][j / 2 * 2 + 1] * (0.5f * scale));
}

/* Products with an image in shared memory, without waiting: x = half the variances of the logits. */
template <int D> __device__ __forceinline__ void add_variances(float (&x)[32], const uint32_t *square, uint32_t image)
{
    wgmma_hold(x);
    wgmma_fence();
    wgmma_tile(x, square, desc32(uniform(image) + MomentsImage<D>::kMeans), 0);
    wgmma_commit();
}
/* x += q . means */
template <int D> __device__ __forceinline__ void add_means(float (&x)[32], const uint32_t *q, uint32_t image)
{
    uint64_t means = wgmma_desc(uniform(image), 0);
    wgmma_hold(x);
    wgmma_fence();
#pragma unroll
    for (int j = 0; j < D / 16; j++)
        wgmma_tile(x, q + 4 * j, desc_behind(means, j / 4 * (kTile * 128) + j % 4 * 32), 1);
    wgmma_commit();
}
/* Entries that a row in block `own` has in its past; block 0's are its past together or not at all. */
__device__ __forceinline__ int past_entries(int own)
{
    return own ? own + kSingles : 0;
}

} // namespace prism
#endif
