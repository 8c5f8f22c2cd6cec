/*
 * Moments of key blocks, and their images.
 *
 *   pool    k, v [tokens][d] -> sums of k and v, sums of squared deviations of k        one pass over K and V
 *   image   those -> means and variances in f16, in the order of shared memory
 *   sinks   block 0: its 16 tokens farthest from the mean by themselves, the moments of the rest
 */
#include "cuda/moments.cuh"

namespace prism
{

constexpr int kPoolThreads = 256;

/* One block of one head a CTA; the tokens stay in registers between the sums and the squared deviations from the mean.
 * What was there joins by the rule for two sets of numbers (Chan, Golub, LeVeque). */
template <int D, class T>
__global__ void __launch_bounds__(kPoolThreads) pool_moments(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kLanes = kPoolThreads / (D / 8), kTokens = kBlockKeys / kLanes;
    __shared__ float part[kLanes][D], mean[D];
    const prism_cu_shape &s = p.shape;
    const int tid = threadIdx.x, column = tid % (D / 8) * 8, lane = tid / (D / 8), j = tid % D;
    int head = blockIdx.x % s.n_kv_head, b = blockIdx.x / s.n_kv_head % s.n_kblk,
        seq = blockIdx.x / s.n_kv_head / s.n_kblk;
    int first = b * kBlockKeys, hi = min(first + kBlockKeys, lengths(s, seq).n_kv), lo = max(first, p.n_done);
    if (lo >= hi)
        return;
    uint4 raw[kTokens];
    float sum[8] = {}, x[8];
    auto fetch = [&](const prism_cu_view &t) {
#pragma unroll
        for (int i = 0; i < kTokens; i++) {
            int token = lo + i * kLanes + lane;
            raw[i] = token < hi && t.data ? __ldcs((const uint4 *)((const T *)t.data + head * t.stride_head + column +
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
    auto add_up = [&]() { /* over the lanes; the total of dimension j to thread j */
                          *(float4 *)&part[lane][column] = make_float4(sum[0], sum[1], sum[2], sum[3]);
                          *(float4 *)&part[lane][column + 4] = make_float4(sum[4], sum[5], sum[6], sum[7]);
                          __syncthreads();
                          float total = 0;
                          for (int l = 0; l < kLanes; l++)
                              total += part[l][j];
                          __syncthreads();
                          return total;
    };
    auto add_tokens = [&]() {
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum[k] = 0;
#pragma unroll
        for (int i = 0; i < kTokens; i++) {
            wide(i);
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum[k] += x[k];
        }
        return add_up();
    };

    fetch(p.k);
    int n_new = hi - lo, n_old = lo - first;
    float k_sum = add_tokens();
    if (tid < D)
        mean[tid] = k_sum / n_new;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 8; k++)
        sum[k] = 0;
#pragma unroll
    for (int i = 0; i < kTokens; i++) {
        wide(i);
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (lo + i * kLanes + lane < hi)
                sum[k] = fmaf(x[k] - mean[column + k], x[k] - mean[column + k], sum[k]);
    }
    float k_m2 = add_up();
    fetch(p.v);
    float v_sum = add_tokens();
    if (tid >= D)
        return;
    int64_t at = seq * p.sum_stride_seq + ((int64_t)b * s.n_kv_head + head) * D + j;
    if (n_old) {
        float old = p.k_sum[at], delta = k_sum / n_new - old / n_old;
        k_m2 += p.k_m2[at] + delta * delta * ((float)n_old * n_new / (n_old + n_new));
        k_sum += old, v_sum += p.v_sum[at];
    }
    p.k_sum[at] = k_sum, p.k_m2[at] = k_m2, p.v_sum[at] = v_sum;
}

/* One entry of an image, by D threads. v: the variance's group mean is taken here, over 8 neighbours. */
template <int D>
__device__ __forceinline__ void put_entry(char *images, int entry, int j, float mean, float var, float value)
{
    for (int m = 1; m < 8; m *= 2)
        var += __shfl_xor_sync(~0u, var, m);
    var *= 0.125f;
    int bad = __syncthreads_or(!(fabsf(mean) < 65504.f && fabsf(value) < 65504.f && fabsf(var) < 65504.f));
    char *image = images + (int64_t)(entry / kTile) * Image<D>::kBytes;
    int e = entry % kTile;
    *(__half *)(image + Image<D>::mean(e, j)) = __float2half_rn(bad ? 0 : mean);
    *(__half *)(image + Image<D>::kPart + Image<D>::mean(e, j)) = __float2half_rn(bad ? 0 : value);
    if (j % 8 == 0)
        *(__half *)(image + Image<D>::kMeans + Image<D>::var(e, j / 8)) = __float2half_rn(bad ? NAN : var);
    if (D == 64 && j < 8) /* groups that there are not */
        *(__half *)(image + Image<D>::kMeans + Image<D>::var(e, 8 + j)) = __float2half_rn(0);
}

template <int D> __device__ __forceinline__ char *images_of(const prism_cu_moments &p, int seq, int head)
{
    return (char *)p.image + ((int64_t)seq * p.shape.n_kv_head + head) * tiles_for(p.shape.n_kblk) * Image<D>::kBytes;
}

/* One entry of one head a CTA, from entry 17 on; entries past the last block are zeros. */
template <int D> __global__ void __launch_bounds__(D) image_moments(const __grid_constant__ prism_cu_moments p)
{
    const prism_cu_shape &s = p.shape;
    int n_entry = tiles_for(s.n_kblk) * kTile - kSingles - 1, head = blockIdx.x % s.n_kv_head,
        b = 1 + blockIdx.x / s.n_kv_head % n_entry, seq = blockIdx.x / s.n_kv_head / n_entry, j = threadIdx.x;
    int n = min(kBlockKeys, lengths(s, seq).n_kv - b * kBlockKeys);
    float mean = 0, var = 0, value = 0;
    if (n > 0) {
        int64_t at = seq * p.sum_stride_seq + ((int64_t)b * s.n_kv_head + head) * D + j;
        mean = p.k_sum[at] / n, var = p.k_m2[at] / n, value = p.v_sum[at] / n;
    }
    put_entry<D>(images_of<D>(p, seq, head), kSingles + b, j, mean, var, value);
}

/* Block 0 of one head a CTA: entries 0 .. 16. Keys and values pass through shared memory one after the other. */
template <int D, class T> __global__ void __launch_bounds__(D) image_sinks(const __grid_constant__ prism_cu_moments p)
{
    __shared__ __align__(16) T x[kBlockKeys][D + 8];
    __shared__ float mean[D], far[kBlockKeys];
    __shared__ int place[kBlockKeys], single[kSingles]; /* rank of a token; token of a rank */
    const prism_cu_shape &s = p.shape;
    int head = blockIdx.x % s.n_kv_head, seq = blockIdx.x / s.n_kv_head, j = threadIdx.x;
    int n = min(kBlockKeys, lengths(s, seq).n_kv);
    char *images = images_of<D>(p, seq, head);
    if (n < kBlockKeys) { /* nobody has it in the past */
        for (int e = 0; e <= kSingles; e++)
            put_entry<D>(images, e, j, 0, 0, 0);
        return;
    }
    auto fetch = [&](const prism_cu_view &t) {
        for (int i = threadIdx.x; i < kBlockKeys * (D / 8); i += D)
            *(uint4 *)&x[i / (D / 8)][i % (D / 8) * 8] =
                !t.data ? make_uint4(0, 0, 0, 0)
                        : __ldg((const uint4 *)((const T *)t.data + head * t.stride_head + i % (D / 8) * 8 +
                                                token_offset(t, seq, i / (D / 8))));
    };
    mean[j] = p.k_sum[seq * p.sum_stride_seq + (int64_t)head * D + j] / kBlockKeys;
    fetch(p.k);
    __syncthreads();
    for (int i = j; i < kBlockKeys; i += D) {
        float d2 = 0;
        for (int k = 0; k < D; k++) {
            float d = (float)x[i][k] - mean[k];
            d2 = fmaf(d, d, d2);
        }
        far[i] = finite(d2) ? d2 : INFINITY;
    }
    __syncthreads();
    for (int i = j; i < kBlockKeys; i += D) {
        int before = 0;
        for (int k = 0; k < kBlockKeys; k++)
            before += far[k] > far[i] || (far[k] == far[i] && k < i);
        place[i] = before;
        if (before < kSingles)
            single[before] = i;
    }
    __syncthreads();
    const int n_rest = kBlockKeys - kSingles;
    float key[kSingles], sum = 0, m2 = 0, value = 0;
#pragma unroll
    for (int e = 0; e < kSingles; e++)
        key[e] = (float)x[single[e]][j];
    for (int i = 0; i < kBlockKeys; i++)
        sum += place[i] < kSingles ? 0 : (float)x[i][j];
    float rest = sum / n_rest;
    for (int i = 0; i < kBlockKeys; i++) {
        float d = place[i] < kSingles ? 0 : (float)x[i][j] - rest;
        m2 = fmaf(d, d, m2);
    }
    __syncthreads();
    fetch(p.v);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kSingles; e++)
        put_entry<D>(images, e, j, key[e], 0, (float)x[single[e]][j]);
    for (int i = 0; i < kBlockKeys; i++)
        value += place[i] < kSingles ? 0 : (float)x[i][j];
    put_entry<D>(images, kSingles, j, rest, m2 / n_rest, value / n_rest);
}

template <int D, class T> static cudaError_t pool_moments_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int64_t n_cta = (int64_t)a.shape.n_seq * a.shape.n_kv_head * a.shape.n_kblk;
    if (n_cta > INT32_MAX)
        return cudaErrorNotSupported;
    if (n_cta)
        pool_moments<D, T><<<(int)n_cta, kPoolThreads, 0, stream>>>(a);
    return cudaGetLastError();
}
template <int D, class T> static cudaError_t image_moments_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_head = a.shape.n_seq * a.shape.n_kv_head;
    int64_t n_cta = (int64_t)n_head * (tiles_for(a.shape.n_kblk) * kTile - kSingles - 1);
    if (n_cta > INT32_MAX)
        return cudaErrorNotSupported;
    if (n_head == 0)
        return cudaSuccess;
    image_moments<D><<<(int)n_cta, D, 0, stream>>>(a);
    image_sinks<D, T><<<n_head, D, 0, stream>>>(a);
    return cudaGetLastError();
}

} // namespace prism

extern "C" int64_t prism_moments_image_bytes(const prism_cu_shape *s)
{
    int bytes = s->d_head == 64 ? prism::Image<64>::kBytes : prism::Image<128>::kBytes;
    return (int64_t)s->n_seq * s->n_kv_head * prism::tiles_for(s->n_kblk) * bytes;
}
extern "C" cudaError_t prism_moments_pool_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, pool_moments_launch, stream);
}
extern "C" cudaError_t prism_moments_image_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, image_moments_launch, stream);
}
