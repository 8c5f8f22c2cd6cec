/*
 * Moments of key blocks (docs/moments.md, "State").
 *
 *   sum_queries    q, every 16th token    -> sums of blocks
 *   scan_queries   sums of blocks         -> running sums: the mean query by which a block's keys are weighted
 *   pool_moments   k, v, mean query       -> sums of k; moments of whole blocks         one pass over K and V
 *   pool_slots.cu  k, v, moments          -> covariances of slots
 */
#include "cuda/moments/moments_tilt.cuh"

namespace prism
{

constexpr int kSumThreads = 128, kSample = PRISM_MOMENT_SAMPLE, kScanThreads = 1024, kScan = 64, kScanTiles = 3;

/* Sampled queries of one query block of one KV head's query heads a CTA, two tokens a warp. The sum takes the place of
 * the block's running sum; of a block that was begun in an earlier call, it continues that. */
template <int D, class T>
__global__ void __launch_bounds__(kSumThreads) sum_queries(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kWarps = kSumThreads / 32, kTokens = kBlockKeys / kSample, kEach = kTokens / kWarps, kWords = D / 64,
                  kRows = 4;                                                     /* heads in flight */
    typedef typename std::conditional<kWords == 2, uint2, uint32_t>::type Words; /* a lane's of a row */
    __shared__ float part[kTokens][D];
    __shared__ int n_part[kTokens];
    const prism_cu_shape &s = p.shape;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, j = threadIdx.x, group = s.n_head / s.n_kv_head;
    int head = blockIdx.x, u = blockIdx.y, seq = blockIdx.z;
    Lengths n = lengths(s, seq);
    QueryBlock block(n, u);
    if (!block.exists() || p.n_done >= n.n_kv)
        return;
    int n_row[kEach] = {};
    float sum[kEach][2 * kWords] = {};
    bool there[kEach];
    const T *from[kEach];
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        int at = kSample * (kWarps * i + warp) + kSample - 1;
        there[i] = at >= block.begin && at < block.end && block.own * kBlockKeys + at >= p.n_done;
        from[i] = (const T *)p.q.data + head * group * p.q.stride_head + 2 * kWords * lane +
                  (there[i] ? token_offset(p.q, seq, block.first + at) : 0);
    }
    for (int g0 = 0; g0 < group; g0 += kRows) {
        Words raw[kEach][kRows];
#pragma unroll
        for (int i = 0; i < kEach * kRows; i++) /* on their way at once */
            if (int g = g0 + i % kRows; there[i / kRows] && g < group)
                raw[i / kRows][i % kRows] = __ldg((const Words *)(from[i / kRows] + g * p.q.stride_head));
#pragma unroll
        for (int i = 0; i < kEach * kRows; i++) {
            int at = i / kRows;
            float2 x[kWords];
            bool good = true;
            if (!there[at] || g0 + i % kRows >= group)
                continue;
#pragma unroll
            for (int w = 0; w < kWords; w++) {
                x[w] = widen2<T>(((const uint32_t *)&raw[at][i % kRows])[w]);
                good = good && finite(x[w].x) && finite(x[w].y);
            }
            if (!__all_sync(kAll, good))
                continue;
            n_row[at]++;
#pragma unroll
            for (int w = 0; w < kWords; w++)
                sum[at][2 * w] += x[w].x, sum[at][2 * w + 1] += x[w].y;
        }
    }
#pragma unroll
    for (int i = 0; i < kEach; i++) {
#pragma unroll
        for (int w = 0; w < 2 * kWords; w++)
            part[kWarps * i + warp][2 * kWords * lane + w] = sum[i][w];
        if (lane == 0)
            n_part[kWarps * i + warp] = n_row[i];
    }
    __syncthreads();
    if (j >= D)
        return;
    int64_t row = row_of(p, seq, block.own, head);
    bool begun = block.own * kBlockKeys < p.n_done;
    float total = begun ? p.query_sum[row * D + j] : 0;
    int count = begun ? p.n_query[row] : 0;
#pragma unroll
    for (int i = 0; i < kTokens; i++)
        total += part[i][j], count += n_part[i];
    p.query_sum[row * D + j] = total;
    __syncwarp();
    if (j == 0)
        p.n_query[row] = count;
}

/* Sums of kScan blocks, and how many queries they are of, on their way from memory and back. */
template <int D> struct ScanTile {
    float sum[kScan][D];
    int n_query[kScan];
};

