/*
 * Blocks whose moments cannot stand for them.
 *
 *   own_mass  q [32 asking tokens][d] x k [own block] -> exact mass of the own block
 *   score     q [4 heads][32][d] x images -> logits -> normaliser of each token            (first walk)
 *             the same again -> sigma^3 p, summed over the tokens of a head -> bits        (second walk)
 *
 * A CTA takes one query block of up to four heads that share a KV head: 32 asking tokens each make 128 rows. Logits are
 * computed twice: keeping them would take a cluster's shared memory.
 */
#include "cuda/device.cuh"
#include "cuda/moments_score.cuh"

namespace prism
{

constexpr int kAsking = 32, kHeads = 4, kSelectSlots = 6, kNear = 6144;

/* Work items: query blocks, late ones first; of each, sequences, KV heads, and fours of their query heads. */
struct SelectItem {
    int seq, kv_head, head0, n_head, u;
    __device__ __forceinline__ SelectItem(const prism_cu_shape &s, int i)
    {
        int group = s.n_head / s.n_kv_head, fours = (group + kHeads - 1) / kHeads,
            set = i % (fours * s.n_kv_head * s.n_seq);
        u = s.n_qblk - 1 - i / (fours * s.n_kv_head * s.n_seq);
        kv_head = set / fours % s.n_kv_head, seq = set / fours / s.n_kv_head;
        head0 = kv_head * group + set % fours * kHeads, n_head = min(kHeads, (kv_head + 1) * group - head0);
    }
    static __host__ int count(const prism_cu_shape &s)
    {
        return s.n_seq * s.n_kv_head * ((s.n_head / s.n_kv_head + kHeads - 1) / kHeads) * s.n_qblk;
    }
};

/* log2 of the sum over keys up to the token's own of 2^(logit in units of log 2). A warp 16 asking tokens of a head. */
template <int D, class T>
__global__ void __launch_bounds__(kScorers) own_mass(const __grid_constant__ prism_cu_moments p)
{
    __shared__ __align__(16) T key[kBlockKeys][D + 8];
    const prism_cu_shape &s = p.shape;
    SelectItem item(s, blockIdx.x);
    Lengths n = lengths(s, item.seq);
    QueryBlock block(n, item.u);
    if (!block.exists())
        return;
    for (int i = threadIdx.x; i < kBlockKeys * (D / 8); i += kScorers) {
        int b = i / (D / 8), j = i % (D / 8) * 8;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (block.own * kBlockKeys + b < n.n_kv)
            x = __ldg((const uint4 *)((const T *)p.k.data + item.kv_head * p.k.stride_head +
                                      token_offset(p.k, item.seq, block.own * kBlockKeys + b) + j));
        *(uint4 *)&key[b][j] = x;
    }
    __syncthreads();
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, h = warp / 2, i0 = warp % 2 * 16 + g;
    if (h >= item.n_head)
        return;
    int at[2] = {block.asking(i0), block.asking(i0 + 8)};
    const int token[2] = {at[0] < 0 ? -1 : block.first + at[0], at[1] < 0 ? -1 : block.first + at[1]};
    uint32_t q[D / 4];
    load_rows<D, T>(q, p.q, item.seq, item.head0 + h, token);
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int t = 0; t < (warp % 2 ? 16 : 8); t++) { /* 8 keys at a time, online */
        float acc[4] = {};
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            const uint32_t *b = (const uint32_t *)&key[8 * t + g][16 * j + 2 * c];
            warp_mma<T>(acc, q + 4 * j, b[0], b[4]);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int limit = at[i] - 8 * t - 2 * c; /* of the two keys 0 and 1, those up to it are seen */
            float x0 = limit >= 0 ? acc[2 * i] * (p.scale * kLog2e) : -INFINITY,
                  x1 = limit >= 1 ? acc[2 * i + 1] * (p.scale * kLog2e) : -INFINITY;
            float m = fmaxf(top[i], fmaxf(x0, x1));
            if (limit >= 0) {
                sum[i] = sum[i] * exp2_fast(top[i] - m) + exp2_fast(x0 - m) + exp2_fast(x1 - m);
                top[i] = m;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        for (int x = 1; x < 4; x *= 2) {
            float m2 = __shfl_xor_sync(kAll, top[i], x), s2 = __shfl_xor_sync(kAll, sum[i], x), m = fmaxf(top[i], m2);
            sum[i] = (sum[i] == 0 ? 0 : sum[i] * exp2_fast(top[i] - m)) + (s2 == 0 ? 0 : s2 * exp2_fast(m2 - m));
            top[i] = m;
        }
        if (c == 0)
            p.own_mass[((int64_t)blockIdx.x * kHeads + h) * kAsking + i0 + 8 * i] = top[i] + log2f(sum[i]);
    }
}

template <int D> struct SelectShared {
    char slot[kSelectSlots][Image<D>::kValues]; /* kScored bytes of it, aligned */
    float sum[2][kHeads][2][kTile];             /* [turn][head][warp of the two][entry] */
    Slots<D, kSelectSlots> slots;
};

/* A thread holds rows `row` and `row` + 8 of 128: head row / 32 of the item, asking token row % 32. */
template <int D, class T> struct Selector {
    const prism_cu_moments &p;
    SelectShared<D> &sh;
    Ring<D, kSelectSlots> ring;
    uint32_t q[D / 4], square[4];

    /* Logits of the next image, not finite where a moment or query is not; half the variances beside them. */
    __device__ __forceinline__ void logits(int t, int own, float (&x)[32], float (&half)[32])
    {
        uint32_t at = smem_addr(sh.slot[ring.slot]);
        ring.wait();
        wgmma_hold(x), wgmma_hold(half);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            wgmma_tile(x, q + 4 * j, wgmma_desc(at + j / 4 * (kTile * 128) + j % 4 * 32, 0), j > 0);
        wgmma_tile(half, square, desc32(at + Image<D>::kMeans), 0);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(x), wgmma_hold(half);
        finish_logits<D>(x, half, sh.slot[ring.slot], p.scale * kLog2e, 6 * kLog2e);
        ring.release();
        int left = past_entries(own) - t * kTile;
        if (left < kTile) {
#pragma unroll
            for (int j = 0; j < 32; j++)
                if (j / 4 * 8 + threadIdx.x % 4 * 2 + j % 2 >= left)
                    x[j] = kLow, half[j] = 0;
        }
    }

    /* First walk: log2 of a row's mass, its own block's included; a huge number where that is not finite, so that such
     * a row has no share in any sum. */
    __device__ __forceinline__ void normalise(int n_tile, int own, float (&norm)[2])
    {
        float top[2] = {kLow, kLow}, sum[2] = {};
        for (int t = 0; t < n_tile; t++) {
            float x[32], half[32];
            logits(t, own, x, half);
            float most[2] = {top[0], top[1]};
#pragma unroll
            for (int j = 0; j < 32; j++)
                most[j / 2 % 2] = fmaxf(most[j / 2 % 2], x[j]); /* passes over what is not a number */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                quad_max(most[h]);
                sum[h] *= exp2_fast(top[h] - most[h]);
                top[h] = most[h];
            }
#pragma unroll
            for (int j = 0; j < 32; j++)
                sum[j / 2 % 2] += exp2_fast(fmaxf(x[j], kLow) - top[j / 2 % 2]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            quad_add(sum[h]);
            float mine = norm[h] - 7, m = fmaxf(top[h], mine);
            float z = m + log2f(sum[h] * exp2_fast(top[h] - m) + exp2_fast(mine - m));
            norm[h] = fabsf(z) < 1e30f ? z : 1e30f;
        }
    }

    /* Second walk, one image: sums over this warp's rows of sigma^3 p, an entry after another. */
    __device__ __forceinline__ void add_rows(int t, int own, const float (&norm)[2], const bool (&valid)[2], float *sum)
    {
        const uint32_t ones[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
        float x[32], half[32];
        logits(t, own, x, half);
#pragma unroll
        for (int j = 0; j < 32; j++) { /* fits f16, and what is not a number stays so */
            float s2 = half[j] * (2 / kLog2e), s;
            asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(s2));
            x[j] = min_or_nan(s2 * s * exp2_fast(x[j] - norm[j / 2 % 2]), 6e4f);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) { /* 8 entries: those of `row`, those of `row` + 8 */
            uint32_t b[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t y = pack2<__half>(x[4 * j + 2 * h], x[4 * j + 2 * h + 1]);
                asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b[h]) : "r"(valid[h] ? y : 0));
            }
            float s[4] = {};
            warp_mma<__half>(s, ones, b[0], b[1]);
            if (threadIdx.x % 32 < 4)
                *(float2 *)(sum + 8 * j + 2 * threadIdx.x % 8) = make_float2(s[0], s[1]);
        }
    }

    /* Bits of one image's entries for one head, by one warp; returns how many. Entry e is block e - 16, so half words
     * of the bitmap shift by one. */
    __device__ __forceinline__ int decide(int t, const float (*sum)[kTile], const QueryBlock &block, float least,
                                          bool all, uint16_t *out, int n_out)
    {
        int n = 0, lane = threadIdx.x % 32;
        /* A single token whose logit is not finite keeps block 0. */
        bool sink = p.keep_sink || __any_sync(kAll, t == 0 && lane < kSingles && isnan(sum[0][lane] + sum[1][lane]));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int e = 32 * i + lane, v = t * kTile + e - kSingles;
            bool keep = v >= 0 && v <= block.own &&
                        ((v < block.own && !(sum[0][e] + sum[1][e] < least)) || (v == block.own && p.keep_own) ||
                         (v == 0 && sink) || all);
            uint32_t w = __ballot_sync(kAll, keep);
            int to = 4 * t - 1 + 2 * i + lane;
            if (lane < 2 && to >= 0 && to < n_out)
                out[to] = (uint16_t)(w >> 16 * lane);
            n += __popc(w);
        }
        return n;
    }

    __device__ __forceinline__ void run(int i, const SelectItem &item)
    {
        const prism_cu_shape &s = p.shape;
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, h = warp / 2, i0 = warp % 2 * 16 + lane / 4;
        Lengths n = lengths(s, item.seq);
        QueryBlock block(n, item.u);
        bool exists = block.exists(), mine = h < item.n_head;
        int n_tile = exists ? tiles_for(block.own + 1) : 0;
        int token[2];
        bool valid[2];
        float norm[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int at = exists && mine ? block.asking(i0 + 8 * k) : -1;
            valid[k] = at >= 0, token[k] = valid[k] ? block.first + at : -1;
            norm[k] = valid[k] ? p.own_mass[((int64_t)i * kHeads + h) * kAsking + i0 + 8 * k] : 0;
        }
        load_rows<D, T>(q, p.q, item.seq, item.head0 + (mine ? h : 0), token);
        prepare<D, T>(q, square, sh.slots, p.scale);
        normalise(n_tile, block.own, norm);

        Bitmap map = bitmap_of(s, kBlockKeys);
        int64_t head = (int64_t)item.seq * s.n_head + item.head0 + h;
        uint32_t *words = p.bitmap + head * map.before(s.n_qblk) + map.before(item.u);
        int n_out = 2 * map.in(item.u), count = 0;
        int n_before = block.own * kBlockKeys; /* a longer row prunes less: core/moments.h */
        float least = p.error * block.n_asking() * (n_before > kNear ? (float)kNear / n_before : 1);
        for (int t = 0; t < n_tile; t++) {
            add_rows(t, block.own, norm, valid, sh.sum[t % 2][h][warp % 2]);
            sync_some(1 + h, 64); /* the two warps of a head */
            if (warp % 2 == 0 && mine)
                count += decide(t, sh.sum[t % 2][h], block, least, n.n_kv < p.min_tokens, (uint16_t *)words, n_out);
        }
        sync_some(1 + h, 64);
        if (warp % 2 || !mine)
            return;
        for (int k = max(0, 4 * n_tile - 1) + lane; k < n_out; k += 32)
            ((uint16_t *)words)[k] = 0;
        __syncwarp();
        if (lane == 0) {
            if (exists && count == 0)
                words[block.own / 32] |= 1u << block.own % 32, count = 1;
            p.count[head * s.n_qblk + item.u] = count;
        }
    }
};

