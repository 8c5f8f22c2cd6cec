/* The rows of a plan, how they are cut into work, and what their results become: shared by the attention kernels. */
#ifndef PRISM_CUDA_ATTEND_CUH
#define PRISM_CUDA_ATTEND_CUH

#include "cuda/device.cuh"
#include "cuda/ptx.cuh"
#include "cuda/shape.cuh"

namespace prism
{

constexpr float kLog2e = 1.44269504f, kLn2 = 0.69314718f;
constexpr int kPartKeys = 1024; /* a row is split into parts of at least so many keys */

/* A call as a kernel sees it: work items are parts of the key tiles of one query tile. Tiles divide blocks. */
struct Job {
    prism_cu_attend a;
    int32_t q_tile, k_tile; /* tokens */
    int32_t n_part, n_item; /* parts of a row at most; items: rows * query tiles of a block * n_part */
    float scale_log2;
    float *part_o, *part_lse; /* [query tile][n_part][q_tile][d], normalised, and without [d] */
};

/* cudaErrorNotSupported where the kernel does not take the call; *gpu is the current GPU. */
cudaError_t gpu_for(const prism_cu_attend *a, prism_cu_kernel kernel, const prism_cu_gpu **gpu);
/* Fills *j. Rows are split where a->scratch is given. */
cudaError_t make_job(Job *j, const prism_cu_attend *a, int q_tile, int k_tile);
/* The results of rows that were split, after the kernel. Nothing to do if n_part is 1. */
cudaError_t merge_parts(const Job &j, cudaStream_t stream);

/* ---------------------------------------------------------------------------------------------- work items ---- */

struct Row {
    int row, seq, head, tile; /* row of the plan; absolute query tile */
    int n_tile;               /* key tiles of this part; 0: the row lists nothing, -1: nothing to do */
    int end;                  /* tiles of the list before the end of this part */
    int slot, n_part;         /* of the partial result, -1: the row is not split; parts of the row */
    bool dense, lead;         /* every block is listed; the part with the diagonal */
    int64_t first;            /* of its list */
    int n_q, n_kv, q_start;
};

/* Lists are not to be read. */
__device__ __forceinline__ bool is_dense(const prism_cu_attend &a)
{
    return !a.index || (a.full && *a.full);
}

/* Parts that a row of n_tile key tiles is split into. */
__device__ __forceinline__ int parts_of(const Job &j, int n_tile)
{
    return max(1, min(j.n_part, (int)((int64_t)n_tile * j.k_tile / kPartKeys)));
}

__device__ __forceinline__ Row row_of(const Job &j, bool dense, int item)
{
    const prism_cu_attend &a = j.a;
    const prism_cu_shape &s = a.shape;
    int part = item % j.n_part, n_sub = a.block_size / j.q_tile, tile = item / j.n_part, sub = tile % n_sub;
    int t = tile / n_sub;
    Row w;
    if (a.order && !dense) {
        w.row = a.order[t];
    } else { /* heads that share keys together, late (long) query blocks first */
        int group = s.n_head / s.n_kv_head, per = s.n_qblk * group, set = t / per, r = t % per;
        w.row = ((set / s.n_kv_head) * s.n_head + (set % s.n_kv_head) * group + r % group) * s.n_qblk + s.n_qblk - 1 -
                r / group;
    }
    w.head = w.row / s.n_qblk % s.n_head;
    w.seq = w.row / s.n_qblk / s.n_head;
    Lengths n = lengths(s, w.seq);
    w.n_q = n.n_q, w.n_kv = n.n_kv, w.q_start = n.q_start;
    int block = w.q_start / a.block_size + w.row % s.n_qblk;
    w.tile = block * n_sub + sub;
    w.n_tile = -1, w.end = 0, w.slot = -1, w.n_part = 1, w.dense = dense, w.lead = part == 0, w.first = 0;
    if (w.tile * j.q_tile >= w.q_start + w.n_q || (w.tile + 1) * j.q_tile <= w.q_start)
        return w; /* no query */
    int per_block = a.block_size / j.k_tile, n_list = block + 1;
    if (!dense) {
        w.first = a.row_ptr[w.row];
        n_list = (int)(a.row_ptr[w.row + 1] - w.first);
    }
    /* Of its own block a query tile reads the key tiles up to its last query. */
    int total = n_list * per_block, unseen = per_block - (sub + 1) * j.q_tile / j.k_tile;
    if (unseen > 0 && n_list > 0 && (dense || a.index[w.first + n_list - 1] == block))
        total -= unseen;
    w.n_part = parts_of(j, total);
    if (part >= w.n_part)
        return w;
    /* Part 0 has the diagonal, that is the end of the list. */
    int from = (int)((int64_t)total * (w.n_part - 1 - part) / w.n_part);
    w.end = (int)((int64_t)total * (w.n_part - part) / w.n_part);
    w.n_tile = w.end - from;
    if (w.n_part > 1)
        w.slot = (w.row * n_sub + sub) * j.n_part + part;
    return w;
}

/* Key tile i of a part, from the diagonal backwards. */
__device__ __forceinline__ int listed(const Job &j, const Row &w, int i)
{
    int at = w.end - 1 - i, per_block = j.a.block_size / j.k_tile;
    if (i >= w.n_tile || w.dense)
        return max(at, 0);
    return j.a.index[w.first + at / per_block] * per_block + at % per_block;
}

/* Token (of the call) that local row 0 of a query tile stands for; negative where the call starts inside the tile. */
__device__ __forceinline__ int first_token(const Job &j, const Row &w)
{
    return w.tile * j.q_tile - w.q_start;
}

/* Element offsets of local row 0 in the outputs. */
__device__ __forceinline__ int64_t o_offset(const Job &j, const Row &w)
{
    const prism_cu_view &o = j.a.o;
    return (o.row_start ? o.row_start[w.seq] * o.stride_token : w.seq * o.stride_seq) +
           first_token(j, w) * o.stride_token + w.head * o.stride_head;
}
__device__ __forceinline__ int64_t lse_offset(const Job &j, const Row &w)
{
    const prism_cu_attend &a = j.a;
    return (a.lse_row_start ? a.lse_row_start[w.seq] * a.lse_stride_token : w.seq * a.lse_stride_seq) +
           first_token(j, w) * a.lse_stride_token + w.head * a.lse_stride_head;
}

/* ------------------------------------------------------------------------------------------ values not finite ---- */

/*
 * A weight of 0 times NaN is NaN, so the products of a tile whose mask hides keys must not meet what is not finite: it
 * is taken out of the tile in shared memory, and added here to the queries that see it. o: two rows in the order of mma
 * and wgmma; the first sees keys first .. first + limit, the second 8 more; n_key keys exist.
 */
template <int D, class T>
__device__ __forceinline__ void add_nonfinite(float *o, const prism_cu_view &v, int seq, int kv_head, int first,
                                              int limit, int n_key)
{
    const T *data = (const T *)v.data + kv_head * v.stride_head + threadIdx.x % 4 * 2;
    for (int key = 0; key < min(limit + 9, n_key); key++) {
        const T *pair = data + token_offset(v, seq, first + key);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            uint32_t bad = nonfinite2<T>(*(const uint32_t *)(pair + 8 * j));
            float2 x = widen(pair + 8 * j);
            x.x = bad & 0x8000u ? x.x : 0, x.y = bad & 0x80000000u ? x.y : 0;
            if (key <= limit)
                o[4 * j] += x.x, o[4 * j + 1] += x.y;
            o[4 * j + 2] += x.x, o[4 * j + 3] += x.y;
        }
    }
}

