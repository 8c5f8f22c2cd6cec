/*
 * Images of moments, as selection and correction read them.
 *
 *   blocks   moments -> f16, in the order of shared memory
 *   singles  block 0: its 16 tokens farthest from the mean
 *   slopes   sums of slots 0 .. j -> mean covariances and mean queries
 */
#include "cuda/moments/moments_first.cuh"

namespace prism
{

/* One entry of an image, by D threads. mean and value: of dimension j; variance: of its group; bias: log2 of the count,
 * relative to a block. */
template <int D>
__device__ __forceinline__ void put_entry(char *images, int entry, int j, float mean, float variance, float value,
                                          float bias)
{
    int bad = __syncthreads_or(
        !(fabsf(mean) < 65504.f && fabsf(value) < 65504.f && fabsf(variance) < 65504.f && fabsf(bias) < 65504.f));
    char *image = images + (int64_t)(entry / kTile) * MomentsImage<D>::kBytes;
    int e = entry % kTile;
    *(__half *)(image + MomentsImage<D>::mean(e, j)) = __float2half_rn(bad ? 0 : mean);
    *(__half *)(image + MomentsImage<D>::kValues + MomentsImage<D>::mean(e, j)) = __float2half_rn(bad ? 0 : value);
    if (j % 8 == 0)
        *(__half *)(image + MomentsImage<D>::kMeans + MomentsImage<D>::var(e, j / 8)) =
            __float2half_rn(bad ? 0 : variance);
    if (D == 64 && j < 8) /* groups that there are not */
        *(__half *)(image + MomentsImage<D>::kMeans + MomentsImage<D>::var(e, 8 + j)) = __float2half_rn(0);
    if (j == 0)
        *(float *)(image + MomentsImage<D>::bias(e)) = bad ? NAN : bias;
}

/* One block of one head a CTA; entries of blocks that are not whole are zeros: no query has
 * such a block in its past. */
template <int D> __global__ void __launch_bounds__(D) image_blocks(const __grid_constant__ prism_cu_moments p)
{
    const prism_cu_shape &s = p.shape;
    int n_entry = tiles_for(s.n_kblk) * kTile - kSingles, head = blockIdx.x % s.n_kv_head,
        b = blockIdx.x / s.n_kv_head % n_entry, seq = blockIdx.x / s.n_kv_head / n_entry, j = threadIdx.x;
    float mean = 0, variance = 0, value = 0, bias = 0;
    if ((b + 1) * kBlockKeys <= lengths(s, seq).n_kv) {
        int64_t row = ((int64_t)seq * p.n_block_seq + b) * s.n_kv_head + head;
        mean = p.key[row * D + j], variance = p.variance[row * (D / 8) + j / 8], value = p.value[row * D + j];
        bias = p.log_count[row] * kLog2e - 7;
    }
    put_entry<D>(image_of<D>(p, seq, head), kSingles + b, j, mean, variance, value, bias);
}

/* Block 0 of one head a CTA: entries 0 .. 15. Keys and values pass through shared memory one after the other. */
template <int D, class T> __global__ void __launch_bounds__(D) image_singles(const __grid_constant__ prism_cu_moments p)
{
    __shared__ FirstBlock<D, T> x;
    const prism_cu_shape &s = p.shape;
    int head = blockIdx.x % s.n_kv_head, seq = blockIdx.x / s.n_kv_head, j = threadIdx.x;
    char *images = image_of<D>(p, seq, head);
    if (lengths(s, seq).n_kv < kBlockKeys) {
        for (int e = 0; e < kSingles; e++)
            put_entry<D>(images, e, j, 0, 0, 0, 0);
        return;
    }
    float key[kSingles];
    x.rank(p, seq, head);
#pragma unroll
    for (int e = 0; e < kSingles; e++)
        key[e] = (float)x.token[x.single[e]][j];
    __syncthreads();
    x.fetch(p.v, seq, head);
#pragma unroll
    for (int e = 0; e < kSingles; e++)
        put_entry<D>(images, e, j, key[e], 0, (float)x.token[x.single[e]][j], -7);
}

/* One j of one head a CTA. Zeros where a number is not finite in f16: blocks keep their mean values. */
template <int D> __global__ void __launch_bounds__(1024) image_slopes(const __grid_constant__ prism_cu_moments p)
{
    constexpr int kEach = D * D / 1024;
    const prism_cu_shape &s = p.shape;
    int n_slot = slots_for(s.n_kblk), head = blockIdx.x % s.n_kv_head, j = blockIdx.x / s.n_kv_head % n_slot,
        seq = blockIdx.x / s.n_kv_head / n_slot;
    if (1 << j > lengths(s, seq).n_kv / kBlockKeys)
        return; /* no row reads it */
    const float *from = covariance_of<D>(p, seq, head) + threadIdx.x, mean = 1.f / (1 << j);
    float x[kEach] = {}, query = 0;
    for (int slot = 0; slot <= j; slot++, from += (int64_t)s.n_kv_head * (D * (D + 1))) {
#pragma unroll
        for (int i = 0; i < kEach; i++)
            x[i] += from[1024 * i];
        if (threadIdx.x < D)
            query += from[D * D];
    }
    query *= mean;
    bool good = fabsf(query) < 65504.f;
#pragma unroll
    for (int i = 0; i < kEach; i++)
        x[i] *= p.scale * mean, good = good && fabsf(x[i]) < 65504.f;
    good = __syncthreads_and(good);
    char *to = slopes_of<D>(p, seq, head) + (int64_t)j * MomentsImage<D>::kSlope;
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        int value = (threadIdx.x + 1024 * i) / D, key = threadIdx.x % D;
        *(__half *)(to + MomentsImage<D>::slope(key, value)) = __float2half_rn(good ? x[i] : 0);
    }
    if (threadIdx.x < D)
        ((float *)(to + MomentsImage<D>::kQuery))[threadIdx.x] = good ? query : 0;
}

template <int D, class T> static cudaError_t image_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_head = a.shape.n_seq * a.shape.n_kv_head;
    int64_t n_cta = (int64_t)n_head * (tiles_for(a.shape.n_kblk) * kTile - kSingles);
    if (n_cta > INT32_MAX)
        return cudaErrorNotSupported;
    if (n_head == 0)
        return cudaSuccess;
    image_blocks<D><<<(int)n_cta, D, 0, stream>>>(a);
    image_singles<D, T><<<n_head, D, 0, stream>>>(a);
    if (int n_slot = slots_for(a.shape.n_kblk); n_slot && a.v.data)
        image_slopes<D><<<n_head * n_slot, 1024, 0, stream>>>(a);
    return cudaGetLastError();
}

} // namespace prism

extern "C" int64_t prism_moments_image_bytes(const prism_cu_shape *s)
{
    int64_t bytes = s->d_head == 64 ? prism::head_bytes<64>(s->n_kblk) : prism::head_bytes<128>(s->n_kblk);
    return s->n_seq * s->n_kv_head * bytes;
}
extern "C" cudaError_t prism_moments_image_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, PRISM_CU_POOL_MOMENTS, image_launch, stream);
}