/* Running sums of a tile, added in the order of blocks, one dimension a thread. */
template <int D> __device__ __forceinline__ void add_on(ScanTile<D> &tile, int j, float &carry)
{
    constexpr int kStep = 16;
#pragma unroll 1
    for (int i = 0; i < kScan; i += kStep) {
        float x[kStep];
#pragma unroll
        for (int k = 0; k < kStep; k++)
            x[k] = tile.sum[i + k][j];
#pragma unroll
        for (int k = 0; k < kStep; k++)
            tile.sum[i + k][j] = carry += x[k];
    }
}
/* The same of counts, by one warp; those from `last` on do not exist. Returns how many of the others are 0. */
template <int D> __device__ __forceinline__ int count_on(ScanTile<D> &tile, int last, int &carry)
{
    int lane = threadIdx.x % 32, none = 0;
#pragma unroll
    for (int i = 0; i < kScan; i += 32) {
        int x = tile.n_query[i + lane];
        for (int m = 1; m < 32; m *= 2) {
            int left = __shfl_up_sync(kAll, x, m);
            x += lane >= m ? left : 0;
        }
        x += carry, carry = __shfl_sync(kAll, x, 31);
        tile.n_query[i + lane] = x;
        none += __popc(__ballot_sync(kAll, i + lane <= last && x == 0));
    }
    return none;
}

/* One KV head a CTA: sums of blocks become running sums, whose bits do not depend on how a prompt is cut. Blocks before
 * the first sampled query take what the first block with one has. */
template <int D>
__global__ void __launch_bounds__(kScanThreads) scan_queries(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kRow = D / 4, kSide = kScanThreads / kRow; /* 16 bytes a thread, rows side by side */
    static_assert(D + 32 <= kScanThreads && kScan <= kScanThreads && kScan % kSide == 0, "what a thread does");
    extern __shared__ __align__(128) char smem[];
    ScanTile<D> *tile = (ScanTile<D> *)smem;
    __shared__ int asked, asked_before; /* first block with a query; how many there were before this call */
    const prism_cu_shape &s = p.shape;
    int head = blockIdx.x, seq = blockIdx.y, j = threadIdx.x, side = j / kRow, column = j % kRow * 4;
    Lengths n = lengths(s, seq);
    if (p.n_done >= n.n_kv)
        return;
    int first = p.n_done / kBlockKeys, last = (n.n_kv - 1) / kBlockKeys,
        known = p.q.data && n.n_q > 0 ? n.q_start / kBlockKeys : INT_MAX;
    bool begun = p.n_done % kBlockKeys;
    int begin = begun ? first : min(max(first, known), last + 1); /* before it nothing is added */
    auto sum = [&](int b) { return p.query_sum + row_of(p, seq, b, head) * D; };
    auto n_query = [&](int b) { return p.n_query + row_of(p, seq, b, head); };
    auto fetch = [&](int b0, ScanTile<D> &to) {
        auto there = [&](int b) { return b <= last && (b >= known || (begun && b == first)); };
        for (int r = side; r < kScan; r += kSide)
            cp_async16(smem_addr(&to.sum[r][column]), sum(there(b0 + r) ? b0 + r : first) + column, there(b0 + r));
        if (j < kScan)
            cp_async4(smem_addr(&to.n_query[j]), n_query(there(b0 + j) ? b0 + j : first), there(b0 + j));
        cp_async_commit();
    };
    float carry = !begun && first > 0 && j < D ? sum(first - 1)[j] : 0;
    int before = !begun && first > 0 ? *n_query(first - 1) : 0, count = before, none = 0;
    fetch(begin, tile[0]), fetch(begin + kScan, tile[1]);
    for (int b = begin, t = 0; b <= last; b += kScan, t = (t + 1) % kScanTiles) {
        cp_async_wait<1>();
        __syncthreads();
        fetch(b + 2 * kScan, tile[(t + 2) % kScanTiles]); /* the one before this, which all have written back */
        if (j < D)
            add_on<D>(tile[t], j, carry);
        else if (j < D + 32)
            none += count_on<D>(tile[t], last - b, count);
        __syncthreads();
        for (int r = side; r < kScan && b + r <= last; r += kSide)
            *(float4 *)(sum(b + r) + column) = *(const float4 *)&tile[t].sum[r][column];
        if (j < kScan && b + j <= last)
            *n_query(b + j) = tile[t].n_query[j];
    }
    if (j == D)
        asked = begin + none, asked_before = before;
    __syncthreads();
    bool some = asked_before || asked <= last;
    int from = asked_before ? first - 1 : asked, end = asked <= last ? asked : begin;
    float4 same = some ? *(const float4 *)(sum(from) + column) : make_float4(0, 0, 0, 0);
    int same_count = some ? *n_query(from) : 0;
    for (int b = first + side; b < end; b += kSide) {
        *(float4 *)(sum(b) + column) = same;
        if (column == 0)
            *n_query(b) = same_count;
    }
}

