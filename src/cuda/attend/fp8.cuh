/*
 * Numbers of 8 bits (e4m3: 4 bits of exponent, 3 of mantissa, up to 448) for attention's products.
 *
 * Scales are powers of two, one for every two queries (four where d is 64), one a block of K and of V, the smallest
 * that brings the largest finite number within 448. A number therefore rounds to four significant bits whatever stands
 * beside it, unless it is below 2^-14 of the largest.
 *
 * Image of K and V: [sequence][KV head][block] tiles, as the tensor cores read them, and a BlockScale each.
 *   K  [128 keys][d]    V  [d][128 keys], keys in value_key()'s order
 */
#ifndef PRISM_CUDA_FP8_CUH
#define PRISM_CUDA_FP8_CUH

#include "cuda/ptx.cuh"
#include "cuda/shape.cuh"

namespace prism
{

constexpr int kBlock8 = 128;

struct BlockScale {
    float key;       /* what products with these keys are multiplied by */
    float value_exp; /* log2 of what values are; kNoValue if all are 0 */
    uint32_t bad;    /* values that are not finite (they are 0 in the image) */
    uint32_t unused;
};
constexpr float kNoValue = -10000;

struct Image8 {
    char *key, *value;
    BlockScale *scale;
    int64_t n_tile;
};
/* Cuts the memory of an image; with memory NULL `scale + n_tile` says how much is needed. */
__host__ __device__ inline Image8 image8(void *memory, const prism_cu_shape &s)
{
    Image8 x;
    int64_t tile = (int64_t)kBlock8 * s.d_head;
    x.n_tile = (int64_t)s.n_seq * s.n_kv_head * s.n_kblk;
    x.key = (char *)memory;
    x.value = x.key + x.n_tile * tile;
    x.scale = (BlockScale *)(x.value + x.n_tile * tile);
    return x;
}
__device__ __forceinline__ int64_t image_tile(const prism_cu_shape &s, int seq, int kv_head, int block)
{
    return ((int64_t)seq * s.n_kv_head + kv_head) * s.n_kblk + block;
}

/* Where byte b of row r of a tile lies: rows of W bytes, swizzled over W bytes. */
template <int W> __device__ __forceinline__ int swizzled8(int r, int b)
{
    static_assert(W == 64 || W == 128, "a swizzle");
    return r * W + (b ^ (W == 128 ? r % 8 : r / 2 % 4) * 16);
}

/* A lane's weights, of keys 2c and 2c + 1 of every 8, become four neighbours of an operand: key of the i-th of the
 * four with lane quarter c of 16. */
__device__ __forceinline__ int value_key(int c, int i)
{
    return 8 * (i / 2) + 2 * c + i % 2;
}

/* ------------------------------------------------------------------------------------------------- scales ---- */

/* Largest magnitude of pairs of 16 bits, as their bits without the sign. */
__device__ __forceinline__ uint32_t largest2(uint32_t x, uint32_t y)
{
    return __vmaxu2(x & 0x7fff7fffu, y & 0x7fff7fffu);
}
__device__ __forceinline__ uint32_t largest8(uint4 x)
{
    uint32_t m = __vmaxu2(largest2(x.x, x.y), largest2(x.z, x.w));
    return max(m & 0xffff, m >> 16);
}
template <class T> __device__ __forceinline__ uint32_t infinity_bits();
template <> __device__ __forceinline__ uint32_t infinity_bits<__nv_bfloat16>()
{
    return 0x7f80;
}
template <> __device__ __forceinline__ uint32_t infinity_bits<__half>()
{
    return 0x7c00;
}
__device__ __forceinline__ float from_bits(uint32_t bits, const __nv_bfloat16 *)
{
    return __uint_as_float(bits << 16);
}
__device__ __forceinline__ float from_bits(uint32_t bits, const __half *)
{
    return __half2float(__ushort_as_half((unsigned short)bits));
}
/* Exponent of the scale of numbers up to largest (bits; finite): largest / 2^e is in (224, 448]. Held above -60, so
 * that products of scales stay above 0. */
template <class T> __device__ __forceinline__ int scale_exponent(uint32_t largest)
{
    uint32_t bits = __float_as_uint(from_bits(largest, (const T *)nullptr));
    int e = (int)(bits >> 23) - 127 - 8 + ((bits & 0x7fffff) > 0x600000);
    return largest ? max(e, -60) : 0;
}
__device__ __forceinline__ float power_of_two(int e)
{
    return __uint_as_float((uint32_t)(e + 127) << 23);
}

template <class T> __device__ __forceinline__ float2 widen2(uint32_t x);
template <> __device__ __forceinline__ float2 widen2<__nv_bfloat16>(uint32_t x)
{
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 widen2<__half>(uint32_t x)
{
    return __half22float2(*(__half2 *)&x);
}
/* Eight numbers times f; the infinities must have become NaN. */
template <class T> __device__ __forceinline__ uint2 to_e4m3(uint4 x, float f)
{
    float2 a = widen2<T>(x.x), b = widen2<T>(x.y), c = widen2<T>(x.z), d = widen2<T>(x.w);
    return make_uint2(pack_e4m3(a.x * f, a.y * f, b.x * f, b.y * f), pack_e4m3(c.x * f, c.y * f, d.x * f, d.y * f));
}
template <class T> __device__ __forceinline__ uint4 nan8(uint4 x)
{
    return make_uint4(nan2<T>(x.x), nan2<T>(x.y), nan2<T>(x.z), nan2<T>(x.w));
}

} // namespace prism
#endif
