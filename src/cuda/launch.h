/*
 * Launch functions of the CUDA kernels. All pointers are device pointers unless a comment says otherwise.
 * Nothing here allocates or synchronises; every launch can be captured in a graph. Arguments were checked by the
 * caller.
 */
#ifndef PRISM_CUDA_LAUNCH_H
#define PRISM_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PRISM_CU_F32 = 0, PRISM_CU_F16 = 1, PRISM_CU_BF16 = 2 };

/* As prism_tensor, with stride_dim 1. n_token: tokens that exist in one sequence, or in all where row_start is given.
 */
typedef struct prism_cu_view {
    void *data;
    int64_t stride_seq, stride_token, stride_head;
    const int32_t *row_start;  /* [n_seq] or NULL */
    const int32_t *page_table; /* [n_seq][stride_table] or NULL */
    int64_t stride_table, stride_page;
    int64_t n_token;
    int32_t page_size, n_page;
} prism_cu_view;

/* Lengths of a call: for every sequence alike, or per sequence where the arrays are given (q_start_of NULL with lengths
 * given: n_kv - n_q). n_qblk: rows of the plan per head, for the longest sequence. */
typedef struct prism_cu_shape {
    int32_t n_seq, n_head, n_kv_head, d_head, dtype;
    int32_t n_q, n_kv, q_start, n_qblk, n_kblk;
    const int32_t *n_q_of, *n_kv_of, *q_start_of;
} prism_cu_shape;

/*
 * Exact attention over a plan, causal by position: row r = (sequence * n_head + head) * n_qblk + query block reads the
 * key blocks index[row_ptr[r] .. row_ptr[r + 1]), ascending; index NULL: all up to its own. A key that a query does not
 * see never reaches it, whatever is in memory there. A row that lists nothing gives 0 and a log-sum-exp of -inf, rows
 * of query blocks that do not exist are not touched. No rows are no error.
 */
typedef struct prism_cu_attend {
    prism_cu_shape shape;
    prism_cu_view q, k, v, o;
    float *lse; /* natural logarithm, or NULL; element (sequence, token, head) by lse_stride_* and lse_row_start */
    int64_t lse_stride_seq, lse_stride_token, lse_stride_head;
    const int64_t *row_ptr; /* [n_row + 1] */
    const int32_t *index;
    const int32_t *work; /* [n_row] rows in the order of work, or NULL: late query blocks first */
    int32_t *ticket;     /* [2], zero before the first launch, zero again after each; for sm90 */
    float scale;         /* of either sign, or 0 */
    int32_t block_size;  /* 64 or 128 */
    /* Single keys beside the blocks, as in prism_plan_view: positions, ascending, in none of the row's blocks. Or NULL.
     */
    const int64_t *key_ptr; /* [n_row + 1] */
    const int32_t *key_index;
    const int32_t *full; /* [1] or NULL. Not 0: lists and work are ignored and every causal block is read */
    /* What was attended before, or NULL: normalised output (addressed as o, in the call's dtype) and natural
     * log-sum-exp (addressed as lse; -inf: nothing, init_o is not read). The result is as if those keys were in the
     * lists too. */
    const void *init_o;
    const float *init_lse;
    /* prism_attend_scratch_bytes() of memory, aligned to 16: long rows are split where rows are too few to fill the
     * GPU. NULL: they are not. */
    void *scratch;
    size_t scratch_bytes;
    const int32_t *lse_row_start; /* as row_start of a view, for lse and init_lse; NULL: lse_stride_seq */
    void *
        image; /* prism_fp8_image_bytes() of memory, aligned to 16: products of 8 bits are wanted. NULL: they are not */
} prism_cu_attend;

enum { PRISM_CU_ATTEND_SM90 = 0, PRISM_CU_ATTEND_SM80 = 1, PRISM_CU_ATTEND_ANY = 2, PRISM_CU_ATTEND_FP8 = 3 };

/* With an image the kernels of 8 bits; without, the fastest of the three below that takes the call on the current
 * device. *kernel (host, or NULL) says which. */
cudaError_t prism_attend_cuda(const prism_cu_attend *a, cudaStream_t stream, int32_t *kernel);

/* Depends on the upper bounds of the shape and on the current device, not on lengths or lists. 0 where rows are many.
 */
size_t prism_attend_scratch_bytes(const prism_cu_shape *shape, int32_t block_size);

