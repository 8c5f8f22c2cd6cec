/* What making moments and laying out their images share: the ranks of block 0's tokens. */
#ifndef PRISM_CUDA_MOMENTS_FIRST_CUH
#define PRISM_CUDA_MOMENTS_FIRST_CUH

#include "cuda/bitmap.cuh"
#include "cuda/moments/moments_shape.cuh"

namespace prism
{

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
