/*
 * Exact attention over the listed blocks and single keys, for every dtype, head dimension, stride and scale: what the
 * kernels with tensor cores do not take.
 *
 *   Q [32][d] -> shared memory      K, V [32][d] -> shared memory, tile by tile
 *   a warp has 4 queries: a lane is a key for the scores, then a column for the values
 */
#include "cuda/attend/attend.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace prism
{

constexpr int kTile = 32, kMine = 4, kThreadsAny = 32 * kTile / kMine;

/* Rows of a view in shared memory, as f32. offset: of each row's head; rows past n are left as they are. */
template <class T>
__device__ __forceinline__ void stage(float *to, int stride, const prism_cu_view &t, const int64_t *offset, int lo,
                                      int n, int d)
{
    for (int i = threadIdx.x + lo * d; i < n * d; i += kThreadsAny)
        to[i / d * stride + i % d] = (float)((const T *)t.data)[offset[i / d] + i % d];
}

/* Columns lane, lane + 32, ... of 4 queries. N: columns / 32. */
template <int N> struct Queries {
    float o[kMine][N], m[kMine], l[kMine]; /* m in units of log2, uniform over the warp */

    __device__ __forceinline__ void reset()
    {
#pragma unroll
        for (int q = 0; q < kMine; q++) {
            m[q] = -INFINITY, l[q] = 0;
#pragma unroll
            for (int i = 0; i < N; i++)
                o[q][i] = 0;
        }
    }

    /* position: of this lane's key, past every query where there is none; q_position: of the first query. */
    __device__ __forceinline__ void step(const float *q, const float *k, const float *v, int d, int position,
                                         int q_position, float scale_log2)
    {
        int lane = threadIdx.x % 32;
        float s[kMine] = {};
        for (int c = 0; c < d; c++) {
            float x = k[lane * (d + 1) + c];
#pragma unroll
            for (int i = 0; i < kMine; i++)
                s[i] += q[i * d + c] * x;
        }
        int n_seen[kMine];
#pragma unroll
        for (int i = 0; i < kMine; i++) {
            bool seen = position <= q_position + i; /* keys ascend: the first ones */
            n_seen[i] = __popc(__ballot_sync(~0u, seen));
            float x = seen ? s[i] * scale_log2 : -INFINITY, top = x;
            for (int b = 16; b; b /= 2)
                top = fmaxf(top, __shfl_xor_sync(~0u, top, b));
            top = fmaxf(top, m[i]);
            float zero = top == -INFINITY ? 0 : top, alpha = exp2f(m[i] - zero), sum;
            s[i] = sum = exp2f(x - zero);
            for (int b = 16; b; b /= 2)
                sum += __shfl_xor_sync(~0u, sum, b);
            m[i] = top;
            l[i] = l[i] * alpha + sum;
#pragma unroll
            for (int c = 0; c < N; c++)
                o[i][c] *= alpha;
        }
        for (int key = 0; key < n_seen[kMine - 1]; key++) {
            float x[N];
#pragma unroll
            for (int c = 0; c < N; c++)
                x[c] = lane + 32 * c < d ? v[key * d + lane + 32 * c] : 0;
#pragma unroll
            for (int i = 0; i < kMine; i++) {
                float p = __shfl_sync(~0u, s[i], key);
                if (key < n_seen[i]) /* 0 * NaN is NaN */
#pragma unroll
                    for (int c = 0; c < N; c++)
                        o[i][c] += p * x[c];
            }
        }
    }

    template <class T> __device__ __forceinline__ void finish(const Job &j, const Row &w, int r0)
    {
        const prism_cu_attend &a = j.a;
        int d = a.shape.d_head, lane = threadIdx.x % 32, at = first_token(j, w);
#pragma unroll
        for (int i = 0; i < kMine; i++) {
            int r = r0 + i, token = at + r;
            if (token < 0 || token >= w.n_q)
                continue;
            int64_t lse = lse_offset(j, w) + r * a.lse_stride_token;
            int64_t out = token_offset(a.o, w.seq, token) + w.head * a.o.stride_head;
            Blend b = blend(m[i], l[i], w.lead && a.init_lse ? a.init_lse[lse] : -INFINITY);
            float *part = j.part_o + ((int64_t)w.slot * kTile + r) * d;
#pragma unroll
            for (int c = 0; c < N; c++) {
                int column = lane + 32 * c;
                if (column >= d)
                    continue;
                float x = o[i][c] * b.own;
                if (b.init != 0)
                    x += b.init * (float)((const T *)a.init_o)[out + column];
                if (w.slot >= 0)
                    part[column] = x;
                else
                    ((T *)a.o.data)[out + column] = T(x);
            }
            if (lane == 0 && w.slot >= 0)
                j.part_lse[(int64_t)w.slot * kTile + r] = b.lse;
            else if (lane == 0 && a.lse)
                a.lse[lse] = b.lse;
        }
    }
};

template <int N, class T> __global__ void __launch_bounds__(kThreadsAny) attend_any(const __grid_constant__ Job j)
{
    extern __shared__ float base[];
    __shared__ int64_t off_k[kTile], off_v[kTile];
    const prism_cu_attend &a = j.a;
    int d = a.shape.d_head, lane = threadIdx.x % 32, r0 = threadIdx.x / 32 * kMine;
    float *q = base, *k = q + kTile * d, *v = k + kTile * (d + 1);
    Row w = row_of(j, is_dense(a), blockIdx.x);
    int64_t key_at = 0, n_key = 0; /* single keys: the lead's */
    if (a.key_ptr && !w.dense && w.lead && w.n_tile >= 0) {
        key_at = a.key_ptr[w.row];
        n_key = a.key_ptr[w.row + 1] - key_at;
    }
    if (w.n_tile <= 0 && n_key == 0) {
        if (w.n_tile == 0)
            write_empty<T>(j, w, threadIdx.x, kThreadsAny);
        return;
    }
    int kv_head = w.head / (a.shape.n_head / a.shape.n_kv_head), at = first_token(j, w);
    int q_lo = max(0, -at), q_hi = min(kTile, w.n_q - at);
    if (threadIdx.x >= q_lo && threadIdx.x < q_hi)
        off_k[lane] = token_offset(a.q, w.seq, at + lane) + w.head * a.q.stride_head;
    __syncthreads();
    stage<T>(q, d, a.q, off_k, q_lo, q_hi, d);
    Queries<N> mine;
    mine.reset();
    int n = w.n_tile + (int)((n_key + kTile - 1) / kTile);
    for (int i = 0; i < n; i++) {
        /* Where this lane's key stands; nowhere beyond the last. */
        int position = INT_MAX, last = w.n_kv;
        if (i < w.n_tile)
            position = listed(j, w, i) * kTile + lane;
        else if ((int64_t)(i - w.n_tile) * kTile + lane < n_key)
            position = a.key_index[key_at + (i - w.n_tile) * kTile + lane];
        if (position >= last)
            position = INT_MAX;
        int n_there = __popc(__ballot_sync(~0u, position != INT_MAX));
        __syncthreads();
        if (threadIdx.x < n_there) {
            off_k[lane] = token_offset(a.k, w.seq, position) + kv_head * a.k.stride_head;
            off_v[lane] = token_offset(a.v, w.seq, position) + kv_head * a.v.stride_head;
        }
        __syncthreads();
        stage<T>(k, d + 1, a.k, off_k, 0, n_there, d);
        stage<T>(v, d, a.v, off_v, 0, n_there, d);
        __syncthreads();
        mine.step(q + r0 * d, k, v, d, position, w.tile * kTile + r0, j.scale_log2);
    }
    mine.template finish<T>(j, w, r0);
}

template <int N, class T> static cudaError_t launch_any(const Job &j, cudaStream_t stream)
{
    int d = j.a.shape.d_head, bytes = kTile * (3 * d + 1) * (int)sizeof(float);
    return launch_kernel(attend_any<N, T>, j.n_item, kThreadsAny, bytes, stream, j);
}
template <class T> static cudaError_t launch_width(const Job &j, cudaStream_t stream)
{
    int d = j.a.shape.d_head;
    return d <= 64 ? launch_any<2, T>(j, stream) : d <= 128 ? launch_any<4, T>(j, stream) : launch_any<8, T>(j, stream);
}

} // namespace prism

extern "C" cudaError_t prism_attend_any(const prism_cu_attend *a, cudaStream_t stream)
{
    prism::Job j;
    cudaError_t e = prism::make_job(&j, a, prism::kTile, prism::kTile);
    if (e || j.n_item == 0)
        return e;
    switch (a->shape.dtype) {
    case PRISM_CU_F32: e = prism::launch_width<float>(j, stream); break;
    case PRISM_CU_F16: e = prism::launch_width<__half>(j, stream); break;
    default: e = prism::launch_width<__nv_bfloat16>(j, stream); break;
    }
    return e ? e : prism::merge_parts(j, stream);
}
