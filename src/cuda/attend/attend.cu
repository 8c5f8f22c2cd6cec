/*
 * Attention of a plan: which kernel takes a call, how rows are split where they are too few to fill the GPU, and the
 * merge of the parts.
 *
 *   part_o [query tile][part][q_tile][d], part_lse -> o = sum of o_i exp(lse_i - lse)
 *
 * How many parts a row has depends on host-known bounds and on the length of its list, never on timing: results are the
 * same every time.
 */
#include "cuda/attend/attend.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace prism
{

/* Work items that keep the last ones of unequal length from standing out; parts that a merge can hold weights of. */
constexpr int kItemsPerSm = 3, kMaxParts = 128;

/* Parts of a row, at most. Rows that fill nine tenths of the GPU's turns are left whole: a merge is not free. */
static cudaError_t max_parts(const prism_cu_shape &s, int block_size, int *n_part)
{
    int64_t n_row = (int64_t)s.n_seq * s.n_head * s.n_qblk, longest = (int64_t)s.n_kblk * block_size / kPartKeys;
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    const int n_sm = gpu->n_sm;
    int64_t turns = (n_row + n_sm - 1) / n_sm, n = 10 * n_row >= 9 * turns * n_sm ? 1 : kItemsPerSm * n_sm / n_row;
    n = n < longest ? n : longest;
    n = n < kMaxParts ? n : kMaxParts;
    *n_part = n > 1 ? (int)n : 1;
    return cudaSuccess;
}

static size_t parts_bytes(const prism_cu_shape &s, int block_size, int n_part)
{
    size_t n_query = (size_t)s.n_seq * s.n_head * s.n_qblk * block_size;
    return n_part == 1 ? 0 : n_query * n_part * (s.d_head + 1) * sizeof(float);
}

static prism_cu_ask ask_of(const prism_cu_attend *a, const prism_cu_gpu *gpu)
{
    prism_cu_ask ask = {};
    ask.capability = gpu->capability, ask.dtypes = 1u << a->shape.dtype, ask.block_size = a->block_size;
    ask.fp8 = a->fp8_image, ask.single_keys = a->key_ptr, ask.scale = a->scale;
    prism_cu_ask_tensors(&ask, &a->shape, &a->q, &a->k, &a->v, &a->o);
    ask.odd |= (uintptr_t)a->init_o % 16 != 0;
    return ask;
}

cudaError_t gpu_for(const prism_cu_attend *a, prism_cu_kernel kernel, const prism_cu_gpu **gpu)
{
    cudaError_t e = prism_cu_gpu_here(gpu);
    if (e)
        return e;
    prism_cu_ask ask = ask_of(a, *gpu);
    ask.fp8 = kernel == PRISM_CU_ATTEND_FP8;
    return prism_cu_takes(kernel, &ask) ? cudaSuccess : cudaErrorNotSupported;
}

cudaError_t make_job(Job *j, const prism_cu_attend *a, int q_tile, int k_tile)
{
    const prism_cu_shape &s = a->shape;
    *j = {*a, q_tile, k_tile, 1, 0, a->scale * kLog2e, nullptr, nullptr};
    if (a->scratch) {
        cudaError_t e = max_parts(s, a->block_size, &j->n_part);
        if (e)
            return e;
        if (a->scratch_bytes < parts_bytes(s, a->block_size, j->n_part))
            return cudaErrorInvalidValue;
        j->part_o = (float *)a->scratch;
        j->part_lse = j->part_o + (size_t)s.n_seq * s.n_head * s.n_qblk * a->block_size * j->n_part * s.d_head;
    }
    int64_t n_item = (int64_t)s.n_seq * s.n_head * s.n_qblk * (a->block_size / q_tile) * j->n_part;
    if (n_item > INT32_MAX)
        return cudaErrorInvalidValue;
    j->n_item = (int)n_item;
    return cudaSuccess;
}

constexpr int kMergeWarps = 8; /* queries of a CTA */

/* V: columns of one load. */
template <int V, class T> __global__ void __launch_bounds__(32 * kMergeWarps) merge(const __grid_constant__ Job j)
{
    __shared__ float weight[kMergeWarps][kMaxParts];
    const prism_cu_attend &a = j.a;
    int per = j.q_tile / kMergeWarps, warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = a.shape.d_head;
    Row w = row_of(j, is_dense(a), blockIdx.x / per * j.n_part);
    int r = blockIdx.x % per * kMergeWarps + warp, token = first_token(j, w) + r;
    if (w.slot < 0 || token < 0 || token >= w.n_q)
        return;
    const float *lse = j.part_lse + (int64_t)w.slot * j.q_tile + r;
    const float *o = j.part_o + ((int64_t)w.slot * j.q_tile + r) * d;
    float top = -INFINITY, sum = 0;
    for (int i = lane; i < w.n_part; i += 32)
        top = fmaxf(top, lse[i * j.q_tile]);
    for (int b = 16; b; b /= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, b));
    for (int i = lane; i < w.n_part; i += 32) {
        float x = lse[i * j.q_tile], y = expf(x - top);
        weight[warp][i] = x == -INFINITY ? -1 : y; /* nothing there: o is 0 / 0 */
        sum += x == -INFINITY ? 0 : y;
    }
    for (int b = 16; b; b /= 2)
        sum += __shfl_xor_sync(~0u, sum, b);
    __syncwarp();
    T *out = (T *)a.o.data + token_offset(a.o, w.seq, token) + w.head * a.o.stride_head;
    for (int c = lane * V; c < d; c += 32 * V) {
        float x[V] = {};
#pragma unroll 4
        for (int i = 0; i < w.n_part; i++) {
            float part[V], y = weight[warp][i];
            const float *from = o + (int64_t)i * j.q_tile * d + c;
            if (V == 4)
                *(float4 *)part = *(const float4 *)from;
            else
                part[0] = *from;
#pragma unroll
            for (int v = 0; v < V; v++)
                x[v] += y < 0 ? 0 : y * part[v];
        }
#pragma unroll
        for (int v = 0; v < V; v++)
            out[c + v] = T(x[v] / sum);
    }
    if (a.lse && lane == 0)
        a.lse[lse_offset(j, w) + r * a.lse_stride_token] = top + logf(sum);
}

