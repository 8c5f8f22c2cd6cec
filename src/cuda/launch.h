/*
 * Launch functions of the CUDA kernels.
 *
 * Pointers are device pointers unless a comment says otherwise; strides count elements; lengths count tokens. Row r of
 * a plan is (sequence * n_head + head) * n_qblk + query block. Blocks lie on the absolute token grid.
 *
 * No function allocates or waits: every launch can be captured in a graph. A function returns cudaErrorNotSupported
 * for what its row in takes.c excludes. The caller has checked everything else.
 */
#ifndef PRISM_CUDA_LAUNCH_H
#define PRISM_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/shape.h"
#include "cuda/takes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------------------------- attention ---- */

/*
 * Exact attention over a plan, causal by position. Row r reads the key blocks index[row_ptr[r] .. row_ptr[r + 1]),
 * ascending; index NULL: every block up to its own. A key after a query never reaches it, whatever is in memory there.
 * A row that lists nothing gives 0 and a log-sum-exp of -inf. Rows of query blocks that do not exist are not written.
 */
typedef struct prism_cu_attend {
    prism_cu_shape shape;
    prism_cu_view q, k, v, o;
    float *lse; /* natural logarithm, or NULL; element (sequence, token, head) by lse_stride_* and lse_row_start */
    int64_t lse_stride_seq, lse_stride_token, lse_stride_head;
    const int64_t *row_ptr; /* [n_row + 1] */
    const int32_t *index;
    const int32_t *order; /* [n_row] rows, the first ones start first; NULL: late query blocks first */
    int32_t *ticket;      /* [2] for sm90 and fp8: zero before the first launch; a launch leaves it zero */
    float scale;          /* of either sign, or 0 */
    int32_t block_size;
    /* Positions of single keys, as in prism_plan_view: ascending, outside the row's blocks. Or NULL. */
    const int64_t *key_ptr; /* [n_row + 1] */
    const int32_t *key_index;
    const int32_t *full; /* [1] or NULL. Not 0: lists and order are ignored, every causal block is read */
    /* The result of an earlier attention over other keys, or NULL: normalised output (addressed as o, in the call's
     * type) and natural log-sum-exp (addressed as lse; -inf: no keys, init_o is not read). The result then covers the
     * earlier keys, too. */
    const void *init_o;
    const float *init_lse;
    /* prism_attend_scratch_bytes() of memory, aligned to 16. Long rows are split where rows are too few to fill the
     * GPU. NULL: rows are not split. */
    void *scratch;
    size_t scratch_bytes;
    const int32_t *lse_row_start; /* as row_start of a view, for lse and init_lse; NULL: lse_stride_seq counts */
    void *fp8_image;              /* prism_fp8_image_bytes(), aligned to 16: products of 8 bits. NULL: of 16 bits */
} prism_cu_attend;

/* Launches the fastest kernel that takes the call on the current GPU (takes.h). *kernel (host memory, or NULL): which,
 * a prism_cu_kernel. */
cudaError_t prism_attend_cuda(const prism_cu_attend *a, cudaStream_t stream, int32_t *kernel);

/* Depends on the upper bounds of the shape and on the current GPU, not on lengths or lists. 0 where rows are many. */
size_t prism_attend_scratch_bytes(const prism_cu_shape *shape, int32_t block_size);

/* One kernel each. */
cudaError_t prism_attend_sm90(const prism_cu_attend *a, cudaStream_t stream);
cudaError_t prism_attend_sm80(const prism_cu_attend *a, cudaStream_t stream);
cudaError_t prism_attend_any(const prism_cu_attend *a, cudaStream_t stream);

/* Products of 8 bits (e4m3) take two launches: the first writes K and V to fp8_image, the second attends. The second
 * reads from V itself only what is not finite. */
size_t prism_fp8_image_bytes(const prism_cu_shape *shape);
cudaError_t prism_fp8_image_cuda(const prism_cu_attend *a, cudaStream_t stream);
cudaError_t prism_attend_fp8(const prism_cu_attend *a, cudaStream_t stream);

