/*
 * The warp that goes ahead: takes the next row from the counter and looks up its place and the start of its list, while
 * the producer is busy with the row before. Writes the rows that list nothing.
 */
#ifndef PRISM_CUDA_ATTEND_SM90_SCOUT_CUH
#define PRISM_CUDA_ATTEND_SM90_SCOUT_CUH

#include "cuda/attend/attend_sm90_layout.cuh"

namespace prism
{

template <class L, class T> struct Scout {
    static constexpr int B = L::kB;
    const Job &j;
    char *base;
    uint32_t smem;
    int lane;

    /* The next row with tiles; n_tile 0 if there is none. */
    __device__ __forceinline__ Row find(bool dense)
    {
        for (;;) {
            int ticket = 0;
            if (lane == 0)
                ticket = atomicAdd(j.a.ticket, 1);
            ticket = __shfl_sync(~0u, ticket, 0);
            if (ticket >= j.n_item)
                return {};
            Row w = row_of(j, dense, ticket);
            if (w.n_tile > 0)
                return w;
            if (w.n_tile == 0)
                write_empty<T>(j, w, lane, 32);
        }
    }

    __device__ __forceinline__ RowInfo info_of(const Row &w, int first)
    {
        int at = first_token(j, w);
        RowInfo info;
        info.n_tile = w.n_tile;
        info.diagonal = first == w.tile;
        info.n_key_tile = min(B, w.n_kv - first * B);
        info.lo = max(0, -at);
        info.hi = min(B, w.n_q - at);
        info.slot = w.slot, info.lead = w.lead;
        info.seq = w.seq, info.kv_head = w.head / (j.a.shape.n_head / j.a.shape.n_kv_head), info.key = first * B;
        info.o = o_offset(j, w);
        info.lse = lse_offset(j, w);
        info.bad = 0;
        return info;
    }

    __device__ __forceinline__ void run()
    {
        bool dense = is_dense(j.a), more = true;
        for (Ring<2> r; more; r.next()) {
            /* A phase each row: the first is free, later ones when the producer nears the end of the row before. */
            Found &f = ((Found *)(base + L::kFound))[r.slot];
            mbar_wait(smem + L::kNextRow, r.slot ^ 1);
            Row w = find(dense);
            more = w.n_tile > 0;
            if (more) {
                int index = listed(j, w, lane), first = __shfl_sync(~0u, index, 0);
                f.index[lane] = index;
                if (lane == 0)
                    f.info = info_of(w, first), f.w = w;
            } else if (lane == 0) {
                f.info.n_tile = 0;
            }
            mbar_arrive(smem + L::kFullRow + 8 * r.slot); /* every lane for what it wrote */
        }
        if (lane == 0) {
            int32_t *ticket = j.a.ticket;
            __threadfence();
            if (atomicAdd(ticket + 1, 1) == (int)gridDim.x - 1) { /* the last one leaves the counters as found */
                ticket[0] = 0;
                ticket[1] = 0;
            }
        }
    }
};

} // namespace prism
#endif
