/*
 * lm/linear.h - y = x W^T with W left in its file: rows of W are widened, a cache-sized tile at a time, and each tile is
 * multiplied at once. No copy of the weights ever exists.
 *
 *   W [rows][cols] any type -> tile [<= rows][cols] f32 or bf16, in L2 -> product(x [n][cols], tile) -> y [n][rows]
 *   a single row of x:       -> dot products with the rows as they lie in the file
 *
 * The threads are ours (OpenMP), one tile each; the library of products (product.h) works on the calling thread. A pool
 * of its own beside ours would have two sets of threads waiting for each other on the same cores.
 */
#ifndef LM_LINEAR_H
#define LM_LINEAR_H

#include "product.h"
#include "weights.h"

typedef struct lm_linear {
    int32_t n_thread;
    int32_t group; /* rows of x per product, see lm_linear_apply() */
    bool bf16;     /* W, and x where it is not yet, are rounded to bfloat16, except for products of one row */
    bool failed;   /* a product lacked memory */
    int64_t tile_elements;
    float *tiles;  /* [n_thread][tile_elements] */
    uint16_t *x16; /* [max_n][max_cols], where bf16 */
    lm_products *products;
} lm_linear;

/* Whether products of this type are of bfloat16 here. */
bool lm_linear_rounds(lm_product_type type);

/* group: the session's block size. max_n, max_cols: rows of the largest x, columns of the widest matrix. */
bool lm_linear_create(lm_linear *linear, lm_product_type type, int32_t n_thread, int32_t group, int64_t max_n,
                      int64_t max_cols, lm_error *err);
void lm_linear_destroy(lm_linear *linear);

/*
 * y[t][r] = bias[r] + sum_c x[t][c] W[r][c], added to y where accumulate. Strides in elements; bias may be NULL. x_type:
 * LM_F32, or LM_BF16 where products are of bfloat16.
 *
 * position: of row 0 in the sequence. A library may sum the rows at the edge of a product in another order than those
 * inside, so rows are handed to it in groups that lie on the absolute grid of positions: then a row's result, to the
 * last bit, does not depend on the prefill step that it came in, and neither do the plans made from it.
 */
void lm_linear_apply(lm_linear *linear, const lm_matrix *w, const float *bias, const void *x, lm_dtype x_type,
                     int64_t stride_x, int64_t position, int64_t n, float *y, int64_t stride_y, bool accumulate);

/* The rows ids[0 .. n-1] of w as floats: out[i][cols]. */
void lm_linear_rows(const lm_matrix *w, const int32_t *ids, int64_t n, float *out);

#endif
