/*
 * From block means to a plan, as bits.
 *
 *   select   q means [rows][d] x k means [blocks][d] -> logits [rows][blocks] (tensor cores, shared memory), a band
 *            at a time
 *            -> weights e = exp(logit - max) (registers) -> the cut that top_p puts -> bits
 *            -> bands, sink and own block united
 *
 * A CTA of `select` takes a few query blocks of all the heads that share a KV head, so that a k mean is read once for
 * all. Products are exact to about 2^-21: the factors come split in two f16 numbers; the product of the low parts is
 * dropped.
 */
#include "cuda/cut.cuh"

namespace prism
{

constexpr int kAhead = 2; /* chunks of k means in one load */

/* Chunks of 16 dimensions that each band touches. */
struct Chunks {
    int n[2], at[2][16];
};

/* ------------------------------------------------------------------------------------------------- scores ---- */

__device__ __forceinline__ void mma(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

/*
 * Rows row0 .. of one KV head, counted (query block, head of the group). Dimensions come in chunks of 16; inside a
 * chunk, lane quarter c holds dimensions 4c .. 4c + 3 in the places of the products' own 2c, 2c + 1, 2c + 8, 2c + 9:
 * any order will do if it is the same on both sides, and this one reads means 16 bytes wide.
 */
template <int T> struct Tile {
    static constexpr int kWarps = T / 32;
    const prism_cu_select &p;
    int seq, kv_head, group, row0, n_row, n_key; /* n_key: key blocks that the last row sees */
    Lengths n;
    int b0, n_blk; /* own block of query block 0; query blocks of the sequence */
    float *logit;  /* [rows][stride] */
    int stride;
    uint4 *q_frag;    /* [chunk][m tile][hi, lo][lane] */
    float *k_unscale; /* [key blocks in reach, to a multiple of 16] */

    const int *u_of, *head_of; /* of the rows, shared */

    __device__ __forceinline__ int qblk(int r) const { return u_of[r]; }
    __device__ __forceinline__ int head(int r) const { return head_of[r]; }

    /* Queries of one band as split fragments; dimensions outside it are zero. Fragment words: (row g, first half of the
     * chunk's order), (g + 8, first), (g, second), (g + 8, second). */
    __device__ __forceinline__ void load_q(const uint32_t (&band)[8], const int *chunk, int n_chunk, int m_tiles,
                                           uint4 *frag) const
    {
        int d = p.shape.d_head;
        for (int i = threadIdx.x; i < n_chunk * m_tiles * 32; i += T) {
            int lane = i % 32, m = i / 32 % m_tiles, c = i / 32 / m_tiles, j = chunk[c] * 16 + lane % 4 * 4;
            uint32_t in = band[j / 32] >> j % 32, hi[4], lo[4];
            uint32_t m01 = (in & 1 ? 0xffff : 0) | (in & 2 ? 0xffff0000 : 0),
                     m23 = (in & 4 ? 0xffff : 0) | (in & 8 ? 0xffff0000 : 0);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int r = m * 16 + lane / 4 + 8 * h, u = (row0 + r) / group, head = kv_head * group + (row0 + r) % group;
                uint4 v = make_uint4(0, 0, 0, 0);
                if (r < n_row)
                    v = __ldg((const uint4 *)((const uint32_t *)p.q_split +
                                              (((int64_t)seq * p.shape.n_qblk + u) * p.shape.n_head + head) * d + j));
                hi[h] = v.x & m01, hi[2 + h] = v.y & m23, lo[h] = v.z & m01, lo[2 + h] = v.w & m23;
            }
            uint4 *out = frag + (c * m_tiles + m) * 64 + lane;
            out[0] = make_uint4(hi[0], hi[1], hi[2], hi[3]);
            out[32] = make_uint4(lo[0], lo[1], lo[2], lo[3]);
        }
    }

    /* k means of 16 key blocks, a few chunks: as much as one thread keeps in flight. */
    __device__ __forceinline__ void load_k(uint4 (&x)[kAhead][2], const int *chunk, int n_chunk, int v0, int c0) const
    {
        int lane = threadIdx.x % 32, d = p.shape.d_head, step = p.shape.n_kv_head * d;
        const uint32_t *k =
            (const uint32_t *)p.k_split + (int64_t)seq * p.shape.n_kblk * step + kv_head * d + lane % 4 * 4;
        const uint32_t *k0 = k + (int64_t)max(0, min(v0 + lane / 4, n_key - 1)) * step,
                       *k1 = k + (int64_t)max(0, min(v0 + 8 + lane / 4, n_key - 1)) * step;
#pragma unroll
        for (int c = 0; c < kAhead; c++) {
            int j = chunk[max(0, min(c0 + c, n_chunk - 1))] * 16;
            x[c][0] = __ldg((const uint4 *)(k0 + j));
            x[c][1] = __ldg((const uint4 *)(k1 + j));
        }
    }

    /* 16 key blocks a warp and turn; the next loads are in flight during the products, the first ones (x[0]) before the
     * call. */
    template <int M>
    __device__ __forceinline__ void scores(const int *chunk, int n_chunk, const uint4 *frag, const float *factor,
                                           int rows, uint4 (&x)[2][kAhead][2]) const
    {
        int lane = threadIdx.x % 32;
        float acc[M][2][4] = {};
        auto multiply = [&](const uint4(&x)[kAhead][2], int c0) {
#pragma unroll
            for (int c = 0; c < kAhead; c++)
                if (c0 + c < n_chunk) {
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        const uint4 *q = frag + ((c0 + c) * M + m) * 64 + lane;
                        uint4 qh = q[0], ql = q[32];
#pragma unroll
                        for (int t = 0; t < 2; t++)
                            mma(acc[m][t], ql, x[c][t].x, x[c][t].y);
#pragma unroll
                        for (int t = 0; t < 2; t++)
                            mma(acc[m][t], qh, x[c][t].z, x[c][t].w);
#pragma unroll
                        for (int t = 0; t < 2; t++)
                            mma(acc[m][t], qh, x[c][t].x, x[c][t].y);
                    }
                }
        };
        auto store = [&](int v0) {
#pragma unroll
            for (int t = 0; t < 2; t++) {
                int v = v0 + 8 * t + lane % 4 * 2; /* the column pair this thread holds */
                float2 w = *(const float2 *)(k_unscale + v);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        int r = m * 16 + lane / 4 + 8 * h;
                        if (r < rows)
                            *(float2 *)(logit + r * stride + v) =
                                make_float2(acc[m][t][2 * h] * factor[r] * w.x, acc[m][t][2 * h + 1] * factor[r] * w.y);
                        acc[m][t][2 * h] = acc[m][t][2 * h + 1] = 0;
                    }
            }
        };
        int v0 = threadIdx.x / 32 * 16, c0 = 0, v1, c1;
        if (v0 >= n_key || n_chunk == 0)
            return;
        for (bool more = true; more;) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                v1 = v0, c1 = c0 + kAhead;
                if (c1 >= n_chunk)
                    c1 = 0, v1 += kWarps * 16;
                load_k(x[i ^ 1], chunk, n_chunk, v1, c1);
                multiply(x[i], c0);
                if (c1 == 0) {
                    store(v0);
                    if (v1 >= n_key) {
                        more = false;
                        break;
                    }
                }
                v0 = v1, c0 = c1;
            }
        }
    }
};