/*
 * A CTA's keys and values of one block. A warp does 16 tokens, then 16 dimensions. Sums over tokens are products of one
 * warp: parts of weights, three numbers of 16 bits that add up to a float, times a tile. So they are as exact as sums
 * in f32, and no warp waits for another's.
 */
template <int D, class T> struct PoolShared {
    typedef Weights<D, T> W;
    Tokens<D> key;
    union {
        Tokens<D> value;
        FirstBlock<D, T> first;
    };
    W w;
    T share[3][kBlockKeys + W::kPad];
    float mean[D];
    int rank[kBlockKeys]; /* of block 0's tokens */

    /* c = this warp's 16 dimensions of a tile times right factors b(step): rows are dimensions. */
    template <class B> __device__ __forceinline__ void multiply(float (&c)[4], const Tokens<D> &tile, B b) const
    {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
        for (int k = 0; k < kBlockKeys / 16; k++) {
            int r = 16 * k + lane / 16 * 8 + lane % 8;
            uint32_t a[4], right[2];
            b(right, k);
            ldmatrix4_t(a, smem_addr(&tile[r][swizzled(r, 2 * warp + lane / 8 % 2)]));
            warp_mma<T>(c, a, right[0], right[1]);
        }
    }
};

/* One block of one head a CTA. Block 0 goes without its single tokens: they are zeros of no weight here. */
template <int D, class T>
__global__ void __launch_bounds__(2 * D, D == 128 ? 3 : 6) pool_moments(const __grid_constant__ prism_cu_moments p)
{
    typedef PoolShared<D, T> Shared;
    typedef Weights<D, T> W;
    constexpr float kShare = 1024; /* weights in parts times this: 16 bits reach far enough down */
    extern __shared__ __align__(128) char smem[];
    Shared &sh = *(Shared *)smem;
    const prism_cu_shape &s = p.shape;
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, dim = 16 * warp + lane / 4;
    int head = blockIdx.x, b = blockIdx.y, seq = blockIdx.z;
    int first = b * kBlockKeys, n = min(kBlockKeys, lengths(s, seq).n_kv - first), from = max(0, p.n_done - first);
    bool full = n == kBlockKeys;
    if (from >= n || (!full && !p.k_sum))
        return;
    int64_t row = row_of(p, seq, b, head);
    fetch_tokens<2 * D, T>(sh.key, p.k, seq, head, first, full ? 0 : from, n, NULL);
    if (full && b)
        fetch_tokens<2 * D, T>(sh.value, p.v, seq, head, first, 0, n, NULL);
    if (tid < D)
        sh.w.set_query(tid, p.query_sum[row * D + tid] * (p.scale / max(p.n_query[row], 1)));
    if (full && b)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
    __syncthreads();
    float c[4];
    if (p.k_sum) {
        auto new_tokens = [&](uint32_t(&one)[2], int k) { /* column 0: ones for tokens that are new */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int token = 16 * k + 8 * h + lane % 4 * 2;
                one[h] = lane / 4 ? 0 : pack2<T>(token >= from, token + 1 >= from);
            }
        };
        sh.multiply(c, sh.key, new_tokens);
        float *sum = p.k_sum + row * D + dim;
        if (lane % 4 == 0)
            sum[0] = c[0] + (from ? sum[0] : 0), sum[8] = c[2] + (from ? sum[8] : 0);
    }
    if (!full)
        return;
    if (!b) {
        sh.first.rank(p, seq, head);
        for (int i = tid; i < kBlockKeys; i += 2 * D)
            sh.rank[i] = sh.first.place[i];
        __syncthreads();
        for (int i = tid; i < kBlockKeys * (D / 8); i += 2 * D)
            if (sh.rank[i / (D / 8)] < kSingles)
                sh.key[i / (D / 8)][i % (D / 8)] = make_uint4(0, 0, 0, 0);
        fetch_tokens<2 * D, T>(sh.value, p.v, seq, head, first, 0, n, sh.rank);
        __syncthreads();
    }
    sh.w.ask(sh.key);
    __syncthreads();
    if (warp == 0) {
        float factor, log_count = tilt(sh.w.weight, b ? NULL : sh.rank, factor);
        if (lane == 0)
            p.log_count[row] = log_count;
#pragma unroll
        for (int i = lane; i < kBlockKeys; i += 32)
            W::split(sh.w.weight[i] * kShare, &sh.share[0][i], kBlockKeys + W::kPad);
    }
    cp_async_wait<0>();
    __syncthreads();

    uint32_t share[kBlockKeys / 8];
