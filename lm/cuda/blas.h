/*
 * lm/cuda/blas.h - the few entry points of cuBLAS that the runner calls, from the library found at run time.
 *
 * cuBLAS is half a gigabyte that not every machine with a GPU has, and its headers fewer still: it is loaded by name
 * (libcublas.so.13, then .12; LD_LIBRARY_PATH counts), and the prototypes stand here. Both versions agree on them.
 */
#ifndef LM_CUDA_BLAS_H
#define LM_CUDA_BLAS_H

#include "../error.h"

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lm_blas {
    void *handle; /* cublasHandle_t */
    bool bf16;    /* what products read: bfloat16, or float16 */
} lm_blas;

/* On the current device; work goes to stream. RUN: no cuBLAS, or it does not start. */
bool lm_blas_create(lm_blas *blas, bool bf16, cudaStream_t stream, lm_error *err);
void lm_blas_destroy(lm_blas *blas); /* {0} is allowed */

/* y [n][rows] = x [n][cols] W^T [rows][cols], or added to y. 16 bits in, float32 sums and result. NULL, or why it
 * failed. */
const char *lm_blas_product(const lm_blas *blas, const void *w, int64_t rows, int64_t cols, const void *x, int32_t n,
                            float *y, bool accumulate);

/* "cuBLAS 13.1.0" */
bool lm_blas_describe(char *text, size_t n, lm_error *err);

#endif
