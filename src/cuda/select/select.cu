/*
 * From block means to a plan, as bits.
 *
 *   q means x k means -> logits (tensor cores, registers), 64 rows against 64 key blocks at a time, in a few walks over
 *   the key blocks that a row sees:
 *     weigh    -> largest logit and total weight of each row
 *     count    -> masses in buckets (shared memory) -> the bucket where top_p cuts; again where it holds many blocks
 *     choose   -> bits of what lies above it; a list of what it holds -> their bits
 *   -> sink and own block, counts
 *
 * A CTA takes one band of a few query blocks of all the heads that share a KV head; what both bands choose is united in
 * the bitmap. A row is four lanes' from the first product to its bits, so that warps meet for the images of key means
 * only. Nothing grows with the number of blocks.
 */
#include "cuda/select/calibrate.cuh"
#include "cuda/device.cuh"
#include "cuda/select/select_cut.cuh"
#include "cuda/select/select_image.cuh"

namespace prism
{

constexpr float kLow = -3e38f; /* below every logit */
constexpr float kFar = 262144; /* logits beyond need a base: their products would be rounded by more than
                                  a 60th of an octave */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kCtas = 1; /* more do not fit shared memory */
#else
constexpr int kCtas = 2;
#endif

/* One of the two rows that a thread holds, a fourth of its columns. */
struct Row {
    int own; /* block; -1: no such row */
    float factor, offset;
    /* Of logit / factor = y, as Cut wants it. */
    __device__ __forceinline__ float height(float y) const { return fmaf(y, factor, offset); }
};

/* C: chunks of 16 dimensions that a band may have; G, S: chunks a step, steps in flight. */
template <int C, int G, int S> struct Tile {
    const prism_cu_select &p;
    KeyImages<C, G, S> images;
    Queries<C> q;
    uint32_t *bucket; /* of the thread's first row, shared; the other is 8 further */
    float *base; /* the same; logits are large: less this, before they are multiplied. NaN: not yet known, 0: not */
    int band, n_chunk, n_image, index_bits, first_own; /* first_own: of the warp's rows */
    Row row[2];
    Cut cut[2];
    bool odd; /* logits may be other than finite, or too large for one multiplication */

    /* Calls f(image, y) with y[4 j + 2 h + e] = logit / factor of row h and key block 64 image + 8 j + 2 (lane % 4) +
     * e: -inf where the row does not see it; if odd, `strange` where it is not finite, and less the row's base. */
    template <class F> __device__ __forceinline__ void walk(float strange, F f)
    {
        float y[32];
        for (int image = 0; image < n_image; image++) {
            uint32_t at;
#pragma unroll
            for (int g = 0; g < C / G; g++)
                if (g * G < n_chunk) {
                    at = images.step();
                    if (G > 4 && n_chunk == 4)
                        products<4>(y, q, g * G, at);
                    else
                        products<G>(y, q, g * G, at);
                }
            finish(y, image, at + G * kChunk + threadIdx.x % 4 * 8, strange);
            f(image, y);
        }
    }
    __device__ __forceinline__ void finish(float (&y)[32], int image, uint32_t unscale, float strange)
    {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float2 w = lds_float2(unscale + 32 * j);
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[4 * j + i] *= i % 2 ? w.y : w.x;
        }
        if (odd) {
            const float less[2] = {known_base(0), known_base(1)};
#pragma unroll
            for (int i = 0; i < 32; i++)
                y[i] = finite(y[i]) ? y[i] - less[i / 2 % 2] : strange;
        }
        if ((image + 1) * kKeys > first_own + 1) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (block(image, i) > row[i / 2 % 2].own)
                    y[i] = -INFINITY;
        }
    }
    /* Key block of y[i]. */
    __device__ __forceinline__ int block(int image, int i) const
    {
        return image * kKeys + threadIdx.x % 4 * 2 + (i / 4 * 8 + i % 2);
    }
    __device__ __forceinline__ float known_base(int h) const
    {
        return isnan(base[8 * h]) ? 0 : base[8 * h];
    }
    __device__ __forceinline__ uint32_t *bucket_of(int h) const
    {
        return bucket + 8 * h * kBucketStride;
    }

    /* Largest logits and total weights. False: some are not finite, or so large that they must be subtracted before
     * they are multiplied; such rows are exact when it is done again, odd. */
    __device__ __forceinline__ bool weigh()
    {
        float top[2] = {kLow, kLow}, sum[2] = {};
        bool well = true;
        walk(-INFINITY, [&](int, float(&y)[32]) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float most = top[h], s[2] = {}, f = row[h].factor;
#pragma unroll
                for (int i = 0; i < 16; i++)
                    most = fmaxf(most, y[i / 2 * 4 + 2 * h + i % 2]);
                float zero = fminf(-most * f, 3e38f);
                if (odd && isnan(base[8 * h])) {
#pragma unroll
                    for (int i = 0; i < 16; i++)
                        s[i % 2] += exp2_fast((y[i / 2 * 4 + 2 * h + i % 2] - most) * f);
                } else {
#pragma unroll
                    for (int i = 0; i < 16; i++)
                        s[i % 2] += exp2_fast(fmaf(y[i / 2 * 4 + 2 * h + i % 2], f, zero));
                }
                sum[h] = fmaf(sum[h], exp2_fast((top[h] - most) * f), s[0] + s[1]);
                top[h] = most;
            }
        });
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = top[h], f = row[h].factor;
            quad_max(most);
            sum[h] *= exp2_fast((top[h] - most) * f);
            quad_add(sum[h]);
            bool some = most > kLow;
            float less = 0;
            if (some && !odd && !(finite(sum[h]) && fabsf(most * f) <= kFar))
                less = NAN, well = false;
            if (some && odd && isnan(base[8 * h]))
                less = most;
            __syncwarp();
            if (threadIdx.x % 4 == 0)
                base[8 * h] = less;
            if (some)
                cut[h].start(row[h].own + 1, p.top_p[band]);
            else
                cut[h].start_empty();
            row[h].offset = some ? kTotal - log2_fast(sum[h]) - (most - less) * f - cut[h].lift : -INFINITY;
        }
        __syncwarp();
        return well;
    }

    /* Masses by height, and what they say of the cut. first: nothing is closed yet, and they are a row's total. */
    template <bool kTied> __device__ __forceinline__ void count(bool first)
    {
        uint32_t nowhere = kBuckets + threadIdx.x % 4, to[2] = {smem_addr(bucket_of(0)), smem_addr(bucket_of(1))};
        const uint32_t base[2] = {(uint32_t)(cut[0].from >> cut[0].shift), (uint32_t)(cut[1].from >> cut[1].shift)};
        walk(NAN, [&](int image, float(&y)[32]) {
#pragma unroll
            for (int i = 0; i < 32; i++) {
                int h = i / 2 % 2;
                float height = row[h].height(y[i]);
                uint32_t b = __float_as_uint(cut[h].template place<kTied>(height, block(image, i))) >> cut[h].shift;
                smem_add(to[h] + 4 * min(b - base[h], nowhere), cut[h].mass(height));
            }
        });
        __syncwarp();
#pragma unroll
        for (int h = 0; h < 2; h++)
            cut[h].update(bucket_of(h), p.top_p[band], first, index_bits);
        __syncwarp();
    }
    __device__ __forceinline__ bool tied() const
    {
        return __any_sync(kAll, cut[0].tied + cut[1].tied > 0);
    }

    /* Bits of what stays in this band, to the bitmap. */
    template <bool kTied> __device__ __forceinline__ void choose(uint32_t *const (&out)[2])
    {
        uint32_t n_listed = 0; /* 16 bits a row */
        walk(NAN, [&](int image, float(&y)[32]) {
            uint32_t stay = 0, low = 0; /* bit i: of y[i] */
#pragma unroll
            for (int i = 0; i < 32; i++) {
                int h = i / 2 % 2;
                y[i] = cut[h].template place<kTied>(row[h].height(y[i]), block(image, i));
                if (y[i] < cut[h].keep)
                    low |= 1u << i;
                if (y[i] >= __int_as_float(cut[h].from))
                    stay |= 1u << i;
            }
            if (__any_sync(kAll, stay & low))
                list(image, y, stay & low, &n_listed);
            int c = threadIdx.x % 4;
            uint32_t mine = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) { /* word i % 2 of row i / 2 */
                uint32_t x = ~low >> (16 * (i % 2) + 2 * (i / 2)) & 0x3333;
                x = ((x & 0xff00) << 8 | (x & 0xff)) * 17 & 0x03030303;
                x <<= 2 * c;
                x |= __shfl_xor_sync(kAll, x, 1);
                x |= __shfl_xor_sync(kAll, x, 2);
                mine = i == c ? x : mine;
            }
            if (mine)
                global_or((c < 2 ? out[0] : out[1]) + 2 * image + c % 2, mine);
        });
        __syncwarp();
        if (__any_sync(kAll, n_listed))
            keep_listed(n_listed, out);
    }
    /* Those of `mine` go to the list. */
    __device__ __forceinline__ void list(int image, const float (&height)[32], uint32_t mine, uint32_t *n_listed)
    {
        uint32_t all, n = __popc(mine & 0x33333333) | __popc(mine & 0xcccccccc) << 16,
                      at = *n_listed + row_before(n, &all), last = (1u << index_bits) - 1 - block(image, 0);
        *n_listed += all;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t to = smem_addr(bucket_of(h) + (at >> 16 * h & 0xffff)), from = cut[h].from << index_bits;
#pragma unroll
            for (int i = 2 * h; i < 32; i += i % 2 ? 3 : 1)
                if (mine >> i & 1) {
                    sts32(to, (__float_as_uint(height[i]) << index_bits) - from + (last - (i / 4 * 8 + i % 2)));
                    to += 4;
                }
        }
    }
    /* The bits of those of the lists that stay. */
    __device__ __forceinline__ void keep_listed(uint32_t n_listed, uint32_t *const (&out)[2])
    {
        const uint32_t *const list[2] = {bucket_of(0), bucket_of(1)};
        uint32_t lowest[2], last = (1u << index_bits) - 1;
        Lists x;
        x.n[0] = n_listed & 0xffff, x.n[1] = n_listed >> 16;
        x.load(list, cut, index_bits);
        x.find_lowest(lowest, cut);
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < kList / 4; i++)
                if (4 * i + (int)threadIdx.x % 4 < x.n[h] && x.entry[h][i] >= lowest[h]) {
                    uint32_t v = last - (x.entry[h][i] & last);
                    global_or(out[h] + v / 32, 1u << v % 32);
                }
    }

    __device__ __forceinline__ void run(uint32_t *const (&out)[2])
    {
        odd = false;
        for (bool again = true; again; odd |= again)
            again = __syncthreads_or(!weigh()) && !odd;
        count<false>(true);
        while (__syncthreads_or(cut[0].open | cut[1].open))
            if (tied())
                count<true>(false);
            else
                count<false>(false);
        if (tied())
            choose<true>(out);
        else
            choose<false>(out);
        images.stop();
    }
};

