/* Lengths of a call, and a tensor as the kernels address it. Plain C: host files without CUDA see it, too. */
#ifndef PRISM_CUDA_SHAPE_H
#define PRISM_CUDA_SHAPE_H

#include <stdint.h>

/* The values of prism_dtype. */
enum { PRISM_CU_F32 = 0, PRISM_CU_F16 = 1, PRISM_CU_BF16 = 2 };

/* As prism_tensor, with stride_dim 1. */
typedef struct prism_cu_view {
    void *data;
    int64_t stride_seq, stride_token, stride_head;
    const int32_t *row_start;  /* [n_seq] or NULL */
    const int32_t *page_table; /* [n_seq][stride_table] or NULL */
    int64_t stride_table, stride_page;
    int64_t n_token; /* tokens that exist: in one sequence, or with row_start in all; 0: unknown */
    int32_t page_size, n_page;
} prism_cu_view;

/* Lengths of a call. An array that is NULL: all sequences have the number beside it. q_start_of NULL, n_q_of or n_kv_of
 * given: q_start is n_kv - n_q of each sequence. */
typedef struct prism_cu_shape {
    int32_t n_seq, n_head, n_kv_head, d_head, dtype;
    int32_t n_q, n_kv, q_start; /* with arrays: upper bounds */
    int32_t n_qblk, n_kblk;     /* of the longest sequence; a plan has n_qblk rows per head and sequence */
    const int32_t *n_q_of, *n_kv_of, *q_start_of; /* [n_seq] or NULL, device memory */
} prism_cu_shape;

#endif
