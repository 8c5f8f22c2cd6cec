/*
 * Blocks whose moments cannot stand for them.
 *
 *   own_mass  q [32 asking tokens][d] x k [own block] -> exact mass of the own block
 *   score     q [4 heads][32][d] x images -> logits -> normaliser of each token            (first walk)
 *             the same again -> sigma^3 p, summed over the tokens of a head                (second walk)
 *             sums of a row -> the least one that it keeps -> bits
 *
 * A CTA takes one query block of up to four heads that share a KV head: 32 asking tokens each make 128 rows. Logits are
 * computed twice: keeping them would take a cluster's shared memory. Two CTAs a multiprocessor, and no warp for copies,
 * so that a thread may have 128 registers: its first thread asks for an image whenever it is done with one.
 */
#include <algorithm>

#include "cuda/device.cuh"
#include "cuda/moments/moments_score.cuh"

namespace prism
{

constexpr int kAsking = 32, kHeads = 4;
constexpr int kSelectSlots = 5, kFed = 3; /* images under way ahead of the first warp */
constexpr int kPerSm = 2;                 /* CTAs */

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
    static __host__ __device__ int count(const prism_cu_shape &s)
    {
        return s.n_seq * s.n_kv_head * ((s.n_head / s.n_kv_head + kHeads - 1) / kHeads) * s.n_qblk;
    }
};
/* The scratch: masses of own blocks, [item][kHeads][kAsking]; behind them errors, [CTA][kHeads][entry]. */
__device__ __forceinline__ float *errors_of(const prism_cu_moments &p, int h)
{
    return p.scratch + (int64_t)SelectItem::count(p.shape) * kHeads * kAsking +
           ((int64_t)blockIdx.x * kHeads + h) * (tiles_for(p.shape.n_kblk) * kTile);
}

/* log2 of the sum over keys up to the token's own of 2^(logit in units of log 2). A warp 16 asking tokens of a head. */
template <int D, class T>
__global__ void __launch_bounds__(kScorers, 4) own_mass(const __grid_constant__ prism_cu_moments p)
{
    __shared__ __align__(16) T key[kBlockKeys][D + 32]; /* eight lanes' 16 bytes in as many groups of banks */
    const prism_cu_shape &s = p.shape;
    SelectItem item(s, blockIdx.x);
    Lengths n = lengths(s, item.seq);
    QueryBlock block(n, item.u);
    if (!block.exists())
        return;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, h = warp / 2, i0 = warp % 2 * 16 + g;
    bool mine = h < item.n_head;
    int at[2] = {block.asking(i0), block.asking(i0 + 8)};
    const int token[2] = {at[0] < 0 ? -1 : block.first + at[0], at[1] < 0 ? -1 : block.first + at[1]};
#pragma unroll
    for (int i = threadIdx.x; i < kBlockKeys * (D / 8); i += kScorers) { /* past the last key: zeros */
        int b = i / (D / 8), j = i % (D / 8) * 8, token = block.own * kBlockKeys + b;
        const T *from = (const T *)p.k.data + item.kv_head * p.k.stride_head + j +
                        token_offset(p.k, item.seq, min(token, n.n_kv - 1));
        cp_async16(smem_addr(&key[b][j]), from, token < n.n_kv);
    }
    cp_async_commit();
    Rows<D> rows;
    rows.template load<T>(p.q, item.seq, item.head0 + (mine ? h : 0), token);
    cp_async_wait<0>();
    __syncthreads();
    if (!mine)
        return;
    uint32_t q[D / 4];
    rows.fragments(q);
    float top[2] = {kLow, kLow}, sum[2] = {};
    for (int t = 0; t < (warp % 2 ? 4 : 2); t++) { /* 32 keys at a time, online */
        float acc[4][4] = {};
#pragma unroll
        for (int j = 0; j < D / 32; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint4 b = *(const uint4 *)&key[32 * t + 8 * k + g][32 * j + 8 * c];
                warp_mma<T>(acc[k], q + 8 * j, b.x, b.y);
                warp_mma<T>(acc[k], q + 8 * j + 4, b.z, b.w);
            }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int limit = at[i] - 32 * t - 2 * c; /* the last key that is seen, counted from this lane's first */
            float most = top[i];
#pragma unroll
            for (int k = 0; k < 8; k++) {
                float &x = acc[k / 2][2 * i + k % 2];
                x = limit >= k / 2 * 8 + k % 2 ? x * (p.scale * kLog2e) : -INFINITY;
                most = fmaxf(most, x);
            }
            sum[i] *= exp2_fast(top[i] - most), top[i] = most;
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum[i] += exp2_fast(acc[k / 2][2 * i + k % 2] - most);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = top[i];
        quad_max(most);
        sum[i] *= exp2_fast(top[i] - most);
        quad_add(sum[i]);
        if (c == 0)
            p.scratch[((int64_t)blockIdx.x * kHeads + h) * kAsking + i0 + 8 * i] = most + log2f(sum[i]);
    }
}

