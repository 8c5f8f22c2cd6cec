/*
 * The cut that top_p puts through a row, found without sorting and without keeping logits.
 *
 * Weights are scaled so that a row's add up to about 2^31; a mass is a weight rounded to an integer. A height is 1 +
 * log2 of a weight over the least that can stay. The bits of heights from 1 on put blocks in order, and into buckets
 * that are the finer the lower they lie, for there the cut is.
 *
 *   masses by height in 64 buckets -> the bucket in which the sum from above reaches top_p, divided again while it
 * holds more than 64 blocks -> those in a list -> the lowest of them that stays
 *
 * Where more than 64 blocks have one height, their indices are divided in the same way: lower ones stay. Integers: the
 * result does not depend on the order of summation.
 */
#ifndef PRISM_CUDA_SELECT_CUT_CUH
#define PRISM_CUDA_SELECT_CUT_CUH

#include "cuda/bitmap.cuh"
#include "cuda/ptx.cuh"

namespace prism
{

constexpr int kBuckets = 64, kBucketStride = kBuckets + 4; /* words of a row; 4 for what lies in none, a lane's each */
constexpr int kList = kBuckets;                            /* blocks; in the same place */
constexpr float kTotal = 31;                               /* log2 of a row's mass */
constexpr int kIndexBits = 20;                             /* of a key block */

/* Of the lanes before this one; the lanes' sum goes to `all`. */
__device__ __forceinline__ uint32_t row_before(uint32_t x, uint32_t *all)
{
    uint32_t before = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t y = __shfl_sync(kAll, x, i, 4);
        before += i < threadIdx.x % 4 ? y : 0, sum += y;
    }
    *all = sum;
    return before;
}

struct Cut {
    int from, shift;      /* bucket i: heights whose bits are from + (i << shift) .. from + (i + 1 << shift) - 1 */
    float lift;           /* log2 of a mass = height + lift */
    float keep;           /* heights from here on stay; from .. keep: the list */
    float tied;           /* not 0: the height that is divided by index */
    uint32_t need, above; /* mass that must stay; of what lies above the buckets or the list */
    bool open;            /* to be divided */

    __device__ __forceinline__ void divide_up_to(float top)
    {
        from = __float_as_int(1.f);
        shift = max(0, 26 - __clz(__float_as_int(top) - from));
    }
    /* A row of n blocks. The least that can stay: what goes is at most n weights of at most the cut, and what goes
     * together with the cut has at least the share 1 - top_p. Weights of at most 1/2 have no mass. */
    __device__ __forceinline__ void start(int n, float top_p)
    {
        lift = fmaxf(log2_fast(fmaxf(1 - top_p, 0)) + kTotal - log2_fast((float)n) - 0.02f, -1.f) - 1;
        divide_up_to(kTotal - lift + 0.01f);
        above = 0, tied = 0, open = true;
    }
    /* Only what is not a number stays. */
    __device__ __forceinline__ void start_empty()
    {
        from = shift = 0, lift = 0, keep = INFINITY, above = 0, tied = 0, open = false;
    }
    __device__ __forceinline__ uint32_t mass(float height) const { return __float2uint_rn(exp2_fast(height + lift)); }
    /* Of block v with a height; by index where that is tied. */
    template <bool kTied> __device__ __forceinline__ float place(float height, int v) const
    {
        if (!kTied || tied == 0)
            return height;
        return height == tied ? (float)((1 << kIndexBits) - v) : height < tied ? 0 : INFINITY;
    }
    __device__ __forceinline__ void close(int bits) { keep = __int_as_float(bits), open = false; }
    /* Bucket `at` is where the sum reaches `need`: `before` above it and `in` in it. */
    __device__ __forceinline__ void narrow(int at, uint32_t before, uint32_t in, int index_bits)
    {
        above = before, from += at << shift;
        uint32_t least = mass(tied != 0 ? tied : __int_as_float(from)); /* of what is in the bucket */
        if (in < 2 * least || before + in - least < need) {             /* one block, or all are needed */
            close(from);
        } else if (tied == 0 && shift + index_bits <= 31 && in < (uint64_t)least * kList) {
            close(from + (1 << shift));
        } else if (shift) {
            shift = max(shift - 6, 0);
        } else {
            tied = __int_as_float(from);
            divide_up_to(2 << kIndexBits);
        }
    }
    /* From the buckets of this row, which are cleared; all 32 lanes call. first: they hold all of the row. */
    __device__ __forceinline__ void update(uint32_t *bucket, float top_p, bool first, int index_bits)
    {
        int c = threadIdx.x % 4;
        uint32_t x[16], sum = 0, all, rest = bucket[kBuckets + c];
        uint4 *mine = (uint4 *)(bucket + kBuckets - 16 * (c + 1)); /* lane 0 holds the uppermost */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint4 w = mine[i];
            mine[i] = make_uint4(0, 0, 0, 0);
            x[4 * i] = w.x, x[4 * i + 1] = w.y, x[4 * i + 2] = w.z, x[4 * i + 3] = w.w;
            sum += w.x + w.y + w.z + w.w;
        }
        bucket[kBuckets + c] = 0;
        uint32_t before = row_before(sum, &all) + above;
        quad_add(rest);
        if (first)
            need = max(1u, (uint32_t)ceil((double)top_p * (all + rest)));
        bool mine_it_is = before < need && before + sum >= need;
        int at = 0;
        uint32_t in = 0;
#pragma unroll
        for (int i = 15; i >= 0; i--)
            if (before < need && !in) {
                if (before + x[i] >= need)
                    at = 48 - 16 * c + i, in = x[i];
                else
                    before += x[i];
            }
        uint32_t who = __ballot_sync(kAll, mine_it_is) >> (threadIdx.x % 32 & ~3) & 15;
        int lane = __ffs(who | 16) - 1;
        at = __shfl_sync(kAll, at, lane, 4), before = __shfl_sync(kAll, before, lane, 4);
        in = __shfl_sync(kAll, in, lane, 4);
        if (!open)
            return;
        if (who)
            narrow(at, before, in, index_bits);
        else
            close(from); /* rounding: all blocks together do not reach top_p, and all stay */
    }
};

