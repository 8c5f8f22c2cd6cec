/*
 * From the bitmap of a plan to its lists.
 *
 *   layout   counts -> row pointers (one CTA); rows of each KV head, longest first (one CTA a KV head)
 *   emit     bits -> lists
 */
#include "cuda/bitmap.cuh"

namespace prism
{

constexpr int kLayoutThreads = 1024;

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
        if (threadIdx.x == 0)
            p.row_ptr[n_row] = total;
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
        p.work[first + atomicAdd(&bin[s.n_kblk - p.count[first + i]], 1)] = first + i;
}

/* A warp writes one list: each lane unpacks a word into shared memory, then the warp copies what there is in one piece.
 */
__global__ void __launch_bounds__(256) emit(const __grid_constant__ prism_cu_select p, int n_row)
{
    __shared__ int32_t list[8][1024];
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

} // namespace prism

extern "C" cudaError_t prism_plan_emit_cuda(const prism_cu_select *a, cudaStream_t stream)
{
    const prism_cu_shape &s = a->shape;
    int n_row = s.n_seq * s.n_head * s.n_qblk;
    size_t bytes = (size_t)(s.n_kblk + 1) * 4;
    cudaError_t e = cudaFuncSetAttribute(prism::layout, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e)
        return e;
    prism::layout<<<1 + (a->work ? s.n_seq * s.n_kv_head : 0), prism::kLayoutThreads, bytes, stream>>>(*a, n_row);
    if ((e = cudaGetLastError()))
        return e;
    prism::emit<<<(n_row + 7) / 8, 256, 0, stream>>>(*a, n_row);
    return cudaGetLastError();
}
