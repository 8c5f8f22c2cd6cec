/*
 * What the blocks that a plan leaves out contribute, through their moments.
 *
 *   q [128][d] x images -> logits of the pruned entries -> online softmax x value means -> init_o, init_lse
 *
 * A CTA takes one query block of one head, all its tokens; the walk is that of attention, over entries in place of
 * keys. One warp fetches images; three look up what a row lists, one row each in turn, and turn counts into biases,
 * -inf for entries that are not the row's to correct. Two warpgroups of 64 rows compute: variances, then biases, then
 * means go into one accumulator. Products of image n + 1 run beside the weights of image n, and the values of n beside
 * the first half of the next weights; the first products of an item run beside the end of the item before it.
 *
 * Behind an item's images comes the covariance that its blocks share. What it adds to the values of blocks, covariance
 * times (query - mean query), is one more product whose weights are (query - mean query) times the blocks' share.
 */
#include "cuda/device.cuh"
#include "cuda/moments/moments_score.cuh"

namespace prism
{

constexpr int kCorrectThreads = kScorers + 128, kCorrectSlots = 6, kLookers = 3;
constexpr int kMaxWords = 2 * 264; /* of one row's entries */
constexpr float kSlack = 8;        /* log2 of the largest weight */
constexpr float kCap = 0.5f * 7 / kLog2e; /* half the logarithm of a block's keys */
static_assert(kBlockKeys == 1 << 7, "7 is its log2");
static_assert(2 * tiles_for(PRISM_CU_MOMENTS_MAX_BLOCKS) <= kMaxWords, "the bits of a row's entries fit their array");

struct CorrectItem {
    int seq, head, n_tile; /* images that it walks through */
    int64_t row;
    QueryBlock block;
    __device__ __forceinline__ CorrectItem(const prism_cu_shape &s, int i, bool full) /* late query blocks first */
        : CorrectItem(s, s.n_qblk - 1 - i / (s.n_seq * s.n_head), i % (s.n_seq * s.n_head), full)
    {
    }
    __device__ __forceinline__ CorrectItem(const prism_cu_shape &s, int u, int head_of_all, bool full)
        : seq(head_of_all / s.n_head), head(head_of_all % s.n_head), row((int64_t)head_of_all * s.n_qblk + u),
          block(lengths(s, seq), u)
    {
        n_tile = !full && block.exists() && block.own ? tiles_for(block.own) : 0;
    }
    /* What comes through the ring: images, and a covariance. */
    __device__ __forceinline__ int n_copy() const { return n_tile ? n_tile + 1 : 0; }
    /* A token of the call by its offset in the query block, or -1. */
    __device__ __forceinline__ int token(int at) const
    {
        return at >= block.begin && at < block.end ? block.first + at : -1;
    }
};

template <int D> struct CorrectShared {
    char slot[kCorrectSlots][MomentsImage<D>::kBytes];
    float bias[kCorrectSlots][kTile];
    uint32_t pruned[kLookers][kMaxWords]; /* bit e: entry e */
    Slots<kCorrectSlots> slots;
    uint64_t ready[kCorrectSlots], turn[kLookers]; /* biases are there; a looker may go on to its row's images */
};

/* A warp that makes biases of every third item's images. */
template <int D, class T> struct Looker {
    const prism_cu_moments &p;
    CorrectShared<D> &sh;
    Ring<kCorrectSlots> ring;
    int me, lane;
    uint32_t phase;

    /* Bits of the entries in the past that the row does not list. */
    __device__ __forceinline__ void find_pruned(const CorrectItem &item)
    {
        int n = past_entries(item.block.own);
        uint32_t *pruned = sh.pruned[me];
        __syncwarp(); /* all lanes have read the last row's bits */
        for (int i = lane; i < 2 * item.n_tile; i += 32) {
            int left = n - 32 * i;
            pruned[i] = left >= 32 ? kAll : left > 0 ? (1u << left) - 1 : 0;
        }
        __syncwarp();
        int64_t from = p.row_ptr[item.row], to = p.row_ptr[item.row + 1];
#pragma unroll 4
        for (int64_t i = from + lane; i < to; i += 32) {
            int b = __ldg(p.index + i), e = b + kSingles;
            if (b < item.block.own)
                atomicAnd(&pruned[e / 32], ~(1u << e % 32));
            if (b == 0)
                atomicAnd(&pruned[0], ~0xffffu);
        }
        __syncwarp();
    }
    /* The item's queries come to L2. */
    __device__ __forceinline__ void prefetch(const CorrectItem &item)
    {
        for (int at = lane; at < kBlockKeys; at += 32) {
            int token = item.token(at);
            const T *q = (const T *)p.q.data + item.head * p.q.stride_head;
            for (int j = 0; j < D && token >= 0; j += 64)
                prefetch_l2(q + token_offset(p.q, item.seq, token) + j);
        }
    }
    __device__ __forceinline__ void run(int n_item, bool full)
    {
        for (int i = blockIdx.x, turn = 0; i < n_item; i += gridDim.x, turn = turn + 1 == kLookers ? 0 : turn + 1) {
            CorrectItem item(p.shape, i, full);
            if (turn != me) {
                ring.skip(item.n_copy());
                continue;
            }
            if (item.n_tile)
                prefetch(item), find_pruned(item);
            mbar_wait(smem_addr(&sh.turn[me]), phase);
            phase ^= 1;
            for (int t = 0; t < item.n_copy(); t++) {
                ring.wait();
#pragma unroll
                for (int h = 0; h < 2 && t < item.n_tile; h++) {
                    int e = 32 * h + lane;
                    float bias = *(const float *)(sh.slot[ring.slot] + MomentsImage<D>::bias(e));
                    bool counts = sh.pruned[me][2 * t + h] >> lane & 1 && !isnan(bias);
                    sh.bias[ring.slot][e] = counts ? bias : -INFINITY;
                }
                mbar_arrive(smem_addr(&sh.ready[ring.slot])); /* each lane for what it wrote */
                ring.next();
            }
            if (lane == 0)
                mbar_arrive(smem_addr(&sh.turn[me + 1 == kLookers ? 0 : me + 1]));
        }
    }
};

/* A thread holds rows `row` and `row` + 8 of 128. */
template <int D, class T> struct Corrector {
    const prism_cu_moments &p;
    CorrectShared<D> &sh;
    Ring<kCorrectSlots> ring;
    int row;
    uint32_t q[D / 4], square[4], e[16];
    float o[D / 2], top[2], sum[2], single[2], fade[2]; /* top: in units of the scale; single: sums of single tokens */

    __device__ __forceinline__ void load(Rows<D> &rows, const CorrectItem &item)
    {
        const int token[2] = {item.token(row), item.token(row + 8)};
        rows.template load<T>(p.q, item.seq, item.head, token);
    }

    __device__ __forceinline__ void wait()
    {
        ring.wait();
        mbar_wait(smem_addr(&sh.ready[ring.slot]), ring.phase);
    }
    /* Waits for the next image; x becomes its variances, on their way. */
    __device__ __forceinline__ void begin(float (&x)[32])
    {
        wait();
        add_variances<D>(x, square, smem_addr(sh.slot[ring.slot]));
    }
    /* Variances, which have arrived, up to the cap, biases, and means, on their way. */
    __device__ __forceinline__ void go_on(float (&x)[32])
    {
        const float cap = p.mean ? 0 : kCap / p.scale, per_unit = 1 / (p.scale * kLog2e);
        wgmma_hold(x);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float2 b = *(const float2 *)&sh.bias[ring.slot][8 * j + threadIdx.x % 4 * 2];
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[4 * j + i] = fmaf(i % 2 ? b.y : b.x, per_unit, fminf(x[4 * j + i], cap));
        }
        add_means<D>(x, q, smem_addr(sh.slot[ring.slot]));
    }
    /* o += weights times 64 rows of an image's values, on their way. */
    __device__ __forceinline__ void add_values(const uint32_t *weight, const char *at)
    {
        uint64_t values = wgmma_desc(uniform(smem_addr(at)), kTile * 128);
        wgmma_hold(o);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++)
            wgmma_rs<__half>::go(o, weight + 4 * k, desc_behind(values, k * 2048), 1);
        wgmma_commit();
    }
    __device__ __forceinline__ void release(int slot)
    {
        if (threadIdx.x % 32 == 0)
            mbar_arrive(smem_addr(&sh.slots.empty[slot]));
    }

    /* Logits, which have arrived, to exponents x of weights: less the maximum. `fade` is what sums and O must be
     * multiplied by; a maximum stays while weights are below 2^kSlack. */
    __device__ __forceinline__ void exponents(float (&x)[32], float (&logit)[32])
    {
        const float unit = p.scale * kLog2e;
        float most[2] = {top[0], top[1]}, zero[2];
        wgmma_hold(logit);
#pragma unroll
        for (int j = 0; j < 32; j++)
            most[j / 2 % 2] = fmaxf(most[j / 2 % 2], logit[j]); /* passes over what is not a number */
        quad_max(most[0]), quad_max(most[1]);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            bool up = (most[h] - top[h]) * unit > kSlack;
            fade[h] = up ? exp2_fast((top[h] - most[h]) * unit) : 1;
            top[h] = up ? most[h] : top[h], sum[h] *= fade[h], single[h] *= fade[h];
            zero[h] = -top[h] * unit;
        }