/* Which rows a CTA takes: r = (query block, head of the group). */
struct Item {
    int seq, kv_head, group, row0, band, tile; /* tile: of all */
    Lengths n;
    int b0, n_blk; /* own block of query block 0; query blocks of the sequence */
    __device__ __forceinline__ Item(const prism_cu_select &p, int i, int rows) /* long rows first */
    {
        const prism_cu_shape &s = p.shape;
        int n_set = s.n_seq * s.n_kv_head;
        group = s.n_head / s.n_kv_head;
        int n_tile = (s.n_qblk * group + rows - 1) / rows;
        band = i % p.n_band, i /= p.n_band;
        tile = i, seq = i % n_set / s.n_kv_head, kv_head = i % s.n_kv_head, row0 = (n_tile - 1 - i / n_set) * rows;
        n = lengths(s, seq);
        b0 = n.q_start / p.block_size;
        n_blk = n.n_q > 0 ? (n.q_start + n.n_q - 1) / p.block_size - b0 + 1 : 0;
    }
    __device__ __forceinline__ int u(int r) const { return (row0 + r) / group; }
    __device__ __forceinline__ int head(int r) const { return kv_head * group + (row0 + r) % group; }
    __device__ __forceinline__ int own(int r) const { return u(r) < n_blk ? b0 + u(r) : -1; }
    __device__ __forceinline__ int64_t row(const prism_cu_shape &s, int r) const
    {
        return ((int64_t)seq * s.n_head + head(r)) * s.n_qblk + u(r);
    }
    __device__ __forceinline__ uint32_t *bits(const prism_cu_select &p, const Bitmap &map, int r) const
    {
        return p.bitmap + ((int64_t)seq * p.shape.n_head + head(r)) * map.before(p.shape.n_qblk) + map.before(u(r));
    }
};

