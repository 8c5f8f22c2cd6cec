/*
 * Exact attention over the listed blocks, for sm_90a.
 *
 *   Q [B][d] -> smem, once per row      K, V [B][d] -> smem rings, once per listed tile
 *   S = Q K^T (registers) -> P = exp2(S c - m c) -> O += P V (registers) -> O / l -> smem -> global
 *
 * CTAs take rows (sequence, head, query tile) or parts of rows from a counter until none is left. One warp (scout)
 * looks up the next row. One warp (producer) fetches tiles by bulk tensor copies. Two warps (guard) look for values
 * that are not finite. Each warpgroup of consumers computes 64 query rows.
 *
 * B = 128: two warpgroups share every K and V tile, one CTA a multiprocessor. B = 64 (blocks of 64, and d = 256): one
 * warpgroup, two CTAs a multiprocessor where registers allow it.
 *
 * A warpgroup issues the scores of tile n + 1 together with the values of tile n. The softmax of one warpgroup hides
 * under the products of the other: they fall out of step by themselves (barriers that make them take turns cost 1 %).
 * The first scores of the next row are issued together with the last values of the old one, so that the tensor cores do
 * not idle between short rows.
 */
#include "cuda/attend/attend_sm90_consumer.cuh"
#include "cuda/attend/attend_sm90_guard.cuh"
#include "cuda/attend/attend_sm90_producer.cuh"
#include "cuda/attend/attend_sm90_scout.cuh"

namespace prism
{

template <int D, int B, class T>
__global__ void __launch_bounds__(Layout<D, B>::kThreads, Layout<D, B>::kPerSm)
    attend90(const __grid_constant__ Params p, const __grid_constant__ CUtensorMap map_q,
             const __grid_constant__ CUtensorMap map_k, const __grid_constant__ CUtensorMap map_v)
{
    using L = Layout<D, B>;
    extern __shared__ __align__(1024) char base[];
    uint32_t smem = smem_addr(base);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbar_init(smem + L::kFullRow + 8 * i, 32);
            mbar_init(smem + L::kFullQ + 8 * i, 1);
            mbar_init(smem + L::kFirstV + 8 * i, 1);
            mbar_init(smem + L::kEmptyQ + 8 * i, 4 * L::kConsumers);
        }
        for (int i = 0; i < L::kStage; i++) {
            mbar_init(smem + L::kFullK + 8 * i, 1);
            mbar_init(smem + L::kFullV + 8 * i, 1);
            mbar_init(smem + L::kEmptyK + 8 * i, 4 * L::kConsumers);
            mbar_init(smem + L::kEmptyV + 8 * i, 4 * L::kConsumers);
        }
        mbar_init(smem + L::kNextRow, 1);
        mbar_init_fence();
        tma_prefetch_map(&map_q);
        tma_prefetch_map(&map_k);
        tma_prefetch_map(&map_v);
    }
    __syncthreads();
    if (group == 0) {
        regs_shrink<40>();
        int lane = threadIdx.x % 32;
        if (warp == 0) {
            Producer<D, B> producer = {p, &map_q, &map_k, &map_v, smem, lane};
            producer.run(base);
        } else if (warp == 1) {
            Scout<L, T> scout = {p.j, base, smem, lane};
            scout.run();
        } else {
            Guard<D, B, T> guard = {p, base, smem, (int)threadIdx.x - 64};
            guard.run();
        }
    } else {
        regs_grow<L::kRegs>();
        Consumer<D, B, T> consumer = {p, base, smem, group - 1, warp, (int)threadIdx.x % 32};
        consumer.run();
    }
}

/* ------------------------------------------------------------------------------------------------ launch ---- */

typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Axes: 64 columns, token, column group, head, sequence or page. */
static bool encode(EncodeTiled f, CUtensorMap *map, const prism_cu_view &t, int dtype, int d, int n_head, int n_seq,
                   int box, int b)
{
    bool paged = t.page_table != nullptr, flat = t.row_start != nullptr;
    cuuint64_t one = 16, outer = paged ? t.stride_page : t.stride_seq;
    cuuint64_t dims[5] = {64, (cuuint64_t)(paged ? t.page_size : t.n_token), (cuuint64_t)d / 64, (cuuint64_t)n_head,
                          (cuuint64_t)(paged  ? t.n_page
                                       : flat ? 1
                                              : n_seq)};
    cuuint64_t strides[4] = {(cuuint64_t)t.stride_token * 2, 128, n_head == 1 ? one : t.stride_head * 2,
                             dims[4] == 1 ? one : outer * 2};
    cuuint32_t boxes[5] = {64, (cuuint32_t)box, box == b ? (cuuint32_t)d / 64 : 1, 1, 1}, step[5] = {1, 1, 1, 1, 1};
    if (dims[1] == 1 && strides[0] == 0)
        strides[0] = one;
    return f(map, dtype == PRISM_CU_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 5,
             t.data, dims, strides, boxes, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <int D, int B, class T> static cudaError_t launch(const prism_cu_attend *a, EncodeTiled f, cudaStream_t stream)
{
    using L = Layout<D, B>;
    const prism_cu_shape &s = a->shape;
    Params p;
    cudaError_t e = make_job(&p.j, a, B, B);
    if (e || p.j.n_item == 0)
        return e;
    p.box = a->k.page_table && a->k.page_size < B ? a->k.page_size : B;
    CUtensorMap q, k, v;
    if (!encode(f, &q, a->q, s.dtype, D, s.n_head, s.n_seq, B, B) ||
        !encode(f, &k, a->k, s.dtype, D, s.n_kv_head, s.n_seq, p.box, B) ||
        !encode(f, &v, a->v, s.dtype, D, s.n_kv_head, s.n_seq, p.box, B))
        return cudaErrorNotSupported;
    e = launch_items(attend90<D, B, T>, p.j.n_item, L::kPerSm, L::kThreads, L::kBytes, stream, p, q, k, v);
    return e ? e : merge_parts(p.j, stream);
}

template <class T> static cudaError_t launch_shape(const prism_cu_attend *a, EncodeTiled f, cudaStream_t stream)
{
    const bool wide = prism_cu_sm90_tile(a->shape.d_head, a->block_size) == 128;
    switch (a->shape.d_head) {
    case 64: return wide ? launch<64, 128, T>(a, f, stream) : launch<64, 64, T>(a, f, stream);
    case 128: return wide ? launch<128, 128, T>(a, f, stream) : launch<128, 64, T>(a, f, stream);
    case 256: return launch<256, 64, T>(a, f, stream);
    default: return cudaErrorNotSupported;
    }
}

} // namespace prism

extern "C" cudaError_t prism_attend_sm90(const prism_cu_attend *a, cudaStream_t stream)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism::gpu_for(a, PRISM_CU_ATTEND_SM90, &gpu);
    if (e)
        return e;
    prism::EncodeTiled encode = (prism::EncodeTiled)gpu->encode_tiled;
    if (!encode)
        return cudaErrorNotSupported;
    return a->shape.dtype == PRISM_CU_BF16 ? prism::launch_shape<__nv_bfloat16>(a, encode, stream)
                                           : prism::launch_shape<__half>(a, encode, stream);
}
