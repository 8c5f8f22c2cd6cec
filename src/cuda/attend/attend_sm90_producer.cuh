/* The warp that fetches: copies Q, K and V tiles of the rows that the scout finds to shared memory. */
#ifndef PRISM_CUDA_ATTEND_SM90_PRODUCER_CUH
#define PRISM_CUDA_ATTEND_SM90_PRODUCER_CUH

#include "cuda/attend/attend_sm90_layout.cuh"

namespace prism
{

struct Keys {
    int seq, head, n_kv; /* where a tile is read */
};

template <int D, int B> struct Producer {
    using L = Layout<D, B>;
    const Params &p;
    const CUtensorMap *map_q, *map_k, *map_v;
    uint32_t smem;
    int lane;
    Ring<L::kStage> k, v;

    /* One K or V tile: one copy, or one for each page and column group, dealt to the lanes. */
    __device__ __forceinline__ void tile(uint32_t dst, uint32_t bar, const CUtensorMap *map, const prism_cu_view &t,
                                         Keys w, int index)
    {
        int token = index * B;
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
        int n_page = (w.n_kv + t.page_size - 1) / t.page_size, per = B / p.box, n = per * (D / 64);
        for (int i = lane; i < (p.box == B ? 1 : n); i += 32) {
            int at = token + i % per * p.box, page = at / t.page_size, group = i / per;
            page = page < n_page ? table[page] : table[n_page - 1]; /* past the end: any page, its keys are masked */
            tma_load(dst + group * L::kGroup + i % per * p.box * 128, map, bar, 0, at % t.page_size, group, w.head,
                     page);
        }
    }

    __device__ __forceinline__ void load_k(Keys w, int index)
    {
        mbar_wait(smem + L::kEmptyK + 8 * k.slot, k.phase ^ 1);
        tile(smem + L::kK + k.slot * L::kTile, smem + L::kFullK + 8 * k.slot, map_k, p.j.a.k, w, index);
        k.next();
    }
    /* The first V tile of a row goes by way of the guard. */
    __device__ __forceinline__ void load_v(Keys w, int index, int first)
    {
        mbar_wait(smem + L::kEmptyV + 8 * v.slot, v.phase ^ 1);
        tile(smem + L::kV + v.slot * L::kTile, smem + (first < 0 ? L::kFullV + 8 * v.slot : L::kFirstV + 8 * first),
             map_v, p.j.a.v, w, index);
        v.next();
    }
    __device__ __forceinline__ void load_q(const Found &f, const Ring<2> &q, char *base)
    {
        mbar_wait(smem + L::kEmptyQ + 8 * q.slot, q.phase ^ 1);
        if (lane == 0) {
            ((RowInfo *)(base + L::kInfo))[q.slot] = f.info;
            const prism_cu_view &t = p.j.a.q;
            int at = first_token(p.j, f.w);
            uint32_t bar = smem + L::kFullQ + 8 * q.slot;
            mbar_arrive_expect(bar, L::kTile);
            tma_load(smem + L::kQ + q.slot * L::kTile, map_q, bar, 0, t.row_start ? at + t.row_start[f.w.seq] : at, 0,
                     f.w.head, t.row_start ? 0 : f.w.seq);
        }
    }

    /* Order of the copies: Q K0 | K1 V0 | K2 V1 | ... | Q' K'0 V_last | ..., the order in which they are used. */
    __device__ __forceinline__ void run(char *base)
    {
        constexpr int kAhead = 4;     /* tiles still to be fetched when the scout looks for the next row */
        Ring<2> q;                    /* of Q slots, and of found rows */
        Keys keys = {}, old = {};     /* of this row; of the tile whose V is still to be fetched */
        int v_tile = -1, v_first = 0; /* that tile; the Q slot of its row if it is the first, else -1 */
        for (;;) {
            mbar_wait(smem + L::kFullRow + 8 * q.slot, q.phase);
            const Found &f = ((const Found *)(base + L::kFound))[q.slot];
            int n_tile = f.info.n_tile, index = f.index[lane];
            if (n_tile == 0)
                break;
            keys = {f.info.seq, f.info.kv_head, f.w.n_kv};
            for (int i = 0; i < n_tile; i++) {
                if (i == max(0, n_tile - kAhead) && lane == 0)
                    mbar_arrive(smem + L::kNextRow);
                if (i && i % 32 == 0)
                    index = listed(p.j, f.w, i + lane);
                int at = __shfl_sync(~0u, index, i % 32);
                if (i == 0)
                    load_q(f, q, base);
                load_k(keys, at);
                if (v_tile >= 0)
                    load_v(old, v_tile, v_first);
                v_tile = at, v_first = i == 0 ? q.slot : -1;
                old = keys;
            }
            q.next();
        }
        if (v_tile >= 0)
            load_v(old, v_tile, v_first);
        mbar_wait(smem + L::kEmptyQ + 8 * q.slot, q.phase ^ 1);
        if (lane == 0) {
            ((RowInfo *)(base + L::kInfo))[q.slot].n_tile = 0;
            mbar_arrive(smem + L::kFullQ + 8 * q.slot);
        }
    }
};

} // namespace prism
#endif
