/*
 * lm/linear.h - y = x W^T with W left in its file: rows of W are widened to float, a cache-sized tile at a time, and
 * each tile goes through BLAS at once. No float copy of the weights ever exists.
 *
 *   W [rows][cols] any type -> tile [<= rows][cols] f32, in L2 -> sgemm(x [n][cols], tile) -> y [n][rows]
 *
 * The threads are ours (OpenMP), one tile each; BLAS is told to use one. A BLAS pool beside ours would have two sets of
 * threads waiting for each other on the same cores, and would leave the widening to one of them.
 */
#ifndef LM_LINEAR_H
#define LM_LINEAR_H

#include "weights.h"

typedef struct lm_linear {
    int32_t n_thread;
    int32_t group;       /* rows of x per BLAS call, see lm_linear_apply() */
    int64_t tile_floats; /* room of one thread's tile */
    float *tiles;        /* [n_thread][tile_floats] */
} lm_linear;

/* group: the session's block size. max_cols: of the widest matrix. Sets the process-wide thread count of OpenBLAS to 1.
 */
bool lm_linear_create(lm_linear *linear, int32_t n_thread, int32_t group, int64_t max_cols, lm_error *err);
void lm_linear_destroy(lm_linear *linear);

/*
 * y[t][r] = bias[r] + sum_c x[t][c] W[r][c], added to y where accumulate. Strides in floats; bias may be NULL.
 *
 * position: of row 0 in the sequence. BLAS sums the rows at the edge of a product in another order than those inside,
 * so rows are handed to it in groups that lie on the absolute grid of positions: then a row's result, to the last bit,
 * does not depend on the prefill step that it came in, and neither do the plans made from it.
 */
void lm_linear_apply(const lm_linear *linear, const lm_matrix *w, const float *bias, const float *x, int64_t stride_x,
                     int64_t position, int64_t n, float *y, int64_t stride_y, bool accumulate);

/* The rows ids[0 .. n-1] of w as floats: out[i][cols]. */
void lm_linear_rows(const lm_matrix *w, const int32_t *ids, int64_t n, float *out);

#endif
