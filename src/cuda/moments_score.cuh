/* What selection and correction by moments share: images through a ring in shared memory, and the logits of 64 queries
 * against the 64 entries of one. Logits are in units of log 2, relative to a block of 128 keys. */
#ifndef PRISM_CUDA_MOMENTS_SCORE_CUH
#define PRISM_CUDA_MOMENTS_SCORE_CUH

#include "cuda/bitmap.cuh"
#include "cuda/moments.cuh"

namespace prism
{

constexpr int kScorers = 256, kScoreThreads = kScorers + 32; /* two warpgroups of 64 rows, a warp that copies */

/* Barriers of a ring of N slots, and constants beside them. */
template <int D, int N> struct Slots {
    static constexpr int kSlots = N;
    uint64_t full[N], empty[N];
    uint2 members[D / 16][2][32]; /* fragments of: dimension k is in group n */

    __device__ __forceinline__ void init()
    {
        for (int i = threadIdx.x; i < D / 16 * 64; i += kScoreThreads) {
            int lane = i % 32, t = i / 32 % 2, k = i / 64 * 16 + lane % 4 * 2, n = 8 * t + lane / 4;
            members[i / 64][t][lane] = make_uint2(k / 8 == n ? 0x3c003c00 : 0, (k + 8) / 8 == n ? 0x3c003c00 : 0);
        }
        if (threadIdx.x == 0) {
            for (int i = 0; i < N; i++)
                mbar_init(smem_addr(&full[i]), 1), mbar_init(smem_addr(&empty[i]), kScorers / 32);
            mbar_init_fence();
        }
        __syncthreads();
    }
};
/* A place in the ring, the same walk on both sides. */
template <int D, int N> struct Ring {
    Slots<D, N> &slots;
    int slot;
    uint32_t phase;
    __device__ __forceinline__ void next()
    {
        if (++slot == N)
            slot = 0, phase ^= 1;
    }
    /* The copying thread. bytes: a multiple of 16. */
    __device__ __forceinline__ void copy(void *to, const void *from, int bytes)
    {
        mbar_wait(smem_addr(&slots.empty[slot]), phase ^ 1);
        uint32_t full = smem_addr(&slots.full[slot]);
        mbar_arrive_expect(full, bytes);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         smem_addr(to)),
                     "l"(from), "r"(bytes), "r"(full)
                     : "memory");
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

/* acc[64 x 64] (+)= a[64 x 16] (registers) b[64 x 16]^T (shared memory, 16 contiguous). */
__device__ __forceinline__ void wgmma_tile(float (&acc)[32], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" PRISM_REG32
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                 : PRISM_ACC32(acc)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
/* Rows of 32 bytes, swizzled over 32 bytes. */
__device__ __forceinline__ uint64_t desc32(uint32_t addr)
{
    return (uint64_t)((addr & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(256 >> 4) << 32 | (uint64_t)3 << 62;
}
__device__ __forceinline__ uint32_t half2_bits(__half2 x)
{
    return *(uint32_t *)&x;
}

/* Queries to f16, in place, and the fragment of their squares summed by groups: scaled so that its product with
 * variances is half the variance of the logits. */
template <int D, class T, int N>
__device__ __forceinline__ void prepare(uint32_t (&q)[D / 4], uint32_t (&square)[4], const Slots<D, N> &slots,
                                        float scale)
{
    const __half2 unit = __float2half2_rn(scale * sqrtf(0.5f * kLog2e));
    float acc[2][4] = {};
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t sq[4];
#pragma unroll
        for (int x = 0; x < 4; x++) {
            __half2 y = __float22half2_rn(widen2<T>(q[4 * j + x])), z = __hmul2(y, unit);
            q[4 * j + x] = half2_bits(y), sq[x] = half2_bits(__hmul2(z, z));
        }
#pragma unroll
        for (int t = 0; t < 2; t++) {
            uint2 b = slots.members[j][t][threadIdx.x % 32];
            warp_mma<__half>(acc[t], sq, b.x, b.y);
        }
    }
#pragma unroll
    for (int t = 0; t < 2; t++) {
        square[2 * t] = half2_bits(__floats2half2_rn(acc[t][0], acc[t][1]));
        square[2 * t + 1] = half2_bits(__floats2half2_rn(acc[t][2], acc[t][3]));
    }
}

__device__ __forceinline__ float min_or_nan(float x, float y)
{
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}
/* Logits of the entries of an image in shared memory: products, half the variances up to the cap, counts. */
template <int D>
__device__ __forceinline__ void finish_logits(float (&x)[32], const float (&half)[32], const char *image, float unit,
                                              float cap)
{
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float2 bias = *(const float2 *)(image + Image<D>::bias(8 * j + threadIdx.x % 4 * 2));
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[4 * j + i] = fmaf(x[4 * j + i], unit, min_or_nan(half[4 * j + i], cap)) + (i % 2 ? bias.y : bias.x);
    }
}
/* Entries that a row in block `own` has in its past; block 0's are its past together or not at all. */
__device__ __forceinline__ int past_entries(int own)
{
    return own ? own + kSingles : 0;
}
__device__ __forceinline__ void quad_max(float &x)
{
    x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
    x = fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}
__device__ __forceinline__ void quad_add(float &x)
{
    x += __shfl_xor_sync(kAll, x, 1);
    x += __shfl_xor_sync(kAll, x, 2);
}

/* Images of a KV head. */
template <int D> __device__ __forceinline__ const char *image_of(const prism_cu_moments &p, int seq, int kv_head)
{
    return (const char *)p.image +
           ((int64_t)seq * p.shape.n_kv_head + kv_head) * tiles_for(p.shape.n_kblk) * Image<D>::kBytes;
}

} // namespace prism
#endif