/* ------------------------------------------------------------------------------------- pooling and selection ---- */

/*
 * Block means of queries and keys, each with its energy. A mean is scaled by a power of two that brings its root mean
 * square near 1, and stored as two f16 numbers whose sum has 22 bits, in the order that split.cuh describes. Energy:
 * {sum of the squared mean over all dimensions, over the high band, over the low band, 1 / scale}.
 */
typedef struct prism_cu_pool {
    prism_cu_shape shape;
    prism_cu_view q, k;
    void *q_split;              /* [n_seq][n_qblk][n_head][d], 4 bytes each, aligned to 16 */
    void *key_image;            /* prism_key_image_bytes(), aligned to 16; NULL: only k_sum is wanted */
    float *q_energy, *k_energy; /* [n_seq][n_head or n_kv_head][n_qblk or n_kblk][4] */
    float *k_sum; /* sums to append to, element s * k_sum_stride_seq + (b * n_kv_head + h) * d + j. NULL: not kept */
    int64_t k_sum_stride_seq;
    int32_t block_size;
    int32_t n_done;           /* keys that k_sum holds already; 0 if k_sum is NULL */
    uint32_t high[8], low[8]; /* bit j of the 256: dimension j is in the band */
} prism_cu_pool;

int64_t prism_key_image_bytes(const prism_cu_shape *shape);
/* Reads every query once, and keys n_done .. n_kv - 1 once. */
cudaError_t prism_pool_cuda(const prism_cu_pool *a, cudaStream_t stream);

/*
 * prism_select_cuda: scores of block pairs, top-p in each band, union -> bitmap and count. n_band 1: one band (high,
 * all dimensions), not calibrated. prism_plan_emit_cuda: bitmap and count -> lists.
 */
typedef struct prism_cu_select {
    prism_cu_shape shape;
    const void *q_split, *key_image; /* as prism_cu_pool writes them */
    const float *q_energy, *k_energy;
    int32_t block_size, n_band, causal_calibration, keep_sink, keep_own, min_tokens;
    float top_p[2], scale; /* scale: of the softmax */
    uint32_t high[8], low[8];
    void *scratch;    /* prism_select_scratch_bytes(), aligned to 8 */
    uint32_t *bitmap; /* prism_select_bitmap_words() words */
    int32_t *count;   /* [n_row] */
    int64_t *row_ptr; /* [n_row + 1] */
    int32_t *index;   /* [capacity]; longer lists are cut off, their row pointers are not */
    int32_t *order;   /* [n_row] or NULL: the rows of each KV head, longest first */
    int64_t capacity;
    int32_t *full; /* [1] or NULL: written, 1 if row_ptr[n_row] > capacity, else 0. Attention with full 1 reads every
                      causal block */
} prism_cu_select;

int64_t prism_select_bitmap_words(const prism_cu_shape *shape, int32_t block_size);
int64_t prism_select_scratch_bytes(const prism_cu_shape *shape);
cudaError_t prism_select_cuda(const prism_cu_select *a, cudaStream_t stream);
/* Reads bitmap and count; writes row_ptr, index, order, full. */
cudaError_t prism_plan_emit_cuda(const prism_cu_select *a, cudaStream_t stream);

/* The full plan. Reads shape and block_size; writes count, row_ptr and, if not NULL, order. index is not written: row r
 * lists blocks 0, 1, 2, ... */
cudaError_t prism_plan_full_cuda(const prism_cu_select *a, cudaStream_t stream);
/*
 * The plan of a mask u8 [n_seq][n_head][n_qblk][n_kblk]. Reads shape and block_size; writes bitmap, count, row_ptr,
 * index, order, full. A row without a bit lists its own block. A bit after the row's own block, or in a row that does
 * not exist, is left out. *invalid ([1], written): 1 if there was such a bit, else 0.
 */
