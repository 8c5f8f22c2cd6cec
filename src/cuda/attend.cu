/*
 * Attention of a plan: which kernel takes a call, how rows are split where they are too few to fill the GPU, and the
 * merge of the parts.
 *
 *   part_o [query tile][part][q_tile][d], part_lse -> o = sum of o_i exp(lse_i - lse)
 *
 * How many parts a row has depends on host-known bounds and on the length of its list, never on timing: results are the
 * same every time.
 */
#include "cuda/attend.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace prism
{

constexpr int kItemsPerSm = 4; /* work items that keep the last ones of unequal length from standing out */

/* Parts of a row, at most. */
static cudaError_t max_parts(const prism_cu_shape &s, int block_size, int *n_part)
{
    int64_t n_row = (int64_t)s.n_seq * s.n_head * s.n_qblk, longest = (int64_t)s.n_kblk * block_size / kPartKeys;
    int device, n_sm;
    cudaError_t e = cudaGetDevice(&device);
    if (!e)
        e = cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
    if (e)
        return e;
    int64_t n = n_row > 0 ? kItemsPerSm * n_sm / n_row : 1;
    n = n < longest ? n : longest;
    *n_part = n > 1 ? (int)n : 1;
    return cudaSuccess;
}

static size_t parts_bytes(const prism_cu_shape &s, int block_size, int n_part)
{
    size_t n_query = (size_t)s.n_seq * s.n_head * s.n_qblk * block_size;
    return n_part == 1 ? 0 : n_query * n_part * (s.d_head + 1) * sizeof(float);
}

static bool whole_pieces(const prism_cu_view &t)
{
    return (uintptr_t)t.data % 16 == 0 &&
           (t.stride_seq | t.stride_token | t.stride_head | (t.page_table ? t.stride_page : 0)) % 8 == 0;
}

bool for_tensor_cores(const prism_cu_attend *a)
{
    return (a->shape.dtype == PRISM_CU_BF16 || a->shape.dtype == PRISM_CU_F16) && whole_pieces(a->q) &&
           whole_pieces(a->k) && whole_pieces(a->v) && whole_pieces(a->o) && (uintptr_t)a->init_o % 16 == 0 &&
           !a->q.page_table && !a->o.page_table && !a->key_ptr && a->scale > 0;
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

constexpr int kMergeThreads = 256;

/* A CTA a query tile, a warp a query. */
template <class T> __global__ void __launch_bounds__(kMergeThreads) merge(const __grid_constant__ Job j)
{
    const prism_cu_attend &a = j.a;
    Row w = row_of(j, is_dense(a), blockIdx.x * j.n_part);
    if (w.slot < 0)
        return;
    int d = a.shape.d_head, lane = threadIdx.x % 32, at = first_token(j, w), n_part = 1;
    while (n_part < j.n_part && row_of(j, w.dense, blockIdx.x * j.n_part + n_part).slot >= 0)
        n_part++;
    for (int r = threadIdx.x / 32; r < j.q_tile; r += kMergeThreads / 32) {
        int token = at + r;
        if (token < 0 || token >= w.n_q)
            continue;
        const float *lse = j.part_lse + (int64_t)w.slot * j.q_tile + r;
        const float *o = j.part_o + ((int64_t)w.slot * j.q_tile + r) * d;
        float top = -INFINITY, sum = 0;
        for (int i = 0; i < n_part; i++)
            top = fmaxf(top, lse[i * j.q_tile]);
        for (int i = 0; i < n_part; i++)
            sum += lse[i * j.q_tile] == -INFINITY ? 0 : expf(lse[i * j.q_tile] - top);
        T *out = (T *)a.o.data + token_offset(a.o, w.seq, token) + w.head * a.o.stride_head;
        for (int c = lane; c < d; c += 32) {
            float x = 0;
            for (int i = 0; i < n_part; i++)
                if (lse[i * j.q_tile] != -INFINITY) /* else o is 0 / 0 */
                    x += o[(int64_t)i * j.q_tile * d + c] * expf(lse[i * j.q_tile] - top);
            out[c] = T(x / sum);
        }
        if (a.lse && lane == 0)
            a.lse[lse_offset(j, w) + r * a.lse_stride_token] = top + logf(sum);
    }
}

cudaError_t merge_parts(const Job &j, cudaStream_t stream)
{
    if (j.n_part == 1)
        return cudaSuccess;
    unsigned n = j.n_item / j.n_part;
    switch (j.a.shape.dtype) {
    case PRISM_CU_F32: merge<float><<<n, kMergeThreads, 0, stream>>>(j); break;
    case PRISM_CU_F16: merge<__half><<<n, kMergeThreads, 0, stream>>>(j); break;
    default: merge<__nv_bfloat16><<<n, kMergeThreads, 0, stream>>>(j); break;
    }
    return cudaGetLastError();
}

} // namespace prism

extern "C" size_t prism_attend_scratch_bytes(const prism_cu_shape *shape, int32_t block_size)
{
    int n_part;
    return prism::max_parts(*shape, block_size, &n_part) ? 0 : prism::parts_bytes(*shape, block_size, n_part);
}

extern "C" cudaError_t prism_attend_cuda(const prism_cu_attend *a, cudaStream_t stream, int32_t *kernel)
{
    int device, major, minor;
    cudaError_t e = cudaGetDevice(&device);
    if (!e)
        e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (!e)
        e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (e)
        return e;
    int chosen = PRISM_CU_ATTEND_SM90;
    e = major == 9 && minor == 0 ? prism_attend_sm90(a, stream) : cudaErrorNotSupported;
    if (e == cudaErrorNotSupported && major >= 8)
        chosen = PRISM_CU_ATTEND_SM80, e = prism_attend_sm80(a, stream);
    if (e == cudaErrorNotSupported)
        chosen = PRISM_CU_ATTEND_ANY, e = prism_attend_any(a, stream);
    if (kernel)
        *kernel = chosen;
    return e;
}
