/* The rows of a plan, and the order of work: shared by the attention kernels. */
#ifndef PRISM_CUDA_ATTEND_CUH
#define PRISM_CUDA_ATTEND_CUH

#include "cuda/shape.cuh"

namespace prism
{

constexpr int kBlock = 128;

struct Row {
    int seq, head, block, n_tile; /* absolute query block; listed blocks */
    int64_t first;                /* of its list */
    int n_q, n_kv, q_start;
};
/* Row of work item t; n_tile 0 if its query block does not exist in this sequence. */
__device__ __forceinline__ Row row_of(const prism_cu_attend &a, int t)
{
    const prism_cu_shape &s = a.shape;
    int row;
    if (a.work) {
        row = a.work[t];
    } else { /* heads that share keys together, late (long) query blocks first */
        int group = s.n_head / s.n_kv_head, per = s.n_qblk * group, set = t / per, r = t % per;
        row = ((set / s.n_kv_head) * s.n_head + (set % s.n_kv_head) * group + r % group) * s.n_qblk + s.n_qblk - 1 -
              r / group;
    }
    Row w;
    int u = row % s.n_qblk;
    w.head = row / s.n_qblk % s.n_head;
    w.seq = row / s.n_qblk / s.n_head;
    Lengths n = lengths(s, w.seq);
    w.n_q = n.n_q, w.n_kv = n.n_kv, w.q_start = n.q_start;
    w.block = w.q_start / kBlock + u;
    w.first = a.index ? a.row_ptr[row] : 0;
    w.n_tile = a.index ? (int)(a.row_ptr[row + 1] - w.first) : w.block + 1;
    if (w.block * kBlock >= w.q_start + w.n_q)
        w.n_tile = 0;
    return w;
}

/* Key block of tile i, from the diagonal backwards. */
__device__ __forceinline__ int listed(const prism_cu_attend &a, const Row &w, int i)
{
    int at = w.n_tile - 1 - i;
    return at < 0 ? 0 : a.index ? a.index[w.first + at] : at;
}

/* Token (of the call) that local row 0 of a query block stands for; negative where the call starts inside the block. */
__device__ __forceinline__ int first_token(const Row &w)
{
    return w.block * kBlock - w.q_start;
}

/* Element offsets of local row 0 in the outputs. */
__device__ __forceinline__ int64_t o_offset(const prism_cu_attend &a, const Row &w)
{
    const prism_cu_view &o = a.o;
    return (o.row_start ? o.row_start[w.seq] * o.stride_token : w.seq * o.stride_seq) +
           first_token(w) * o.stride_token + w.head * o.stride_head;
}
__device__ __forceinline__ int64_t lse_offset(const prism_cu_attend &a, const Row &w)
{
    return (a.o.row_start ? a.o.row_start[w.seq] * a.lse_stride_token : w.seq * a.lse_stride_seq) +
           first_token(w) * a.lse_stride_token + w.head * a.lse_stride_head;
}

} // namespace prism
#endif