template <int D> struct SelectShared {
    char slot[kSelectSlots][MomentsImage<D>::kValues]; /* kScored bytes of it, aligned */
    float sum[2][kHeads][2][kTile];             /* [turn][head][warp of the two][entry] */
    Slots<kSelectSlots> slots;
};

/* The thread that copies images, one at a time, in the order in which they are walked through. */
template <int D> struct Feeder {
    const prism_cu_moments &p;
    SelectShared<D> &sh;
    Ring<kSelectSlots> ring;
    int i, n_item, n_tile, left; /* next item; of this one: images, and copies to come */
    const char *image;

    __device__ __forceinline__ void feed()
    {
        while (left == 0) {
            if (i >= n_item)
                return;
            SelectItem item(p.shape, i);
            QueryBlock block(lengths(p.shape, item.seq), item.u);
            n_tile = block.exists() ? tiles_for(block.own + 1) : 0, left = 2 * n_tile;
            image = image_of<D>(p, item.seq, item.kv_head);
            i += gridDim.x;
        }
        int t = left > n_tile ? 2 * n_tile - left : n_tile - left;
        ring.copy(sh.slot[ring.slot], image + (int64_t)t * MomentsImage<D>::kBytes, MomentsImage<D>::kScored);
        left--;
    }
};

/* A thread holds rows `row` and `row` + 8 of 128: head row / 32 of the item, asking token row % 32. */
template <int D, class T> struct Selector {
    const prism_cu_moments &p;
    SelectShared<D> &sh;
    Ring<kSelectSlots> ring;
    Feeder<D> feeder;
    uint32_t q[D / 4], square[4];

    /* Entries of the next image that lie in the past: logits, and where `errors` is set the logarithm of sigma^3 with
     * them, all in units of the scale. Not finite where a moment or query is not; but for `errors` what a moment makes
     * so, or what lies not in the past, is kLow. */
    template <bool errors> __device__ __forceinline__ void logits(int left, float (&x)[32])
    {
        const float per_unit = 1 / (p.scale * kLog2e), slow = 0.5f * p.scale;
        const char *image = sh.slot[ring.slot];
        ring.wait();
        add_variances<D>(x, square, smem_addr(image));
        wgmma_wait<0>();
        wgmma_hold(x);
        const int first = threadIdx.x % 4 * 2;
        float bias[16];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float2 b = *(const float2 *)(image + MomentsImage<D>::bias(8 * j + first));
            bias[2 * j] = errors ? b.x : fmaxf(b.x, kLow), bias[2 * j + 1] = errors ? b.y : fmaxf(b.y, kLow);
        }
        if (!errors && left < kTile) {
#pragma unroll
            for (int j = 0; j < 16; j++)
                bias[j] = first + j / 2 * 8 + j % 2 < left ? bias[j] : kLow;
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float &y = x[4 * j + i], spread = fmaxf(y * rsqrt_fast(fmaf(y, slow, 1)), kLow), /* NaN: no share */
                    logit = fmaf(bias[2 * j + i % 2], per_unit, spread);
                y = errors ? fmaf(log2_fast(y), 1.5f * per_unit, logit) : logit;
            }
        }
        add_means<D>(x, q, smem_addr(image));
        wgmma_wait<0>();
        wgmma_hold(x);
        ring.release();
        if (threadIdx.x == 0)
            feeder.feed();
        __syncwarp();
    }

    /* First walk: log2 of a row's mass, its own block's included, `norm` so far; a huge number where that is not
     * finite, so that such a row has no share in any sum. Each lane keeps a maximum and a sum of its own. */
    __device__ __forceinline__ void normalise(int n_tile, int own, float (&norm)[2])
    {
        const float unit = p.scale * kLog2e;
        float top[2] = {kLow, kLow}, sum[2] = {};
        for (int t = 0; t < n_tile; t++) {
            float x[32];
            logits<false>(past_entries(own) - t * kTile, x);
            float most[2] = {top[0], top[1]};
#pragma unroll
            for (int j = 0; j < 32; j++)
                most[j / 2 % 2] = fmaxf(most[j / 2 % 2], x[j]); /* passes over what is not a number */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                sum[h] *= exp2_fast((top[h] - most[h]) * unit);
                top[h] = most[h];
            }
            float zero[2] = {-top[0] * unit, -top[1] * unit};
#pragma unroll
            for (int j = 0; j < 32; j++)
                sum[j / 2 % 2] += exp2_fast(fmaf(x[j], unit, zero[j / 2 % 2]));
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = top[h];
            quad_max(most);
            sum[h] *= exp2_fast((top[h] - most) * unit);
            quad_add(sum[h]);
            float theirs = most * unit, mine = norm[h] - 7, m = fmaxf(theirs, mine);
            float z = m + log2f(sum[h] * exp2_fast(theirs - m) + exp2_fast(mine - m));
            norm[h] = fabsf(z) < 1e30f ? z : 1e30f;
        }
    }

    /* Second walk, one image: sums over this warp's rows of sigma^3 p, an entry after another. norm: of p, less what
     * the units of sigma^3 come to. */
    __device__ __forceinline__ void add_rows(const float (&norm)[2], float *sum)
    {
        const uint32_t ones[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
        const float unit = p.scale * kLog2e;
        float x[32];
        logits<true>(kTile, x);
#pragma unroll
        for (int j = 0; j < 8; j++) { /* 8 entries: those of `row`, those of `row` + 8 */
            uint32_t b[2];
#pragma unroll
            for (int h = 0; h < 2; h++) { /* too large for f16: Inf, which no threshold is above */
                uint32_t y = pack2<__half>(exp2_fast(fmaf(x[4 * j + 2 * h], unit, -norm[h])),
                                           exp2_fast(fmaf(x[4 * j + 2 * h + 1], unit, -norm[h])));
                asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b[h]) : "r"(y));
            }
            float s[4] = {};
            warp_mma<__half>(s, ones, b[0], b[1]);
            if (threadIdx.x % 32 < 4)
                *(float2 *)(sum + 8 * j + 2 * threadIdx.x % 8) = make_float2(s[0], s[1]);
        }
    }

    /* Sum of a row's errors up to `most`, in all lanes. */
    static __device__ __forceinline__ float sum_up_to(const float *error, int n, float most)
    {
        float sum = 0;
#pragma unroll 4
        for (int b = threadIdx.x % 32; b < n; b += 32)
            sum += error[b] <= most ? error[b] : 0;
        return warp_add(sum);
    }
    /* The least x, to 15 bits, for which x times the sum of the errors up to x is bound squared or more. It is so for
     * errors from `bound` on; where the smaller ones sum to less than that, for no other. */
    static __device__ __forceinline__ float lowest_kept(const float *error, int n, float bound)
    {
        float sum = sum_up_to(error, n, bound);
        if (!(sum > bound))
            return bound;
        uint32_t low = __float_as_uint(bound * (bound / sum)), high = __float_as_uint(bound);
        while (high - low > 255) { /* floats that are not negative are ordered as their bits are */
            uint32_t middle = low + (high - low) / 2;
            float x = __uint_as_float(middle);
            if (x * sum_up_to(error, n, x) >= bound * bound)
                high = middle;
            else
                low = middle + 1;
        }
        return __uint_as_float(low);
    }
    /* Bits of a row, by one warp, and how many. */
    __device__ __forceinline__ void decide(const SelectItem &item, int h, const float *error)
    {
        const prism_cu_shape &s = p.shape;
        Lengths of = lengths(s, item.seq);
        QueryBlock block(of, item.u);
        int lane = threadIdx.x % 32, n = 0, own = block.exists() ? block.own : -1;
        int64_t head = (int64_t)item.seq * s.n_head + item.head0 + h;
        Bitmap map = bitmap_of(s, kBlockKeys);
        uint32_t *words = p.bitmap + head * map.before(s.n_qblk) + map.before(item.u);
        float least = own > 0 ? lowest_kept(error + kSingles, own, p.error * block.n_asking()) : 0;
        bool all = of.n_kv < p.min_tokens;
        /* A single token whose logit is not finite keeps block 0. */
        bool sink = p.keep_sink || __any_sync(kAll, own > 0 && lane < kSingles && isnan(error[lane]));
        for (int w = 0; w < map.in(item.u); w++) {
            int b = 32 * w + lane;
            bool keep = b < own ? all || (b == 0 && sink) || !(error[kSingles + b] < least)
                                : b == own && (all || p.keep_own || (b == 0 && p.keep_sink));
            uint32_t word = __ballot_sync(kAll, keep);
            n += __popc(word);
            if (own >= 0 && n == 0 && w == own / 32)
                word = 1u << own % 32, n = 1;
            if (lane == 0)
                words[w] = word;
        }
        if (lane == 0)
            p.count[head * s.n_qblk + item.u] = n;
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
        float norm[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int at = exists && mine ? block.asking(i0 + 8 * k) : -1;
            token[k] = at >= 0 ? block.first + at : -1;
            norm[k] = at >= 0 ? p.scratch[((int64_t)i * kHeads + h) * kAsking + i0 + 8 * k] : 1e30f; /* no share */
        }
        Rows<D> rows;
        rows.template load<T>(p.q, item.seq, item.head0 + (mine ? h : 0), token);
        prepare<D, T>(rows, q, square, p.scale);
        normalise(n_tile, block.own, norm);
        norm[0] -= 1.5f * log2f(2 * p.scale), norm[1] -= 1.5f * log2f(2 * p.scale);

        for (int t = 0; t < n_tile; t++) {
            float(*sum)[kTile] = sh.sum[t % 2][h];
            int e = warp % 2 * 32 + lane;
            add_rows(norm, sum[warp % 2]);
            sync_some(1 + h, 64); /* the two warps of a head */
            errors_of(p, h)[t * kTile + e] = sum[0][e] + sum[1][e];
        }
        sync_some(1 + h, 64); /* the second goes on: it writes errors again when both have come to the next sums */
        asm volatile("" : "+r"(i)); /* what follows is looked up again: registers are scarce before */
        SelectItem again(s, i);
        if (warp % 2 == 0 && h < again.n_head)
            decide(again, h, errors_of(p, h));
    }
};

