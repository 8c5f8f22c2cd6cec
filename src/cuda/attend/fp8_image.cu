/*
 * K, V -> images of 8 bits (fp8.cuh), one CTA a block and KV head, one read of memory.
 */
#include "cuda/attend/attend.cuh"
#include "cuda/attend/fp8.cuh"

namespace prism
{

constexpr int kImageThreads = 256;

struct ImageJob {
    prism_cu_shape shape;
    prism_cu_view k, v;
    Image8 image;
};

/* Both maxima of the CTA; scratch: 16 words. */
__device__ __forceinline__ uint2 largest_of_all(uint2 x, uint32_t *scratch)
{
    x.x = __reduce_max_sync(~0u, x.x), x.y = __reduce_max_sync(~0u, x.y);
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x.x, scratch[8 + threadIdx.x / 32] = x.y;
    __syncthreads();
    uint4 a = *(uint4 *)scratch, b = *(uint4 *)(scratch + 4), c = *(uint4 *)(scratch + 8), d = *(uint4 *)(scratch + 12);
    return make_uint2(max(max(max(a.x, a.y), max(a.z, a.w)), max(max(b.x, b.y), max(b.z, b.w))),
                      max(max(max(c.x, c.y), max(c.z, c.w)), max(max(d.x, d.y), max(d.z, d.w))));
}

/* Tokens past the end are zeros. */
template <int D, class T>
__device__ __forceinline__ uint4 load8(const prism_cu_view &t, int seq, int head, int token, int n_token, int c)
{
    if (token >= n_token)
        return make_uint4(0, 0, 0, 0);
    return __ldg((const uint4 *)((const T *)t.data + token_offset(t, seq, token) + head * t.stride_head) + c);
}

/* Dimensions 8c .. 8c + 7 of four keys, four bytes a dimension. raw: rows of kRow bytes. */
template <int D, class T>
__device__ __forceinline__ void transpose(const char *raw, int row_bytes, char *out, int quad, int c, float f, bool bad)
{
    uint32_t x[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 y = *(const uint4 *)(raw + (quad / 4 * 16 + value_key(quad % 4, i)) * row_bytes + c * 16);
        if (bad)
            y = finite8<T>(y);
        x[i][0] = y.x, x[i][1] = y.y, x[i][2] = y.z, x[i][3] = y.w;
    }
#pragma unroll
    for (int w = 0; w < 4; w++) {
        float2 y[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[i] = widen2<T>(x[i][w]);
        int r = c * 8 + 2 * w;
        *(uint32_t *)(out + swizzled8<128>(r, quad * 4)) = pack_e4m3(y[0].x * f, y[1].x * f, y[2].x * f, y[3].x * f);
        *(uint32_t *)(out + swizzled8<128>(r + 1, quad * 4)) =
            pack_e4m3(y[0].y * f, y[1].y * f, y[2].y * f, y[3].y * f);
    }
}

template <int D, class T>
__global__ void __launch_bounds__(kImageThreads) make_image(const __grid_constant__ ImageJob j)
{
    constexpr int kChunk = D / 8, kLoad = kBlock8 * kChunk / kImageThreads, kRow = D * 2 + 16;
    __shared__ __align__(16) char raw[kBlock8 * kRow];
    __shared__ __align__(16) uint32_t scratch[16];
    int block = blockIdx.x, head = blockIdx.y, seq = blockIdx.z;
    int n_token = lengths(j.shape, seq).n_kv, first = block * kBlock8;
    if (first >= n_token)
        return;
    uint4 key[kLoad], value[kLoad];
#pragma unroll
    for (int i = 0; i < kLoad; i++) {
        int at = threadIdx.x + i * kImageThreads;
        key[i] = load8<D, T>(j.k, seq, head, first + at / kChunk, n_token, at % kChunk);
        value[i] = load8<D, T>(j.v, seq, head, first + at / kChunk, n_token, at % kChunk);
    }
    uint2 most = make_uint2(0, 0);
#pragma unroll
    for (int i = 0; i < kLoad; i++) {
        int at = threadIdx.x + i * kImageThreads;
        *(uint4 *)(raw + at / kChunk * kRow + at % kChunk * 16) = value[i];
        most.x = max(most.x, largest8(key[i])), most.y = max(most.y, largest8(value[i]));
    }
    uint2 all = largest_of_all(most, scratch);
    bool bad_key = all.x >= infinity_bits<T>(), bad_value = all.y >= infinity_bits<T>();
    if (bad_key || bad_value) { /* the largest finite one, then */
        most = make_uint2(0, 0);
        for (int i = 0; i < kLoad; i++) {
            most.x = max(most.x, largest8(finite8<T>(key[i]))), most.y = max(most.y, largest8(finite8<T>(value[i])));
            key[i] = nan8<T>(key[i]);
        }
        __syncthreads();
        all = largest_of_all(most, scratch);
    }
    int key_exp = scale_exponent<T>(all.x), value_exp = scale_exponent<T>(all.y);
    float key_f = power_of_two(-key_exp), value_f = power_of_two(-value_exp);
    int64_t tile = image_tile(j.shape, seq, head, block);
    char *out = j.image.key + tile * (kBlock8 * D);
#pragma unroll
    for (int i = 0; i < kLoad; i++) {
        int at = threadIdx.x + i * kImageThreads;
        *(uint2 *)(out + swizzled8<D>(at / kChunk, at % kChunk * 8)) = to_e4m3<T>(key[i], key_f);
    }
    out = j.image.value + tile * (kBlock8 * D);
    for (int c = threadIdx.x / 32; c < kChunk; c += kImageThreads / 32)
        transpose<D, T>(raw, kRow, out, threadIdx.x % 32, c, value_f, bad_value);
    if (threadIdx.x == 0)
        j.image.scale[tile] = {power_of_two(key_exp), all.y ? (float)value_exp : kNoValue, bad_value, 0};
}

template <class T> static cudaError_t launch_image(const ImageJob &j, dim3 grid, cudaStream_t stream)
{
    if (j.shape.d_head == 128)
        make_image<128, T><<<grid, kImageThreads, 0, stream>>>(j);
    else
        make_image<64, T><<<grid, kImageThreads, 0, stream>>>(j);
    return cudaGetLastError();
}

} // namespace prism

extern "C" size_t prism_fp8_image_bytes(const prism_cu_shape *shape)
{
    prism::Image8 x = prism::image8(nullptr, *shape);
    return (size_t)(x.scale + x.n_tile);
}

extern "C" cudaError_t prism_fp8_image_cuda(const prism_cu_attend *a, cudaStream_t stream)
{
    const prism_cu_shape &s = a->shape;
    const prism_cu_gpu *gpu;
    cudaError_t e = prism::gpu_for(a, PRISM_CU_ATTEND_FP8, &gpu);
    if (e)
        return e;
    prism::ImageJob j = {s, a->k, a->v, prism::image8(a->fp8_image, s)};
    dim3 grid((unsigned)s.n_kblk, (unsigned)s.n_kv_head, (unsigned)s.n_seq);
    if (!j.image.n_tile)
        return cudaSuccess;
    return s.dtype == PRISM_CU_BF16 ? prism::launch_image<__nv_bfloat16>(j, grid, stream)
                                    : prism::launch_image<__half>(j, grid, stream);
}