/* Sink, own block, short sequences; counts. A row that selected nothing takes its own block. Eight lanes a row. */
__device__ __forceinline__ void complete(const prism_cu_select &p, const Item &item, int rows)
{
    const Bitmap map = bitmap_of(p.shape, p.block_size);
    for (int r = threadIdx.x / 8; r < rows; r += blockDim.x / 8) {
        bool there = item.u(r) < p.shape.n_qblk;
        int own = there ? item.own(r) : -1, n = 0;
        uint32_t *out = item.bits(p, map, r);
#pragma unroll 4
        for (int i = threadIdx.x % 8; i <= own / 32 && own >= 0; i += 8) {
            uint32_t old = __ldcg(out + i), w = old, mine = i == own / 32 ? 1u << own % 32 : 0;
            if (item.n.n_kv < p.min_tokens)
                w = i < own / 32 ? kAll : kAll >> (31 - own % 32);
            w |= (p.keep_sink && i == 0) | (p.keep_own ? mine : 0);
            n += __popc(w);
            if (w != old)
                out[i] = w;
        }
        for (int m = 1; m < 8; m *= 2)
            n += __shfl_xor_sync(kAll, n, m);
        if (threadIdx.x % 8 == 0 && there) {
            if (own >= 0 && n == 0)
                out[own / 32] = 1u << own % 32, n = 1;
            p.count[item.row(p.shape, r)] = n;
        }
    }
}

