/*
 * What the blocks that a plan leaves out contribute, through their moments.
 *
 *   q [128][d] x images -> logits of the pruned entries -> online softmax x value means -> init_o, init_lse
 *
 * A CTA takes one query block of one head, all its tokens; the walk is that of attention, over entries in place of
 * keys.
 */
#include "cuda/device.cuh"
#include "cuda/moments_score.cuh"

namespace prism
{

constexpr int kCorrectSlots = 4, kMaxWords = 2 * 264; /* of one row's entries */

struct CorrectItem {
    int seq, head, u;
    int64_t row;
    __device__ __forceinline__ CorrectItem(const prism_cu_shape &s, int i) /* late query blocks first */
    {
        int heads = s.n_seq * s.n_head;
        u = s.n_qblk - 1 - i / heads, head = i % heads % s.n_head, seq = i % heads / s.n_head;
        row = ((int64_t)seq * s.n_head + head) * s.n_qblk + u;
    }
};

template <int D> struct CorrectShared {
    char slot[kCorrectSlots][Image<D>::kBytes];
    char q[2][D / 64][64 * 128]; /* [warpgroup]: rows of 128 bytes, swizzled */
    uint32_t pruned[kMaxWords];  /* bit e: entry e */
    Slots<D, kCorrectSlots> slots;
};

/* A thread holds rows `row` and `row` + 8 of 128. */
template <int D, class T> struct Corrector {
    const prism_cu_moments &p;
    CorrectShared<D> &sh;
    Ring<D, kCorrectSlots> ring;
    int row, group;
    uint32_t square[4];
    float o[D / 2], top[2], sum[2];

    /* Queries as f16 to shared memory, in the layout of a left factor; their squares stay in registers. */
    __device__ __forceinline__ void load(const CorrectItem &item, const QueryBlock &block)
    {
        uint32_t q[D / 4];
        int token[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int at = row + 8 * h;
            token[h] = at >= block.begin && at < block.end ? block.first + at : -1;
        }
        load_rows<D, T>(q, p.q, item.seq, item.head, token);
        prepare<D, T>(q, square, sh.slots, p.scale);
        int r = row % 64, c = threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
#pragma unroll
            for (int x = 0; x < 2; x++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    *(uint32_t *)&sh.q[group][j / 4][(r + 8 * h) * 128 + ((j % 4 * 2 + x ^ r % 8) * 16) + c * 4] =
                        q[4 * j + 2 * x + h];
        fence_async_proxy();
        sync_some(2 + group, 128);
    }

    /* Bits of the entries in the past that the row does not list. By all scorers. */
    __device__ __forceinline__ void find_pruned(const CorrectItem &item, const QueryBlock &block, int n_tile)
    {
        int n = past_entries(block.own);
        sync_some(1, kScorers); /* nobody reads the last row's */
        for (int i = threadIdx.x; i < 2 * n_tile; i += kScorers) {
            int left = n - 32 * i;
            sh.pruned[i] = left >= 32 ? kAll : left > 0 ? (1u << left) - 1 : 0;
        }
        sync_some(1, kScorers);
        int64_t from = p.row_ptr[item.row], to = p.row_ptr[item.row + 1];
        for (int64_t i = from + threadIdx.x; i < to; i += kScorers) {
            int b = p.index[i], e = b + kSingles;
            if (b < block.own)
                atomicAnd(&sh.pruned[e / 32], ~(1u << e % 32));
            if (b == 0)
                atomicAnd(&sh.pruned[0], ~0xffffu);
        }
        sync_some(1, kScorers);
    }

    /* Logits of the next image's pruned entries, the others' kLow. */
    __device__ __forceinline__ void logits(int t, float (&x)[32])
    {
        float half[32];
        uint32_t at = smem_addr(sh.slot[ring.slot]), q = smem_addr(sh.q[group][0]);
        ring.wait();
        wgmma_hold(x), wgmma_hold(half);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            wgmma_ss<__half>::go(x, wgmma_desc(q + j / 4 * 8192 + j % 4 * 32, 0),
                                 wgmma_desc(at + j / 4 * (kTile * 128) + j % 4 * 32, 0), j > 0);
        wgmma_tile(half, square, desc32(at + Image<D>::kMeans), 0);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(x), wgmma_hold(half);
        finish_logits<D>(x, half, sh.slot[ring.slot], p.scale * kLog2e, p.mean ? 0 : 6 * kLog2e);
        uint32_t words[2] = {sh.pruned[2 * t], sh.pruned[2 * t + 1]};
        if (words[0] != kAll || words[1] != kAll) {
#pragma unroll
            for (int j = 0; j < 32; j++)
                if (!(words[j / 16] >> (j / 4 % 4 * 8 + threadIdx.x % 4 * 2) >> j % 2 & 1))
                    x[j] = kLow;
        }
    }

    __device__ __forceinline__ void walk(int n_tile)
    {
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] = 0;
        top[0] = top[1] = kLow, sum[0] = sum[1] = 0;
        for (int t = 0; t < n_tile; t++) {
            float x[32];
            uint32_t at = smem_addr(sh.slot[ring.slot]), e[16];
            logits(t, x);
            float most[2] = {top[0], top[1]}, fade[2];
#pragma unroll
            for (int j = 0; j < 32; j++)
                most[j / 2 % 2] = fmaxf(most[j / 2 % 2], x[j]);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                quad_max(most[h]);
                fade[h] = exp2_fast(top[h] - most[h]);
                sum[h] *= fade[h], top[h] = most[h];
            }
#pragma unroll
            for (int j = 0; j < 32; j++) { /* nor what is not a number */
                x[j] = x[j] > 0.5f * kLow ? exp2_fast(x[j] - top[j / 2 % 2]) : 0;
                sum[j / 2 % 2] += x[j];
            }
            if (__any_sync(kAll, fade[0] < 1 || fade[1] < 1)) {
#pragma unroll
                for (int j = 0; j < D / 2; j++)
                    o[j] *= fade[j / 2 % 2];
            }
#pragma unroll
            for (int j = 0; j < 16; j++)
                e[j] = pack2<__half>(x[2 * j], x[2 * j + 1]);
            wgmma_hold(o);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++)
                wgmma_rs<__half>::go(o, e + 4 * k, wgmma_desc(at + Image<D>::kValues + k * 2048, kTile * 128), 1);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_hold(o);
            ring.release();
        }
    }

    __device__ __forceinline__ void write(const CorrectItem &item, const QueryBlock &block)
    {
        int c = threadIdx.x % 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            quad_add(sum[h]);
            int at = row + 8 * h;
            if (at < block.begin || at >= block.end)
                continue;
            int token = block.first + at;
            float f = sum[h] > 0 ? 1 / sum[h] : 0;
            T *out = (T *)p.init_o + token_offset(p.o, item.seq, token) + item.head * p.o.stride_head + 2 * c;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                *(uint32_t *)(out + 8 * j) = pack2<T>(o[4 * j + 2 * h] * f, o[4 * j + 2 * h + 1] * f);
            int64_t first =
                p.lse_row_start ? p.lse_row_start[item.seq] * p.lse_stride_token : item.seq * p.lse_stride_seq;
            if (c == 0)
                p.init_lse[first + token * p.lse_stride_token + item.head * p.lse_stride_head] =
                    sum[h] > 0 ? (top[h] + log2f(sum[h]) + 7) / kLog2e : -INFINITY;
        }
    }

    __device__ __forceinline__ void run(const CorrectItem &item, bool full)
    {
        QueryBlock block(lengths(p.shape, item.seq), item.u);
        if (!block.exists())
            return;
        int n_tile = full || !block.own ? 0 : tiles_for(block.own);
        if (n_tile) {
            sync_some(2 + group, 128); /* nobody reads the last row's queries */
            load(item, block);
            find_pruned(item, block, n_tile);
        }
        walk(n_tile);
        write(item, block);
    }
};

