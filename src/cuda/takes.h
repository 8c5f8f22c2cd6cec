/*
 * What each kernel takes, one row each. From these rows come the attention kernel that a call gets, the sentence that
 * refuses a call, and the table of docs/cuda.md. Plain C without CUDA: tests/cuda/test_takes.c needs no GPU.
 */
#ifndef PRISM_CUDA_TAKES_H
#define PRISM_CUDA_TAKES_H

#include <stdbool.h>
#include <stddef.h>

#include "cuda/shape.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The first three compute the same, fastest first. */
typedef enum prism_cu_kernel {
    PRISM_CU_ATTEND_SM90,
    PRISM_CU_ATTEND_SM80,
    PRISM_CU_ATTEND_ANY,
    PRISM_CU_ATTEND_FP8,
    PRISM_CU_SELECT,
    PRISM_CU_FILL,
    PRISM_CU_POOL_MOMENTS,
    PRISM_CU_SELECT_MOMENTS,
    PRISM_CU_CORRECT,
    PRISM_N_CU_KERNEL
} prism_cu_kernel;

enum { PRISM_CU_FILL_MAX_BLOCKS = 24576, PRISM_CU_MOMENTS_MAX_BLOCKS = 16384 }; /* key blocks of a sequence */

/* What a call asks of a kernel. */
typedef struct prism_cu_ask {
    int32_t capability; /* of the GPU; 90: compute capability 9.0 */
    uint32_t dtypes;    /* bit PRISM_CU_*: a tensor has this type */
    int32_t d_head, block_size, n_kblk;
    int32_t k_page, v_page; /* tokens of a page; 0: not paged */
    bool fp8;               /* products of 8 bits are wanted */
    bool stride_dim;        /* a tensor has another stride_dim than 1 */
    bool odd;               /* not every 8 numbers of 16 bits can be copied as one aligned piece */
    bool paged_queries;     /* q or o are paged */
    bool paged_lse;
    bool endless;     /* a ragged tensor comes without n_element */
    bool single_keys; /* the plan lists single keys */
    float scale;      /* of the softmax */
} prism_cu_ask;

/* Fills in what shape and tensors say; a tensor without data says nothing. */
void prism_cu_ask_tensors(prism_cu_ask *ask, const prism_cu_shape *shape, const prism_cu_view *q,
                          const prism_cu_view *k, const prism_cu_view *v, const prism_cu_view *o);

bool prism_cu_takes(prism_cu_kernel kernel, const prism_cu_ask *ask);

/* The first attention kernel, from `from` on, that takes the call; PRISM_N_CU_KERNEL: none. */
prism_cu_kernel prism_cu_attend_kernel(const prism_cu_ask *ask, int from);

/* The name of an attention kernel, as prism_cuda_attend_kernel() gives it. */
const char *prism_cu_kernel_name(prism_cu_kernel kernel);

/* Why no kernel takes a stage (a prism_stage) of this call: writes a sentence to text and returns it. NULL: all is
 * taken. */
const char *prism_cu_refuses(int stage, const prism_cu_ask *ask, char *text, size_t size);

/* Tokens of a tile of PRISM_CU_ATTEND_SM90. Tiles of 128 share K and V between twice as many queries; d_head 256 has no
 * room for them. */
static inline int prism_cu_sm90_tile(int d_head, int block_size)
{
    return block_size == 128 && d_head <= 128 ? 128 : 64;
}

/* Writes row `kernel` of the table of docs/cuda.md, or with -1 its head and what every row needs. */
void prism_cu_takes_markdown(int kernel, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
