/*
 * The warps that look at a row's first tile of V before the consumers get it. Rows of that tile that a query must not
 * see have weight 0, and 0 * NaN is NaN: what is not finite is cleared, and the consumers add it where it is seen.
 */
#ifndef PRISM_CUDA_ATTEND_SM90_GUARD_CUH
#define PRISM_CUDA_ATTEND_SM90_GUARD_CUH

#include "cuda/attend/attend_sm90_layout.cuh"

namespace prism
{

template <int D, int B, class T> struct Guard {
    static constexpr int kThreads = 64, kBarrier = 1, kBatch = 4;
    using L = Layout<D, B>;
    const Params &p;
    char *base;
    uint32_t smem;
    int thread;

    __device__ __forceinline__ bool all_finite(uint32_t tile)
    {
        static_assert(B * D / 8 % (kThreads * kBatch) == 0, "whole batches");
        bool fine = true;
        for (int i = thread; i < B * D / 8; i += kThreads * kBatch) {
            uint4 x[kBatch];
#pragma unroll
            for (int j = 0; j < kBatch; j++)
                x[j] = lds128(tile + (i + j * kThreads) * 16);
#pragma unroll
            for (int j = 0; j < kBatch; j++)
                fine &= !nonfinite8<T>(x[j]);
        }
        return fine;
    }
    /* Returns whether keys that exist were cleared. */
    __device__ __forceinline__ bool clear(uint32_t tile, int n_key)
    {
        bool bad = false;
        for (int i = thread; i < B * D / 8; i += kThreads) {
            uint4 x = lds128(tile + i * 16);
            if (!nonfinite8<T>(x))
                continue;
            sts128(tile + i * 16, finite8<T>(x));
            bad |= i / 8 % B < n_key;
        }
        fence_async_proxy();
        return bad;
    }

    /* The initial state will be wanted when the row is done: bring it as far as L2. */
    __device__ __forceinline__ void fetch_init(const RowInfo &row)
    {
        const T *o = (const T *)p.j.a.init_o + row.o;
        for (int i = thread; i < B * (D / 64); i += kThreads) {
            int r = i / (D / 64);
            if (r >= row.lo && r < row.hi)
                prefetch_l2(o + r * p.j.a.o.stride_token + i % (D / 64) * 64);
        }
    }

    __device__ __forceinline__ void run()
    {
        Ring<2> q;
        int slot = 0; /* of the row's first V tile */
        for (;;) {
            mbar_wait(smem + L::kFullQ + 8 * q.slot, q.phase);
            RowInfo &row = ((RowInfo *)(base + L::kInfo))[q.slot];
            int n_tile = row.n_tile;
            if (n_tile == 0)
                return;
            if (p.j.a.init_o && row.lead)
                fetch_init(row);
            mbar_wait(smem + L::kFirstV + 8 * q.slot, q.phase);
            uint32_t tile = smem + L::kV + slot * L::kTile;
            bool bad = false;
            if ((row.diagonal || row.n_key_tile < B) && !all_finite(tile))
                bad = clear(tile, row.n_key_tile);
            bad = bar_any(kBarrier, kThreads, bad);
            if (thread == 0) {
                row.bad = bad;
                mbar_arrive(smem + L::kFullV + 8 * slot);
            }
            slot = (slot + n_tile) % L::kStage;
            q.next();
        }
    }
};

} // namespace prism
#endif