/* Each returns cudaErrorNotSupported for what it does not take. The first two: f16 or bf16, strides multiples of 8
 * elements, data aligned to 16, scale above 0, no single keys, q and o not paged.
 * sm90: d_head 64, 128, 256; pages of 8 .. 128 tokens or a multiple of 128, a power of two below 128. On sm_90a only.
 */
cudaError_t prism_attend_sm90(const prism_cu_attend *a, cudaStream_t stream);
/* sm_80 and later: d_head 64, 128; any page size. */
cudaError_t prism_attend_sm80(const prism_cu_attend *a, cudaStream_t stream);
/* Everything: d_head 1 .. 256, f32, f16, bf16, any strides. Without tensor cores, so many times slower. */
cudaError_t prism_attend_any(const prism_cu_attend *a, cudaStream_t stream);

/*
 * As sm90, with products of 8 bits (e4m3), sm_90a, d_head 64, 128, blocks of 128, any page size. Two launches: K and V
 * become the image, which attention then reads; from V itself it takes what is not finite.
 */
size_t prism_fp8_image_bytes(const prism_cu_shape *shape);
cudaError_t prism_fp8_image_cuda(const prism_cu_attend *a, cudaStream_t stream);
cudaError_t prism_attend_fp8(const prism_cu_attend *a, cudaStream_t stream);

/*
 * Block means of queries and keys, each with its energy. Means are stored split for the tensor cores: scaled by a power
 * of two that brings their root mean square near 1, as two f16 numbers whose sum has 22 bits; split.cuh says in which
 * order. Energy: {sum of the squared mean over all dimensions, over the high band, over the low band, 1 / scale}.
 */
typedef struct prism_cu_pool {
    prism_cu_shape shape;
    prism_cu_view q, k;
    void *q_split;              /* [n_seq][n_qblk][n_head][d], 4 bytes each, aligned to 16 */
    void *k_image;              /* prism_key_image_bytes(), aligned to 16; NULL: of the keys k_sum alone is wanted */
    float *q_energy, *k_energy; /* [n_seq][n_head or n_kv_head][n_qblk or n_kblk][4] */
    float *k_sum; /* sums to append to, s * k_sum_stride_seq + (b * n_kv_head + h) * d + j; NULL if n_done is 0 */
    int64_t k_sum_stride_seq; /*   and nobody wants them. Keys before n_done are in them already */
    int32_t block_size, n_done;
    uint32_t high[8], low[8]; /* bit j of the 256: dimension j is in the band */
} prism_cu_pool;

int64_t prism_key_image_bytes(const prism_cu_shape *shape);
/* d_head 64, 96, 128, 192 or 256; dtype of the shape. Reads every query once and keys n_done .. n_kv - 1 once. */
cudaError_t prism_pool_cuda(const prism_cu_pool *a, cudaStream_t stream);

/*
 * Scores of block pairs, top-p in each band, union. Writes a bitmap of the plan and its counts; prism_plan_emit_cuda()
 * turns them into lists. n_band 1: one band (high, all dimensions), uncalibrated.
 */
typedef struct prism_cu_select {
    prism_cu_shape shape;
    const void *q_split, *k_image; /* as prism_cu_pool writes them */
    const float *q_energy, *k_energy;
    int32_t block_size, n_band, causal_calibration, keep_sink, keep_own, min_tokens;
    float top_p[2], scale; /* of the softmax */
    uint32_t high[8], low[8];
    void *scratch;    /* prism_select_scratch_bytes(), aligned to 8 */
    uint32_t *bitmap; /* prism_select_bitmap_words() words */
    int32_t *count;   /* [n_row] */
    int64_t *row_ptr; /* [n_row + 1] */
    int32_t *index;   /* [capacity]; nothing is written past it, but row pointers count what would be there */
    int32_t *work;    /* [n_row] or NULL: rows of each KV head, longest first */
    int64_t capacity;
    int32_t *full; /* [1] or NULL: written, 1 if the lists did not fit (row_ptr[n_row] > capacity), else 0. Attention
                      given the same flag then takes every causal block */
} prism_cu_select;

int64_t prism_select_bitmap_words(const prism_cu_shape *shape, int32_t block_size);
int64_t prism_select_scratch_bytes(const prism_cu_shape *shape);
cudaError_t prism_select_cuda(const prism_cu_select *a, cudaStream_t stream);
/* From bitmap and count: row_ptr, index, work, full. */
cudaError_t prism_plan_emit_cuda(const prism_cu_select *a, cudaStream_t stream);

