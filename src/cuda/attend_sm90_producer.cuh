/* The warp that fetches: walks the plan, copies Q, K and V tiles to shared memory. */
#ifndef PRISM_CUDA_ATTEND_SM90_PRODUCER_CUH
#define PRISM_CUDA_ATTEND_SM90_PRODUCER_CUH

#include "cuda/attend_sm90_layout.cuh"

namespace prism
{

struct Keys {
    int seq, head, n_kv; /* where a tile is read */
};

template <int D> struct Producer {
    using L = Layout<D>;
    const Params &p;
    const CUtensorMap *map_q, *map_k, *map_v;
    uint32_t smem;
    int lane;
    Ring<L::kStage> k, v;

    /* One K or V tile: one copy, or one for each page and column group, dealt to the lanes. */
    __device__ __forceinline__ void tile(uint32_t dst, uint32_t bar, const CUtensorMap *map, const prism_cu_view &t,
                                         Keys w, int block)
    {
        int token = block * kBlock;
        if (lane == 0)
            mbar_arrive_expect(bar, L::kTile);
        __syncwarp();
        if (!t.page_table) {
            if (lane == 0)
                tma_load(dst, map, bar, 0, t.row_start ? token + t.row_start[w.seq] : token, 0, w.head,
                         t.row_start ? 0 : w.seq);
            return;
        }
        const int32_t *table = t.page_table + w.seq * t.stride_table;
        int n_page = (w.n_kv + t.page_size - 1) / t.page_size, per = kBlock / p.box, n = per * (D / 64);
        for (int i = lane; i < (p.box == kBlock ? 1 : n); i += 32) {
            int at = token + i % per * p.box, page = at / t.page_size, group = i / per;
            page = page < n_page ? table[page] : table[n_page - 1]; /* past the end: any page, its keys are masked */
            tma_load(dst + group * (kBlock * 128) + i % per * p.box * 128, map, bar, 0, at % t.page_size, group, w.head,
                     page);
        }
    }

    __device__ __forceinline__ void load_k(Keys w, int block)
    {
        mbar_wait(smem + L::kEmptyK + 8 * k.slot, k.phase ^ 1);
        tile(smem + L::kK + k.slot * L::kTile, smem + L::kFullK + 8 * k.slot, map_k, p.a.k, w, block);
        k.next();
    }
    __device__ __forceinline__ void load_v(Keys w, int block)
    {
        mbar_wait(smem + L::kEmptyV + 8 * v.slot, v.phase ^ 1);
        tile(smem + L::kV + v.slot * L::kTile, smem + L::kFullV + 8 * v.slot, map_v, p.a.v, w, block);
        v.next();
    }
    __device__ __forceinline__ void load_q(const Row &w, int block0, Ring<2> &q, char *base)
    {
        mbar_wait(smem + L::kEmptyQ + 8 * q.slot, q.phase ^ 1);
        if (lane == 0) {
            const prism_cu_view &t = p.a.q;
            int at = first_token(w);
            RowInfo info;
            info.n_tile = w.n_tile;
            info.diagonal = block0 == w.block;
            info.n_key_tile = min(kBlock, w.n_kv - block0 * kBlock);
            info.lo = max(0, -at);
            info.hi = min(kBlock, w.n_q - at);
            info.o = o_offset(p.a, w);
            info.lse = lse_offset(p.a, w);
            *(RowInfo *)(base + L::kInfo + q.slot * sizeof(RowInfo)) = info;
            uint32_t bar = smem + L::kFullQ + 8 * q.slot;
            mbar_arrive_expect(bar, L::kTile);
            tma_load(smem + L::kQ + q.slot * L::kTile, map_q, bar, 0, t.row_start ? at + t.row_start[w.seq] : at, 0,
                     w.head, t.row_start ? 0 : w.seq);
        }
        q.next();
    }

    __device__ __forceinline__ int take()
    {
        int t = 0;
        if (lane == 0)
            t = atomicAdd(p.a.ticket, 1);
        return __shfl_sync(~0u, t, 0);
    }

    /* Order of the copies: Q K0 | K1 V0 | K2 V1 | ... | Q' K'0 V_last | ..., the order in which they are used. The next
     * row and the start of its list are looked up while this one's tiles are in flight. */
    __device__ __forceinline__ void run(char *base)
    {
        Ring<2> q;
        Row w = {};
        Keys keys = {}, old = {}; /* of this row; of the tile whose V is still to be fetched */
        int ticket = take(), v_block = -1;
        bool more = ticket < p.n_item;
        if (more)
            w = row_of(p.a, ticket);
        int index = listed(p.a, w, lane);
        while (more) {
            Row next = {};
            int next_index = 0;
            keys = {w.seq, w.head / (p.a.shape.n_head / p.a.shape.n_kv_head), w.n_kv};
            int look = min(2, w.n_tile); /* tiles in flight before the next row is looked up */
            for (int i = 0; i < w.n_tile || i == look; i++) {
                if (i == look) {
                    ticket = take();
                    more = ticket < p.n_item;
                    if (more)
                        next = row_of(p.a, ticket);
                    next_index = listed(p.a, next, lane);
                    if (i == w.n_tile)
                        break;
                }
                if (i && i % 32 == 0)
                    index = listed(p.a, w, i + lane);
                int block = __shfl_sync(~0u, index, i % 32);
                if (i == 0)
                    load_q(w, block, q, base);
                load_k(keys, block);
                if (v_block >= 0)
                    load_v(old, v_block);
                v_block = block;
                old = keys;
            }
            w = next;
            index = next_index;
        }
        if (v_block >= 0)
            load_v(old, v_block);
        mbar_wait(smem + L::kEmptyQ + 8 * q.slot, q.phase ^ 1);
        if (lane == 0) {
            ((RowInfo *)(base + L::kInfo))[q.slot].n_tile = 0;
            mbar_arrive(smem + L::kFullQ + 8 * q.slot);
            __threadfence();
            if (atomicAdd(p.a.ticket + 1, 1) == (int)gridDim.x - 1) { /* the last one leaves the counters as found */
                p.a.ticket[0] = 0;
                p.a.ticket[1] = 0;
            }
        }
    }
};

} // namespace prism
#endif
