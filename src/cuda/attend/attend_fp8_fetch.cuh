/* The warps that bring tiles to shared memory: K and V from the images as they are, queries turned into 8 bits. */
#ifndef PRISM_CUDA_ATTEND_FP8_FETCH_CUH
#define PRISM_CUDA_ATTEND_FP8_FETCH_CUH

#include "cuda/attend/attend_fp8_layout.cuh"

namespace prism
{

template <int D> struct Producer8 {
    using L = Layout8<D>;
    const Params8 &p;
    uint32_t smem;
    int lane;
    Ring<L::kStage> ring;

    /* Keys of one tile, -1 for none, and values of another. */
    __device__ __forceinline__ void load(int64_t key, int64_t value)
    {
        uint32_t bar = smem + L::kFull + 8 * ring.slot;
        mbar_wait(smem + L::kEmpty + 8 * ring.slot, ring.phase ^ 1);
        if (lane == 0) {
            mbar_arrive_expect(bar, (key >= 0 ? L::kTile + sizeof(BlockScale) : 0) + (value >= 0 ? L::kTile : 0));
            if (key >= 0) {
                bulk_copy(smem + L::kK + ring.slot * L::kTile, p.image.key + key * L::kTile, L::kTile, bar);
                bulk_copy(smem + L::kScale + ring.slot * sizeof(BlockScale), p.image.scale + key, sizeof(BlockScale),
                          bar);
            }
            if (value >= 0)
                bulk_copy(smem + L::kV + ring.slot * L::kTile, p.image.value + value * L::kTile, L::kTile, bar);
        }
        ring.next();
    }

    /* Order of the copies: K0 | K1 V0 | K2 V1 | ... | K'0 V_last | ..., the order in which they are used. */
    __device__ __forceinline__ void run(char *base)
    {
        constexpr int kAhead = 16; /* tiles still to be fetched when the scout looks for the next row */
        Ring<2> q;                 /* of found rows */
        int64_t old = -1;          /* the tile whose V is still to be fetched */
        for (;; q.next()) {
            mbar_wait(smem + L::kFullRow + 8 * q.slot, q.phase);
            const Found &f = ((const Found *)(base + L::kFound))[q.slot];
            int n_tile = f.info.n_tile, index = f.index[lane];
            if (n_tile == 0)
                break;
            int64_t first = image_tile(p.j.a.shape, f.info.seq, f.info.kv_head, 0);
            for (int i = 0; i < n_tile; i++) {
                if (i && i % 32 == 0)
                    index = listed(p.j, f.w, i + lane);
                int64_t tile = first + __shfl_sync(~0u, index, i % 32);
                if (i == max(0, n_tile - kAhead) && lane == 0)
                    mbar_arrive(smem + L::kNextRow);
                load(tile, old);
                old = tile;
            }
        }
        if (old >= 0)
            load(-1, old);
    }
};

/* Two warps. */
template <int D, class T> struct Queries8 {
    using L = Layout8<D>;
    static constexpr int kChunk = D / 8, kRows = 32 / kChunk, kBatch = 8; /* pieces a row, rows a load, loads at once */
    const Params8 &p;
    char *base;
    uint32_t smem;
    int warp, lane;

    /* Rows r, r + kRows, ... of the tile; lanes of a row hold a piece of it each. The rows that a warp loads at once
     * share a scale. */
    __device__ __forceinline__ void batch(const Found &f, Slot8 &slot, char *tile, const T *q, int64_t stride, int r)
    {
        int c = lane % kChunk;
        uint4 x[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            int at = r + i * kRows;
            x[i] = make_uint4(0, 0, 0, 0);
            if (at >= f.info.lo && at < f.info.hi)
                x[i] = __ldg((const uint4 *)(q + at * stride) + c);
        }
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            int at = r + i * kRows;
            uint32_t most = __reduce_max_sync(~0u, largest8(x[i]));
            if (most >= infinity_bits<T>()) {
                most = __reduce_max_sync(~0u, largest8(finite8<T>(x[i])));
                x[i] = nan8<T>(x[i]);
            }
            int e = scale_exponent<T>(most);
            *(uint2 *)(tile + swizzled8<D>(at, c * 8)) = to_e4m3<T>(x[i], power_of_two(-e));
            if (c == 0)
                slot.scale[at] = p.j.scale_log2 * power_of_two(e);
        }
    }

    /* Brings a row's queries, or its initial state, as far as L2. */
    __device__ __forceinline__ void prefetch(const RowInfo &row, const T *from, int64_t stride)
    {
        for (int i = warp * 32 + lane; i < kBlock8 * (D / 64); i += L::kQueryThreads) {
            int r = i / (D / 64);
            if (r >= row.lo && r < row.hi)
                prefetch_l2(from + r * stride + i % (D / 64) * 64);
        }
    }

    __device__ __forceinline__ void run()
    {
        const prism_cu_view &t = p.j.a.q;
        for (Ring<2> q;; q.next()) {
            mbar_wait(smem + L::kFullRow + 8 * q.slot, q.phase);
            const Found &f = ((const Found *)(base + L::kFound))[q.slot];
            Slot8 &slot = ((Slot8 *)(base + L::kSlot))[q.slot];
            int n_tile = f.info.n_tile;
            const T *from = nullptr;
            if (n_tile) {
                from = (const T *)t.data + f.w.head * t.stride_head + first_token(p.j, f.w) * t.stride_token +
                       (t.row_start ? t.row_start[f.w.seq] * t.stride_token : f.w.seq * t.stride_seq);
                prefetch(f.info, from, t.stride_token);
            }
            mbar_wait(smem + L::kEmptyQ + 8 * q.slot, q.phase ^ 1);
            if (warp == 0 && lane == 0)
                slot.info = f.info, slot.w = f.w;
            if (n_tile) {
                for (int r = warp * kRows * kBatch; r < kBlock8; r += 2 * kRows * kBatch)
                    batch(f, slot, base + L::kQ + q.slot * L::kTile, from, t.stride_token, r + lane / kChunk);
                if (p.j.a.init_o && f.info.lead) /* will be wanted when the row is done */
                    prefetch(f.info, (const T *)p.j.a.init_o + f.info.o, p.j.a.o.stride_token);
                fence_async_proxy();
                mbar_arrive(smem + L::kNextRow); /* what was found may be forgotten */
            }
            mbar_arrive(smem + L::kFullQ + 8 * q.slot);
            if (n_tile == 0)
                return;
        }
    }
};

} // namespace prism
#endif
