/* The warpgroups that compute: scores, softmax, values; O and log-sum-exp out. */
#ifndef PRISM_CUDA_ATTEND_SM90_CONSUMER_CUH
#define PRISM_CUDA_ATTEND_SM90_CONSUMER_CUH

#include "cuda/attend/attend_sm90_finish.cuh"

namespace prism
{

constexpr float kSlack = 8; /* log2 of the largest weight */

template <int D, int B, class T> struct Consumer {
    using L = Layout<D, B>;
    const Params &p;
    char *base;
    uint32_t smem;
    int group, warp, lane; /* warpgroup, warp in it, lane */
    Ring<2> q;
    Ring<L::kStage> k, v;
    /* Each thread holds two rows of the tiles, quad and quad + 8 of its warp's 16; accumulators are in wgmma's order.
     */
    float s[B / 2], o[D / 2], m[2], l[2];
    uint32_t pr[B / 4];

    __device__ __forceinline__ const RowInfo &row() const { return ((const RowInfo *)(base + L::kInfo))[q.slot]; }

    __device__ __forceinline__ bool next_row(int ahead)
    {
        int slot = q.slot ^ ahead, phase = ahead && q.slot ? q.phase ^ 1 : q.phase;
        mbar_wait(smem + L::kFullQ + 8 * slot, phase);
        return ((RowInfo *)(base + L::kInfo))[slot].n_tile != 0;
    }

    __device__ __forceinline__ void scores(int slot)
    {
        uint64_t a = wgmma_desc(smem + L::kQ + slot * L::kTile + group * 64 * 128, 16);
        uint64_t b = wgmma_desc(smem + L::kK + k.slot * L::kTile, 16);
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint64_t at = (i / 4 * L::kGroup + i % 4 * 32) >> 4;
            wgmma_ss<T>::go(s, a + at, b + at, i != 0);
        }
        wgmma_commit();
    }
    __device__ __forceinline__ void values()
    {
        constexpr int kWide = D < 128 ? D : 128; /* columns of one product */
        static_assert(D % kWide == 0, "products of kWide columns cover O without reaching past it");
        uint64_t b = wgmma_desc(smem + L::kV + v.slot * L::kTile, L::kGroup);
#pragma unroll
        for (int i = 0; i < B / 16; i++)
#pragma unroll
            for (int c = 0; c < D; c += kWide)
                wgmma_rs<T>::go(*(float(*)[kWide / 2])(o + c / 2), pr + 4 * i,
                                b + ((c / 64 * L::kGroup + i * 16 * 128) >> 4), 1);
        wgmma_commit();
    }
    __device__ __forceinline__ void release_k()
    {
        release(lane, smem + L::kEmptyK + 8 * k.slot);
        k.next();
    }
    __device__ __forceinline__ void release_v()
    {
        release(lane, smem + L::kEmptyV + 8 * v.slot);
        v.next();
    }

    __device__ __forceinline__ void mask()
    {
        int r = group * 64 + warp * 16 + lane / 4, c = lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < B / 2; j++)
            if (j / 4 * 8 + c + j % 2 > r + j / 2 % 2 * 8)
                s[j] = -INFINITY;
    }
    /* s becomes the weights; m and l move on; alpha is what O must be multiplied by. */
    __device__ __forceinline__ void softmax(float (&alpha)[2])
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float a = s[2 * h], b = s[2 * h + 1];
#pragma unroll
            for (int j = 1; j < B / 8; j++) {
                a = fmaxf(a, s[4 * j + 2 * h]);
                b = fmaxf(b, s[4 * j + 2 * h + 1]);
            }
            a = fmaxf(a, b);
            quad_max(a);
            /* Keep the old maximum while the weights stay below 2^kSlack: P, l and O only have to agree on one, and O
             * is multiplied seldom. */
            a = a - m[h] <= kSlack / p.j.scale_log2 ? m[h] : a;
            float zero = a == -INFINITY ? 0 : a; /* keys that are not finite: all scores so far -inf */
            alpha[h] = exp2_fast((m[h] - zero) * p.j.scale_log2);
            m[h] = a;
            float mc = zero * p.j.scale_log2, sum0 = 0, sum1 = 0;