/* ------------------------------------------------------------------------------------------------ kernel ---- */

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
 * whole prefill agree. Global: Eq and Ek of all blocks of the call.
 */
__global__ void __launch_bounds__(kCalibrateThreads) calibrate(const __grid_constant__ prism_cu_select p)
{
    __shared__ double part[kCalibrateThreads / 32][3], total[3];
    const prism_cu_shape &s = p.shape;
    int tid = threadIdx.x, seq = blockIdx.x / s.n_head, head = blockIdx.x % s.n_head;
    const float *ke = p.k_energy + ((int64_t)seq * s.n_kv_head + head / (s.n_head / s.n_kv_head)) * s.n_kblk * 4;
    const float *qe = p.q_energy + (int64_t)blockIdx.x * s.n_qblk * 4;
    Lengths n = lengths(s, seq);
    int n_key = (n.n_kv + p.block_size - 1) / p.block_size, b0 = n.q_start / p.block_size;
    int n_blk = n.n_q > 0 ? (n.q_start + n.n_q - 1) / p.block_size - b0 + 1 : 0;

    auto put = [&](int u, const double(&eq)[3], const double(&ek)[3]) {
        float f[2];
        for (int b = 0; b < 2; b++) {
            float zq = (float)eq[1 + b], zk = (float)ek[1 + b];
            f[b] = p.n_band == 1 ? 1 : zq > 0 && zk > 0 ? sqrtf((float)eq[0] / zq) * sqrtf((float)ek[0] / zk) : 0;
            f[b] *= p.scale * qe[4 * u + 3];
        }
        ((float2 *)p.factor)[(int64_t)blockIdx.x * s.n_qblk + u] = make_float2(f[0], f[1]);
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

template <int W> struct SelectShared {
    float factor[2][32];
    int odd[2][32], u[32], head[32];
    uint2 doubt[W][32];
    uint64_t part[2 * W];
};

/* T threads, M times 16 rows at most. */
template <int M, int T>
__global__ void __launch_bounds__(T, 512 / T)
    select(const __grid_constant__ prism_cu_select p, const __grid_constant__ Chunks chunks, int rows, int stride)
{
    extern __shared__ __align__(16) char smem[];
    constexpr int kWarps = T / 32;
    __shared__ SelectShared<kWarps> sh;
    const prism_cu_shape &s = p.shape;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    int group = s.n_head / s.n_kv_head, n_set = s.n_seq * s.n_kv_head, set = blockIdx.x % n_set;
    int n_tile = (s.n_qblk * group + rows - 1) / rows, tile = n_tile - 1 - blockIdx.x / n_set; /* long rows first */
    Tile<T> t = {p, set / s.n_kv_head, set % s.n_kv_head, group, tile * rows};
    t.n = lengths(s, t.seq);
    t.b0 = t.n.q_start / p.block_size;
    t.n_blk = t.n.n_q > 0 ? (t.n.q_start + t.n.n_q - 1) / p.block_size - t.b0 + 1 : 0;
    t.n_row = max(0, min(rows, t.n_blk * group - t.row0));
    t.n_key = t.n_row ? t.b0 + (t.row0 + t.n_row - 1) / group + 1 : 0;
    t.u_of = sh.u, t.head_of = sh.head;
    t.stride = stride;
    t.logit = (float *)smem;
    Bitmap map = bitmap_of(s, p.block_size);
    uint32_t *words = (uint32_t *)(t.logit + rows * stride); /* [band][rows][map.words] */
    t.q_frag = (uint4 *)(words + ((2 * rows * map.words + 3) & ~3));
    t.k_unscale = (float *)(t.q_frag + (chunks.n[0] + chunks.n[1]) * M * 64);

    uint4 x[2][kAhead][2];
    t.load_k(x[0], chunks.at[0], chunks.n[0], warp * 16, 0);
    t.load_q(p.high, chunks.at[0], chunks.n[0], M, t.q_frag);
    if (p.n_band == 2)
        t.load_q(p.low, chunks.at[1], chunks.n[1], M, t.q_frag + chunks.n[0] * M * 64);
    if (threadIdx.x < rows) {
        int r = threadIdx.x, u = (t.row0 + r) / group, head = t.kv_head * group + (t.row0 + r) % group;
        float2 f = make_float2(0, 0);
        if (r < t.n_row)
            f = ((const float2 *)p.factor)[((int64_t)t.seq * s.n_head + head) * s.n_qblk + u];
        sh.u[r] = u, sh.head[r] = head, sh.odd[0][r] = sh.odd[1][r] = 0;
        sh.factor[0][r] = f.x, sh.factor[1][r] = f.y;
    }
    const float *k_energy = p.k_energy + ((int64_t)t.seq * s.n_kv_head + t.kv_head) * s.n_kblk * 4;
    for (int v = threadIdx.x; v < (t.n_key + 15) / 16 * 16; v += T)
        t.k_unscale[v] = k_energy[min(v, t.n_key - 1) * 4 + 3];
    for (int i = threadIdx.x; i < 2 * rows * map.words; i += T)
        words[i] = 0;

    for (int band = 0; band < p.n_band; band++) {
        if (band)
            t.load_k(x[0], chunks.at[1], chunks.n[1], warp * 16, 0);
        __syncthreads();
        t.template scores<M>(chunks.at[band], chunks.n[band], t.q_frag + band * chunks.n[0] * M * 64, sh.factor[band],
                             rows, x);
        __syncthreads();
        float top_p = p.top_p[band];
        if (t.n_key > 1024) {
            Team<kWarps> team = {sh.part, sh.doubt[0], nullptr, lane, warp};
            for (int r = 0; r < t.n_row; r++) {
                int n = t.b0 + t.qblk(r) + 1;
                float *row = t.logit + r * stride;
                uint32_t *w = words + (band * rows + r) * map.words;
                team.odd = &sh.odd[band][r];
                if (n <= 128 * kWarps)
                    select_row<4>(team, row, n, top_p, w);
                else if (n <= 256 * kWarps)
                    select_row<8>(team, row, n, top_p, w);
                else if (n <= 512 * kWarps)
                    select_row<16>(team, row, n, top_p, w);
                else
                    select_row<32>(team, row, n, top_p, w);
            }
        } else {
            Team<1> team = {sh.part, sh.doubt[warp], nullptr, lane, 0};
            for (int r = warp; r < t.n_row; r += kWarps) {
                int n = t.b0 + t.qblk(r) + 1;
                float *row = t.logit + r * stride;
                uint32_t *w = words + (band * rows + r) * map.words;
                team.odd = &sh.odd[band][r];
                switch ((n - 1) / 128) {
                case 0:
                    select_row<4>(team, row, n, top_p, w);
                    break;
                case 1:
                    select_row<8>(team, row, n, top_p, w);
                    break;
                case 2:
                    select_row<12>(team, row, n, top_p, w);
                    break;
                case 3:
                    select_row<16>(team, row, n, top_p, w);
                    break;
                case 4:
                    select_row<20>(team, row, n, top_p, w);
                    break;
                case 5:
                    select_row<24>(team, row, n, top_p, w);
                    break;
                case 6:
                    select_row<28>(team, row, n, top_p, w);
                    break;
                default:
                    select_row<32>(team, row, n, top_p, w);
                }
            }
        }
        __syncthreads();
        for (int r = warp; r < t.n_row; r += kWarps) /* blocks whose score is not finite stay */
            if (sh.odd[band][r])
                for (int v0 = 0; v0 <= t.b0 + t.qblk(r); v0 += 32) {
                    bool is = v0 + lane <= t.b0 + t.qblk(r) && isnan(t.logit[r * stride + v0 + lane]);
                    uint32_t w = __ballot_sync(kAll, is);
                    if (lane == 0)
                        words[(band * rows + r) * map.words + v0 / 32] |= w;
                }
    }
    __syncthreads();

    /* Sink, own block, short sequences; out. */
    for (int r = warp; r < rows; r += kWarps) {
        int u = t.qblk(r), own = t.b0 + u;
        if (u >= s.n_qblk)
            continue;
        int64_t row = ((int64_t)t.seq * s.n_head + t.head(r)) * s.n_qblk + u;
        uint32_t *out = p.bitmap + ((int64_t)t.seq * s.n_head + t.head(r)) * map.before(s.n_qblk) + map.before(u);
        int n = 0, n_word = map.in(u);
        bool exists = u < t.n_blk, all = t.n.n_kv < p.min_tokens;
        for (int i = lane; i < n_word; i += 32) {
            uint32_t w = exists ? words[r * map.words + i] | words[(rows + r) * map.words + i] : 0;
            if (exists && all)
                w = i < own / 32 ? kAll : i == own / 32 ? kAll >> (31 - own % 32) : 0;
            if (exists && p.keep_sink && i == 0)
                w |= 1;
            if (exists && p.keep_own && i == own / 32)
                w |= 1u << own % 32;
            n += __popc(w);
            out[i] = w;
        }
        n = __reduce_add_sync(kAll, n);
        if (exists && n == 0) { /* nothing selected: its own block */
            __syncwarp();
            if (lane == 0)
                out[own / 32] = 1u << own % 32;
            n = 1;
        }
        if (lane == 0)
            p.count[row] = n;
    }
}

} // namespace prism

extern "C" int64_t prism_select_bitmap_words(const prism_cu_shape *s, int32_t block_size)
{
    return (int64_t)s->n_seq * s->n_head * prism::bitmap_of(*s, block_size).before(s->n_qblk);
}

extern "C" cudaError_t prism_select_cuda(const prism_cu_select *a, cudaStream_t stream)
{
    const prism_cu_shape &s = a->shape;
    if (s.d_head % 32 || s.d_head > 256)
        return cudaErrorNotSupported;
    if (s.n_seq == 0 || s.n_head == 0 || s.n_qblk == 0)
        return cudaSuccess;
    prism::Chunks chunks = {};
    for (int b = 0; b < a->n_band; b++)
        for (int j = 0; j < s.d_head / 16; j++)
            if ((b ? a->low : a->high)[j / 2] >> j % 2 * 16 & 0xffff)
                chunks.at[b][chunks.n[b]++] = j;
    int device, shared;
    cudaError_t e = cudaGetDevice(&device);
    if (!e)
        e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e)
        return e;

    /* Small calls: two small CTAs a multiprocessor. Else as many rows a CTA as shared memory holds. */
    int64_t n_row = (int64_t)s.n_seq * s.n_head * s.n_qblk;
    bool small = n_row <= 4096 && s.n_kblk <= 1024;
    int words = (s.n_kblk + 31) / 32, stride = words * 32 + 8, rows = small ? 16 : 32;
    size_t bytes, most = (shared - 7 * 1024) / (small ? 2 : 1);
    for (;; rows /= 2) {
        bytes = (size_t)rows * stride * 4 + ((2 * rows * words + 3) & ~3) * 4 +
                (size_t)(chunks.n[0] + chunks.n[1]) * (rows > 16 ? 2 : 1) * 1024 + (size_t)words * 128;
        if (bytes <= most && (n_row / rows >= 256 || rows <= 8))
            break;
        if (rows == 1)
            return cudaErrorNotSupported;
    }
    if (s.n_kblk > 16 * 1024) /* what 512 threads hold in registers */
        return cudaErrorNotSupported;
    int n_tile = (s.n_qblk * (s.n_head / s.n_kv_head) + rows - 1) / rows;
    auto kernel = small ? prism::select<1, 256> : rows > 16 ? prism::select<2, 512> : prism::select<1, 512>;
    e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e)
        return e;
    prism::calibrate<<<s.n_seq * s.n_head, prism::kCalibrateThreads, 0, stream>>>(*a);
    if ((e = cudaGetLastError()))
        return e;
    kernel<<<n_tile * s.n_seq * s.n_kv_head, small ? 256 : 512, bytes, stream>>>(*a, chunks, rows, stride);
    return cudaGetLastError();
}