/* ------------------------------------------------------------------------------------------------- results ---- */

/* The end of a softmax: what its sum and the initial state are multiplied by, and the log-sum-exp of both. */
struct Blend {
    float own, init, lse;
};
/* max_log2: logarithm of what the weights, whose sum is l, were divided by. lse0: -inf where there is no state. */
__device__ __forceinline__ Blend blend(float max_log2, float l, float lse0)
{
    float own = max_log2 + __log2f(l), init = lse0 * kLog2e, top = fmaxf(own, init);
    if (lse0 == -INFINITY)
        return {__fdividef(1, l), 0, own * kLn2};
    float x = own == -INFINITY ? 0 : exp2_fast(own - top), y = exp2_fast(init - top), sum = x + y;
    return {own == -INFINITY ? 0 : __fdividef(x, l * sum), __fdividef(y, sum), (top + __log2f(sum)) * kLn2};
}

/* The query tile of a row without tiles or keys: its initial state, or nothing. */
template <class T> __device__ __forceinline__ void write_empty(const Job &j, const Row &w, int thread, int n_thread)
{
    const prism_cu_attend &a = j.a;
    int d = a.shape.d_head, at = first_token(j, w);
    for (int i = thread; i < j.q_tile * d; i += n_thread) {
        int r = i / d, token = at + r;
        if (token < 0 || token >= w.n_q)
            continue;
        int64_t lse = lse_offset(j, w) + r * a.lse_stride_token;
        int64_t o = token_offset(a.o, w.seq, token) + w.head * a.o.stride_head + i % d;
        float lse0 = a.init_lse ? a.init_lse[lse] : -INFINITY;
        ((T *)a.o.data)[o] = lse0 == -INFINITY ? T(0.f) : ((const T *)a.init_o)[o];
        if (a.lse && i % d == 0)
            a.lse[lse] = lse0;
    }
}

} // namespace prism
#endif