#pragma unroll
        for (int j = 0; j < 32; j++)
            x[j] = fmaf(logit[j], unit, zero[j / 2 % 2]);
        wgmma_hold(x); /* not later: the logits' registers are wanted */
    }
    /* One half of the weights. */
    __device__ __forceinline__ void weigh(float (&x)[32], int half)
    {
#pragma unroll
        for (int j = 16 * half; j < 16 * half + 16; j++) {
            x[j] = exp2_fast(x[j]);
            sum[j / 2 % 2] += x[j];
        }
    }
    /* The second half, and values, on their way. */
    __device__ __forceinline__ void finish(float (&x)[32], int slot)
    {
        if (__any_sync(kAll, fade[0] < 1 || fade[1] < 1)) {
#pragma unroll
            for (int j = 0; j < D / 2; j++)
                o[j] *= fade[j / 2 % 2];
        }
        weigh(x, 1);
#pragma unroll
        for (int j = 0; j < 16; j++)
            e[j] = pack2<__half>(x[2 * j], x[2 * j + 1]);
        add_values(e, sh.slot[slot] + MomentsImage<D>::kValues);
    }
    /* The last image's second half. Then outputs are divided by sums, and what the covariance adds is on its way; its
     * weights are `weight`. Returns its slot. */
    __device__ __forceinline__ int close(float (&x)[32], int slot, uint32_t (&weight)[D / 4])
    {
        finish(x, slot);
        wgmma_wait<0>();
        wgmma_hold(o);
        release(slot);
        float share[2], f[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            quad_add(sum[h]), quad_add(single[h]);
            f[h] = 1 / sum[h], share[h] = p.mean ? 0 : (sum[h] - single[h]) * f[h];
        }
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] *= f[j / 2 % 2];
        wait();
        slot = ring.slot;
        ring.next();
        const char *image = sh.slot[slot];
        const float *query = (const float *)(image + MomentsImage<D>::kQuery) + threadIdx.x % 4 * 8;