#pragma unroll
    for (int k = 0; k < kBlockKeys / 32; k++)
        W::parts(*(uint32_t(*)[4]) & share[4 * k], sh.share, k);
    auto shares = [&](uint32_t(&right)[2], int k) { right[0] = share[2 * k], right[1] = share[2 * k + 1]; };
    sh.multiply(c, sh.key, shares);
    float upper = W::whole(c) / kShare, lower = W::whole(c + 2) / kShare;
    if (lane % 4 == 0) {
        sh.mean[dim] = upper, sh.mean[dim + 8] = lower;
        p.key[row * D + dim] = upper, p.key[row * D + dim + 8] = lower;
    }
    sh.multiply(c, sh.value, shares);
    upper = W::whole(c) / kShare, lower = W::whole(c + 2) / kShare;
    if (lane % 4 == 0)
        p.value[row * D + dim] = upper, p.value[row * D + dim + 8] = lower;
    __syncwarp(); /* means of this warp's own dimensions */
#pragma unroll
    for (int g = 2 * warp; g < 2 * warp + 2; g++) {
        float mean[8], variance = 0;
        *(float4 *)mean = *(const float4 *)&sh.mean[8 * g],
                 *(float4 *)(mean + 4) = *(const float4 *)&sh.mean[8 * g + 4];
#pragma unroll
        for (int i = 0; i < kBlockKeys / 32; i++) {
            int r = 32 * i + lane;
            uint4 raw = sh.key[r][swizzled(r, g)];
            const uint32_t w[4] = {raw.x, raw.y, raw.z, raw.w};
            float far = 0;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float2 x = widen2<T>(w[k]);
                far = fmaf(x.x - mean[2 * k], x.x - mean[2 * k], far);
                far = fmaf(x.y - mean[2 * k + 1], x.y - mean[2 * k + 1], far);
            }
            variance = fmaf(sh.w.weight[r], far, variance);
        }
        variance = warp_add(variance);
        if (lane == 0)
            p.variance[row * (D / 8) + g] = variance * 0.125f; /* the mean over 8 dimensions */
    }
}

template <int D, class T> static cudaError_t pool_moments_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    const prism_cu_shape &s = a.shape;
    constexpr int kMost = 65535; /* CTAs in the second and third dimension of a grid */
    if (s.n_kblk > kMost || s.n_qblk > kMost || s.n_seq > kMost)
        return cudaErrorNotSupported;
    if (s.n_qblk && s.n_seq && a.q.data)
        sum_queries<D, T><<<dim3(s.n_kv_head, s.n_qblk, s.n_seq), kSumThreads, 0, stream>>>(a);
    if (s.n_kblk && s.n_seq) {
        int scan_bytes = kScanTiles * sizeof(ScanTile<D>), bytes = sizeof(PoolShared<D, T>);
        cudaError_t e = cudaFuncSetAttribute(scan_queries<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, scan_bytes);
        if (!e)
            e = cudaFuncSetAttribute(pool_moments<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (e)
            return e;
        scan_queries<D><<<dim3(s.n_kv_head, s.n_seq), kScanThreads, scan_bytes, stream>>>(a);
        pool_moments<D, T><<<dim3(s.n_kv_head, s.n_kblk, s.n_seq), 2 * D, bytes, stream>>>(a);
    }
    cudaError_t e = cudaGetLastError();
    return e || !a.covariance || !a.v.data ? e : pool_slots<D, T>(a, stream);
}

} // namespace prism

extern "C" cudaError_t prism_moments_pool_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, PRISM_CU_POOL_MOMENTS, pool_moments_launch, stream);
}
