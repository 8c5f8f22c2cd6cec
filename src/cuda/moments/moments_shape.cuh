/*
 * Moments of key blocks as the tensor cores read them (docs/moments.md has the formulas): images of 64 entries of one
 * KV head, ready to be copied to shared memory in one piece.
 *
 *   [64 entries][d]   key means      rows of 128 bytes in column groups of 64, swizzled over 128 bytes
 *   [64 entries][16]  key variances  of groups of 8 dimensions; rows of 32 bytes, swizzled over 32 bytes
 *   [64 entries]      log2 of counts, relative to whole blocks; f32
 *   [64 entries][d]   value means    as the key means
 *
 * Behind the images of a KV head: for each j what rows whose block is 2^j to 2^(j+1) - 1 read of covariances,
 *
 *   [d][d]            scale * covariance   rows are dimensions of keys, columns of values; laid out as value means
 *   [d]               mean query; f32
 *
 * f16 but for the counts and queries. Entries 0 .. 15 are single tokens of block 0, entry 16 is the rest of block 0,
 * entry 16 + b is block b. Moments that are not finite in f16 are stored as zeros with a count that is not a number,
 * covariances as zeros.
 *
 * Four neighbouring lanes share a row of a fragment, and each holds two neighbours of every eight columns. Dimensions
 * are stored in such an order that what a lane holds are eight neighbouring dimensions of every 32, which is 16 bytes
 * of a query or of a result and one group.
 */
#ifndef PRISM_CUDA_MOMENTS_SHAPE_CUH
#define PRISM_CUDA_MOMENTS_SHAPE_CUH

#include "core/block_moments_constants.h"
#include "cuda/device.cuh"
#include "cuda/ptx.cuh"
#include "cuda/shape.cuh"
#include "cuda/takes.h"