#pragma unroll
        for (int j = 0; j < D / 4; j++) { /* as Rows::fragments() */
            float2 m = *(const float2 *)(query + j / 8 * 32 + j / 2 % 4 * 2), y = widen2<__half>(q[j]);
            weight[j] = pack2<__half>((y.x - m.x) * share[j % 2], (y.y - m.y) * share[j % 2]);
        }
#pragma unroll
        for (int i = 0; i < D / 64; i++)
            add_values(weight + 16 * i, image + i * MomentsImage<D>::kMeans);
        return slot;
    }
    /* x: the image in `slot`, half of its weights made; y: the variances of the next one, which have arrived. The
     * products of y's means run beside the other half, and the values of x beside the first half of the next weights,
     * which take the place of x; `more`: the variances of one more image that of y. */
    template <bool more> __device__ __forceinline__ void step(float (&x)[32], float (&y)[32], int &slot)
    {
        int old = slot;
        go_on(y);
        finish(x, old);
        slot = ring.slot;
        ring.next();
        wgmma_wait<1>();
        exponents(x, y);
        if (more)
            begin(y);
        weigh(x, 0);
        wgmma_wait<0>();
        wgmma_hold(o);
        release(old);
    }

    /* From the first image, whose logits are in y, to the last, which is left half weighed in x. Returns its slot. */
    __device__ __forceinline__ int walk(int n_tile, float (&x)[32], float (&y)[32])
    {
        int left = n_tile - 1, slot = ring.slot;
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] = 0;
        top[0] = top[1] = kLow, sum[0] = sum[1] = single[0] = single[1] = 0;
        exponents(x, y);
        ring.next();
        if (left) {
            begin(y);
            wgmma_wait<0>();
        }
        weigh(x, 0);
