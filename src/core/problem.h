/* A call after its checks: geometry resolved, addresses computable. Everything below the API's door works on this. */
#ifndef PRISM_CORE_PROBLEM_H
#define PRISM_CORE_PROBLEM_H

#include <stdbool.h>

#include "prism_attn/prism.h"

typedef struct prism_problem {
    const prism_call *call;
    int32_t block_size;
    int32_t group;          /* query heads that share a KV head */
    int32_t n_qblk, n_kblk; /* of the longest sequence */
    int64_t n_row;          /* n_seq * n_head * n_qblk */
    int32_t n_word;         /* 64-bit words of a row's bitmap */
    float scale;
    prism_precision precision; /* of attention: from the options, or from the plan */
    bool device_lengths;       /* n_q_of, n_kv_of, q_start_of lie on the device; the host takes the longest for all */
} prism_problem;

/* One sequence. Its query block i is block first_qblk + i of the absolute grid and sees key blocks 0 .. first_qblk + i.
 * No query can see keys after the last query, so n_kv stops at that query. */
typedef struct prism_seq {
    int32_t n_q, n_kv, q_start, first_qblk, n_qblk, n_kblk;
} prism_seq;

static inline prism_seq prism_make_seq(int32_t n_q, int32_t q_start, int32_t block_size)
{
    prism_seq s = {n_q, q_start + n_q, q_start, q_start / block_size, 0, 0};
    if (n_q > 0) {
        s.n_kblk = (s.n_kv - 1) / block_size + 1;
        s.n_qblk = s.n_kblk - s.first_qblk;
    }
    return s;
}

static inline prism_seq prism_problem_seq(const prism_problem *p, int32_t s)
{
    const prism_call *c = p->call;
    if (p->device_lengths)
        return prism_make_seq(c->n_q, c->n_kv - c->n_q, p->block_size);
    const int32_t n_q = c->n_q_of ? c->n_q_of[s] : c->n_q;
    const int32_t n_kv = c->n_kv_of ? c->n_kv_of[s] : c->n_kv;
    const int32_t q_start = c->q_start_of ? c->q_start_of[s] : c->q_start >= 0 ? c->q_start : n_kv - n_q;
    return prism_make_seq(n_q, q_start, p->block_size);
}

/* Returns the row of (sequence, head, query block) in a plan and in every per-row buffer. */
static inline int64_t prism_problem_row(const prism_problem *p, int32_t s, int32_t h, int32_t i)
{
    return ((int64_t)s * p->call->n_head + h) * p->n_qblk + i;
}

/* Query tokens [begin, end) of the sequence. */
typedef struct prism_range {
    int32_t begin, end;
} prism_range;

static inline prism_range prism_seq_rows(const prism_seq *s, int32_t i, int32_t block_size)
{
    const int64_t lo = (int64_t)(s->first_qblk + i) * block_size - s->q_start, hi = lo + block_size;
    return (prism_range){(int32_t)(lo > 0 ? lo : 0), (int32_t)(hi < s->n_q ? hi : s->n_q)};
}

/* Returns the number of keys in block b. */
static inline int32_t prism_seq_keys(const prism_seq *s, int32_t b, int32_t block_size)
{
    const int32_t left = s->n_kv - b * block_size;
    return left < block_size ? left : block_size;
}

/* Returns the number of causal blocks of one head of a sequence. */
static inline int64_t prism_seq_causal_blocks(const prism_seq *s)
{
    return (int64_t)s->n_qblk * s->first_qblk + (int64_t)s->n_qblk * (s->n_qblk + 1) / 2;
}

/* Returns the element offset of (sequence, token, head, dimension 0). */
static inline int64_t prism_tensor_offset(const prism_tensor *x, int32_t s, int32_t t, int32_t h)
{
    const int64_t head = (int64_t)h * x->stride_head;
    if (x->page_table) {
        const int32_t page = x->page_table[(int64_t)s * x->stride_table + t / x->page_size];
        return (int64_t)page * x->stride_page + (int64_t)(t % x->page_size) * x->stride_token + head;
    }
    if (x->row_start)
        return ((int64_t)x->row_start[s] + t) * x->stride_token + head;
    return (int64_t)s * x->stride_seq + (int64_t)t * x->stride_token + head;
}

enum { PRISM_Q8_0_BLOCK = 32, PRISM_Q8_0_BYTES = 34 };

/* Returns the bytes of n elements; n is a multiple of 32 for PRISM_Q8_0. */
static inline int64_t prism_bytes_of(prism_dtype dtype, int64_t n)
{
    return dtype == PRISM_Q8_0 ? n / PRISM_Q8_0_BLOCK * PRISM_Q8_0_BYTES : n * (dtype == PRISM_F32 ? 4 : 2);
}

static inline void *prism_tensor_at(const prism_tensor *x, int32_t s, int32_t t, int32_t h)
{
    return (char *)x->data + prism_bytes_of(x->dtype, prism_tensor_offset(x, s, t, h));
}

#endif
