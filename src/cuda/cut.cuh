/*
 * Exact top-p of one row of logits, without sorting.
 *
 * Masses are integers, units of 2^-26 of the row's largest weight: the result does not depend on the order of
 * summation.
 */
#ifndef PRISM_CUDA_CUT_CUH
#define PRISM_CUDA_CUT_CUH

#include "cuda/bitmap.cuh"

namespace prism
{

constexpr float kUnit = 67108864.f; /* 2^26: 32 weights of 1 fit 32 bits */
constexpr float kNone = -3e38f;     /* a logit that is not there */

__device__ __forceinline__ uint64_t warp_add(uint64_t x)
{
    uint64_t lo = __reduce_add_sync(kAll, (uint32_t)x & 0x3ffffff), hi = __reduce_add_sync(kAll, (uint32_t)(x >> 26));
    return lo + (hi << 26);
}
__device__ __forceinline__ float warp_max(float x)
{
    for (int m = 16; m; m /= 2)
        x = fmaxf(x, __shfl_xor_sync(kAll, x, m));
    return x;
}

/* The warps that share a row: one, or for long rows all of the CTA. */
template <int W> struct Team {
    uint64_t *part; /* shared, [2][W] */
    uint2 *doubt;   /* shared, [32]: bits, index */
    int *odd;       /* shared, set where the row has logits that are not finite */
    int lane, rank; /* warp in the team */
    int flip;

    __device__ __forceinline__ void sync() const
    {
        if (W == 1)
            __syncwarp();
        else
            __syncthreads();
    }
    __device__ __forceinline__ uint64_t sum(uint64_t x)
    {
        x = warp_add(x);
        if (W == 1)
            return x;
        flip ^= 1;
        if (lane == 0)
            part[flip * W + rank] = x;
        sync();
        x = 0;
        for (int i = 0; i < W; i++)
            x += part[flip * W + i];
        return x;
    }
    __device__ __forceinline__ void set_odd() const { *odd = 1; }
    /* Exclusive sum over the threads. */
    __device__ __forceinline__ int before(int x)
    {
        int y = x;
        for (int m = 1; m < 32; m *= 2) {
            int z = __shfl_up_sync(kAll, y, m);
            if (lane >= m)
                y += z;
        }
        if (W > 1) {
            flip ^= 1;
            if (lane == 31)
                part[flip * W + rank] = y;
            sync();
            for (int i = 0; i < rank; i++)
                y += (int)part[flip * W + i];
        }
        return y - x;
    }
    __device__ __forceinline__ float max(float x)
    {
        x = warp_max(x);
        if (W == 1)
            return x;
        flip ^= 1;
        if (lane == 0)
            part[flip * W + rank] = __float_as_uint(x);
        sync();
        for (int i = 0; i < W; i++)
            x = fmaxf(x, __uint_as_float((uint32_t)part[flip * W + i]));
        return x;
    }
};

/* Weights carry a factor of 2^26, so that a mass is a weight rounded to an integer. */
__device__ __forceinline__ float weight(float x, float top)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(fmaf(x - top, 1.44269504f, 26.f)));
    return y;
}
__device__ __forceinline__ uint32_t mass(float e)
{
    return __float2uint_rn(e);
}

/* At most `left` of the weights equal to `tied`, lower indices first, get their bit. By one warp, from the logits. */
__device__ __noinline__ void keep_tied(const float *logit, int n, float top, uint32_t tied, int left, uint32_t *words)
{
    int lane = threadIdx.x % 32;
    for (int v0 = 0; v0 < n && left > 0; v0 += 32) {
        float x = v0 + lane < n ? logit[v0 + lane] : -INFINITY;
        uint32_t w = __ballot_sync(kAll, finite(x) && __float_as_uint(weight(x, top)) == tied);
        bool mine = w >> lane & 1 && __popc(w & ((1u << lane) - 1)) < left;
        left -= __popc(w);
        w = __ballot_sync(kAll, mine);
        if (lane == 0)
            words[v0 / 32] |= w;
    }
}

/*
 * Sets the bits of the smallest set of weights with at least top_p of the row's mass: in falling order of (weight,
 * -index) while the mass before is below top_p. words[] is zero. n <= 32 N W; the thread's i-th logit is i * 32 W + its
 * place in the team.
 *
 * With F(t) = mass of the weights above t and need = top_p of the total, bisection on the bits of t keeps F(lo) >= need
 * > F(hi): above hi all stay, up to lo all go, between them is doubt. When at most 32 are in doubt they are ranked one
 * by one.
 */