/* The full plan: count, row_ptr, and work where wanted; index stays NULL (row r lists blocks 0, 1, 2, ...). Reads shape
 * and block_size. */
cudaError_t prism_plan_full_cuda(const prism_cu_select *a, cudaStream_t stream);
/*
 * Lists of a plan from a mask u8 [n_seq][n_head][n_qblk][n_kblk]: bitmap, count, row_ptr, index, work, full. Reads
 * shape and block_size. A row without a bit is given its own block. Bits above the causal limit, or of rows that do
 * not exist, are left out and set *invalid ([1], written) to 1.
 */
cudaError_t prism_plan_from_mask_cuda(const prism_cu_select *a, const uint8_t *mask, int32_t *invalid,
                                      cudaStream_t stream);
/* The mask of a plan, every byte written. Reads shape, block_size, row_ptr, index (NULL: row r lists 0, 1, 2, ...) and
 * full (NULL or 0: the lists; 1: every causal block). */
cudaError_t prism_plan_mask_cuda(const prism_cu_select *a, uint8_t *mask, cudaStream_t stream);

/* out (device, [4]): blocks listed (row_ptr NULL, or *full not 0: all), causal blocks, *full, 0. */
cudaError_t prism_plan_counts_cuda(const prism_cu_shape *shape, int32_t block_size, const int64_t *row_ptr,
                                   const int32_t *full, int64_t *out, cudaStream_t stream);

/*
 * Moments: docs/moments.md has the formulas and the names. Blocks of 128; d_head 64 or 128; f16 or bf16; strides
 * multiples of 8 elements, data aligned to 16; cudaErrorNotSupported otherwise.
 *
 *   pool     q, k, v from n_done on -> k_sum, and moments of blocks that are whole now; q.data may be NULL: nobody
 * asks, and v.data where nothing will be corrected image    those, and k, v of block 0 -> image: moments in f16, as the
 * other two read them select   q, k (own blocks), image -> bitmap, count: prism_plan_emit_cuda() makes lists of them
 *   correct  q, image, a plan -> init_o, init_lse: what prism_cu_attend starts from
 *
 * Products are f16 by f16 in f32. A block whose moments (values' included) are not finite in f16 is selected.
 */
typedef struct prism_cu_moments {
    prism_cu_shape shape;
    prism_cu_view q, k, v;
    int32_t block_size;
    /* prism_block_moments, element ((s * n_block_seq + b) * n_kv_head + h) * d + j; k_sum alike, NULL: not wanted */
    float *k_sum, *key, *variance, *value, *log_count, *query_sum;
    int32_t *n_query;
    int64_t n_block_seq;
    int32_t n_done; /* keys that are in there already */
    void *image;    /* prism_moments_image_bytes(), aligned to 16 */
    float scale;
    /* select */
    int32_t keep_sink, keep_own, min_tokens;
    float error;      /* moments_error */
    float *own_mass;  /* scratch, prism_moments_own_floats() */
    uint32_t *bitmap; /* prism_select_bitmap_words() words */
    int32_t *count;   /* [n_row] */
    /* correct */
    const int64_t *row_ptr;
    const int32_t *index; /* NULL: the full plan, nothing to correct */
    const int32_t *full;  /* [1] or NULL; not 0: the same */
    int32_t mean;         /* 1: without variances (correct=mean) */
    prism_cu_view o;      /* where init_o lies in memory; its data are not used */
    void *init_o;         /* addressed as o; may be what attention writes to */
    float *init_lse;      /* addressed as prism_cu_attend has it; -inf where nothing is pruned */
    int64_t lse_stride_seq, lse_stride_token, lse_stride_head;
    const int32_t *lse_row_start;
} prism_cu_moments;

int64_t prism_moments_image_bytes(const prism_cu_shape *shape);
int64_t prism_moments_own_floats(const prism_cu_shape *shape);
cudaError_t prism_moments_pool_cuda(const prism_cu_moments *a, cudaStream_t stream);
cudaError_t prism_moments_image_cuda(const prism_cu_moments *a, cudaStream_t stream);
/* These two on sm_90a only. */
cudaError_t prism_moments_select_cuda(const prism_cu_moments *a, cudaStream_t stream);
cudaError_t prism_moments_correct_cuda(const prism_cu_moments *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
