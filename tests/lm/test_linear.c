/* Linear layers against double precision, in float32 and in bfloat16, and that a row's bits do not depend on the step it
 * came in. */
#include "lm/linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lm_test.h"

enum { GROUP = 128, MAX_N = 300, MAX_COLS = 700, MAX_ROWS = 900 };

static float noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

static float *noisy(int64_t n, uint64_t seed)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = noise(&seed);
    return x;
}

typedef struct linear_case {
    int64_t rows, cols, n;
    bool accumulate, bias;
} linear_case;

/* A product is off by the roundings of its factors, and each of the sums by half a unit in the last place or so. */
static void check(const linear_case *c, lm_product_type type)
{
    const double each = type == LM_PRODUCT_BF16 ? 2 * 0x1p-8 : 0, sums = (double)c->cols * 0x1p-24;
    float *w = noisy(c->rows * c->cols, 1), *x = noisy(c->n * c->cols, 2), *bias = noisy(c->rows, 3);
    float *y = noisy(c->n * c->rows, 4), *split = malloc((size_t)(c->n * c->rows) * sizeof *y);
    const lm_matrix m = {.dtype = LM_F32, .rows = c->rows, .cols = c->cols, .data = w};
    lm_linear l;
    double *want = malloc((size_t)(c->n * c->rows) * sizeof *want), *size = malloc((size_t)(c->n * c->rows) * sizeof *size);
    for (int64_t t = 0; t < c->n; t++)
        for (int64_t r = 0; r < c->rows; r++) {
            double sum = (c->accumulate ? (double)y[t * c->rows + r] : 0) + (c->bias ? (double)bias[r] : 0);
            double all = fabs(sum);
            for (int64_t i = 0; i < c->cols; i++) {
                const double p = (double)x[t * c->cols + i] * (double)w[r * c->cols + i];
                sum += p;
                all += fabs(p);
            }
            want[t * c->rows + r] = sum;
            size[t * c->rows + r] = all;
        }
    memcpy(split, y, (size_t)(c->n * c->rows) * sizeof *y);
    ok(lm_linear_create(&l, type, 2, GROUP, MAX_N, MAX_COLS, &err));
    lm_linear_apply(&l, &m, c->bias ? bias : NULL, x, LM_F32, c->cols, 0, c->n, y, c->rows, c->accumulate);
    for (int64_t i = 0; i < c->n * c->rows; i++)
        if (!(fabs((double)y[i] - want[i]) <= (each + sums) * size[i] + 1e-30))
            fail_msg("rows %lld cols %lld n %lld: element %lld is %g, not %g", (long long)c->rows, (long long)c->cols,
                     (long long)c->n, (long long)i, (double)y[i], want[i]);
    for (int64_t t = 0, n; t < c->n; t += n) { /* in steps that end on the grid */
        n = c->n - t < GROUP ? c->n - t : GROUP;
        lm_linear_apply(&l, &m, c->bias ? bias : NULL, x + t * c->cols, LM_F32, c->cols, t, n, split + t * c->rows, c->rows,
                        c->accumulate);
    }
    assert_memory_equal(y, split, (size_t)(c->n * c->rows) * sizeof *y);
    assert_false(l.failed);
    lm_linear_destroy(&l);
    free(w), free(x), free(bias), free(y), free(split), free(want), free(size);
}

/* x in bfloat16 gives the bits that the same numbers give in float32: rows alone and in groups. */
static void takes_bfloat16(int64_t n)
{
    enum { rows = 200, cols = 576 };
    float *w = noisy(rows * cols, 1), *x = noisy(n * cols, 2), *y = noisy(n * rows, 3), *z = noisy(n * rows, 3);
    uint16_t *x16 = malloc((size_t)(n * cols) * sizeof *x16);
    const lm_matrix m = {.dtype = LM_F32, .rows = rows, .cols = cols, .data = w};
    lm_linear l;
    lm_to_bf16(LM_F32, x, x16, n * cols);
    lm_to_float(LM_BF16, x16, x, n * cols);
    ok(lm_linear_create(&l, LM_PRODUCT_BF16, 2, GROUP, MAX_N, MAX_COLS, &err));
    lm_linear_apply(&l, &m, NULL, x, LM_F32, cols, 0, n, y, rows, true);
    lm_linear_apply(&l, &m, NULL, x16, LM_BF16, cols, 0, n, z, rows, true);
    assert_memory_equal(y, z, (size_t)(n * rows) * sizeof *y);
    lm_linear_destroy(&l);
    free(w), free(x), free(y), free(z), free(x16);
}

static void check_all(lm_product_type type)
{
    static const linear_case cases[] = {
        {64, 32, 1, false, false},     {900, 576, 1, true, true},     {17, 700, 2, false, true},
        {900, 576, 300, false, false}, {900, 576, 257, true, false},  {576, 512, 128, true, true},
        {33, 96, 129, false, true},    {1, 64, 200, false, false},    {300, 33, 256, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i], type);
}

static void in_float32(void **state)
{
    (void)state;
    check_all(LM_PRODUCT_F32);
}

static void in_bfloat16(void **state)
{
    (void)state;
    lm_linear l;
    if (lm_products_have_bf16()) {
        check_all(LM_PRODUCT_BF16);
        takes_bfloat16(1);
        takes_bfloat16(257);
        return;
    }
    refused(lm_linear_create(&l, LM_PRODUCT_BF16, 1, GROUP, 1, 1, &err), LM_ERROR_UNSUPPORTED, "bfloat16");
    lm_linear_destroy(&l);
}

/* PRISM_PRODUCTS=f32 is what tests and measurements of accuracy go by. */
static void by_environment(void **state)
{
    (void)state;
    char text[64];
    setenv("PRISM_PRODUCTS", "f32", 1);
    assert_non_null(strstr(lm_products_text(text, sizeof text), "float32"));
    unsetenv("PRISM_PRODUCTS");
    assert_non_null(strstr(lm_products_text(text, sizeof text), lm_products_have_bf16() ? "bfloat16" : "float32"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_float32),
        cmocka_unit_test(in_bfloat16),
        cmocka_unit_test(by_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