template <int C, int G, int S>
__global__ void __launch_bounds__(256, C > 6 ? 1 : kCtas)
    select(const __grid_constant__ prism_cu_select p, const __grid_constant__ Chunks chunks)
{
    extern __shared__ __align__(128) char smem[];
    __shared__ uint64_t full[S];
    __shared__ float base[128];
    __shared__ bool last;
    const prism_cu_shape &s = p.shape;
    const int rows = blockDim.x / 2, first = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; /* of the thread's rows */
    const Item item(p, blockIdx.x, rows);
    const Scratch scratch(s, p.scratch);
    const Bitmap map = bitmap_of(s, p.block_size);
    int n_row = max(0, min(rows, item.n_blk * item.group - item.row0)),
        n_key =
            n_row && chunks.n[item.band] ? item.own(n_row - 1) + 1 : 0; /* a band without dimensions chooses nothing */
    char *low = smem + S * KeyImages<C, G, S>::kSlot;
    uint32_t *buckets = (uint32_t *)(low + rows / 64 * Queries<C>::kLow);
    for (int i = threadIdx.x; i < rows * kBucketStride; i += blockDim.x)
        buckets[i] = 0;
    if (n_key) {
        Tile<C, G, S> t = {p};
        t.band = item.band, t.n_chunk = chunks.n[item.band], t.n_image = (n_key + kKeys - 1) / kKeys;
        t.index_bits = 32 - __clz(n_key);
        t.q.low = smem_addr(low + threadIdx.x / 128 * Queries<C>::kLow);
        t.bucket = buckets + first * kBucketStride, t.base = base + first;
        t.images.init(p, item.seq * s.n_kv_head + item.kv_head, t.n_image, smem, full);
        t.images.start(chunks, item.band);
        const uint32_t *from[2];
        uint32_t *out[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = first + 8 * h, own = item.own(r);
            from[h] = nullptr;
            if (own >= 0)
                from[h] = (const uint32_t *)p.q_split +
                          (((int64_t)item.seq * s.n_qblk + item.u(r)) * s.n_head + item.head(r)) * s.d_head;
            t.row[h].own = own;
            out[h] = item.bits(p, map, r);
        }
        t.first_own = __reduce_min_sync(kAll, min(t.row[0].own, t.row[1].own));
        t.q.load(from, item.band ? p.low : p.high, chunks.at[item.band], t.n_chunk, p.scale < 0 ? 0x80008000u : 0);
        wait_for_launch_before(); /* calibration; pooling was done before that let this begin */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 f = make_float2(0, 0);
            if (t.row[h].own >= 0)
                f = scratch.factor[item.row(s, first + 8 * h)];
            /* 0: every weight is alike */
            t.row[h].factor = fminf(fmaxf(fabsf(item.band ? f.y : f.x) * 1.44269504f, 1e-37f), 3e38f);
        }
        t.run(out);
    } else {
        wait_for_launch_before();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(scratch.n_done + item.tile, 1) + 1 == p.n_band;
        __threadfence();
    }
    __syncthreads();
    if (last)
        complete(p, item, rows);
}

