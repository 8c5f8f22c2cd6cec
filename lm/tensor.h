/*
 * lm/tensor.h - element types of weight files, views of tensors in them, and conversion to and from float.
 */
#ifndef LM_TENSOR_H
#define LM_TENSOR_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The types of weights, one row each. Readers, writers, products, the GPU and messages take a type's facts from here:
 *   NAME       the type is LM_NAME; this is also its name in files and messages
 *   name       blocks.h widens it: lm_unpack_name() a float, lm_split_name() a block
 *   ggml       its number in GGUF files
 *   file       llama.cpp's number of a file that mostly holds it; -1 where none is written
 *   n, bytes   elements and bytes of a block; the last axis of a tensor is a whole number of blocks
 *   alignment  of its data
 *   narrow     the function in tensor.c that writes it; NULL: it is only read
 */
/* clang-format off */
#define LM_FLOAT_TYPES(ROW)                                 \
    /*  NAME  name  ggml  file   n  bytes  alignment  narrow */ \
    ROW(F32,  f32,     0,    0,  1,     4,         4, narrow_f32) \
    ROW(F16,  f16,     1,    1,  1,     2,         2, narrow_f16) \
    ROW(BF16, bf16,   30,   32,  1,     2,         2, narrow_bf16)
#define LM_BLOCK_TYPES(ROW)                                 \
    ROW(Q8_0,   q8_0,    8,    7,  32,    34,         2, narrow_q8_0) \
    ROW(Q4_0,   q4_0,    2,   -1,  32,    18,         2, NULL) \
    ROW(Q4_1,   q4_1,    3,   -1,  32,    20,         2, NULL) \
    ROW(Q5_0,   q5_0,    6,   -1,  32,    22,         2, NULL) \
    ROW(Q5_1,   q5_1,    7,   -1,  32,    24,         2, NULL) \
    ROW(Q2_K,   q2_k,   10,   -1, 256,    84,         2, NULL) \
    ROW(Q3_K,   q3_k,   11,   -1, 256,   110,         2, NULL) \
    ROW(Q4_K,   q4_k,   12,   -1, 256,   144,         2, NULL) \
    ROW(Q5_K,   q5_k,   13,   -1, 256,   176,         2, NULL) \
    ROW(Q6_K,   q6_k,   14,   -1, 256,   210,         2, NULL) \
    ROW(IQ4_NL, iq4_nl, 20,   -1,  32,    18,         2, NULL) \
    ROW(IQ4_XS, iq4_xs, 23,   -1, 256,   136,         2, NULL) \
    ROW(MXFP4,  mxfp4,  39,   -1,  32,    17,         1, NULL)
#define LM_WEIGHT_TYPES(ROW) LM_FLOAT_TYPES(ROW) LM_BLOCK_TYPES(ROW)

/* Types that a safetensors file may hold but weights may not have: NAME, bytes and alignment. */
#define LM_OTHER_TYPES(ROW) \
    ROW(F64, 8) ROW(U8, 1) ROW(I8, 1) ROW(U16, 2) ROW(I16, 2) ROW(U32, 4) ROW(I32, 4) ROW(U64, 8) ROW(I64, 8) \
    ROW(BOOL, 1) ROW(F8_E4M3, 1) ROW(F8_E5M2, 1)

#define LM_DTYPE_ENUM(NAME, ...) LM_##NAME,
typedef enum lm_dtype { LM_WEIGHT_TYPES(LM_DTYPE_ENUM) LM_OTHER_TYPES(LM_DTYPE_ENUM) LM_DTYPE_COUNT } lm_dtype;
#undef LM_DTYPE_ENUM
/* clang-format on */

/* The row of a type. */
typedef struct lm_dtype_row {
    const char *name;
    int32_t ggml, file; /* -1 for a type that no weight has */
    int32_t block, bytes, alignment;
    void (*widen)(const uint8_t *src, float *dst, int64_t n); /* NULL: no weight has this type */
    void (*widen_avx2)(const uint8_t *src, float *dst, int64_t n);
    void (*narrow)(const float *src, uint8_t *dst, int64_t n); /* NULL: this type is not written */
} lm_dtype_row;

extern const lm_dtype_row lm_dtypes[LM_DTYPE_COUNT];

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

/* Returns "F32", "BF16", ...; "?" for a value that is no type. */
const char *lm_dtype_name(lm_dtype dtype);
/* Finds a type by its name, or by its number in GGUF files. */
bool lm_dtype_find(const char *name, lm_dtype *out);
bool lm_dtype_find_ggml(uint32_t number, lm_dtype *out);
/* Returns the name of a GGUF type, whether or not this runner reads it; "unknown" for other numbers. */
const char *lm_ggml_name(uint32_t number);
/* Writes "F32, F16, ... or MXFP4" into text, for messages, and returns text: all types of weights; if written, only
 * those that lm_from_float() writes. */
const char *lm_dtype_names(bool written, char *text, size_t n);

/* Returns the bytes of a tensor of this shape; false if a dimension is negative, on overflow, or if the last axis is no
 * whole number of blocks. */
bool lm_shape_bytes(lm_dtype dtype, int32_t n_dim, const int64_t *dim, uint64_t *out);
/* Returns the bytes of a row of cols elements, a whole number of blocks. */
size_t lm_row_bytes(lm_dtype dtype, int64_t cols);
/* Writes "[2, 3]" into text, for messages, and returns text. */
const char *lm_shape_text(int32_t n_dim, const int64_t *dim, char *text, size_t n);

/* Lists of tensors of one file. The first two sort the list and check it; where: the file's name, for messages.
 * INPUT: two tensors share bytes, or a name. Empty tensors share no bytes. */
bool lm_tensors_apart(lm_tensor *list, size_t n, const char *where, lm_error *err);
bool lm_tensors_by_name(lm_tensor *list, size_t n, const char *where, lm_error *err);
/* Finds a tensor in a list that lm_tensors_by_name() sorted; NULL if there is none. */
const lm_tensor *lm_tensors_find(const lm_tensor *list, size_t n, const char *name);

/* Converts n elements of a type of weights, a whole number of blocks, to float and back. Widening is exact; narrowing
 * rounds to nearest, ties to even, and Q8_0 as ggml's reference: scale = largest magnitude / 127, halves away from
 * zero. src and dst do not overlap; the side that is no float may be unaligned. */
void lm_to_float(lm_dtype dtype, const void *src, float *dst, int64_t n);
void lm_from_float(lm_dtype dtype, const float *src, void *dst, int64_t n);
/* Converts n elements of a type of weights to bfloat16, rounded as above, for products: numbers below 2^-126 in magnitude
 * may become 0, as the instructions that multiply bfloat16 read them anyway. */
void lm_to_bf16(lm_dtype dtype, const void *src, uint16_t *dst, int64_t n);
/* Returns the sum of w[i] x[i] over n weights at src, a whole number of blocks; in float32, in an order of its own. */
float lm_row_dot(lm_dtype dtype, const void *src, const float *x, int64_t n);

#endif
