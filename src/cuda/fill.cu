/*
 * From the bitmap of a plan to its lists.
 *
 *   layout   counts -> row pointers (one CTA); rows of each KV head, longest first (one CTA a KV head)
 *   emit     bits -> lists
 *
 * and between plans and their masks, for callers with a plan of their own.
 */
#include "cuda/bitmap.cuh"
#include "cuda/device.cuh"
#include "cuda/takes.h"

namespace prism
{

constexpr int kLayoutThreads = 1024;
static_assert((PRISM_CU_FILL_MAX_BLOCKS + 1) * 4 <= 98 * 1024, "layout() counts in the least shared memory of a GPU");

/* Exclusive sum over the threads of a CTA; total to all. */
__device__ __forceinline__ int64_t scan(int64_t x, int64_t *total)
{
    __shared__ int64_t part[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t y = x;
    for (int m = 1; m < 32; m *= 2) {
        int64_t z = __shfl_up_sync(kAll, y, m);
        if (lane >= m)
            y += z;
    }
    if (lane == 31)
        part[warp] = y;
    __syncthreads();
    if (warp == 0) {
        int64_t z = part[lane];
        for (int m = 1; m < 32; m *= 2) {
            int64_t w = __shfl_up_sync(kAll, z, m);
            if (lane >= m)
                z += w;
        }
        part[lane] = z;
    }
    __syncthreads();
    int64_t before = (warp ? part[warp - 1] : 0) + y - x;
    *total = part[31];
    __syncthreads();
    return before;
}

/* CTA 0: row pointers. CTA 1 + i: rows of KV head i by falling count (counting sort; rows of equal count in any order).
 */
__global__ void __launch_bounds__(kLayoutThreads) layout(const __grid_constant__ prism_cu_select p, int n_row)
{
    extern __shared__ int32_t bin[]; /* [n_kblk + 1] */
    let_next_begin();
    const prism_cu_shape &s = p.shape;
    int64_t total;
    if (blockIdx.x == 0) { /* a warp takes consecutive rows, 32 at a time */
        int lane = threadIdx.x % 32, per = (n_row + kLayoutThreads - 1) / kLayoutThreads * 32,
            lo = threadIdx.x / 32 * per, hi = min(n_row, lo + per);
        int sum = 0;
#pragma unroll 16
        for (int r = lo + lane; r < hi; r += 32)
            sum += p.count[r];
        int64_t at = __shfl_sync(kAll, scan(sum, &total), 0);
#pragma unroll 16
        for (int r = lo; r < hi; r += 32) {
            int x = r + lane < hi ? p.count[r + lane] : 0, y = x;
            for (int m = 1; m < 32; m *= 2) {
                int z = __shfl_up_sync(kAll, y, m);
                if (lane >= m)
                    y += z;
            }
            if (r + lane < hi)
                p.row_ptr[r + lane] = at + y - x;
            at += __shfl_sync(kAll, y, 31);
        }
        if (threadIdx.x == 0) {
            p.row_ptr[n_row] = total;
            if (p.full)
                *p.full = total > p.capacity;
        }
        return;
    }
    int per_set = s.n_head / s.n_kv_head * s.n_qblk, first = (blockIdx.x - 1) * per_set, n_bin = s.n_kblk + 1;
    for (int i = threadIdx.x; i < n_bin; i += kLayoutThreads)
        bin[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < per_set; i += kLayoutThreads)
        atomicAdd(&bin[s.n_kblk - p.count[first + i]], 1);
    __syncthreads();
    int64_t base = 0;
    for (int i0 = 0; i0 < n_bin; i0 += kLayoutThreads) {
        int i = i0 + threadIdx.x, x = i < n_bin ? bin[i] : 0;
        int64_t at = scan(x, &total);
        if (i < n_bin)
            bin[i] = (int)(base + at);
        base += total;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < per_set; i += kLayoutThreads)
        p.order[first + atomicAdd(&bin[s.n_kblk - p.count[first + i]], 1)] = first + i;
}

/* A warp writes one list: each lane unpacks a word into shared memory, then the warp copies what there is in one piece.
 */
__global__ void __launch_bounds__(256) emit(const __grid_constant__ prism_cu_select p, int n_row)
{
    __shared__ int32_t list[8][1024];
    wait_for_launch_before();
    const prism_cu_shape &s = p.shape;
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n_row)
        return;
    int u = row % s.n_qblk;
    int32_t *mine = list[threadIdx.x / 32];
    Bitmap map = bitmap_of(s, p.block_size);
    const uint32_t *words = p.bitmap + (int64_t)(row / s.n_qblk) * map.before(s.n_qblk) + map.before(u);
    int64_t at = p.row_ptr[row];
    int32_t *out = p.index + at, room = (int32_t)max((int64_t)0, min(p.capacity - at, (int64_t)s.n_kblk));
    for (int i0 = 0; i0 < map.in(u); i0 += 32) {
        uint32_t w = i0 + lane < map.in(u) ? words[i0 + lane] : 0;
        int n = __popc(w), before = n;
        for (int m = 1; m < 32; m *= 2) {
            int x = __shfl_up_sync(kAll, before, m);
            if (lane >= m)
                before += x;
        }
        int total = __shfl_sync(kAll, before, 31);
        for (int to = before - n, block = (i0 + lane) * 32; w; w &= w - 1)
            mine[to++] = block + __ffs(w) - 1;
        __syncwarp();
        for (int i = lane; i < min(total, room); i += 32)
            out[i] = mine[i];
        __syncwarp();
        out += total, room -= min(total, room);
    }
}

/* Absolute block of a row, or -1: a query block past the end of its sequence. */
__device__ __forceinline__ int own_block(const prism_cu_select &p, int row)
{
    Lengths n = lengths(p.shape, row / p.shape.n_qblk / p.shape.n_head);
    int own = n.q_start / p.block_size + row % p.shape.n_qblk;
    return n.n_q > 0 && own <= (n.q_start + n.n_q - 1) / p.block_size ? own : -1;
}

__global__ void __launch_bounds__(256) count_causal(const __grid_constant__ prism_cu_select p, int n_row)
{
    int row = blockIdx.x * 256 + threadIdx.x;
    if (row < n_row)
        p.count[row] = own_block(p, row) + 1;
}

/* A warp a row. */
__global__ void __launch_bounds__(256)
    from_mask(const __grid_constant__ prism_cu_select p, const uint8_t *mask, int32_t *invalid, int n_row)
{
    const prism_cu_shape &s = p.shape;
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n_row)
        return;
    Bitmap map = bitmap_of(s, p.block_size);
    int u = row % s.n_qblk, own = own_block(p, row), n = 0;
    const uint8_t *from = mask + (int64_t)row * s.n_kblk;
    uint32_t *out = p.bitmap + (int64_t)(row / s.n_qblk) * map.before(s.n_qblk) + map.before(u);
    bool above = false;
    for (int v0 = 0; v0 < s.n_kblk; v0 += 32) {
        bool is = v0 + lane < s.n_kblk && from[v0 + lane];
        above |= is && v0 + lane > own;
        uint32_t w = __ballot_sync(kAll, is && v0 + lane <= own);
        n += __popc(w);
        if (lane == 0 && v0 / 32 < map.in(u))
            out[v0 / 32] = w;
    }
    if (above)
        *invalid = 1;
    if (lane == 0) {
        if (n == 0 && own >= 0)
            out[own / 32] = 1u << own % 32, n = 1;
        p.count[row] = n;
    }
}