template <int D, class T>
__global__ void __launch_bounds__(kScoreThreads, 1) correct(const __grid_constant__ prism_cu_moments p, int n_item)
{
    extern __shared__ __align__(1024) char smem[];
    CorrectShared<D> &sh = *(CorrectShared<D> *)smem;
    sh.slots.init();
    const bool full = !p.index || (p.full && *p.full);
    if (threadIdx.x < kScorers) {
        int lane = threadIdx.x % 32;
        Corrector<D, T> x = {p, sh, {sh.slots, 0, 0}, (int)threadIdx.x / 32 * 16 + lane / 4, (int)threadIdx.x / 128};
        for (int i = blockIdx.x; i < n_item; i += gridDim.x)
            x.run(CorrectItem(p.shape, i), full);
    } else if (threadIdx.x == kScorers) {
        Ring<D, kCorrectSlots> ring = {sh.slots, 0, 0};
        for (int i = blockIdx.x; i < n_item && !full; i += gridDim.x) {
            CorrectItem item(p.shape, i);
            QueryBlock block(lengths(p.shape, item.seq), item.u);
            int n_tile = block.exists() && block.own ? tiles_for(block.own) : 0;
            const char *image = image_of<D>(p, item.seq, item.head / (p.shape.n_head / p.shape.n_kv_head));
            for (int t = 0; t < n_tile; t++)
                ring.copy(sh.slot[ring.slot], image + (int64_t)t * Image<D>::kBytes, Image<D>::kBytes);
        }
    }
}

template <int D, class T> static cudaError_t correct_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_item = a.shape.n_seq * a.shape.n_head * a.shape.n_qblk, bytes = sizeof(CorrectShared<D>);
    if (n_item == 0)
        return cudaSuccess;
    Device device;
    cudaError_t e = device_of(&device);
    if (e)
        return e;
    if (!device.hopper || a.scale <= 0 || 2 * tiles_for(a.shape.n_kblk) > kMaxWords)
        return cudaErrorNotSupported;
    e = cudaFuncSetAttribute(correct<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e)
        return e;
    correct<D, T><<<min(n_item, device.n_sm), kScoreThreads, bytes, stream>>>(a, n_item);
    return cudaGetLastError();
}

} // namespace prism

extern "C" cudaError_t prism_moments_correct_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, correct_launch, stream);
}
