/*
 * Logits of 64 query means against images of 64 key means (split.cuh), in registers. Products are exact to about 2^-21:
 * the product of the low parts is dropped.
 */
#ifndef PRISM_CUDA_SELECT_IMAGE_CUH
#define PRISM_CUDA_SELECT_IMAGE_CUH

#include "cuda/ptx.cuh"
#include "cuda/select/split.cuh"

namespace prism
{

/* Chunks that each band touches, filled up to a size that `products` comes in. */
struct Chunks {
    int n[2], at[2][16];
};

/* Query means of one band: high parts as fragments in registers, low parts in shared memory as a left factor is read:
 * [chunk][places 0-7, 8-15][64 rows][8 f16]. Dimensions outside the band are zero. A thread holds two rows. */
template <int C> struct Queries {
    static constexpr int kLow = C * 2 * kPart; /* bytes of a warpgroup */
    uint32_t high[C][4], low;                  /* low: shared memory, of the warpgroup */

    /* from: the means of the two rows, or NULL. */
    __device__ __forceinline__ void load(const uint32_t *const (&from)[2], const uint32_t (&band)[8], const int *chunk,
                                         int n_chunk, uint32_t sign)
    {
        uint32_t to = low + (threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4) * 16 + threadIdx.x % 4 * 4;
#pragma unroll
        for (int c = 0; c < C; c++) {
            int j = chunk[c] * 16 + threadIdx.x % 4 * 4;
            bool more = c < n_chunk && (c == 0 || chunk[c] != chunk[0]); /* else it fills up */
            uint32_t in = more ? band[j / 32] >> j % 32 : 0;
            uint32_t m01 = (in & 1 ? 0xffff : 0) | (in & 2 ? 0xffff0000 : 0),
                     m23 = (in & 4 ? 0xffff : 0) | (in & 8 ? 0xffff0000 : 0);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint4 v = from[h] ? __ldg((const uint4 *)(from[h] + j)) : make_uint4(0, 0, 0, 0);
                high[c][h] = (v.x ^ sign) & m01, high[c][2 + h] = (v.y ^ sign) & m23;
                sts32(to + c * 2 * kPart + h * 128, (v.z ^ sign) & m01);
                sts32(to + c * 2 * kPart + kPart + h * 128, (v.w ^ sign) & m23);
            }
        }
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        fence_async_proxy();
#endif
    }
};

/* acc (+)= queries, chunks c0 .. c0 + N - 1, times an image's first N chunks. */
template <int N, int C>
__device__ __forceinline__ void products(float (&acc)[32], const Queries<C> &q, int c0, uint32_t image)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    /* no swizzle: groups of 8 rows 128 bytes apart, halves of 8 dimensions kPart */
    const uint64_t layout = (uint64_t)(kPart >> 4) << 16 | (uint64_t)(128 >> 4) << 32;
    uint64_t keys = layout | uniform(image) >> 4, lows = layout | uniform(q.low) >> 4;
    wgmma_hold(acc);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < N; c++) {
        uint64_t high = desc_behind(keys, c * kChunk);
        wgmma_ss<__half>::go(acc, desc_behind(lows, (c0 + c) * 2 * kPart), high, c0 + c > 0);
        wgmma_tile(acc, q.high[c0 + c], desc_behind(keys, c * kChunk + kKeyLow), 1);
        wgmma_tile(acc, q.high[c0 + c], high, 1);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(acc);
#else
    if (c0 == 0)
        for (int i = 0; i < 32; i++)
            acc[i] = 0;
    int lane = threadIdx.x % 32;
    image += lane / 8 * kPart + lane % 8 * 16;
    uint32_t lows = q.low + lane / 16 * kPart + (threadIdx.x % 128 / 32 * 16 + lane % 16) * 16;
#pragma unroll
    for (int c = 0; c < N; c++) {
        uint32_t low[4];
        ldmatrix4(low, lows + (c0 + c) * 2 * kPart);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t k[4]; /* high, high, low, low */
            ldmatrix4(k, image + c * kChunk + j * 128);
            warp_mma<__half>(acc + 4 * j, low, k[0], k[1]);
            warp_mma<__half>(acc + 4 * j, q.high[c0 + c], k[2], k[3]);
            warp_mma<__half>(acc + 4 * j, q.high[c0 + c], k[0], k[1]);
        }
    }
