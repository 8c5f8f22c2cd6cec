/*
 * Covariances of slots (docs/moments.md, "State").
 *
 *   k, v of all blocks of a slot, their moments -> sums of covariances, and of the queries that weigh tokens
 *
 * A slot is made by the call that completes it. A CTA takes 64 dimensions of values, all dimensions of keys, and every
 * n-th block of a slot; the n CTAs of a cluster add up their sums, in the order of their ranks. So the bits do not
 * depend on how a prompt is cut. A covariance is the product of weight * (value - mean value), in two numbers of 16
 * bits, with the keys as they are: these factors sum to 0, so the keys' mean need not be subtracted.
 */
#include "cuda/device.cuh"
#include "cuda/moments/moments_tilt.cuh"

namespace prism
{

constexpr int kValues = 64, kSides = 8; /* dimensions of values a CTA; CTAs a cluster, where there are clusters */
constexpr float kShare = 16;            /* weights times this: 16 bits reach far enough down */

template <int D, class T> struct SlotShared {
    struct Stage {
        Tokens<D> key;
        Tokens<kValues> value;
    };
    union {
        Stage stage[2]; /* of this block and the next */
        FirstBlock<D, T> first;
        float sum[kValues + 1][D]; /* at the end; the last row is of queries */
    };
    Weights<D, T> w;
    int rank[kBlockKeys]; /* of block 0's tokens */
    float factor;         /* of the exponents */
};

/* sum += this block's covariance: of a warp 16 dimensions of values, 64 of keys. mean: of values, this thread's two. */
template <int D, class T>
__device__ __forceinline__ void add_covariance(const SlotShared<D, T> &sh, int i, const float (&mean)[2],
                                               float (&sum)[8][4])
{
    const typename SlotShared<D, T>::Stage &x = sh.stage[i];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 2
    for (int k = 0; k < kBlockKeys; k += 16) {
        uint32_t v[4], high[4], low[4];
        int r = k + lane / 16 * 8 + lane % 8;
        ldmatrix4_t(v, smem_addr(&x.value[r][swizzled(r, warp % 4 * 2 + lane / 8 % 2)]));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 y = widen2<T>(v[j]), w = *(const float2 *)&sh.w.weight[k + j / 2 * 8 + lane % 4 * 2];
            y.x = (y.x - mean[j % 2]) * (w.x * kShare), y.y = (y.y - mean[j % 2]) * (w.y * kShare);
            high[j] = pack2<T>(y.x, y.y);
            float2 h = widen2<T>(high[j]);
            low[j] = pack2<T>(y.x - h.x, y.y - h.y);
        }
        r = k + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t key[4];
            ldmatrix4_t(key, smem_addr(&x.key[r][swizzled(r, warp / 4 * 8 + n + lane / 16)]));
#pragma unroll
            for (int j = 0; j < 2; j++) {
                warp_mma<T>(sum[n + j], high, key[2 * j], key[2 * j + 1]);
                warp_mma<T>(sum[n + j], low, key[2 * j], key[2 * j + 1]);
            }
        }
    }
}

