/*
 * Attention over the listed blocks with products of 8 bits (e4m3), for sm_90a.
 *
 *   Q [128][d] -> e4m3 in smem, once per row      K, V: images (fp8.cuh) -> smem rings, once per listed tile
 *   S = Q K^T -> P = 2^(S - m) as e4m3 -> O += P V -> O / l -> smem -> global
 *
 * Built as attend_sm90.cu, whose scout and results it shares. A weight's unit is its block's: the difference of the
 * exponents of V's scales goes into the exponent of P.
 */
#include "cuda/attend/attend_fp8_consumer.cuh"
#include "cuda/attend/attend_fp8_fetch.cuh"
#include "cuda/attend/attend_sm90_scout.cuh"

namespace prism
{

template <int D, class T>
__global__ void __launch_bounds__(Layout8<D>::kThreads, 1) attend8(const __grid_constant__ Params8 p)
{
    using L = Layout8<D>;
    extern __shared__ __align__(1024) char base[];
    uint32_t smem = smem_addr(base);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbar_init(smem + L::kFullRow + 8 * i, 32);
            mbar_init(smem + L::kFullQ + 8 * i, L::kQueryThreads);
            mbar_init(smem + L::kEmptyQ + 8 * i, 4 * L::kConsumers);
        }
        for (int i = 0; i < L::kStage; i++) {
            mbar_init(smem + L::kFull + 8 * i, 1);
            mbar_init(smem + L::kEmpty + 8 * i, 4 * L::kConsumers);
        }
        mbar_init(smem + L::kNextRow, 1 + L::kQueryThreads);
        mbar_init_fence();
    }
    __syncthreads();
    if (group == 0) {
        regs_shrink<L::kOtherRegs>();
        int lane = threadIdx.x % 32;
        if (warp == 0) {
            Producer8<D> producer = {p, smem, lane};
            producer.run(base);
        } else if (warp == 1) {
            Scout<L, T> scout = {p.j, base, smem, lane};
            scout.run();
        } else {
            Queries8<D, T> queries = {p, base, smem, warp - 2, lane};
            queries.run();
        }
    } else {
        regs_grow<L::kRegs>();
        Consumer8<D, T> consumer = {p, base, smem, group - 1, warp, (int)threadIdx.x % 32};
        consumer.run();
    }
}

template <int D, class T> static cudaError_t launch8(const prism_cu_attend *a, cudaStream_t stream)
{
    using L = Layout8<D>;
    Params8 p;
    p.image = image8(a->fp8_image, a->shape);
    cudaError_t e = make_job(&p.j, a, kBlock8, kBlock8);
    if (e || p.j.n_item == 0)
        return e;
    e = launch_items(attend8<D, T>, p.j.n_item, 1, L::kThreads, L::kBytes, stream, p);
    return e ? e : merge_parts(p.j, stream);
}

} // namespace prism

extern "C" cudaError_t prism_attend_fp8(const prism_cu_attend *a, cudaStream_t stream)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism::gpu_for(a, PRISM_CU_ATTEND_FP8, &gpu);
    if (e)
        return e;
    if (a->shape.dtype == PRISM_CU_BF16)
        return a->shape.d_head == 128 ? prism::launch8<128, __nv_bfloat16>(a, stream)
                                      : prism::launch8<64, __nv_bfloat16>(a, stream);
    return a->shape.d_head == 128 ? prism::launch8<128, __half>(a, stream) : prism::launch8<64, __half>(a, stream);
}