#pragma unroll
        for (int j = 0; j < kSingles / 2; j++)
            single[j / 2 % 2] += x[j];
        for (; left > 1; left--)
            step<true>(x, y, slot);
        if (left)
            step<false>(x, y, slot);
        return slot;
    }

    /* A row whose query is not finite has a sum that is not a number, and gets nothing. */
    __device__ __forceinline__ void write(const CorrectItem &item)
    {
        int c = threadIdx.x % 4;
        int64_t lse = (p.lse_row_start ? p.lse_row_start[item.seq] * p.lse_stride_token : item.seq * p.lse_stride_seq) +
                      item.head * p.lse_stride_head;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int token = item.token(row + 8 * h);
            bool some = sum[h] > 0;
            if (token < 0)
                continue;
            T *out = (T *)p.init_o + token_offset(p.o, item.seq, token) + item.head * p.o.stride_head + 8 * c;
#pragma unroll
            for (int i = 0; i < D / 32; i++) {
                uint32_t w[4];
#pragma unroll
                for (int k = 0; k < 4; k++)
                    w[k] = some ? pack2<T>(o[16 * i + 4 * k + 2 * h], o[16 * i + 4 * k + 2 * h + 1]) : 0;
                *(uint4 *)(out + 32 * i) = make_uint4(w[0], w[1], w[2], w[3]);
            }
            if (c == 0)
                p.init_lse[lse + token * p.lse_stride_token] =
                    some ? top[h] * p.scale + (log2_fast(sum[h]) + 7) / kLog2e : -INFINITY;
        }
    }
    __device__ __forceinline__ void write_nothing(const CorrectItem &item)
    {
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] = 0;
        sum[0] = sum[1] = 0;
        write(item);
    }

    /* Logits y of an item's first image, with nothing beside them. */
    __device__ __forceinline__ void first(const CorrectItem &item, float (&y)[32])
    {
        Rows<D> rows;
        load(rows, item);
        prepare<D, T>(rows, q, square, p.scale);
        begin(y);
        wgmma_wait<0>();
        go_on(y);
        wgmma_wait<0>();
    }
    /* The last product of an item runs beside the first variances of the next, whose first means run while results are
     * written. */
    __device__ __forceinline__ void run(int n_item, bool full)
    {
        float x[32], y[32];
        uint32_t weight[D / 4];
        CorrectItem item(p.shape, blockIdx.x, full);
        if (item.n_tile)
            first(item, y);
        for (int i = blockIdx.x; i < n_item; i += gridDim.x) {
            bool last = i + gridDim.x >= n_item;
            CorrectItem next(p.shape, last ? i : i + gridDim.x, full || last);
            if (!item.n_tile) {
                write_nothing(item);
                if (next.n_tile)
                    first(next, y);
                item = next;
                continue;
            }
            int slot = walk(item.n_tile, x, y);
            if (next.n_tile) {
                Rows<D> rows;
                load(rows, next);
                slot = close(x, slot, weight);
                prepare<D, T>(rows, q, square, p.scale);
                begin(y);
                wgmma_wait<0>();
                wgmma_hold(o);
                release(slot);
                go_on(y);
                write(item);
                wgmma_wait<0>();
            } else {
                slot = close(x, slot, weight);
                wgmma_wait<0>();
                wgmma_hold(o);
                release(slot);
                write(item);
            }
            item = next;
        }
    }
};