#pragma unroll
            for (int j = 0; j < B / 8; j++) {
                float &x = s[4 * j + 2 * h], &y = s[4 * j + 2 * h + 1];
                x = exp2_fast(fmaf(x, p.j.scale_log2, -mc));
                y = exp2_fast(fmaf(y, p.j.scale_log2, -mc));
                sum0 += x;
                sum1 += y;
            }
            l[h] = l[h] * alpha[h] + (sum0 + sum1);
        }
    }
    __device__ __forceinline__ void rescale(const float (&alpha)[2])
    {
        if (__any_sync(~0u, alpha[0] != 1.f || alpha[1] != 1.f))
#pragma unroll
            for (int j = 0; j < D / 2; j++)
                o[j] *= alpha[j / 2 % 2];
    }
    __device__ __forceinline__ void weights()
    {
#pragma unroll
        for (int j = 0; j < B / 4; j++)
            pr[j] = pack2<T>(s[2 * j], s[2 * j + 1]);
    }
    __device__ __forceinline__ void reset()
    {
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] = 0;
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0;
    }
    /* O goes through this warp's 16 rows of the Q tile, whose last product is done. */
    __device__ __forceinline__ void finish()
    {
        const RowInfo w = row(); /* a copy: one trip to shared memory */
        int r0 = group * 64 + warp * 16;
        if (w.bad)
            add_nonfinite<D, T>(o, p.j.a.v, w.seq, w.kv_head, w.key, w.diagonal ? r0 + lane / 4 : B, w.n_key_tile);
        Finish<D, B, T> rows = {p.j, w, r0, lane};
        const float max_log2[2] = {m[0] * p.j.scale_log2, m[1] * p.j.scale_log2};
        rows.normalise(o, max_log2, l, 1);
        if (w.slot >= 0)
            rows.write_part(o);
        else
            rows.template write<L::kGroup>(o, smem + L::kQ + q.slot * L::kTile + r0 * 128);
        __syncwarp();
        release(lane, smem + L::kEmptyQ + 8 * q.slot);
        q.next();
    }

    __device__ __forceinline__ void run()
    {
        float alpha[2];
        if (!next_row(0))
            return;
        reset();
        mbar_wait(smem + L::kFullK + 8 * k.slot, k.phase);
        wgmma_fence();
        scores(q.slot);
        wgmma_wait<0>();
        wgmma_hold(s);
        release_k();
        if (row().diagonal)
            mask();
        softmax(alpha);
        weights();
        for (;;) {
            int n_tile = row().n_tile;
            for (int i = 1; i < n_tile; i++) {
                mbar_wait(smem + L::kFullK + 8 * k.slot, k.phase);
                wgmma_fence();
                scores(q.slot);
                mbar_wait(smem + L::kFullV + 8 * v.slot, v.phase);
                wgmma_fence();
                values();
                wgmma_wait<1>();
                wgmma_hold(s);
                release_k();
                softmax(alpha);
                /* Completed long ago, but a loop that the compiler cannot move the wait for the products across. */
                mbar_wait(smem + L::kFullV + 8 * v.slot, v.phase);
                wgmma_wait<0>();
                wgmma_hold(o);
                release_v();
                rescale(alpha);
                weights();
            }
            /* The last values of this row, with the first scores of the next. */
            if (!next_row(1))
                break;
            mbar_wait(smem + L::kFullK + 8 * k.slot, k.phase);
            wgmma_fence();
            scores(q.slot ^ 1);
            mbar_wait(smem + L::kFullV + 8 * v.slot, v.phase);
            wgmma_fence();
            values();
            wgmma_wait<0>();
            wgmma_hold(s);
            wgmma_hold(o);
            release_v();
            finish();
            release_k();
            reset();
            if (row().diagonal)
                mask();
            softmax(alpha);
            weights();
        }
        mbar_wait(smem + L::kFullV + 8 * v.slot, v.phase);
        wgmma_fence();
        values();
        wgmma_wait<0>();
        wgmma_hold(o);
        release_v();
        finish();
    }
};

} // namespace prism
#endif
