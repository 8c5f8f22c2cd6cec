/* Queries, keys and values from the projections to where attention reads them: head norm, RoPE, rounding. */
#include "operations.h"
#include "round.cuh"

enum { WARPS = 8 };

/* cos and sin of a + b, a from the coarse table and b from the fine one: two numbers a pair and position would be half
 * a gigabyte for a million positions. The product of two rounded rotations is off by 2e-7, far below the 16 bits of the
 * result. */
static __device__ float2 rotation_at(const lm_cu_rotation &r, int64_t position, int32_t j)
{
    const float2 a = ((const float2 *)r.coarse)[position / LM_CU_ROPE_STEP * r.n_pair + j];
    const float2 b = ((const float2 *)r.fine)[position % LM_CU_ROPE_STEP * r.n_pair + j];
    return make_float2(a.x * b.x - a.y * b.y, a.y * b.x + a.x * b.y);
}

template <typename T>
static __device__ void rotate_head(const lm_cu_rotation &r, int64_t position, const float *in, const float *weight,
                                   T *out)
{
    const int32_t lane = threadIdx.x;
    float scale = 1;
    if (weight) {
        float sum = 0;
        for (int32_t j = lane; j < r.d; j += 32)
            sum += in[j] * in[j];
        scale = 1.0f / sqrtf(sum_of_warp(sum) / (float)r.d + r.eps);
    }
    for (int32_t j = lane; j < r.n_pair; j += 32) {
        const int32_t first = r.interleaved ? 2 * j : j, second = r.interleaved ? 2 * j + 1 : j + r.n_pair;
        const float2 turn = rotation_at(r, position, j);
        const float a = weight ? in[first] * scale * weight[first] : in[first];
        const float b = weight ? in[second] * scale * weight[second] : in[second];
        round_to(a * turn.x - b * turn.y, &out[first]);
        round_to(b * turn.x + a * turn.y, &out[second]);
    }
    for (int32_t j = 2 * r.n_pair + lane; j < r.d; j += 32)
        round_to(weight ? in[j] * scale * weight[j] : in[j], &out[j]);
}

template <typename T> __global__ void rotate_rows(lm_cu_rotation r, T *q_out)
{
    const int32_t n_item = r.n_head + 2 * r.n_kv_head;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.y, row = item / n_item;
    int32_t head = (int32_t)(item % n_item);
    if (row >= r.n)
        return;
    if (head < r.n_head) {
        const int64_t at = (row * r.n_head + head) * r.d;
        rotate_head(r, r.position + row, r.q + at, r.q_norm, q_out + at);
        return;
    }
    head -= r.n_head;
    const bool is_value = head >= r.n_kv_head;
    const int64_t at = (row * r.n_kv_head + head - (is_value ? r.n_kv_head : 0)) * r.d;
    if (!is_value) {
        rotate_head(r, r.position + row, r.k + at, r.k_norm, (T *)r.k_out + at);
        return;
    }
    for (int32_t j = threadIdx.x; j < r.d; j += 32)
        round_to(r.v[at + j], &((T *)r.v_out)[at + j]);
}

cudaError_t lm_cu_rotate(const lm_cu_rotation *r, cudaStream_t stream)
{
    const int64_t n_warp = (int64_t)r->n * (r->n_head + 2 * r->n_kv_head);
    const unsigned blocks = (unsigned)((n_warp + WARPS - 1) / WARPS);
    return in_type(r->bf16, r->q_out, [=](auto *q) { rotate_rows<<<blocks, dim3(32, WARPS), 0, stream>>>(*r, q); });
}
