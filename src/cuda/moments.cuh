/*
 * Moments of key blocks as the tensor cores read them (docs/moments.md has the formulas): images of 64 entries of one
 * KV head, ready to be copied to shared memory in one piece.
 *
 *   [64 entries][d]   key means      rows of 128 bytes in column groups of 64, swizzled over 128 bytes
 *   [64 entries][16]  key variances  of groups of 8 dimensions; rows of 32 bytes, swizzled over 32 bytes
 *   [64 entries]      log2 of counts, relative to whole blocks; f32
 *   [64 entries][d]   value means    as the key means
 *
 * f16 but for the counts. Entries 0 .. 15 are single tokens of block 0, entry 16 is the rest of block 0, entry 16 + b
 * is block b. Moments that are not finite in f16 are stored as zero means and variances that are not a number.
 */
#ifndef PRISM_CUDA_MOMENTS_CUH
#define PRISM_CUDA_MOMENTS_CUH

#include "cuda/ptx.cuh"
#include "cuda/shape.cuh"
#include <type_traits>

namespace prism
{

constexpr int kTile = 64, kBlockKeys = 128, kSingles = 16, kGroups = 16;
constexpr float kLog2e = 1.44269504f, kLow = -1e30f;

template <int D> struct Image {
    static constexpr int kMeans = kTile * D * 2, kVars = kTile * kGroups * 2;
    static constexpr int kScored = kMeans + kVars + kTile * 4; /* what logits are made of */
    static constexpr int kValues = (kScored + 1023) / 1024 * 1024, kBytes = kValues + kMeans;
    /* Byte of element (entry, dimension) of the means, of element (entry, group) of the variances, of a count. */
    static __device__ __forceinline__ int mean(int e, int j)
    {
        return j / 64 * (kTile * 128) + e * 128 + ((j % 64 / 8 ^ e % 8) * 16) + j % 8 * 2;
    }
    static __device__ __forceinline__ int var(int e, int g) { return e * 32 + (g / 8 ^ e / 4 % 2) * 16 + g % 8 * 2; }
    static __device__ __forceinline__ int bias(int e) { return kMeans + kVars + e * 4; }
};
/* Images that hold the entries of blocks 0 .. n_blk - 1. */
__host__ __device__ __forceinline__ int tiles_for(int n_blk)
{
    return (n_blk + kSingles + kTile - 1) / kTile;
}

template <class T> __device__ __forceinline__ float2 widen2(uint32_t x)
{
    return widen((const T *)&x);
}

/* c[16 x 8] += a[16 x 16] b[16 x 8], by one warp. */
#define PRISM_WARP_MMA(TYPE)                                                                                           \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                 "{%0,%1,%2,%3};"                                                                                      \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <class T> __device__ __forceinline__ void warp_mma(float (&c)[4], const uint32_t *a, uint32_t b0, uint32_t b1)
{
    if constexpr (std::is_same<T, __half>::value)
        PRISM_WARP_MMA("f16");
    else
        PRISM_WARP_MMA("bf16");
}

/* Tokens token[0] and token[1] (negative: none, zeros) as rows g and g + 8 of fragments of 16-dimension steps. */
template <int D, class T>
__device__ __forceinline__ void load_rows(uint32_t (&q)[D / 4], const prism_cu_view &t, int seq, int head,
                                          const int (&token)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const T *data = (const T *)t.data + head * t.stride_head + (token[h] >= 0 ? token_offset(t, seq, token[h]) : 0);
        const uint32_t *from = (const uint32_t *)data + threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
#pragma unroll
            for (int x = 0; x < 2; x++)
                q[4 * j + 2 * x + h] = token[h] >= 0 ? __ldg(from + 8 * j + 4 * x) : 0;
    }
}

/* A query block of a call: tokens of the call that lie in it, as offsets from the block's first position. */
struct QueryBlock {
    int own, first, begin, end; /* first: token at offset 0, negative where the call starts inside the block */
    __device__ __forceinline__ QueryBlock(const Lengths &n, int u)
    {
        own = n.q_start / kBlockKeys + u, first = own * kBlockKeys - n.q_start;
        begin = max(0, -first), end = n.n_q > 0 ? min(kBlockKeys, n.n_q - first) : 0;
    }
    __device__ __forceinline__ bool exists() const { return begin < end; }
    /* Offset of asking token i of 32, or -1: the last position of every four, or the call's last. */
    __device__ __forceinline__ int asking(int i) const
    {
        int at = min(4 * i + 3, end - 1);
        return at >= begin && 4 * i <= at ? at : -1;
    }
    __device__ __forceinline__ int n_asking() const { return (end + 3) / 4 - begin / 4; }
};

} // namespace prism

/* The instance of FUNCTION for a call's dimension and type. */
#define PRISM_MOMENTS_SWITCH(a, FUNCTION, stream)                                                                      \
    do {                                                                                                               \
        const prism_cu_shape &s = (a)->shape;                                                                          \
        if ((a)->block_size != prism::kBlockKeys)                                                                      \
            return cudaErrorNotSupported;                                                                              \
        if (s.d_head == 128 && s.dtype == PRISM_CU_BF16)                                                               \
            return prism::FUNCTION<128, __nv_bfloat16>(*(a), stream);                                                  \
        if (s.d_head == 128 && s.dtype == PRISM_CU_F16)                                                                \
            return prism::FUNCTION<128, __half>(*(a), stream);                                                         \
        if (s.d_head == 64 && s.dtype == PRISM_CU_BF16)                                                                \
            return prism::FUNCTION<64, __nv_bfloat16>(*(a), stream);                                                   \
        if (s.d_head == 64 && s.dtype == PRISM_CU_F16)                                                                 \
            return prism::FUNCTION<64, __half>(*(a), stream);                                                          \
        return cudaErrorNotSupported;                                                                                  \
    } while (0)

#endif
