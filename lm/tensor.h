/*
 * lm/tensor.h - element types of weight files, views of tensors in them, and conversion to and from float.
 */
#ifndef LM_TENSOR_H
#define LM_TENSOR_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum lm_dtype {
    LM_F32,
    LM_F16,
    LM_BF16,
    LM_Q8_0, /* blocks of 32 along the last axis: a float16 scale, then 32 int8 */
    LM_F64,
    LM_U8,
    LM_I8,
    LM_U16,
    LM_I16,
    LM_U32,
    LM_I32,
    LM_U64,
    LM_I64,
    LM_BOOL,
    LM_F8_E4M3,
    LM_F8_E5M2,
    LM_DTYPE_COUNT
} lm_dtype;

#define LM_Q8_0_BLOCK 32
#define LM_Q8_0_BLOCK_BYTES 34

#define LM_MAX_DIM 8

/* A tensor in a file or on its way into one. dim[0] varies slowest (the order of numpy and safetensors; GGUF files
 * store the reverse). data is borrowed and aligned for its type. */
typedef struct lm_tensor {
    const char *name;
    lm_dtype dtype;
    int32_t n_dim;
    int64_t dim[LM_MAX_DIM];
    const void *data;
    size_t bytes;
} lm_tensor;

/* "F32", "BF16", ...: the names safetensors uses, and "Q8_0". Never NULL. */
const char *lm_dtype_name(lm_dtype dtype);
bool lm_dtype_find(const char *name, lm_dtype *out);
/* Bytes of an element, and the alignment its data needs; for Q8_0 of a block. */
size_t lm_dtype_bytes(lm_dtype dtype);
size_t lm_dtype_alignment(lm_dtype dtype);
/* F32, F16, BF16, Q8_0: what lm_to_float() reads. */
bool lm_dtype_is_weight(lm_dtype dtype);

/* Product of the dimensions; false if one is negative or the product does not fit. */
bool lm_count(int32_t n_dim, const int64_t *dim, uint64_t *out);
/* Bytes of a tensor of this shape; false on overflow, or where Q8_0 does not divide the last axis. */
bool lm_shape_bytes(lm_dtype dtype, int32_t n_dim, const int64_t *dim, uint64_t *out);
/* "[2, 3]" into text, for messages; returns text. */
const char *lm_shape_text(int32_t n_dim, const int64_t *dim, char *text, size_t n);

/* n elements of a weight dtype (a multiple of 32 for Q8_0) to float and back. Exact widening; narrowing rounds to
 * nearest, ties to even, and Q8_0 as ggml's reference: scale = largest magnitude / 127, halves away from zero.
 * src and dst do not overlap; src (dst of lm_from_float) may be unaligned. */
void lm_to_float(lm_dtype dtype, const void *src, float *dst, int64_t n);
void lm_from_float(lm_dtype dtype, const float *src, void *dst, int64_t n);

#endif