cudaError_t prism_plan_from_mask_cuda(const prism_cu_select *a, const uint8_t *mask, int32_t *invalid,
                                      cudaStream_t stream);
/* The mask of a plan; every byte is written. Reads shape, block_size, row_ptr, index (NULL: row r lists 0, 1, 2, ...)
 * and full (NULL or 0: the lists count; 1: every causal block). */
cudaError_t prism_plan_mask_cuda(const prism_cu_select *a, uint8_t *mask, cudaStream_t stream);

/* out ([4]): blocks listed (row_ptr NULL or *full not 0: all), causal blocks, *full, 0. */
cudaError_t prism_plan_counts_cuda(const prism_cu_shape *shape, int32_t block_size, const int64_t *row_ptr,
                                   const int32_t *full, int64_t *out, cudaStream_t stream);

/* ------------------------------------------------------------------------------------------------- moments ---- */

/*
 * Moments of key blocks; docs/moments.md has the formulas and the names. One struct serves four launches:
 *
 *   pool     reads q, k, v from token n_done on; writes k_sum and the moments of blocks that are whole now.
 *            q.data NULL: no queries are sampled. v.data NULL: no values are averaged, and no covariance is made.
 *            A slot of covariance is made by the call that completes it; that call reads k and v of all its blocks.
 *   image    reads the moments, and k and v of block 0; writes moments_image (f16), which the next two read.
 *   select   reads q, k of own blocks and moments_image; writes bitmap and count, which prism_plan_emit_cuda() reads.
 *   correct  reads q, moments_image and a plan; writes init_o and init_lse, from which prism_cu_attend starts.
 *
 * Products are f16 by f16, sums f32. A block with a moment (of values, too) that is not finite in f16 is selected.
 */
typedef struct prism_cu_moments {
    prism_cu_shape shape;
    prism_cu_view q, k, v;
    int32_t block_size;
    /* prism_block_moments, element ((s * n_block_seq + b) * n_kv_head + h) * d + j. k_sum in the same order; NULL: not
     * kept. */
    float *k_sum, *key, *variance, *value, *log_count, *query_sum;
    int32_t *n_query;
    float *covariance; /* of prism_block_moments; slots of n_block_seq blocks for each sequence */
    int64_t n_block_seq;
    int32_t n_done;      /* keys that the moments hold already */
    void *moments_image; /* prism_moments_image_bytes(), aligned to 16 */
    float scale;         /* of the softmax */
    /* select */
    int32_t keep_sink, keep_own, min_tokens;
    float error;      /* moments_error */
    float *scratch;   /* prism_moments_select_floats() */
    uint32_t *bitmap; /* prism_select_bitmap_words() words */
    int32_t *count;   /* [n_row] */
    /* correct */
    const int64_t *row_ptr;
    const int32_t *index; /* NULL: the full plan, nothing is corrected */
    const int32_t *full;  /* [1] or NULL. Not 0: the full plan */
    int32_t mean;         /* 1: without variances (correct=mean) */
    prism_cu_view o;      /* strides of init_o; o.data is not used */
    void *init_o;         /* addressed as o; may be attention's output */
    float *init_lse;      /* addressed as lse of prism_cu_attend; -inf where no block is pruned */
    int64_t lse_stride_seq, lse_stride_token, lse_stride_head;
    const int32_t *lse_row_start;
} prism_cu_moments;

int64_t prism_moments_image_bytes(const prism_cu_shape *shape);
int64_t prism_moments_select_floats(const prism_cu_shape *shape); /* asks the current GPU; 0 where there is none */
cudaError_t prism_moments_pool_cuda(const prism_cu_moments *a, cudaStream_t stream);
cudaError_t prism_moments_image_cuda(const prism_cu_moments *a, cudaStream_t stream);
cudaError_t prism_moments_select_cuda(const prism_cu_moments *a, cudaStream_t stream);
cudaError_t prism_moments_correct_cuda(const prism_cu_moments *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
