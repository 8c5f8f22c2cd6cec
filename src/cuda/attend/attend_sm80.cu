/*
 * Exact attention over the listed blocks, for sm_80 and later.
 *
 *   Q [block][d] -> registers      K, V [64][d] -> two stages of shared memory (cp.async)
 *   S = Q K^T -> P = exp2(S c - m c) -> O += P V (all in registers) -> O / l -> global
 *
 * One CTA a row (sequence, head, query block) or part of one, a warp for 16 query rows. Any page size: each row of K
 * and V is addressed by itself.
 */
#include "cuda/attend/attend.cuh"

namespace prism
{

/* ------------------------------------------------------------------------------------------------ layout ---- */

constexpr int kKeys = 64; /* tokens of a key tile; a query tile is a block, R tokens, 2 R threads */

/* Byte of 16-byte column c of row r of a tile with D columns. */
template <int D> __device__ __forceinline__ uint32_t place(int r, int c)
{
    static_assert(D == 64 || D == 128, "rows whose swizzle is known to have no bank conflicts");
    return r * (D * 2) + swizzled(r, c) * 16;
}

/* ---------------------------------------------------------------------------------------------- producer ---- */

/* Tokens first .. first + N of one head, those in [0, n). */
template <int D, int N, int kThreads, class T>
__device__ __forceinline__ void fetch(uint32_t dst, const prism_cu_view &t, int seq, int head, int first, int n)
{
    constexpr int kChunks = D / 8, kRows = kThreads / kChunks;
    int c = threadIdx.x % kChunks;
#pragma unroll
    for (int r = threadIdx.x / kChunks; r < N; r += kRows) {
        bool there = first + r >= 0 && first + r < n;
        const T *src = (const T *)t.data + (there ? token_offset(t, seq, first + r) : 0) + head * t.stride_head + c * 8;
        cp_async16(dst + place<D>(r, c), there ? src : (const T *)t.data, there);
    }
}

/* ---------------------------------------------------------------------------------------------- consumer ---- */

/* Each thread holds two rows, quad and quad + 8 of its warp's 16. */
template <int D, class T> struct Rows16 {
    float o[D / 8][4], m[2], l[2];
    uint32_t q[D / 16][4];

    __device__ __forceinline__ void load_q(uint32_t tile)
    {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int i = 0; i < D / 16; i++)
            ldmatrix4(q[i], tile + place<D>(warp * 16 + lane % 16, i * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            for (int e = 0; e < 4; e++)
                o[j][e] = 0;
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0;
    }

    /* One tile of 64 keys. row_limit: last key (of the tile) that local row 0 sees; masks where a row does not see all.
     */
    __device__ __forceinline__ void step(uint32_t k, uint32_t v, int row_limit, float scale_log2)
    {
        int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
        float s[kKeys / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < kKeys / 8; j += 2) {
                uint32_t b[4];
                ldmatrix4(b, k + place<D>(j * 8 + lane % 8 + lane / 16 * 8, i * 2 + lane / 8 % 2));
                warp_mma<T>(s[j], q[i], b[0], b[1]);
                warp_mma<T>(s[j + 1], q[i], b[2], b[3]);
            }
        if (row_limit < kKeys - 1)
#pragma unroll
            for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (j * 8 + lane % 4 * 2 + e % 2 > row_limit + row + e / 2 * 8)
                        s[j][e] = -INFINITY;
        uint32_t p[kKeys / 8][2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = m[h];
#pragma unroll
            for (int j = 0; j < kKeys / 8; j++)
                top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
            quad_max(top);
            float zero = top == -INFINITY ? 0 : top; /* keys that are not finite: all scores so far -inf */
            float alpha = exp2_fast((m[h] - zero) * scale_log2), mc = zero * scale_log2, sum = 0;
            m[h] = top;
#pragma unroll
            for (int j = 0; j < kKeys / 8; j++) {
                float x = exp2_fast(fmaf(s[j][2 * h], scale_log2, -mc)),
                      y = exp2_fast(fmaf(s[j][2 * h + 1], scale_log2, -mc));
                sum += x + y;
                p[j][h] = pack2<T>(x, y);
            }
            l[h] = l[h] * alpha + sum;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                o[j][2 * h] *= alpha, o[j][2 * h + 1] *= alpha;
        }
#pragma unroll
        for (int i = 0; i < kKeys / 16; i++) {
            uint32_t a[4] = {p[2 * i][0], p[2 * i][1], p[2 * i + 1][0], p[2 * i + 1][1]};
#pragma unroll
            for (int j = 0; j < D / 8; j += 2) {
                uint32_t b[4];
                ldmatrix4_t(b, v + place<D>(i * 16 + lane % 16, j + lane / 16));
                warp_mma<T>(o[j], a, b[0], b[1]);
                warp_mma<T>(o[j + 1], a, b[2], b[3]);
            }
        }
    }

    /* -------------------------------------------------------------------------------------------- finish ---- */

    template <int R> __device__ __forceinline__ void finish(const Job &j, const Row &w)
    {
        const prism_cu_attend &a = j.a;
        int lane = threadIdx.x % 32, at = first_token(j, w);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            quad_add(l[h]);
            int r = threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
            if (at + r < 0 || at + r >= w.n_q)
                continue;
            int64_t lse = lse_offset(j, w) + r * a.lse_stride_token;
            int64_t row = o_offset(j, w) + r * a.o.stride_token + lane % 4 * 2;
            Blend b = blend(m[h] * j.scale_log2, l[h], w.lead && a.init_lse ? a.init_lse[lse] : -INFINITY);
#pragma unroll
            for (int i = 0; i < D / 8; i++) {
                o[i][2 * h] *= b.own, o[i][2 * h + 1] *= b.own;
                if (b.init != 0) {
                    float2 x = widen((const T *)a.init_o + row + i * 8);
                    o[i][2 * h] += b.init * x.x, o[i][2 * h + 1] += b.init * x.y;
                }
            }
            float *part = j.part_o + ((int64_t)w.slot * R + r) * D + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                if (w.slot >= 0)
                    *(float2 *)(part + i * 8) = make_float2(o[i][2 * h], o[i][2 * h + 1]);
                else
                    *(uint32_t *)((T *)a.o.data + row + i * 8) = pack2<T>(o[i][2 * h], o[i][2 * h + 1]);
            if (lane % 4 == 0 && w.slot >= 0)
                j.part_lse[(int64_t)w.slot * R + r] = b.lse;
            else if (lane % 4 == 0 && a.lse)
                a.lse[lse] = b.lse;
        }
    }
};

template <int D, int R, class T> __global__ void __launch_bounds__(2 * R, 1) attend80(const __grid_constant__ Job j)
{
    constexpr uint32_t kTile = kKeys * D * 2;
    constexpr int kThreads = 2 * R;
    extern __shared__ __align__(128) char base[];
    uint32_t smem = smem_addr(base); /* [2 stages][K, V]; Q passes through the second stage */
    const prism_cu_attend &a = j.a;
    Row w = row_of(j, is_dense(a), blockIdx.x);
    if (w.n_tile <= 0) {
        if (w.n_tile == 0)
            write_empty<T>(j, w, threadIdx.x, kThreads);
        return;
    }
    int kv_head = w.head / (a.shape.n_head / a.shape.n_kv_head), tile = listed(j, w, 0);

    fetch<D, R, kThreads, T>(smem + 2 * kTile, a.q, w.seq, w.head, first_token(j, w), w.n_q);
    cp_async_commit();
    auto fetch_keys = [&](int i, int tile) {
        uint32_t stage = smem + i % 2 * 2 * kTile;
        fetch<D, kKeys, kThreads, T>(stage, a.k, w.seq, kv_head, tile * kKeys, w.n_kv);
        fetch<D, kKeys, kThreads, T>(stage + kTile, a.v, w.seq, kv_head, tile * kKeys, w.n_kv);
        cp_async_commit();
    };
    fetch_keys(0, tile);
    cp_async_wait<1>();
    __syncthreads();
    Rows16<D, T> rows;
    rows.load_q(smem + 2 * kTile);
    for (int i = 0; i < w.n_tile; i++) {
        int next = i + 1 < w.n_tile ? listed(j, w, i + 1) : 0;
        __syncthreads(); /* all warps are done with the other stage */
        if (i + 1 < w.n_tile) {
            fetch_keys(i + 1, next);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        uint32_t stage = smem + i % 2 * 2 * kTile;
        int limit = min(kKeys, w.tile * R - tile * kKeys); /* last key that local row 0 sees */
        bool bad = false; /* the tile of V holds what is not finite, and not every row sees all of it */
        if (limit < kKeys - 1) {
            for (int c = threadIdx.x; c < kKeys * D / 8; c += kThreads)
                bad |= nonfinite8<T>(lds128(stage + kTile + c * 16));
            bad = __syncthreads_or(bad);
        }
        if (bad) {
            for (int c = threadIdx.x; c < kKeys * D / 8; c += kThreads)
                sts128(stage + kTile + c * 16, finite8<T>(lds128(stage + kTile + c * 16)));
            __syncthreads();
        }
        rows.step(stage, stage + kTile, limit, j.scale_log2);
        if (bad)
            add_nonfinite<D, T>(&rows.o[0][0], a.v, w.seq, kv_head, tile * kKeys,
                                limit + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, w.n_kv - tile * kKeys);
        tile = next;
    }
    rows.template finish<R>(j, w);
}

/* ------------------------------------------------------------------------------------------------ launch ---- */

template <int D, int R, class T> static cudaError_t launch80(const prism_cu_attend *a, cudaStream_t stream)
{
    Job j;
    cudaError_t e = make_job(&j, a, R, kKeys);
    if (e || j.n_item == 0)
        return e;
    e = launch_kernel(attend80<D, R, T>, j.n_item, 2 * R, 4 * kKeys * D * 2, stream, j);
    return e ? e : merge_parts(j, stream);
}
template <int D, class T> static cudaError_t launch_block(const prism_cu_attend *a, cudaStream_t stream)
{
    return a->block_size == 128 ? launch80<D, 128, T>(a, stream) : launch80<D, 64, T>(a, stream);
}

} // namespace prism

extern "C" cudaError_t prism_attend_sm80(const prism_cu_attend *a, cudaStream_t stream)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism::gpu_for(a, PRISM_CU_ATTEND_SM80, &gpu);
    if (e)
        return e;
    bool bf16 = a->shape.dtype == PRISM_CU_BF16;
    if (a->shape.d_head == 128)
        return bf16 ? prism::launch_block<128, __nv_bfloat16>(a, stream) : prism::launch_block<128, __half>(a, stream);
    if (a->shape.d_head == 64)
        return bf16 ? prism::launch_block<64, __nv_bfloat16>(a, stream) : prism::launch_block<64, __half>(a, stream);
    return cudaErrorNotSupported;
}
