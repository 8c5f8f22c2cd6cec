/*
 * lm/product.h - products of matrices on the processor: oneDNN where the build found it (product_dnnl.c), else BLAS
 * (product_blas.c). Each call computes on the calling thread; the runner has threads of its own.
 */
#ifndef LM_PRODUCT_H
#define LM_PRODUCT_H

#include "lm.h"

typedef struct lm_products lm_products;

/* y[t][r] = sum_c x[t][c] w[r][c], added to y where accumulate; t < n, r < rows, c < cols. Strides in elements. x and w
 * are float32 or bfloat16, y is float32, and so are all sums. */
typedef struct lm_product_args {
    const void *x, *w;
    int64_t n, rows, cols, stride_x, stride_y; /* w: rows follow each other */
    float *y;
    bool accumulate;
} lm_product_args;

/* Returns "oneDNN 2.6.3" or "BLAS". */
const char *lm_products_library(void);
/* Returns whether this processor multiplies bfloat16 faster than float32. */
bool lm_products_have_bf16(void);

bool lm_products_create(int32_t n_thread, lm_products **out, lm_error *err);
void lm_products_destroy(lm_products *p); /* NULL is allowed */

void lm_product_f32(lm_products *p, const lm_product_args *a);
/* Only where lm_products_have_bf16(). thread: below n_thread; at most one call for it at a time. false: no memory. */
bool lm_product_bf16(lm_products *p, int32_t thread, const lm_product_args *a);

#endif