template <int D, class T>
__global__ void __launch_bounds__(kScoreThreads, 1) score(const __grid_constant__ prism_cu_moments p, int n_item)
{
    extern __shared__ __align__(1024) char smem[];
    SelectShared<D> &sh = *(SelectShared<D> *)smem;
    sh.slots.init();
    if (threadIdx.x < kScorers) {
        Selector<D, T> x = {p, sh, {sh.slots, 0, 0}};
        for (int i = blockIdx.x; i < n_item; i += gridDim.x)
            x.run(i, SelectItem(p.shape, i));
    } else if (threadIdx.x == kScorers) {
        Ring<D, kSelectSlots> ring = {sh.slots, 0, 0};
        for (int i = blockIdx.x; i < n_item; i += gridDim.x) {
            SelectItem item(p.shape, i);
            QueryBlock block(lengths(p.shape, item.seq), item.u);
            int n_tile = block.exists() ? tiles_for(block.own + 1) : 0;
            const char *image = image_of<D>(p, item.seq, item.kv_head);
            for (int walk = 0; walk < 2; walk++)
                for (int t = 0; t < n_tile; t++)
                    ring.copy(sh.slot[ring.slot], image + (int64_t)t * Image<D>::kBytes, Image<D>::kScored);
        }
    }
}

template <int D, class T> static cudaError_t select_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_item = SelectItem::count(a.shape);
    if (n_item == 0)
        return cudaSuccess;
    Device device;
    cudaError_t e = device_of(&device);
    if (e)
        return e;
    if (!device.hopper || a.scale <= 0)
        return cudaErrorNotSupported;
    own_mass<D, T><<<n_item, kScorers, 0, stream>>>(a);
    if ((e = cudaGetLastError()))
        return e;
    int bytes = sizeof(SelectShared<D>);
    e = cudaFuncSetAttribute(score<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e)
        return e;
    score<D, T><<<min(n_item, device.n_sm), kScoreThreads, bytes, stream>>>(a, n_item);
    return cudaGetLastError();
}

} // namespace prism

extern "C" int64_t prism_moments_own_floats(const prism_cu_shape *s)
{
    return (int64_t)prism::SelectItem::count(*s) * prism::kHeads * prism::kAsking;
}
extern "C" cudaError_t prism_moments_select_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, select_launch, stream);
}
