#include "linear.h"

#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tile of half a megabyte leaves half of a common L2 to the library's own packing. At least 16 rows, so that it has
 * something to work on where rows are long. */
enum { TILE_ELEMENTS = 128 * 1024, MIN_ROWS = 16 };

bool lm_linear_rounds(lm_product_type type)
{
    const char *wanted = getenv("PRISM_PRODUCTS");
    if (type == LM_PRODUCT_AUTO)
        return lm_products_have_bf16() && !(wanted && strcmp(wanted, "f32") == 0);
    return type == LM_PRODUCT_BF16;
}

const char *lm_products_text(char *text, size_t n)
{
    snprintf(text, n, "%s, %s", lm_products_library(), lm_linear_rounds(LM_PRODUCT_AUTO) ? "bfloat16" : "float32");
    return text;
}

bool lm_linear_create(lm_linear *linear, lm_product_type type, int32_t n_thread, int32_t group, int64_t max_n,
                      int64_t max_cols, lm_error *err)
{
    *linear = (lm_linear){.n_thread = n_thread, .group = group, .tile_elements = TILE_ELEMENTS};
    if (type == LM_PRODUCT_BF16 && !lm_products_have_bf16())
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "this processor, or %s, does not multiply bfloat16",
                       lm_products_library());
    linear->bf16 = lm_linear_rounds(type);
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
    const void *x; /* as the caller gave it */
    lm_dtype x_type;
    int64_t stride_x;
    const uint16_t *x16; /* the same in bfloat16; NULL: products are of float32 */
    int64_t stride_x16, position, n, stride_y;
    float *y;
    bool accumulate;
    int64_t first, rows; /* of W */
} tile_job;

static const uint8_t *row_of_weights(const tile_job *j, int64_t row)
{
    return (const uint8_t *)j->w->data + (j->first + row) * (int64_t)lm_row_bytes(j->w->dtype, j->w->cols);
}

/* Row t of x alone is bound by reading the weights: they are multiplied as they lie in the file. */
static void multiply_row(const lm_linear *linear, const tile_job *j, int64_t t, int32_t thread)
{
    const int64_t cols = j->w->cols;
    float *wide = linear->tiles + (int64_t)thread * linear->tile_elements, *y = j->y + t * j->stride_y + j->first;
    const float *x = (const float *)j->x + t * j->stride_x;
    if (j->x_type == LM_BF16) {
        lm_to_float(LM_BF16, (const uint16_t *)j->x + t * j->stride_x, wide, cols);
        x = wide;
    }
    for (int64_t r = 0; r < j->rows; r++)
        y[r] = (j->accumulate ? y[r] : 0) + lm_row_dot(j->w->dtype, row_of_weights(j, r), x, cols);
}

static bool multiply_tile(const lm_linear *linear, const tile_job *j, int32_t thread)
{
    const int64_t cols = j->w->cols;
    float *tile = linear->tiles + (int64_t)thread * linear->tile_elements;
    bool ok = true, is_wide = false; /* the tile holds its weights */
    for (int64_t t = 0, count; t < j->n; t += count) {
        count = linear->group - (j->position + t) % linear->group;
        count = count < j->n - t ? count : j->n - t;
        if (count == 1) {
            multiply_row(linear, j, t, thread);
            is_wide = false;
            continue;
        }
        if (!is_wide && j->x16)
            lm_to_bf16(j->w->dtype, row_of_weights(j, 0), (uint16_t *)tile, j->rows * cols);
        else if (!is_wide)
            lm_to_float(j->w->dtype, row_of_weights(j, 0), tile, j->rows * cols);
        is_wide = true;
        const lm_product_args a = {.x = j->x16 ? (const void *)(j->x16 + t * j->stride_x16)
                                               : (const float *)j->x + t * j->stride_x,
                                   .w = tile,
                                   .n = count,
                                   .rows = j->rows,
                                   .cols = cols,
                                   .stride_x = j->x16 ? j->stride_x16 : j->stride_x,
                                   .stride_y = j->stride_y,
                                   .y = j->y + t * j->stride_y + j->first,
                                   .accumulate = j->accumulate};
        if (j->x16)
            ok = lm_product_bf16(linear->products, thread, &a) && ok;
        else
            lm_product_f32(linear->products, &a);
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

void lm_linear_apply(lm_linear *linear, const lm_matrix *w, const float *bias, const void *x, lm_dtype x_type,
                     int64_t stride_x, int64_t position, int64_t n, float *y, int64_t stride_y, bool accumulate)
{
    const int64_t tile_rows = rows_of_a_tile(linear, w), n_tile = (w->rows + tile_rows - 1) / tile_rows;
    const bool rounds = linear->bf16 && n > 1 && x_type == LM_F32;
    bool ok = true;
    assert(tile_rows * w->cols <= linear->tile_elements && (x_type == LM_F32 || (x_type == LM_BF16 && linear->bf16)));
    tile_job job = {.w = w,
                    .x = x,
                    .x_type = x_type,
                    .stride_x = stride_x,
                    .x16 = rounds ? linear->x16 : x_type == LM_BF16 ? x : NULL,
                    .stride_x16 = rounds ? w->cols : stride_x,
                    .position = position,
                    .n = n,
                    .stride_y = stride_y,
                    .y = y,
                    .accumulate = accumulate};
#pragma omp parallel num_threads(linear->n_thread) firstprivate(job)
    {
        omp_set_num_threads(1); /* of the library, called from here: a team of one thread does not keep it from that */
#pragma omp for schedule(static)
        for (int64_t t = 0; t < (rounds ? n : 0); t++)
            lm_to_bf16(LM_F32, (const float *)x + t * stride_x, linear->x16 + t * w->cols, w->cols);
#pragma omp for schedule(dynamic) reduction(&& : ok)
        for (int64_t i = 0; i < n_tile; i++) {
            job.first = i * tile_rows;
            job.rows = w->rows - job.first < tile_rows ? w->rows - job.first : tile_rows;
            ok = multiply_tile(linear, &job, omp_get_thread_num()) && ok;
            for (int64_t t = 0; bias && t < n; t++)
                for (int64_t r = job.first; r < job.first + job.rows; r++)
                    y[t * stride_y + r] += bias[r];
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