/* A warp a row. */
__global__ void __launch_bounds__(256) to_mask(const __grid_constant__ prism_cu_select p, uint8_t *mask, int n_row)
{
    const prism_cu_shape &s = p.shape;
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n_row)
        return;
    bool all = p.full && *p.full;
    int64_t at = p.row_ptr[row];
    int n = all ? own_block(p, row) + 1 : (int)(p.row_ptr[row + 1] - at);
    uint8_t *out = mask + (int64_t)row * s.n_kblk;
    bool counted = all || !p.index; /* lists 0, 1, 2, ... */
    for (int v = lane; v < s.n_kblk; v += 32)
        out[v] = counted && v < n;
    __syncwarp();
    for (int i = lane; !counted && i < n; i += 32)
        out[p.index[at + i]] = 1;
}

static cudaError_t layout_launch(const prism_cu_select &a, int n_row, cudaStream_t stream)
{
    const prism_cu_shape &s = a.shape;
    size_t bytes = (size_t)(s.n_kblk + 1) * 4;
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    if (bytes > (size_t)dynamic_bytes(gpu))
        return cudaErrorNotSupported;
    e = cudaFuncSetAttribute(layout, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic_bytes(gpu));
    if (e)
        return e;
    layout<<<1 + (a.order ? s.n_seq * s.n_kv_head : 0), kLayoutThreads, bytes, stream>>>(a, n_row);
    return cudaGetLastError();
}

} // namespace prism

extern "C" cudaError_t prism_plan_emit_cuda(const prism_cu_select *a, cudaStream_t stream)
{
    int n_row = a->shape.n_seq * a->shape.n_head * a->shape.n_qblk;
    cudaError_t e = prism::layout_launch(*a, n_row, stream);
    if (e || n_row == 0)
        return e;
    return prism::launch_early(prism::emit, dim3((n_row + 7) / 8), 256, 0, stream, *a, n_row);
}

extern "C" cudaError_t prism_plan_full_cuda(const prism_cu_select *a, cudaStream_t stream)
{
    int n_row = a->shape.n_seq * a->shape.n_head * a->shape.n_qblk;
    if (n_row)
        prism::count_causal<<<(n_row + 255) / 256, 256, 0, stream>>>(*a, n_row);
    cudaError_t e = cudaGetLastError();
    if (e)
        return e;
    prism_cu_select counted = *a; /* nothing is listed, so nothing overflows */
    counted.full = nullptr;
    return prism::layout_launch(counted, n_row, stream);
}

extern "C" cudaError_t prism_plan_from_mask_cuda(const prism_cu_select *a, const uint8_t *mask, int32_t *invalid,
                                                 cudaStream_t stream)
{
    int n_row = a->shape.n_seq * a->shape.n_head * a->shape.n_qblk;
    cudaError_t e = cudaMemsetAsync(invalid, 0, sizeof *invalid, stream);
    if (e)
        return e;
    if (n_row)
        prism::from_mask<<<(n_row + 7) / 8, 256, 0, stream>>>(*a, mask, invalid, n_row);
    if ((e = cudaGetLastError()))
        return e;
    return prism_plan_emit_cuda(a, stream);
}

extern "C" cudaError_t prism_plan_mask_cuda(const prism_cu_select *a, uint8_t *mask, cudaStream_t stream)
{
    int n_row = a->shape.n_seq * a->shape.n_head * a->shape.n_qblk;
    if (n_row)
        prism::to_mask<<<(n_row + 7) / 8, 256, 0, stream>>>(*a, mask, n_row);
    return cudaGetLastError();
}
