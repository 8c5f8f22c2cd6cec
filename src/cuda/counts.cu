/* Counts of a plan, for statistics without waiting. */
#include "cuda/shape.cuh"

namespace prism
{

/* Causal blocks of one head of a sequence, as prism_seq_causal_blocks() has it. */
__device__ int64_t causal_blocks(const prism_cu_shape &s, int seq, int block_size)
{
    Lengths n = lengths(s, seq);
    if (n.n_q <= 0)
        return 0;
    int64_t first = n.q_start / block_size, rows = (n.q_start + n.n_q - 1) / block_size + 1 - first;
    return rows * first + rows * (rows + 1) / 2;
}

__global__ void __launch_bounds__(32)
    counts(prism_cu_shape s, int block_size, const int64_t *row_ptr, const int32_t *full, int64_t *out)
{
    unsigned long long causal = 0;
    for (int i = threadIdx.x; i < s.n_seq; i += 32)
        causal += causal_blocks(s, i, block_size);
    for (int m = 16; m; m /= 2)
        causal += __shfl_xor_sync(~0u, causal, m);
    if (threadIdx.x)
        return;
    bool overflowed = row_ptr && *full;
    out[1] = (int64_t)causal * s.n_head;
    out[0] = row_ptr && !overflowed ? row_ptr[(int64_t)s.n_seq * s.n_head * s.n_qblk] : out[1];
    out[2] = overflowed;
    out[3] = 0;
}

} // namespace prism

extern "C" cudaError_t prism_plan_counts_cuda(const prism_cu_shape *shape, int32_t block_size, const int64_t *row_ptr,
                                              const int32_t *full, int64_t *out, cudaStream_t stream)
{
    prism::counts<<<1, 32, 0, stream>>>(*shape, block_size, row_ptr, full, out);
    return cudaGetLastError();
}