template <int N, int W>
__device__ __forceinline__ void select_row(Team<W> &team, float *logit, int n, float top_p, uint32_t *words)
{
    const int lane = team.lane, first = team.rank * 32 + lane;
    float e[N], top = kNone, odd = 0;
    uint32_t q[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        e[i] = kNone;
        if (i * 32 * W < n - first)
            e[i] = logit[i * 32 * W + first];
        odd = fmaf(e[i], 0, odd); /* NaN once a logit is not finite */
        top = fmaxf(top, e[i]);
    }
    if (__any_sync(
            kAll, odd != 0)) { /* not finite: keep it (the caller does, it finds NaN there), leave it out of the sums */
        top = kNone;
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (i * 32 * W < n - first && !finite(e[i])) /* past the row's end is another row */
                logit[i * 32 * W + first] = NAN, e[i] = kNone;
            top = fmaxf(top, e[i]);
        }
        team.set_odd();
    }
    top = team.max(top);
    if (top == kNone)
        return;
    uint32_t sum = 0; /* at most 32 times 2^26 */
#pragma unroll
    for (int i = 0; i < N; i++) {
        e[i] = weight(e[i], top);
        q[i] = mass(e[i]);
        sum += q[i];
    }
    uint64_t all = team.sum(sum), need = (uint64_t)ceil((double)top_p * (double)all), mass_hi = 0;
    /* What goes is at most n weights of at most the cut, and all that goes is more than `all - need`: a lower bound.
     * The cut is seldom more than 3 octaves above it. Weights of at most 1/2 have no mass. */
    float least = ((float)(all - need) / n - 1) * 0.999f;
    uint32_t lo = __float_as_uint(fmaxf(least, 0.5f)), hi = __float_as_uint(kUnit),
             probe = min(lo + (3 << 23), (lo + hi) / 2);
    uint32_t slots; /* of this thread, in doubt */
    int at, passes = 28 - __clz(n | 127);
    for (;; passes = 2) {
        for (int k = 0; k < passes && hi - lo > 1; k++) {
            uint32_t s[2] = {};
            float cut = __uint_as_float(probe);
#pragma unroll
            for (int i = 0; i < N; i++)
                asm("{\n.reg .pred p;\nsetp.gt.f32 p, %1, %2;\n@p add.u32 %0, %0, %3;\n}"
                    : "+r"(s[i % 2])
                    : "f"(e[i]), "f"(cut), "r"(q[i]));
            uint64_t f = team.sum(s[0] + s[1]);
            if (f < need)
                hi = probe, mass_hi = f;
            else
                lo = probe;
            probe = (lo + hi) / 2;
        }
        float above = __uint_as_float(lo), to = __uint_as_float(hi);
        slots = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (e[i] > above && e[i] <= to)
                slots |= 1u << i;
        at = (int)team.sum(__popc(slots));
        if (at <= 32 || hi - lo <= 1)
            break;
    }
    float to = __uint_as_float(hi);
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t w = __ballot_sync(kAll, e[i] > to);
        if (lane == 0 && i * 32 * W < n - team.rank * 32)
            words[i * W + team.rank] = w;
    }
    team.sync();
    if (at > 32) {
        uint32_t unit = mass(to);
        if (team.rank == 0)
            keep_tied(logit, n, top, hi, unit ? (int)((need - mass_hi + unit - 1) / unit) : 1, words);
    } else {
        int place =
            team.before(__popc(slots)); /* registers cannot be indexed: weights are found again from the logits */
        for (; slots; slots &= slots - 1, place++) {
            int v = (__ffs(slots) - 1) * 32 * W + first;
            team.doubt[place] = make_uint2(__float_as_uint(weight(logit[v], top)), v);
        }
        team.sync();
        if (team.rank == 0) {
            uint2 mine = lane < at ? team.doubt[lane] : make_uint2(0, 0);
            uint32_t before = 0; /* larger weight first, then smaller index */
            for (int j = 0; j < at; j++) {
                uint2 other = team.doubt[j];
                if (other.x > mine.x || (other.x == mine.x && other.y < mine.y))
                    before += mass(__uint_as_float(other.x));
            }
            if (lane < at && mass_hi + before < need)
                atomicOr(&words[mine.y / 32], 1u << mine.y % 32);
        }
    }
    team.sync();
}

} // namespace prism
#endif
