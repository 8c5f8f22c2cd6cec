#include "linear.h"

#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tile of half a megabyte leaves half of a common L2 to the library's own packing. At least 16 rows, so that it has
 * something to work on where rows are long. */
enum { TILE_ELEMENTS = 128 * 1024, MIN_ROWS = 16 };

static bool rounds(lm_product_type type)
{
    const char *wanted = getenv("PRISM_PRODUCTS");
    if (type == LM_PRODUCT_AUTO)
        return lm_products_have_bf16() && !(wanted && strcmp(wanted, "f32") == 0);
    return type == LM_PRODUCT_BF16;
}

const char *lm_products_text(char *text, size_t n)
{
    snprintf(text, n, "%s, %s", lm_products_library(), rounds(LM_PRODUCT_AUTO) ? "bfloat16" : "float32");
    return text;
}

bool lm_linear_create(lm_linear *linear, lm_product_type type, int32_t n_thread, int32_t group, int64_t max_n,
                      int64_t max_cols, lm_error *err)
{
    *linear = (lm_linear){.n_thread = n_thread, .group = group, .tile_elements = TILE_ELEMENTS};
    if (type == LM_PRODUCT_BF16 && !lm_products_have_bf16())
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "this processor, or %s, does not multiply bfloat16",
                       lm_products_library());
    linear->bf16 = rounds(type);
    if (linear->tile_elements < max_cols * MIN_ROWS)
        linear->tile_elements = (max_cols * MIN_ROWS + 15) / 16 * 16;
    const size_t bytes = (size_t)n_thread * (size_t)linear->tile_elements * sizeof *linear->tiles;
    const size_t x_bytes = (size_t)(max_n * max_cols) * sizeof *linear->x16;
    linear->tiles = aligned_alloc(64, bytes);
    if (linear->bf16)
        linear->x16 = aligned_alloc(64, (x_bytes + 63) / 64 * 64);
    if (!linear->tiles || (linear->bf16 && !linear->x16))
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for %zu bytes of weight tiles", bytes + x_bytes);
    return lm_products_create(n_thread, &linear->products, err);
}

void lm_linear_destroy(lm_linear *linear)
{
    lm_products_destroy(linear->products);
    free(linear->tiles);
    free(linear->x16);
    *linear = (lm_linear){0};
}

/* One tile of W against every row of x, group after group. */
typedef struct tile_job {
    const lm_matrix *w;
    const float *x;
    const uint16_t *x16; /* the same rounded, [n][cols]; NULL: products are of float32 */
    int64_t stride_x, position, n, stride_y;
    float *y;
    bool accumulate;
    int64_t first, rows; /* of W */
} tile_job;

static bool multiply_tile(lm_linear *linear, const tile_job *j, int32_t thread)
{
    const int64_t cols = j->w->cols;
    float *tile = linear->tiles + (int64_t)thread * linear->tile_elements;
    const uint8_t *src = (const uint8_t *)j->w->data + j->first * (int64_t)lm_row_bytes(j->w->dtype, cols);
    bool ok = true, is_float = false, is_rounded = false;
    for (int64_t t = 0, count; t < j->n; t += count) {
        count = linear->group - (j->position + t) % linear->group;
        count = count < j->n - t ? count : j->n - t;
        lm_product_args a = {.x = j->x + t * j->stride_x,
                             .w = tile,
                             .n = count,
                             .rows = j->rows,
                             .cols = cols,
                             .stride_x = j->stride_x,
                             .stride_y = j->stride_y,
                             .y = j->y + t * j->stride_y + j->first,
                             .accumulate = j->accumulate};
        if (!j->x16 || count == 1) { /* a single row is bound by reading the weights */
            if (!is_float)
                lm_to_float(j->w->dtype, src, tile, j->rows * cols);
            lm_product_f32(linear->products, &a);
            is_float = true, is_rounded = false;
            continue;
        }
        if (!is_rounded)
            lm_to_bf16(j->w->dtype, src, (uint16_t *)tile, j->rows * cols);
        a.x = j->x16 + t * cols;
        a.stride_x = cols;
        ok = lm_product_bf16(linear->products, thread, &a) && ok;
        is_float = false, is_rounded = true;
    }
    return ok;
}

static int64_t rows_of_a_tile(const lm_linear *linear, const lm_matrix *w)
{
    /* Small matrices are split evenly, else one thread would have all of them. */
    const int64_t share = (w->rows + linear->n_thread - 1) / linear->n_thread;
    int64_t rows = TILE_ELEMENTS / w->cols;
    rows = rows < MIN_ROWS ? MIN_ROWS : rows / MIN_ROWS * MIN_ROWS;
    return rows <= share ? rows : share < MIN_ROWS ? MIN_ROWS : share;
}

void lm_linear_apply(lm_linear *linear, const lm_matrix *w, const float *bias, const float *x, int64_t stride_x,
                     int64_t position, int64_t n, float *y, int64_t stride_y, bool accumulate)
{
    const int64_t tile_rows = rows_of_a_tile(linear, w), n_tile = (w->rows + tile_rows - 1) / tile_rows;
    const bool rounded = linear->bf16 && n > 1;
    bool ok = true;
    assert(tile_rows * w->cols <= linear->tile_elements);
#pragma omp parallel num_threads(linear->n_thread)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < (rounded ? n : 0); t++)
            lm_to_bf16(LM_F32, x + t * stride_x, linear->x16 + t * w->cols, w->cols);
#pragma omp for schedule(dynamic) reduction(&& : ok)
        for (int64_t i = 0; i < n_tile; i++) {
            const int64_t first = i * tile_rows, left = w->rows - first, rows = left < tile_rows ? left : tile_rows;
            const tile_job job = {.w = w,
                                  .x = x,
                                  .x16 = rounded ? linear->x16 : NULL,
                                  .stride_x = stride_x,
                                  .position = position,
                                  .n = n,
                                  .stride_y = stride_y,
                                  .y = y,
                                  .accumulate = accumulate,
                                  .first = first,
                                  .rows = rows};
            ok = multiply_tile(linear, &job, omp_get_thread_num()) && ok;
            for (int64_t t = 0; bias && t < n; t++)
                for (int64_t r = 0; r < rows; r++)
                    y[t * stride_y + first + r] += bias[first + r];
        }
    }
    linear->failed |= !ok;
}

void lm_linear_rows(const lm_matrix *w, const int32_t *ids, int64_t n, float *out)
{
    const size_t bytes = lm_row_bytes(w->dtype, w->cols);
    for (int64_t i = 0; i < n; i++)
        lm_to_float(w->dtype, (const uint8_t *)w->data + (size_t)ids[i] * bytes, out + i * w->cols, w->cols);
}
