/*
 * What selection needs before it begins: factors of logits (the temperature of the paper, the scale of the softmax, and
 * the power of two that query means are stored with), and empty bitmaps.
 */
#ifndef PRISM_CUDA_CALIBRATE_CUH
#define PRISM_CUDA_CALIBRATE_CUH

#include "cuda/bitmap.cuh"
#include "cuda/device.cuh"

namespace prism
{

/* Scratch of a call. */
struct Scratch {
    float2 *factor;   /* [sequence, head, query block]: of either band */
    uint32_t *n_done; /* bands done, of each tile */
    int64_t n_row, n_tile;
    __host__ __device__ __forceinline__ Scratch(const prism_cu_shape &s, void *memory)
        : factor((float2 *)memory), n_row((int64_t)s.n_seq * s.n_head * s.n_qblk),
          n_tile((int64_t)s.n_seq * s.n_kv_head * ((s.n_qblk * (s.n_head / s.n_kv_head) + 63) / 64))
    {
        n_done = (uint32_t *)(factor + n_row);
    }
    __host__ __device__ __forceinline__ int64_t bytes() const { return n_row * 8 + (n_tile + 1) / 2 * 8; }
};

/* Energy of a block, nothing where it is not finite. */
__device__ __forceinline__ void energy_of(const float *e, bool there, double (&x)[3])
{
    bool ok = there && finite(e[0]);
    for (int b = 0; b < 3; b++)
        x[b] = ok ? e[b] : 0;
}

constexpr int kCalibrateThreads = 256;

/* Inclusive sums over the threads of a CTA, three at a time. */
__device__ __forceinline__ void scan3(double (&x)[3], double (*part)[3])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int b = 0; b < 3; b++)
        for (int m = 1; m < 32; m *= 2) {
            double y = __shfl_up_sync(kAll, x[b], m);
            if (lane >= m)
                x[b] += y;
        }
    __syncthreads();
    if (lane == 31)
        for (int b = 0; b < 3; b++)
            part[warp][b] = x[b];
    __syncthreads();
    for (int w = 0; w < warp; w++)
        for (int b = 0; b < 3; b++)
            x[b] += part[w][b];
}

/*
 * One CTA a head. Logits of a band are dot / sqrt(d) * sqrt(Eq Ek / (Eq_band Ek_band)). Causal: Eq of the row's own
 * block, Ek of the key blocks up to it, summed in an order that depends on nothing but the block, so that chunked and
 * whole prefill agree. Global: Eq and Ek of all blocks of the call. The CTAs after those empty n_word words of bitmaps.
 */
__global__ void __launch_bounds__(kCalibrateThreads)
    calibrate(const __grid_constant__ prism_cu_select p, int64_t n_word)
{
    __shared__ double part[kCalibrateThreads / 32][3], total[3];
    const prism_cu_shape &s = p.shape;
    const Scratch scratch(s, p.scratch);
    const int n_head = s.n_seq * s.n_head;
    wait_for_launch_before();
    let_next_begin(); /* now that the means are there */
    if (blockIdx.x >= n_head) {
        int64_t first = (int64_t)(blockIdx.x - n_head) * kCalibrateThreads + threadIdx.x,
                step = (int64_t)(gridDim.x - n_head) * kCalibrateThreads;
        for (int64_t i = first; i < n_word; i += step)
            p.bitmap[i] = 0;
        for (int64_t i = first; i < scratch.n_tile; i += step)
            scratch.n_done[i] = 0;
        return;
    }
    int tid = threadIdx.x, seq = blockIdx.x / s.n_head, head = blockIdx.x % s.n_head;
    const float *ke = p.k_energy + ((int64_t)seq * s.n_kv_head + head / (s.n_head / s.n_kv_head)) * s.n_kblk * 4;
    const float *qe = p.q_energy + (int64_t)blockIdx.x * s.n_qblk * 4;
    Lengths n = lengths(s, seq);
    int n_key = (n.n_kv + p.block_size - 1) / p.block_size, b0 = n.q_start / p.block_size;
    int n_blk = n.n_q > 0 ? (n.q_start + n.n_q - 1) / p.block_size - b0 + 1 : 0;

    auto put = [&](int u, const double(&eq)[3], const double(&ek)[3]) {
        float f[2];
        for (int b = 0; b < 2; b++) {
            double zq = eq[1 + b], zk = ek[1 + b];
            f[b] = p.n_band == 1 ? 1 : zq > 0 && zk > 0 ? sqrtf((float)(eq[0] / zq)) * sqrtf((float)(ek[0] / zk)) : 0;
            f[b] *= p.scale;
            f[b] = fabsf(f[b]) < 1e30f ? f[b] * qe[4 * u + 3] : 0; /* as on the CPU */
        }
        scratch.factor[(int64_t)blockIdx.x * s.n_qblk + u] = make_float2(f[0], f[1]);
    };
    double carry[3] = {}, x[3];
    for (int v0 = 0; v0 < n_key; v0 += kCalibrateThreads) {
        int v = v0 + tid, u = v - b0;
        energy_of(ke + 4 * v, v < n_key, x);
        scan3(x, part);
        for (int b = 0; b < 3; b++)
            x[b] += carry[b];
        if (p.causal_calibration && u >= 0 && u < n_blk) {
            double eq[3];
            energy_of(qe + 4 * u, true, eq);
            put(u, eq, x);
        }
        if (tid == kCalibrateThreads - 1)
            for (int b = 0; b < 3; b++)
                total[b] = x[b];
        __syncthreads();
        for (int b = 0; b < 3; b++)
            carry[b] = total[b];
    }
    if (p.causal_calibration)
        return;
    double eq[3] = {};
    for (int u0 = 0; u0 < n_blk; u0 += kCalibrateThreads) {
        energy_of(qe + 4 * (u0 + tid), u0 + tid < n_blk, x);
        scan3(x, part);
        if (tid == kCalibrateThreads - 1)
            for (int b = 0; b < 3; b++)
                total[b] = x[b];
        __syncthreads();
        for (int b = 0; b < 3; b++)
            eq[b] += total[b];
    }
    for (int u = tid; u < n_blk; u += kCalibrateThreads)
        put(u, eq, carry);
}

} // namespace prism
#endif
