/* Lengths of one sequence of a call, and addresses of rows of a tensor view. */
#ifndef PRISM_CUDA_SHAPE_CUH
#define PRISM_CUDA_SHAPE_CUH

#include "cuda/launch.h"

namespace prism
{

/* As prism_seq: no query sees keys after the last query, so n_kv stops there. */
struct Lengths {
    int n_q, n_kv, q_start;
};
__device__ __forceinline__ Lengths lengths(const prism_cu_shape &s, int seq)
{
    int n_q = s.n_q_of ? min(max(s.n_q_of[seq], 0), s.n_q) : s.n_q;
    int n_kv = s.n_kv_of ? min(max(s.n_kv_of[seq], 0), s.n_kv) : s.n_kv, q_start = s.q_start;
    if (s.q_start_of)
        q_start = s.q_start_of[seq];
    else if (s.n_q_of || s.n_kv_of)
        q_start = n_kv - n_q;
    if (q_start < 0 || q_start + n_q > n_kv) /* the host could not check these lengths: nothing is read */
        return {0, 0, 0};
    return {n_q, q_start + n_q, q_start};
}

/* Element offset of (sequence, token, head 0, dimension 0). */
__device__ __forceinline__ int64_t token_offset(const prism_cu_view &t, int seq, int token)
{
    if (t.page_table) {
        int page = t.page_table[seq * t.stride_table + token / t.page_size];
        return page * t.stride_page + token % t.page_size * t.stride_token;
    }
    return (t.row_start ? t.row_start[seq] * t.stride_token : seq * t.stride_seq) + token * t.stride_token;
}

__device__ __forceinline__ bool finite(float x)
{
    return fabsf(x) < 2.9e38f;
}
/* Power of two near 1 / sqrt(x); 1 where x is 0 or not finite. */
__device__ __forceinline__ float scale_for(float x)
{
    return x > 0 && finite(x) ? exp2f(-rintf(0.5f * log2f(x))) : 1;
}

} // namespace prism
#endif
