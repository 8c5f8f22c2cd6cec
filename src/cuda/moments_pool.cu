/*
 * Moments of key blocks (docs/moments.md, "State").
 *
 *   queries  q, every 16th token          -> sums of blocks, then running sums: the mean query that a block is tilted
 * by pool     k, v, mean query             -> sums of k, and of whole blocks the moments          one pass over K and V
 *   first    block 0, without its singles -> its moments
 */
#include "cuda/moments_first.cuh"

namespace prism
{

constexpr int kPoolThreads = 256, kSample = PRISM_MOMENT_SAMPLE, kScan = 8;

__device__ __forceinline__ int64_t row_of(const prism_cu_moments &p, int seq, int b, int head)
{
    return ((int64_t)seq * p.n_block_seq + b) * p.shape.n_kv_head + head;
}

/* Sampled queries of one query block of one KV head's query heads a CTA, a token a warp. The sum takes the place of the
 * block's running sum; of a block that was begun in an earlier call, it continues that. */
template <int D, class T>
__global__ void __launch_bounds__(kPoolThreads) sum_queries(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kWarps = kPoolThreads / 32, kWords = D / 64;
    __shared__ float part[kWarps][D];
    __shared__ int n_part[kWarps];
    const prism_cu_shape &s = p.shape;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, j = threadIdx.x, group = s.n_head / s.n_kv_head;
    int head = blockIdx.x % s.n_kv_head, u = blockIdx.x / s.n_kv_head % s.n_qblk,
        seq = blockIdx.x / s.n_kv_head / s.n_qblk;
    Lengths n = lengths(s, seq);
    QueryBlock block(n, u);
    if (!block.exists() || p.n_done >= n.n_kv)
        return;
    int at = kSample * warp + kSample - 1, n_row = 0;
    float sum[2 * kWords] = {};
    if (at >= block.begin && at < block.end && block.own * kBlockKeys + at >= p.n_done)
        for (int g = 0; g < group; g++) {
            const uint32_t *from = (const uint32_t *)((const T *)p.q.data + (head * group + g) * p.q.stride_head +
                                                      token_offset(p.q, seq, block.first + at));
            float2 x[kWords];
            bool good = true;
#pragma unroll
            for (int w = 0; w < kWords; w++) {
                x[w] = widen2<T>(__ldg(from + kWords * lane + w));
                good = good && finite(x[w].x) && finite(x[w].y);
            }
            if (!__all_sync(kAll, good))
                continue;
            n_row++;
#pragma unroll
            for (int w = 0; w < kWords; w++)
                sum[2 * w] += x[w].x, sum[2 * w + 1] += x[w].y;
        }
#pragma unroll
    for (int w = 0; w < 2 * kWords; w++)
        part[warp][2 * kWords * lane + w] = sum[w];
    if (lane == 0)
        n_part[warp] = n_row;
    __syncthreads();
    if (j >= D)
        return;
    int64_t row = row_of(p, seq, block.own, head);
    bool begun = block.own * kBlockKeys < p.n_done;
    float total = begun ? p.query_sum[row * D + j] : 0;
    int count = begun ? p.n_query[row] : 0;
    for (int w = 0; w < kWarps; w++)
        total += part[w][j], count += n_part[w];
    p.query_sum[row * D + j] = total;
    __syncwarp();
    if (j == 0)
        p.n_query[row] = count;
}

/* One KV head a CTA: sums of blocks become running sums. Blocks before the first sampled query take what the first
 * block with one has. */
template <int D> __global__ void __launch_bounds__(D) scan_queries(const __grid_constant__ prism_cu_moments p)
{
    const prism_cu_shape &s = p.shape;
    int head = blockIdx.x % s.n_kv_head, seq = blockIdx.x / s.n_kv_head, j = threadIdx.x;
    Lengths n = lengths(s, seq);
    if (p.n_done >= n.n_kv)
        return;
    int first = p.n_done / kBlockKeys, last = (n.n_kv - 1) / kBlockKeys,
        known = p.q.data && n.n_q > 0 ? n.q_start / kBlockKeys : INT_MAX;
    bool begun = p.n_done % kBlockKeys;
    float carry = 0;
    int count = 0, none = first;
    if (!begun && first > 0) {
        int64_t row = row_of(p, seq, first - 1, head);
        carry = p.query_sum[row * D + j], count = p.n_query[row];
    }
    for (int b0 = first; b0 <= last; b0 += kScan) {
        float x[kScan];
        int c[kScan];
#pragma unroll
        for (int i = 0; i < kScan; i++) {
            int64_t row = row_of(p, seq, b0 + i, head);
            bool there = b0 + i <= last && (b0 + i >= known || (begun && b0 + i == first));
            x[i] = there ? p.query_sum[row * D + j] : 0, c[i] = there ? p.n_query[row] : 0;
        }
        __syncthreads(); /* every thread has read the counts that thread 0 overwrites */
#pragma unroll
        for (int i = 0; i < kScan; i++) {
            if (b0 + i > last)
                break;
            int64_t row = row_of(p, seq, b0 + i, head);
            carry += x[i], count += c[i];
            p.query_sum[row * D + j] = carry;
            if (j == 0)
                p.n_query[row] = count;
            none = count ? none : b0 + i + 1;
        }
    }
    if (none == first || none > last)
        return;
    __syncthreads();
    int64_t from = row_of(p, seq, none, head);
    carry = p.query_sum[from * D + j], count = p.n_query[from];
    for (int b = first; b < none; b++) {
        int64_t row = row_of(p, seq, b, head);
        p.query_sum[row * D + j] = carry;
        if (j == 0)
            p.n_query[row] = count;
    }
}

/* One block of one head a CTA; its tokens stay in registers from the exponents to the variances. Block 0 only has its
 * keys summed here. */
template <int D, class T>
__global__ void __launch_bounds__(kPoolThreads) pool_moments(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kColumns = D / 8, kLanes = kPoolThreads / kColumns, kTokens = kBlockKeys / kLanes;
    __shared__ float part[kLanes][D], mean[D], weight[kBlockKeys];
    const prism_cu_shape &s = p.shape;
    const int tid = threadIdx.x, column = tid % kColumns * 8, lane = tid / kColumns, j = tid % D;
    int head = blockIdx.x % s.n_kv_head, b = blockIdx.x / s.n_kv_head % s.n_kblk,
        seq = blockIdx.x / s.n_kv_head / s.n_kblk;
    int first = b * kBlockKeys, hi = min(first + kBlockKeys, lengths(s, seq).n_kv), lo = max(first, p.n_done);
    bool whole = hi == first + kBlockKeys && b > 0;
    if (lo >= hi || (!whole && !p.k_sum))
        return;
    int64_t row = row_of(p, seq, b, head);
    uint4 raw[kTokens];
    float sum[8] = {}, x[8];
    auto fetch = [&](const prism_cu_view &t, int from) {
#pragma unroll
        for (int i = 0; i < kTokens; i++) {
            int token = first + i * kLanes + lane;
            raw[i] = token >= from && token < hi && t.data
                         ? __ldcs((const uint4 *)((const T *)t.data + head * t.stride_head + column +
                                                  token_offset(t, seq, token)))
                         : make_uint4(0, 0, 0, 0);
        }
    };
    auto wide = [&](int i) {
        const uint32_t w[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float2 f = widen2<T>(w[k]);
            x[2 * k] = f.x, x[2 * k + 1] = f.y;
        }
    };
    /* Sum of what term(i, k) makes of token i's element k, over all tokens; that of dimension j to thread j. */
    auto add_up = [&](auto term) {
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum[k] = 0;
#pragma unroll
        for (int i = 0; i < kTokens; i++) {
            wide(i);
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum[k] += term(i, k);
        }
        *(float4 *)&part[lane][column] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        *(float4 *)&part[lane][column + 4] = make_float4(sum[4], sum[5], sum[6], sum[7]);
        __syncthreads();
        float total = 0;
        for (int l = 0; l < kLanes; l++)
            total += part[l][j];
        __syncthreads();
        return total;
    };

    fetch(p.k, whole ? first : lo);
    if (p.k_sum) {
        float k_sum = add_up([&](int i, int k) { return first + i * kLanes + lane >= lo ? x[k] : 0; });
        if (tid < D)
            p.k_sum[row * D + j] = k_sum + (lo > first ? p.k_sum[row * D + j] : 0);
    }
    if (!whole)
        return;
    float query[8];
    int n_query = p.n_query[row];
#pragma unroll
    for (int k = 0; k < 8; k++)
        query[k] = n_query ? p.query_sum[row * D + column + k] * (p.scale / n_query) : 0;
#pragma unroll
    for (int i = 0; i < kTokens; i++) {
        float dot = 0;
        wide(i);
#pragma unroll
        for (int k = 0; k < 8; k++)
            dot = fmaf(query[k], x[k], dot);
        for (int m = 1; m < kColumns; m *= 2)
            dot += __shfl_xor_sync(kAll, dot, m);
        if (column == 0)
            weight[i * kLanes + lane] = dot;
    }
    __syncthreads();
    if (tid < 32) {
        float log_count = tilt(weight, NULL, kBlockKeys);
        if (tid == 0)
            p.log_count[row] = log_count;
    }
    __syncthreads();
    float key = add_up([&](int i, int k) { return weight[i * kLanes + lane] * x[k]; });
    if (tid < D)
        mean[tid] = key;
    __syncthreads();
    float variance = add_up([&](int i, int k) {
        float d = x[k] - mean[column + k];
        return weight[i * kLanes + lane] * d * d;
    });
    fetch(p.v, first);
    float value = add_up([&](int i, int k) { return weight[i * kLanes + lane] * x[k]; });
    if (tid >= D)
        return;
    put_moments<D>(p, row, j, key, variance, value);
}

/* Block 0 of one head a CTA, once it is whole: all its tokens but the single ones. */
template <int D, class T> __global__ void __launch_bounds__(D) pool_first(const __grid_constant__ prism_cu_moments p)
{
    __shared__ FirstBlock<D, T> x;
    __shared__ float weight[kBlockKeys];
    const prism_cu_shape &s = p.shape;
    int head = blockIdx.x % s.n_kv_head, seq = blockIdx.x / s.n_kv_head, j = threadIdx.x;
    if (p.n_done >= kBlockKeys || lengths(s, seq).n_kv < kBlockKeys)
        return;
    int64_t row = row_of(p, seq, 0, head);
    x.rank(p, seq, head);
    int n_query = p.n_query[row];
    x.mean[j] = n_query ? p.query_sum[row * D + j] * (p.scale / n_query) : 0;
    __syncthreads();
    for (int i = j; i < kBlockKeys; i += D) {
        float dot = 0;
        for (int k = 0; k < D; k++)
            dot = fmaf(x.mean[k], (float)x.token[i][k], dot);
        weight[i] = dot;
    }
    __syncthreads();
    if (j < 32) {
        float log_count = tilt(weight, x.place, kBlockKeys - kSingles);
        if (j == 0)
            p.log_count[row] = log_count;
    }
    __syncthreads();
    float key = 0, variance = 0, value = 0;
    for (int i = 0; i < kBlockKeys; i++)
        if (x.place[i] >= kSingles)
            key = fmaf(weight[i], (float)x.token[i][j], key);
    for (int i = 0; i < kBlockKeys; i++)
        if (x.place[i] >= kSingles)
            variance = fmaf(weight[i], ((float)x.token[i][j] - key) * ((float)x.token[i][j] - key), variance);
    __syncthreads();
    x.fetch(p.v, seq, head);
    for (int i = 0; i < kBlockKeys; i++)
        if (x.place[i] >= kSingles)
            value = fmaf(weight[i], (float)x.token[i][j], value);
    put_moments<D>(p, row, j, key, variance, value);
}

template <int D, class T> static cudaError_t pool_moments_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    const prism_cu_shape &s = a.shape;
    const int n_head = s.n_seq * s.n_kv_head;
    int64_t n_key = (int64_t)n_head * s.n_kblk, n_query = (int64_t)n_head * s.n_qblk;
    if (n_key > INT32_MAX || n_query > INT32_MAX)
        return cudaErrorNotSupported;
    if (n_query && a.q.data)
        sum_queries<D, T><<<(int)n_query, kPoolThreads, 0, stream>>>(a);
    if (n_key) {
        scan_queries<D><<<n_head, D, 0, stream>>>(a);
        pool_moments<D, T><<<(int)n_key, kPoolThreads, 0, stream>>>(a);
        pool_first<D, T><<<n_head, D, 0, stream>>>(a);
    }
    return cudaGetLastError();
}

} // namespace prism

extern "C" cudaError_t prism_moments_pool_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, pool_moments_launch, stream);
}
