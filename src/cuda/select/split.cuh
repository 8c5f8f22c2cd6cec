/*
 * Where means lie, each number split into a high and a low f16, as the tensor cores read them.
 *
 * A product's 16 dimensions come in fragments: of a left factor, lane quarter c of a row holds the places 2c, 2c + 1,
 * 2c + 8 and 2c + 9. Any order of the dimensions will do if both factors have the same, and dimensions 4c .. 4c + 3 are
 * taken there, so that a lane reads 16 bytes of a query mean.
 */
#ifndef PRISM_CUDA_SPLIT_CUH
#define PRISM_CUDA_SPLIT_CUH

#include "cuda/shape.cuh"

namespace prism
{

/* Query means: dimensions 4i .. 4i + 3 take 16 bytes, first the four high parts, then the four low ones. */
constexpr int kQueryLow = 8; /* bytes from a number's high part to its low part */
__device__ __forceinline__ int query_byte(int j)
{
    return j / 4 * 16 + j % 4 * 2;
}

/*
 * Key means: images of 64 blocks of one KV head, to be copied to shared memory as they are. Chunks of 16 dimensions,
 * each as products read them without bank conflicts: [places 0-7, 8-15, low parts of 0-7, of 8-15][64 blocks][8 f16];
 * behind them what each block must be multiplied by, f32.
 */
constexpr int kKeys = 64, kPart = kKeys * 16, kChunk = 4 * kPart, kKeyLow = 2 * kPart;
__device__ __forceinline__ int key_byte(int block, int j)
{
    return j / 16 * kChunk + j % 4 / 2 * kPart + block % kKeys * 16 + j % 16 / 4 * 4 + j % 2 * 2;
}
__host__ __device__ __forceinline__ int key_scales(int d) /* byte of the first */
{
    return d / 16 * kChunk;
}
__host__ __device__ __forceinline__ int key_image_bytes(int d)
{
    return key_scales(d) + kKeys * 4;
}
/* Bytes before the images of a KV head. */
__host__ __device__ __forceinline__ int64_t key_images_before(const prism_cu_shape &s, int64_t head_of_all)
{
    return head_of_all * ((s.n_kblk + kKeys - 1) / kKeys) * key_image_bytes(s.d_head);
}

} // namespace prism
#endif
