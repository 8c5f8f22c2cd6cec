#include "linear.h"

#include <assert.h>
#include <cblas.h>
#include <omp.h>
#include <stdlib.h>

/* A tile of half a megabyte leaves half of a common L2 to BLAS's own packing. At least 16 rows, so that BLAS has
 * something to work on where rows are long. */
enum { TILE_FLOATS = 128 * 1024, MIN_ROWS = 16 };

bool lm_linear_create(lm_linear *linear, int32_t n_thread, int32_t group, int64_t max_cols, lm_error *err)
{
    *linear = (lm_linear){.n_thread = n_thread, .group = group, .tile_floats = TILE_FLOATS};
    if (linear->tile_floats < max_cols * MIN_ROWS)
        linear->tile_floats = (max_cols * MIN_ROWS + 15) / 16 * 16;
    const size_t bytes = (size_t)n_thread * (size_t)linear->tile_floats * sizeof(float);
    linear->tiles = aligned_alloc(64, bytes);
    if (!linear->tiles)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for %zu bytes of weight tiles", bytes);
#ifdef OPENBLAS_VERSION
    openblas_set_num_threads(1);
#endif
    return true;
}

void lm_linear_destroy(lm_linear *linear)
{
    free(linear->tiles);
    *linear = (lm_linear){0};
}

/* Few tokens: widening a tile for one product costs more than the product, but the memory traffic of the weights
 * dominates both. */
static void tile_product(const float *tile, int64_t rows, int64_t cols, const float *x, int64_t stride_x, int64_t n,
                         float *y, int64_t stride_y, float beta)
{
    if (n == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)rows, (int)cols, 1.0f, tile, (int)cols, x, 1, beta, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)rows, (int)cols, 1.0f, x, (int)stride_x, tile,
                    (int)cols, beta, y, (int)stride_y);
}

void lm_linear_apply(const lm_linear *linear, const lm_matrix *w, const float *bias, const float *x, int64_t stride_x,
                     int64_t position, int64_t n, float *y, int64_t stride_y, bool accumulate)
{
    const int64_t cols = w->cols, bytes = (int64_t)lm_row_bytes(w->dtype, w->cols);
    int64_t tile_rows = TILE_FLOATS / cols;
    tile_rows = tile_rows < MIN_ROWS ? MIN_ROWS : tile_rows / MIN_ROWS * MIN_ROWS;
    /* Small matrices are split evenly, else one thread would have all of them. */
    const int64_t share = (w->rows + linear->n_thread - 1) / linear->n_thread;
    if (tile_rows > share)
        tile_rows = share < MIN_ROWS ? MIN_ROWS : share;
    const int64_t n_tile = (w->rows + tile_rows - 1) / tile_rows;
    assert(tile_rows * cols <= linear->tile_floats);
#pragma omp parallel for schedule(dynamic) num_threads(linear->n_thread)
    for (int64_t i = 0; i < n_tile; i++) {
        float *tile = linear->tiles + (int64_t)omp_get_thread_num() * linear->tile_floats;
        const int64_t first = i * tile_rows, rows = w->rows - first < tile_rows ? w->rows - first : tile_rows;
        lm_to_float(w->dtype, (const uint8_t *)w->data + first * bytes, tile, rows * cols);
        for (int64_t t = 0, count; t < n; t += count) {
            count = linear->group - (position + t) % linear->group;
            count = count < n - t ? count : n - t;
            tile_product(tile, rows, cols, x + t * stride_x, stride_x, count, y + t * stride_y + first, stride_y,
                         accumulate ? 1.0f : 0.0f);
        }
        for (int64_t t = 0; bias && t < n; t++)
            for (int64_t r = 0; r < rows; r++)
                y[t * stride_y + first + r] += bias[first + r];
    }
}

void lm_linear_rows(const lm_matrix *w, const int32_t *ids, int64_t n, float *out)
{
    const size_t bytes = lm_row_bytes(w->dtype, w->cols);
    for (int64_t i = 0; i < n; i++)
        lm_to_float(w->dtype, (const uint8_t *)w->data + (size_t)ids[i] * bytes, out + i * w->cols, w->cols);
}