template <int D, class T>
__global__ void __launch_bounds__(kCorrectThreads, 1) correct(const __grid_constant__ prism_cu_moments p, int n_item)
{
    extern __shared__ __align__(1024) char smem[];
    CorrectShared<D> &sh = *(CorrectShared<D> *)smem;
    const bool full = !p.index || (p.full && *p.full);
    const int warp = __shfl_sync(kAll, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        sh.slots.init();
        for (int i = 0; i < kCorrectSlots; i++)
            mbar_init(smem_addr(&sh.ready[i]), 32);
        for (int i = 0; i < kLookers; i++)
            mbar_init(smem_addr(&sh.turn[i]), 1);
        mbar_init_fence();
        mbar_arrive(smem_addr(&sh.turn[0]));
    }
    __syncthreads();
    if (warp < kScorers / 32) {
        regs_grow<232>();
        Corrector<D, T> x = {p, sh, {sh.slots, 0, 0}, warp * 16 + lane / 4};
        x.run(n_item, full);
        return;
    }
    regs_shrink<40>();
    if (warp > kScorers / 32) {
        Looker<D, T> x = {p, sh, {sh.slots, 0, 0}, warp - kScorers / 32 - 1, lane, 0};
        x.run(n_item, full);
    } else if (lane == 0) {
        Ring<kCorrectSlots> ring = {sh.slots, 0, 0};
        for (int i = blockIdx.x; i < n_item; i += gridDim.x) {
            CorrectItem item(p.shape, i, full);
            int head = item.head / (p.shape.n_head / p.shape.n_kv_head);
            const char *image = image_of<D>(p, item.seq, head), *slopes = slopes_of<D>(p, item.seq, head);
            for (int t = 0; t < item.n_tile; t++)
                ring.copy(sh.slot[ring.slot], image + (int64_t)t * MomentsImage<D>::kBytes, MomentsImage<D>::kBytes);
            if (item.n_tile)
                ring.copy(sh.slot[ring.slot], slopes + (slot_of(item.block.own) - 1) * MomentsImage<D>::kSlope,
                          MomentsImage<D>::kSlope);
        }
    }
}

template <int D, class T> static cudaError_t correct_launch(const prism_cu_moments &a, cudaStream_t stream)
{
    int n_item = a.shape.n_seq * a.shape.n_head * a.shape.n_qblk;
    if (n_item == 0)
        return cudaSuccess;
    return launch_items(correct<D, T>, n_item, 1, kCorrectThreads, sizeof(CorrectShared<D>), stream, a, n_item);
}

} // namespace prism

extern "C" cudaError_t prism_moments_correct_cuda(const prism_cu_moments *a, cudaStream_t stream)
{
    PRISM_MOMENTS_SWITCH(a, PRISM_CU_CORRECT, correct_launch, stream);
}