template <int D, class T>
__global__ void __launch_bounds__(kScorers, kPerSm) score(const __grid_constant__ prism_cu_moments p, int n_item)
{
    extern __shared__ __align__(1024) char smem[];
    SelectShared<D> &sh = *(SelectShared<D> *)smem;
    if (threadIdx.x == 0) {
        sh.slots.init();
        mbar_init_fence();
    }
    __syncthreads();
    Ring<kSelectSlots> ring = {sh.slots, 0, 0};
    Selector<D, T> x = {p, sh, ring, {p, sh, ring, (int)blockIdx.x, n_item, 0, 0, NULL}};
    for (int i = 0; i < kFed && threadIdx.x == 0; i++)
        x.feeder.feed();
    __syncwarp();
    for (int i = blockIdx.x; i < n_item; i += gridDim.x)
        x.run(i, SelectItem(p.shape, i));
}

template <int D, class T> static cudaError_t select_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_item = SelectItem::count(a.shape);
    if (n_item == 0)
        return cudaSuccess;
    own_mass<D, T><<<n_item, kScorers, 0, stream>>>(a);
    cudaError_t e = cudaGetLastError();
    return e ? e : launch_items(score<D, T>, n_item, kPerSm, kScorers, sizeof(SelectShared<D>), stream, a, n_item);
}

} // namespace prism

extern "C" int64_t prism_moments_select_floats(const prism_cu_shape *s)
{
    const prism_cu_gpu *gpu;
    if (prism_cu_gpu_here(&gpu))
        return 0;
    int64_t n_item = prism::SelectItem::count(*s), n_cta = std::min<int64_t>(n_item, prism::kPerSm * gpu->n_sm);
    return prism::kHeads * (n_item * prism::kAsking + n_cta * prism::tiles_for(s->n_kblk) * prism::kTile);
}
extern "C" cudaError_t prism_moments_select_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, PRISM_CU_SELECT_MOMENTS, select_launch, stream);
}
