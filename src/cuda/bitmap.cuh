/* The plan as bits, between selection and lists. */
#ifndef PRISM_CUDA_BITMAP_CUH
#define PRISM_CUDA_BITMAP_CUH

#include "cuda/shape.cuh"

namespace prism
{

constexpr uint32_t kAll = ~0u;

/* Words of bitmap before row u of a head, and in row u. Where all sequences are alike a row has no words past its own
 * block: half the memory. */
struct Bitmap {
    int words, base; /* words of a full row; own block of row 0, or -1: rows are full */
    __host__ __device__ static int64_t triangle(int b)
    {
        return (int64_t)16 * (b / 32) * (b / 32 + 1) + b % 32 * (b / 32 + 1);
    }
    __host__ __device__ int64_t before(int u) const
    {
        return base < 0 ? (int64_t)u * words : triangle(base + u) - triangle(base);
    }
    __host__ __device__ int in(int u) const { return base < 0 ? words : (base + u) / 32 + 1; }
};
__host__ __device__ static Bitmap bitmap_of(const prism_cu_shape &s, int block_size)
{
    bool alike = !s.n_q_of && !s.n_kv_of && !s.q_start_of;
    return {(s.n_kblk + 31) / 32, alike ? s.q_start / block_size : -1};
}

} // namespace prism
#endif
