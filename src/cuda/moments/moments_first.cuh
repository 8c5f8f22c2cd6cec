/* What making moments and laying out their images share: weights of tokens, and the ranks of block 0's. */
#ifndef PRISM_CUDA_MOMENTS_FIRST_CUH
#define PRISM_CUDA_MOMENTS_FIRST_CUH

#include "cuda/bitmap.cuh"
#include "cuda/moments/moments_shape.cuh"

namespace prism
{

__device__ __forceinline__ float warp_add(float x)
{
    for (int m = 1; m < 32; m *= 2)
        x += __shfl_xor_sync(kAll, x, m);
    return x;
}

/* By one warp: exponents of a block's tokens become weights of sum 1, 0 for its single tokens (place below kSingles;
 * NULL: none); n are left. Returns the logarithm of how many keys the weighted means stand for. */
__device__ __forceinline__ float tilt(float *t, const int *place, int n)
{
    constexpr int kEach = kBlockKeys / 32;
    float x[kEach], sum = 0, square = 0, lean = 0;
    bool counts[kEach];
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        int at = 32 * i + threadIdx.x % 32;
        counts[i] = !place || place[at] >= kSingles;
        x[i] = counts[i] ? t[at] : 0;
        sum += x[i];
    }
    float mean = warp_add(sum) / n;
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        x[i] -= mean;
        square += counts[i] ? x[i] * x[i] : 0;
    }
    float deviation = sqrtf(warp_add(square) / n),
          factor = deviation > PRISM_MOMENT_TILT ? PRISM_MOMENT_TILT / deviation : 1;
    float w[kEach];
    sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; i++) { /* no maximum to subtract: with that deviation none of n exceeds 0.8 sqrt(n) */
        x[i] *= factor;
        w[i] = counts[i] ? expf(x[i]) : 0;
        sum += w[i];
        lean += counts[i] ? w[i] * x[i] : 0;
    }
    sum = warp_add(sum), lean = warp_add(lean);
#pragma unroll
    for (int i = 0; i < kEach; i++)
        t[32 * i + threadIdx.x % 32] = w[i] / sum;
    return logf(sum) - lean / sum;
}

/* Block 0 of one head in shared memory, by all threads of a CTA, D or more. */
template <int D, class T> struct FirstBlock {
    __align__(16) T token[kBlockKeys][D + 8];
    float mean[D], far[kBlockKeys];
    int place[kBlockKeys], single[kSingles]; /* rank of a token, the farthest from the mean first; token of a rank */

    __device__ __forceinline__ void fetch(const prism_cu_view &t, int seq, int head)
    {
        for (int i = threadIdx.x; i < kBlockKeys * (D / 8); i += blockDim.x)
            *(uint4 *)&token[i / (D / 8)][i % (D / 8) * 8] =
                !t.data ? make_uint4(0, 0, 0, 0)
                        : __ldg((const uint4 *)((const T *)t.data + head * t.stride_head + i % (D / 8) * 8 +
                                                token_offset(t, seq, i / (D / 8))));
        __syncthreads();
    }
    /* Keys, and how far each lies from their mean. */
    __device__ __forceinline__ void rank(const prism_cu_moments &p, int seq, int head)
    {
        int j = threadIdx.x;
        fetch(p.k, seq, head);
        if (j < D) {
            float sum = 0;
            for (int i = 0; i < kBlockKeys; i++)
                sum += (float)token[i][j];
            mean[j] = sum / kBlockKeys;
        }
        __syncthreads();
        for (int i = j; i < kBlockKeys; i += blockDim.x) {
            float d2 = 0;
            for (int k = 0; k < D; k++) {
                float d = (float)token[i][k] - mean[k];
                d2 = fmaf(d, d, d2);
            }
            far[i] = finite(d2) ? d2 : INFINITY;
        }
        __syncthreads();
        for (int i = j; i < kBlockKeys; i += blockDim.x) {
            int before = 0;
            for (int k = 0; k < kBlockKeys; k++)
                before += far[k] > far[i] || (far[k] == far[i] && k < i);
            place[i] = before;
            if (before < kSingles)
                single[before] = i;
        }
        __syncthreads();
    }
};

} // namespace prism
#endif