#endif
}

/*
 * Images of one band in a ring of S slots, over and over: in steps of G of up to C chunks. All threads of the CTA walk
 * through them together.
 */
template <int C, int G, int S> struct KeyImages {
    static constexpr int kSlot = G * kChunk + kKeys * 4;
    uint32_t ring, full; /* shared memory: S * kSlot bytes; S barriers */
    uint32_t phase;      /* bit of a slot: of its barrier */
    const char *image;
    int bytes, scales, n_image; /* of an image */
    const int *chunk;
    int n_chunk, slot, next, group; /* next, group: image and group of chunks that is copied next */

    __device__ __forceinline__ void init(const prism_cu_select &p, int head_of_all, int n, const void *smem,
                                         const uint64_t *bars)
    {
        image = (const char *)p.key_image + key_images_before(p.shape, head_of_all);
        ring = smem_addr(smem), full = smem_addr(bars), phase = 0;
        bytes = key_image_bytes(p.shape.d_head), scales = key_scales(p.shape.d_head), n_image = n;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        if (threadIdx.x == 0) {
            for (int i = 0; i < S; i++)
                mbar_init(full + 8 * i, 1);
            mbar_init_fence();
        }
        __syncthreads();
#endif
    }
    /* The next step's chunks and scales, copied to a slot that no thread reads. */
    __device__ __forceinline__ void copy(int to)
    {
        uint32_t dst = ring + to * kSlot;
        const char *from = image + (int64_t)next * bytes;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        if (threadIdx.x == 0) {
            uint32_t bar = full + 8 * to;
            int n = min(n_chunk, G), run;
            mbar_arrive_expect(bar, n * kChunk + kKeys * 4);
            bulk_copy(dst + G * kChunk, from + scales, kKeys * 4, bar);
            for (int c = 0; c < n; c += run) { /* neighbours in one piece */
                int at = chunk[group * G + c];
                for (run = 1; c + run < n && chunk[group * G + c + run] == at + run; run++)
                    ;
                bulk_copy(dst + c * kChunk, from + at * kChunk, run * kChunk, bar);
            }
        }
#else
#pragma unroll
        for (int c = 0; c < G; c++)
            for (int i = threadIdx.x * 16; i < kChunk && c < n_chunk; i += blockDim.x * 16)
                cp_async16(dst + c * kChunk + i, from + chunk[group * G + c] * kChunk + i);
        if (threadIdx.x < kKeys / 4)
            cp_async16(dst + G * kChunk + threadIdx.x * 16, from + scales + threadIdx.x * 16);
        cp_async_commit();
#endif
        if (C > G && (group + 1) * G < n_chunk) {
            group++;
        } else {
            group = 0;
            next = next + 1 == n_image ? 0 : next + 1;
        }
    }
    __device__ __forceinline__ void advance()
    {
        slot = slot + 1 == S ? 0 : slot + 1;
    }
    __device__ __forceinline__ void start(const Chunks &chunks, int band)
    {
        chunk = chunks.at[band], n_chunk = chunks.n[band];
        slot = S - 1, next = group = 0;
        for (int i = 0; i < S - 1; i++)
            copy(i);
    }
    __device__ __forceinline__ void wait() /* for what is in the slot */
    {
        mbar_wait(full + 8 * slot, phase >> slot & 1);
        phase ^= 1u << slot;
    }
    /* The next step's chunks, when they are there; those of the step before are given up. */
    __device__ __forceinline__ uint32_t step()
    {
        int free = slot;
        advance();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        __syncthreads();
        copy(free);
        wait();
#else
        cp_async_wait<S - 2>();
        __syncthreads();
        copy(free);
#endif
        return ring + slot * kSlot;
    }
    /* Nothing is in use or on its way any more. */
    __device__ __forceinline__ void stop()
    {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        for (int i = 0; i < S - 1; i++) {
            advance();
            wait();
        }
#else
        cp_async_wait<0>();
#endif
        __syncthreads();
    }
};

} // namespace prism
#endif