template <int D, class T>
__global__ void __launch_bounds__(2 * D, D == 128 ? 2 : 4) sum_slots(const __grid_constant__ prism_cu_moments p,
                                                                      int n_side)
{
    extern __shared__ __align__(128) char smem[];
    SlotShared<D, T> &sh = *(SlotShared<D, T> *)smem;
    const prism_cu_shape &s = p.shape;
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    int side = blockIdx.x % n_side, part = blockIdx.x / n_side % (D / kValues),
        head = blockIdx.x / n_side / (D / kValues), seq = blockIdx.y,
        slot = gridDim.z - 1 - blockIdx.z; /* long ones first */
    int n_whole = lengths(s, seq).n_kv / kBlockKeys, b = (slot ? 1 << (slot - 1) : 0) + side, end = 1 << slot;
    if (end > n_whole || end <= p.n_done / kBlockKeys)
        return; /* all CTAs of a cluster do */
    prism_cu_view v = p.v;
    v.data = (T *)v.data + part * kValues;
    auto fetch = [&](int b, typename SlotShared<D, T>::Stage &to) {
        const int *rank = b ? NULL : sh.rank;
        if (b >= end)
            return;
        fetch_tokens<2 * D, T>(to.key, p.k, seq, head, b * kBlockKeys, 0, kBlockKeys, rank);
        fetch_tokens<2 * D, T>(to.value, v, seq, head, b * kBlockKeys, 0, kBlockKeys, rank);
    };
    if (b == 0) {
        sh.first.rank(p, seq, head);
        for (int i = tid; i < kBlockKeys; i += 2 * D)
            sh.rank[i] = sh.first.place[i];
        __syncthreads();
    }
    fetch(b, sh.stage[0]);
    float sum[8][4] = {}, queries = 0;
    for (int i = 0; b < end; b += n_side, i ^= 1) {
        int64_t row = row_of(p, seq, b, head);
        float query = 0;
        bool good = true;
        if (tid < D) {
            query = p.query_sum[row * D + tid] * (1.f / max(p.n_query[row], 1));
            good = finite(p.key[row * D + tid]) && finite(p.value[row * D + tid]);
            sh.w.set_query(tid, p.query_sum[row * D + tid] * (p.scale / max(p.n_query[row], 1)));
        }
        const float *value = p.value + row * D + part * kValues + warp % 4 * 16 + lane / 4;
        const float mean[2] = {value[0], value[8]};
        cp_async_wait<0>();
        good = __syncthreads_and(good); /* and all have done with the block before */
        fetch(b + n_side, sh.stage[i ^ 1]);
        if (!good) /* it adds nothing */
            continue;
        sh.w.ask(sh.stage[i].key);
        __syncthreads();
        if (warp == 0) {
            float factor;
            tilt(sh.w.weight, b ? NULL : sh.rank, factor);
            if (lane == 0)
                sh.factor = factor;
        }
        __syncthreads();
        queries += sh.factor * query;
        add_covariance(sh, i, mean, sum);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            *(float2 *)&sh.sum[warp % 4 * 16 + 8 * h + lane / 4][warp / 4 * 64 + 8 * n + lane % 4 * 2] =
                make_float2(sum[n][2 * h] / kShare, sum[n][2 * h + 1] / kShare);
    if (tid < D)
        sh.sum[kValues][tid] = queries;
    cluster_sync();
    float *out = covariance_of<D>(p, seq, head) + (int64_t)slot * s.n_kv_head * (D * (D + 1));
    for (int i = side * 2 * D + tid; i < (kValues + !part) * (D / 4); i += n_side * 2 * D) {
        int row = i / (D / 4), column = i % (D / 4) * 4;
        float4 total = cluster_lds128(&sh.sum[row][column], 0);
        for (int other = 1; other < n_side; other++) {
            float4 x = cluster_lds128(&sh.sum[row][column], other);
            total.x += x.x, total.y += x.y, total.z += x.z, total.w += x.w;
        }
        *(float4 *)(out + (row < kValues ? part * kValues + row : D) * D + column) = total;
    }
    cluster_sync(); /* the others have read */
}

template <int D, class T> cudaError_t pool_slots(const prism_cu_moments &a, cudaStream_t stream)
{
    const prism_cu_shape &s = a.shape;
    const int n_slot = slots_for(s.n_kblk), bytes = sizeof(SlotShared<D, T>);
    if (!n_slot || !s.n_seq)
        return cudaSuccess;
    cudaFuncAttributes code;
    cudaError_t e = cudaFuncGetAttributes(&code, sum_slots<D, T>);
    if (!e)
        e = cudaFuncSetAttribute(sum_slots<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e)
        return e;
    const int n_side = code.ptxVersion >= 90 ? kSides : 1; /* code for older GPUs knows no clusters */
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {(unsigned)n_side, 1, 1};
    cudaLaunchConfig_t c = {dim3(n_side * (D / kValues) * s.n_kv_head, s.n_seq, n_slot), dim3(2 * D), (size_t)bytes,
                            stream, &cluster, n_side > 1 ? 1u : 0u};
    return cudaLaunchKernelEx(&c, sum_slots<D, T>, a, n_side);
}
template cudaError_t pool_slots<128, __nv_bfloat16>(const prism_cu_moments &, cudaStream_t);
template cudaError_t pool_slots<128, __half>(const prism_cu_moments &, cudaStream_t);
template cudaError_t pool_slots<64, __nv_bfloat16>(const prism_cu_moments &, cudaStream_t);
template cudaError_t pool_slots<64, __half>(const prism_cu_moments &, cudaStream_t);

} // namespace prism