template <class T> static cudaError_t launch_merge(const Job &j, cudaStream_t stream)
{
    unsigned n = (unsigned)(j.n_item / j.n_part * (j.q_tile / kMergeWarps));
    if (j.a.shape.d_head % 4 == 0)
        merge<4, T><<<n, 32 * kMergeWarps, 0, stream>>>(j);
    else
        merge<1, T><<<n, 32 * kMergeWarps, 0, stream>>>(j);
    return cudaGetLastError();
}

cudaError_t merge_parts(const Job &j, cudaStream_t stream)
{
    if (j.n_part == 1)
        return cudaSuccess;
    switch (j.a.shape.dtype) {
    case PRISM_CU_F32: return launch_merge<float>(j, stream);
    case PRISM_CU_F16: return launch_merge<__half>(j, stream);
    default: return launch_merge<__nv_bfloat16>(j, stream);
    }
}

} // namespace prism

extern "C" size_t prism_attend_scratch_bytes(const prism_cu_shape *shape, int32_t block_size)
{
    int n_part;
    return prism::max_parts(*shape, block_size, &n_part) ? 0 : prism::parts_bytes(*shape, block_size, n_part);
}

static cudaError_t image_and_attend(const prism_cu_attend *a, cudaStream_t stream)
{
    cudaError_t e = prism_fp8_image_cuda(a, stream);
    return e ? e : prism_attend_fp8(a, stream);
}

static cudaError_t launch_attend(prism_cu_kernel kernel, const prism_cu_attend *a, cudaStream_t stream)
{
    switch (kernel) {
    case PRISM_CU_ATTEND_SM90: return prism_attend_sm90(a, stream);
    case PRISM_CU_ATTEND_SM80: return prism_attend_sm80(a, stream);
    case PRISM_CU_ATTEND_ANY: return prism_attend_any(a, stream);
    case PRISM_CU_ATTEND_FP8: return image_and_attend(a, stream);
    default: return cudaErrorNotSupported;
    }
}

/* The driver may refuse to describe a tensor of unusual strides to the copy engine of sm90: then the next kernel that
 * takes the call is launched. */
extern "C" cudaError_t prism_attend_cuda(const prism_cu_attend *a, cudaStream_t stream, int32_t *kernel)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    const prism_cu_ask ask = prism::ask_of(a, gpu);
    prism_cu_kernel chosen = prism_cu_attend_kernel(&ask, 0);
    while ((e = launch_attend(chosen, a, stream)) == cudaErrorNotSupported && chosen != PRISM_N_CU_KERNEL)
        chosen = prism_cu_attend_kernel(&ask, chosen + 1);
    if (kernel && chosen != PRISM_N_CU_KERNEL)
        *kernel = chosen;
    return e;
}