template <int C, int G, int S>
static cudaError_t select_launch(const prism_cu_select &a, Chunks chunks, cudaStream_t stream)
{
    const prism_cu_shape &s = a.shape;
    for (int b = 0; b < a.n_band; b++) {
        int n = C == G && chunks.n[b] <= 4 ? 4 : (chunks.n[b] + G - 1) / G * G;
        while (chunks.n[b] && chunks.n[b] < n)
            chunks.at[b][chunks.n[b]++] = chunks.at[b][0]; /* queries are zero there */
    }
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    /* Two warpgroups share the images where there are rows for all multiprocessors. */
    int64_t n_row = (int64_t)s.n_qblk * (s.n_head / s.n_kv_head), n_set = (int64_t)s.n_seq * s.n_kv_head * a.n_band;
    int rows = (n_row + 127) / 128 * n_set >= 2 * gpu->n_sm ? 128 : 64, bytes;
    for (;; rows /= 2) {
        bytes = S * KeyImages<C, G, S>::kSlot + rows * kBucketStride * 4 + rows / 64 * Queries<C>::kLow;
        if (bytes <= dynamic_bytes(gpu))
            break;
        if (rows == 64)
            return cudaErrorNotSupported;
    }
    e = cudaFuncSetAttribute(select<C, G, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic_bytes(gpu));
    if (e)
        return e;
    int64_t n_word = prism_select_bitmap_words(&s, a.block_size);
    int n_clear =
        (int)min((n_word + 4 * kCalibrateThreads - 1) / (4 * kCalibrateThreads), (int64_t)8 * gpu->n_sm) + 1;
    e = launch_early(calibrate, dim3(s.n_seq * s.n_head + n_clear), kCalibrateThreads, 0, stream, a, n_word);
    if (e)
        return e;
    return launch_early(select<C, G, S>, dim3((n_row + rows - 1) / rows * n_set), 2 * rows, bytes, stream, a, chunks);
}

} // namespace prism

extern "C" int64_t prism_select_bitmap_words(const prism_cu_shape *s, int32_t block_size)
{
    return (int64_t)s->n_seq * s->n_head * prism::bitmap_of(*s, block_size).before(s->n_qblk);
}

extern "C" int64_t prism_select_scratch_bytes(const prism_cu_shape *s)
{
    return prism::Scratch(*s, nullptr).bytes();
}

extern "C" cudaError_t prism_select_cuda(const prism_cu_select *a, cudaStream_t stream)
{
    const prism_cu_shape &s = a->shape;
    if (s.d_head % 32 || s.d_head > 256 || s.n_kblk > 1 << prism::kIndexBits)
        return cudaErrorNotSupported;
    if (s.n_seq == 0 || s.n_head == 0 || s.n_qblk == 0)
        return cudaSuccess;
    prism::Chunks chunks = {};
    for (int b = 0; b < a->n_band; b++)
        for (int j = 0; j < s.d_head / 16; j++)
            if ((b ? a->low : a->high)[j / 2] >> j % 2 * 16 & 0xffff)
                chunks.at[b][chunks.n[b]++] = j;
    if (max(chunks.n[0], chunks.n[1]) <= 6)
        return prism::select_launch<6, 6, 2>(*a, chunks, stream);
    return prism::select_launch<16, 4, 2>(*a, chunks, stream);
}
