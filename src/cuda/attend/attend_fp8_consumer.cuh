/* The warpgroups that compute, in 8 bits: scores, softmax, values; O and log-sum-exp out. */
#ifndef PRISM_CUDA_ATTEND_FP8_CONSUMER_CUH
#define PRISM_CUDA_ATTEND_FP8_CONSUMER_CUH

#include "cuda/attend/attend_fp8_layout.cuh"
#include "cuda/attend/attend_sm90_finish.cuh"

namespace prism
{

/*
 * log2 of the largest weight, 448, and how far below it weights start: the room for maxima that are not moved. Weights
 * below 2^-9 vanish, 2^-15.8 of the row's largest or less.
 */
constexpr float kTopLog2 = 8.8f, kSlack8 = 2, kWeight8 = kTopLog2 - kSlack8;
/*
 * Tensor cores keep some 14 bits of the largest number that they add: products lose bits beside a large O. It moves to
 * a sum in f32 after so many tiles; where all products are alike that leaves 1.2 % missing.
 */
constexpr int kSumTiles = 8;
/* Values this far below the row's largest are counted in the row's sum only; exp2 of it must stay a number. */
constexpr float kFarBelow = -60;

template <int D, class T> struct Consumer8 {
    using L = Layout8<D>;
    const Params8 &p;
    char *base;
    uint32_t smem;
    int group, warp, lane; /* warpgroup, warp in it, lane */
    Ring<2> q;
    Ring<L::kStage> ring;
    /* Each thread holds two rows of the tiles, quad and quad + 8 of its warp's 16; accumulators are in wgmma's order.
     * O is in units of 2^value_exp, what has been moved out of it must be multiplied by behind; maxima are in units of
     * log2, weights are 2^(score - maximum + kWeight8). */
    float o[D / 2], m[2], l[2], scale[2], behind[2], value_exp;
    /* Of the tile at hand: factor of its scores, shift of its weights' exponent, and what undoes it in the sum. */
    float factor[2], below, back;
    uint32_t bad;
    bool moved;

    __device__ __forceinline__ const Slot8 &row() const { return ((const Slot8 *)(base + L::kSlot))[q.slot]; }
    __device__ __forceinline__ uint32_t sum() const { return smem + L::kSum + (group * 4 + warp) * L::kWarpSum; }

    __device__ __forceinline__ bool next_row(int ahead)
    {
        int slot = q.slot ^ ahead, phase = ahead && q.slot ? q.phase ^ 1 : q.phase;
        mbar_wait(smem + L::kFullQ + 8 * slot, phase);
        return ((const Slot8 *)(base + L::kSlot))[slot].info.n_tile != 0;
    }

    __device__ __forceinline__ void scores(float (&s)[64], int slot)
    {
        uint64_t a = wgmma_desc8<D>(smem + L::kQ + slot * L::kTile + group * 64 * D);
        uint64_t b = wgmma_desc8<D>(smem + L::kK + ring.slot * L::kTile);
#pragma unroll
        for (int i = 0; i < D / 32; i++)
            wgmma_ss_e4m3(s, a + 2 * i, b + 2 * i, i != 0);
        wgmma_commit();
    }
    __device__ __forceinline__ void values(const uint32_t (&w)[16])
    {
        uint64_t b = wgmma_desc8<128>(smem + L::kV + ring.slot * L::kTile);
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma_rs_e4m3(o, w + 4 * i, b + 2 * i, 1);
        wgmma_commit();
    }
    __device__ __forceinline__ void wait_stage()
    {
        mbar_wait(smem + L::kFull + 8 * ring.slot, ring.phase);
    }
    __device__ __forceinline__ void release_stage()
    {
        release(lane, smem + L::kEmpty + 8 * ring.slot);
        ring.next();
    }

    __device__ __forceinline__ void mask(float (&s)[64])
    {
        int r = group * 64 + warp * 16 + lane / 4, c = lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < 64; j++)
            if (j / 4 * 8 + c + j % 2 > r + j / 2 % 2 * 8)
                s[j] = -INFINITY;
    }
    /* Looks at the scales of the tile whose scores are there. alpha: what O must be multiplied by for its values. */
    __device__ __forceinline__ void open_tile(float (&alpha)[2])
    {
        uint4 x = lds128(smem + L::kScale + ring.slot * sizeof(BlockScale));
        float key = __uint_as_float(x.x), exponent = __uint_as_float(x.y), top = fmaxf(value_exp, exponent);
        alpha[0] = alpha[1] = exp2_fast(value_exp - top);
        factor[0] = scale[0] * key, factor[1] = scale[1] * key;
        below = fmaxf(exponent - top, kFarBelow), back = exp2_fast(-below);
        value_exp = top;
        bad |= x.z;
    }
    /* Scores become weights, in units of what this block's values are; m and l move on; alpha is multiplied by what O
     * must be multiplied by. */
    __device__ __forceinline__ void softmax(const float (&s)[64], uint32_t (&w)[16], float (&alpha)[2])
    {
        float mc[2], sum[2][2] = {};
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float part[4] = {s[2 * h], s[2 * h + 1], s[2 * h + 4], s[2 * h + 5]}; /* four chains at a time */
#pragma unroll
            for (int j = 2; j < 16; j += 2)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    part[i] = max_nan(part[i], s[4 * (j + i / 2) + 2 * h + i % 2]);
            float a = max_nan(max_nan(part[0], part[1]), max_nan(part[2], part[3]));
            a = max_nan(a, __shfl_xor_sync(~0u, a, 1));
            a = max_nan(a, __shfl_xor_sync(~0u, a, 2)) * factor[h];
            /* Keep the old maximum while the weights stay within 448. */
            a = a - m[h] <= kSlack8 ? m[h] : a;
            float zero = a == -INFINITY ? 0 : a; /* nothing seen yet */
            float moved_by = exp2_fast(m[h] - zero);
            m[h] = a;
            alpha[h] *= moved_by;
            l[h] *= moved_by;
            mc[h] = kWeight8 + below - zero;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) { /* keys 16i .. 16i + 15, see value_key() */
            float x[8];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                int h = j / 2 % 2;
                x[j] = exp2_fast(fmaf(s[8 * i + j], factor[h], mc[h]));
                sum[h][j % 2] += x[j];
            }
            w[2 * i] = pack_e4m3(x[0], x[1], x[4], x[5]);
            w[2 * i + 1] = pack_e4m3(x[2], x[3], x[6], x[7]);
        }
        l[0] += (sum[0][0] + sum[0][1]) * back, l[1] += (sum[1][0] + sum[1][1]) * back;
    }
    __device__ __forceinline__ void rescale(const float (&alpha)[2])
    {
        if (__any_sync(~0u, alpha[0] != 1.f || alpha[1] != 1.f)) {
            behind[0] *= alpha[0], behind[1] *= alpha[1];
#pragma unroll
            for (int j = 0; j < D / 2; j++)
                o[j] *= alpha[j / 2 % 2];
        }
    }
    __device__ __forceinline__ void reset()
    {
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] = 0;
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0;
        behind[0] = behind[1] = 1;
        value_exp = kNoValue, bad = 0, moved = false;
        int r = group * 64 + warp * 16 + lane / 4;
        scale[0] = row().scale[r], scale[1] = row().scale[r + 8];
    }

    /* O plus the part that was moved to shared memory. */
    __device__ __forceinline__ void add_moved()
    {
        if (!moved)
            return;
#pragma unroll
        for (int j = 0; j < D / 2; j += 4) {
            uint4 x = lds128(sum() + j / 4 * 512 + lane * 16);
            o[j] = fmaf(__uint_as_float(x.x), behind[0], o[j]);
            o[j + 1] = fmaf(__uint_as_float(x.y), behind[0], o[j + 1]);
            o[j + 2] = fmaf(__uint_as_float(x.z), behind[1], o[j + 2]);
            o[j + 3] = fmaf(__uint_as_float(x.w), behind[1], o[j + 3]);
        }
    }
    __device__ __forceinline__ void move_out()
    {
        add_moved();
#pragma unroll
        for (int j = 0; j < D / 2; j += 4) {
            sts128(sum() + j / 4 * 512 + lane * 16, make_uint4(__float_as_uint(o[j]), __float_as_uint(o[j + 1]),
                                                               __float_as_uint(o[j + 2]), __float_as_uint(o[j + 3])));
            o[j] = o[j + 1] = o[j + 2] = o[j + 3] = 0;
        }
        behind[0] = behind[1] = 1, moved = true;
    }

    /* Values that are not finite, from where they were before they became 8 bits. */
    __device__ __forceinline__ void add_bad(const Slot8 &slot, int r)
    {
        const RowInfo &w = slot.info;
        int64_t first = image_tile(p.j.a.shape, w.seq, w.kv_head, 0);
        for (int i = 0; i < w.n_tile; i++) {
            int block = listed(p.j, slot.w, i);
            if (p.image.scale[first + block].bad)
                add_nonfinite<D, T>(o, p.j.a.v, w.seq, w.kv_head, block * kBlock8, i == 0 && w.diagonal ? r : kBlock8,
                                    min(kBlock8, slot.w.n_kv - block * kBlock8));
        }
    }
    __device__ __forceinline__ void finish()
    {
        const Slot8 &slot = row();
        const RowInfo w = slot.info; /* a copy: one trip to shared memory */
        int r0 = group * 64 + warp * 16;
        add_moved();
        Finish<D, kBlock8, T> rows = {p.j, w, r0, lane};
        const float max_log2[2] = {m[0] - kWeight8, m[1] - kWeight8};
        rows.normalise(o, max_log2, l, exp2_fast(value_exp));
        if (bad)
            add_bad(slot, r0 + lane / 4);
        if (w.slot >= 0)
            rows.write_part(o);
        else
            rows.template write<16 * 128>(o, sum());
        __syncwarp();
        release(lane, smem + L::kEmptyQ + 8 * q.slot);
        q.next();
    }

    __device__ __forceinline__ void run()
    {
        float s[64], alpha[2];
        uint32_t w[16], next[16];
        if (!next_row(0))
            return;
        reset();
        wait_stage();
        wgmma_fence();
        scores(s, q.slot);
        wgmma_wait<0>();
        wgmma_hold(s);
        open_tile(alpha);
        release_stage();
        if (row().info.diagonal)
            mask(s);
        softmax(s, w, alpha);
        for (;;) {
            int n_tile = row().info.n_tile;
            for (int i = 1; i < n_tile; i++) {
                wait_stage();
                wgmma_fence();
                scores(s, q.slot);
                values(w);
                wgmma_wait<1>();
                wgmma_hold(s);
                open_tile(alpha);
                softmax(s, next, alpha);
                wgmma_hold(next);
                /* Completed long ago, but a loop that the compiler cannot move the wait for the products across. */
                wait_stage();
                wgmma_wait<0>();
                wgmma_hold(o);
                wgmma_hold(w);
                release_stage();
                rescale(alpha);
                if ((i + group * (kSumTiles / 2)) % kSumTiles == 0)
                    move_out();
#pragma unroll
                for (int j = 0; j < 16; j++)
                    asm volatile("mov.b32 %0, %1;" : "=r"(w[j]) : "r"(next[j]));
            }
            /* The last values of this row, with the first scores of the next. */
            if (!next_row(1))
                break;
            wait_stage();
            wgmma_fence();
            scores(s, q.slot ^ 1);
            values(w);
            wgmma_wait<0>();
            wgmma_hold(s);
            wgmma_hold(o);
            wgmma_hold(w);
            finish();
            reset();
            open_tile(alpha);
            release_stage();
            if (row().info.diagonal)
                mask(s);
            softmax(s, w, alpha);
        }
        wait_stage();
        wgmma_fence();
        values(w);
        wgmma_wait<0>();
        wgmma_hold(o);
        wgmma_hold(w);
        finish();
    }
};

} // namespace prism
#endif