/* The listed blocks of a thread's two rows, every fourth a lane's: (bits of the height - from) << index_bits |
 * complement of the index. */
struct Lists {
    uint32_t entry[2][kList / 4], mass_of[2][kList / 4];
    int n[2], most; /* of this row, and of all in the warp */

    __device__ __forceinline__ void load(const uint32_t *const (&list)[2], const Cut (&cut)[2], int index_bits)
    {
        most = __reduce_max_sync(kAll, max(n[0], n[1]));
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < kList / 4; i++) {
                int at = 4 * i + threadIdx.x % 4;
                uint32_t e = at < n[h] ? list[h][at] : 0;
                entry[h][i] = e;
                mass_of[h][i] = at < n[h] ? cut[h].mass(__int_as_float(cut[h].from + (int)(e >> index_bits))) : 0;
            }
    }
    /* The lowest entries that stay: those from them on reach what the masses above lack. Bisection, until one entry is
     * left between what is enough and what is not. */
    __device__ __forceinline__ void find_lowest(uint32_t (&enough)[2], const Cut (&cut)[2]) const
    {
        uint32_t short_of[2] = {1u << 31, 1u << 31};
        int left[2] = {n[0], n[1]}, n_short[2] = {};
        enough[0] = enough[1] = 0;
        while (__any_sync(kAll, max(left[0], left[1]) > 1)) {
            uint32_t probe[2], sum[2] = {};
            int count[2] = {};
#pragma unroll
            for (int h = 0; h < 2; h++)
                probe[h] = enough[h] + (short_of[h] - enough[h]) / 2;
#pragma unroll
            for (int g = 0; g < kList / 4; g += 4)
                if (4 * g < most)
#pragma unroll
                    for (int i = 2 * g; i < 2 * g + 8; i++)
                        if (entry[i % 2][i / 2] >= probe[i % 2])
                            sum[i % 2] += mass_of[i % 2][i / 2], count[i % 2]++;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                quad_add(sum[h]), quad_add(count[h]);
                if (left[h] <= 1)
                    continue;
                if (sum[h] >= cut[h].need - cut[h].above)
                    left[h] = count[h] - n_short[h], enough[h] = probe[h];
                else
                    left[h] -= count[h] - n_short[h], n_short[h] = count[h], short_of[h] = probe[h];
            }
        }
    }
};

} // namespace prism
#endif
