/* The end of a row: a warp's 16 rows of O, in the order of wgmma's accumulators, normalised and written. */
#ifndef PRISM_CUDA_ATTEND_SM90_FINISH_CUH
#define PRISM_CUDA_ATTEND_SM90_FINISH_CUH

#include "cuda/attend/attend_sm90_layout.cuh"

namespace prism
{

template <int D, int B, class T> struct Finish {
    const Job &j;
    const RowInfo &w;
    int r0, lane; /* first of the 16 rows */

    /* Divides by the sum of the weights, adds the initial state; log-sum-exp out. Each lane holds rows lane / 4 and 8
     * more. max_log2: what the weights of l were divided by; unit: what O must be multiplied by to fit l. */
    __device__ __forceinline__ void normalise(float (&o)[D / 2], const float (&max_log2)[2], float (&l)[2], float unit)
    {
        const prism_cu_attend &a = j.a;
        bool init = a.init_lse && w.lead;
        float *lse = w.slot >= 0 ? j.part_lse + (int64_t)w.slot * B : a.lse ? a.lse + w.lse : nullptr;
        int64_t stride = w.slot >= 0 ? 1 : a.lse_stride_token;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            quad_add(l[h]);
            int r = r0 + lane / 4 + 8 * h;
            bool there = r >= w.lo && r < w.hi;
            Blend b = blend(max_log2[h], l[h], init && there ? a.init_lse[w.lse + r * a.lse_stride_token] : -INFINITY);
            if (lse && there && lane % 4 == 0)
                lse[r * stride] = b.lse;
            b.own *= unit;
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                o[4 * i + 2 * h] *= b.own, o[4 * i + 2 * h + 1] *= b.own;
            if (b.init != 0) {
                const T *o0 = (const T *)a.init_o + w.o + r * a.o.stride_token + lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < D / 8; i++) {
                    float2 x = widen(o0 + 8 * i);
                    o[4 * i + 2 * h] += b.init * x.x, o[4 * i + 2 * h + 1] += b.init * x.y;
                }
            }
        }
    }
    __device__ __forceinline__ void write_part(const float (&o)[D / 2])
    {
        float *out = j.part_o + ((int64_t)w.slot * B + r0 + lane / 4) * D + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < D / 8; i++) { /* also rows without a query, which are never written */
            *(float2 *)(out + 8 * i) = make_float2(o[4 * i], o[4 * i + 1]);
            *(float2 *)(out + 8 * D + 8 * i) = make_float2(o[4 * i + 2], o[4 * i + 3]);
        }
    }
    /* By way of shared memory, so that whole rows go out: 16 rows of 128 bytes at tile, the next 64 columns kGroup
     * bytes further. */
    template <int kGroup> __device__ __forceinline__ void write(const float (&o)[D / 2], uint32_t tile)
    {
        int sr = lane % 16;
#pragma unroll
        for (int i = 0; i < D / 8; i += 2) {
            int c = i + lane / 16;
            stmatrix4(tile + c / 8 * kGroup + sr * 128 + ((c ^ sr) % 8) * 16, pack2<T>(o[4 * i], o[4 * i + 1]),
                      pack2<T>(o[4 * i + 2], o[4 * i + 3]), pack2<T>(o[4 * i + 4], o[4 * i + 5]),
                      pack2<T>(o[4 * i + 6], o[4 * i + 7]));
        }
        __syncwarp();
        constexpr int kChunk = D / 8, kRows = 32 / kChunk;
        T *out = (T *)j.a.o.data + w.o;
#pragma unroll
        for (int i = 0; i < 16; i += kRows) {
            int r = i + lane / kChunk, c = lane % kChunk;
            uint4 x = lds128(tile + c / 8 * kGroup + r * 128 + ((c ^ r) % 8) * 16);
            if (r0 + r >= w.lo && r0 + r < w.hi)
                *(uint4 *)(out + (r0 + r) * j.a.o.stride_token + c * 8) = x;
        }
        fence_async_proxy();
    }
};

} // namespace prism
#endif