namespace prism
{

constexpr int kTile = 64, kBlockKeys = 128, kSingles = PRISM_MOMENT_SINGLE, kGroups = 16;
static_assert(PRISM_MOMENT_GROUP == 8 && PRISM_MOMENT_STEP == 4, "what lanes share and hold is laid out for these");
constexpr float kLog2e = 1.44269504f, kLow = -1e30f;

template <int D> struct MomentsImage {
    static_assert(D == 64 || D == 128, "at most kGroups groups of 8 dimensions, column groups of 64");
    static constexpr int kMeans = kTile * D * 2, kVars = kTile * kGroups * 2;
    static constexpr int kScored = kMeans + kVars + kTile * 4; /* what logits are made of */
    static constexpr int kValues = (kScored + 1023) / 1024 * 1024, kBytes = kValues + kMeans;
    /* Column of a dimension. */
    static __device__ __forceinline__ int place(int dim)
    {
        return dim / 32 * 32 + dim / 2 % 4 * 8 + dim / 8 % 4 * 2 + dim % 2;
    }
    /* Byte of (entry, dimension) in the means, of (entry, group) in the variances, of a count. */
    static __device__ __forceinline__ int mean(int e, int dim)
    {
        int j = place(dim);
        return j / 64 * (kTile * 128) + e * 128 + ((j % 64 / 8 ^ e % 8) * 16) + j % 8 * 2;
    }
    static __device__ __forceinline__ int var(int e, int group)
    {
        int g = group / 8 * 8 + group % 4 * 2 + group / 4 % 2;
        return e * 32 + (g / 8 ^ e / 4 % 2) * 16 + g % 8 * 2;
    }
    static __device__ __forceinline__ int bias(int e) { return kMeans + kVars + e * 4; }
    /* Covariances: the same of (dimension of keys, of values); of the mean query; all bytes. */
    static constexpr int kQuery = D * D * 2, kSlope = kQuery + D * 4;
    static __device__ __forceinline__ int slope(int key, int value)
    {
        return place(key) / kTile * kMeans + mean(place(key) % kTile, value);
    }
    static_assert(kSlope <= kBytes && kSlope % 16 == 0, "it takes the place of an image of entries");
};
/* Images that hold the entries of blocks 0 .. n_blk - 1. */
constexpr __host__ __device__ __forceinline__ int tiles_for(int n_blk)
{
    return (n_blk + kSingles + kTile - 1) / kTile;
}
/* Slot of a block's covariance, as prism_moment_slot(); slots of so many blocks. */
constexpr __host__ __device__ __forceinline__ int slot_of(int block)
{
    int slot = 0;
    for (; block > 0; block /= 2)
        slot++;
    return slot;
}
constexpr __host__ __device__ __forceinline__ int slots_for(int n_blk)
{
    return n_blk > 0 ? slot_of(n_blk - 1) + 1 : 0;
}
template <int D> constexpr __host__ __device__ __forceinline__ int64_t head_bytes(int n_blk)
{
    return (int64_t)tiles_for(n_blk) * MomentsImage<D>::kBytes + slots_for(n_blk) * MomentsImage<D>::kSlope;
}
/* Images of a KV head; its covariances for j = 0. */
template <int D> __device__ __forceinline__ char *image_of(const prism_cu_moments &p, int seq, int kv_head)
{
    return (char *)p.moments_image + ((int64_t)seq * p.shape.n_kv_head + kv_head) * head_bytes<D>(p.shape.n_kblk);
}
template <int D> __device__ __forceinline__ char *slopes_of(const prism_cu_moments &p, int seq, int kv_head)
{
    return image_of<D>(p, seq, kv_head) + (int64_t)tiles_for(p.shape.n_kblk) * MomentsImage<D>::kBytes;
}
/* Slot 0 of a KV head; the next slot is n_kv_head times as many floats behind it as a slot has. */
template <int D> __device__ __forceinline__ float *covariance_of(const prism_cu_moments &p, int seq, int kv_head)
{
    return p.covariance + ((int64_t)seq * slots_for((int)p.n_block_seq) * p.shape.n_kv_head + kv_head) * (D * (D + 1));
}

template <class T> __device__ __forceinline__ float2 widen2(uint32_t x)
{
    return widen((const T *)&x);
}

/* What a lane holds of two rows of queries: 8 dimensions of every 32. Rows `token` of a head; negative: zeros. */
template <int D> struct Rows {
    uint32_t word[2][D / 32][4];

    template <class T>
    __device__ __forceinline__ void load(const prism_cu_view &t, int seq, int head, const int (&token)[2])
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const T *from = (const T *)t.data + head * t.stride_head + threadIdx.x % 4 * 8 +
                            (token[h] >= 0 ? token_offset(t, seq, token[h]) : 0);
#pragma unroll
            for (int i = 0; i < D / 32; i++) {
                uint32_t(&w)[4] = word[h][i];
                w[0] = w[1] = w[2] = w[3] = 0;
                if (token[h] >= 0) /* issued here, however late it is used */
                    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                                 : "l"(from + 32 * i));
            }
        }
    }
    /* As fragments of left factors, 16 columns each. */
    __device__ __forceinline__ void fragments(uint32_t (&q)[D / 4]) const
    {
#pragma unroll
        for (int j = 0; j < D / 4; j++)
            q[j] = word[j % 2][j / 8][j / 2 % 4];
    }
};

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

/* cudaErrorNotSupported where the kernel does not take the call. */
static inline cudaError_t take_moments(const prism_cu_moments *a, prism_cu_kernel kernel)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    prism_cu_ask ask = {};
    ask.capability = gpu->capability, ask.dtypes = 1u << a->shape.dtype, ask.block_size = a->block_size;
    ask.scale = a->scale;
    prism_cu_ask_tensors(&ask, &a->shape, &a->q, &a->k, &a->v, &a->o);
    return prism_cu_takes(kernel, &ask) ? cudaSuccess : cudaErrorNotSupported;
}

} // namespace prism

/* Launches the instance of FUNCTION for a call's dimension and type. */
#define PRISM_MOMENTS_SWITCH(a, KERNEL, FUNCTION, stream)                                                              \
    do {                                                                                                               \
        const prism_cu_shape &s = (a)->shape;                                                                          \
        const bool bf16 = s.dtype == PRISM_CU_BF16;                                                                    \
        cudaError_t e = prism::take_moments(a, KERNEL);                                                                \
        if (e)                                                                                                         \
            return e;                                                                                                  \
        if (s.d_head == 128)                                                                                           \
            return bf16 ? prism::FUNCTION<128, __nv_bfloat16>(*(a), stream)                                            \
                        : prism::FUNCTION<128, __half>(*(a), stream);                                                  \
        return bf16 ? prism::FUNCTION<64, __nv_bfloat16>(*(a), stream) : prism::FUNCTION<64, __half>(*(a), stream);    \
    } while (0)

#endif
