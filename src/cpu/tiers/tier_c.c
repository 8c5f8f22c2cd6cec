/* Reference kernels: what every tier is judged by. Plain loops, no ISA flags. */
#include <math.h>
#include <string.h>

#include "core/half.h"
#include "core/problem.h"
#include "cpu/tiers/tier.h"

enum { panel_c = 16 };

static void load_row_f32_c(float *dst, const void *src, int32_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void load_row_f16_c(float *dst, const void *src, int32_t n)
{
    const uint16_t *x = src;
    for (int32_t j = 0; j < n; j++)
        dst[j] = prism_f16_to_f32(x[j]);
}

static void load_row_bf16_c(float *dst, const void *src, int32_t n)
{
    const uint16_t *x = src;
    for (int32_t j = 0; j < n; j++)
        dst[j] = prism_bf16_to_f32(x[j]);
}

/* A block is a float16 factor and 32 signed bytes; the product is rounded to float32. */
static void load_row_q8_0_c(float *dst, const void *src, int32_t n)
{
    const char *block = src;
    for (int32_t j = 0; j < n; j += PRISM_Q8_0_BLOCK, block += PRISM_Q8_0_BYTES) {
        uint16_t half;
        int8_t value[PRISM_Q8_0_BLOCK];
        memcpy(&half, block, sizeof half);
        memcpy(value, block + sizeof half, sizeof value);
        const float factor = prism_f16_to_f32(half);
        for (int32_t i = 0; i < PRISM_Q8_0_BLOCK; i++)
            dst[j + i] = factor * (float)value[i];
    }
}

static void add_row_q8_0_c(float *sum, const void *src, int32_t n)
{
    const char *block = src;
    float x[PRISM_Q8_0_BLOCK];
    for (int32_t j = 0; j < n; j += PRISM_Q8_0_BLOCK, block += PRISM_Q8_0_BYTES) {
        load_row_q8_0_c(x, block, PRISM_Q8_0_BLOCK);
        for (int32_t i = 0; i < PRISM_Q8_0_BLOCK; i++)
            sum[j + i] += x[i];
    }
}

static void add_row_f32_c(float *sum, const void *src, int32_t n)
{
    const float *x = src;
    for (int32_t j = 0; j < n; j++)
        sum[j] += x[j];
}

static void add_row_f16_c(float *sum, const void *src, int32_t n)
{
    const uint16_t *x = src;
    for (int32_t j = 0; j < n; j++)
        sum[j] += prism_f16_to_f32(x[j]);
}

static void add_row_bf16_c(float *sum, const void *src, int32_t n)
{
    const uint16_t *x = src;
    for (int32_t j = 0; j < n; j++)
        sum[j] += prism_bf16_to_f32(x[j]);
}

static void store_row_f32_c(void *dst, const float *src, int32_t n, float factor)
{
    float *y = dst;
    for (int32_t j = 0; j < n; j++)
        y[j] = src[j] * factor;
}

static void store_row_f16_c(void *dst, const float *src, int32_t n, float factor)
{
    uint16_t *y = dst;
    for (int32_t j = 0; j < n; j++)
        y[j] = prism_f32_to_f16(src[j] * factor);
}

static void store_row_bf16_c(void *dst, const float *src, int32_t n, float factor)
{
    uint16_t *y = dst;
    for (int32_t j = 0; j < n; j++)
        y[j] = prism_f32_to_bf16(src[j] * factor);
}

static void gemm_c(float *c, int64_t ldc, const float *alpha, const float *a, int64_t lda, const float *b, int32_t m,
                   int32_t n, int32_t k)
{
    for (int32_t i = 0; i < m; i++)
        for (int32_t j0 = 0; j0 < n; j0 += panel_c) {
            const float *panel = b + (int64_t)j0 * k;
            float *row = c + i * ldc + j0;
            for (int32_t j = 0; j < panel_c; j++)
                row[j] = alpha ? alpha[i] * row[j] : 0.0f;
            for (int32_t l = 0; l < k; l++)
                for (int32_t j = 0; j < panel_c; j++)
                    row[j] += a[i * lda + l] * panel[l * panel_c + j];
        }
}

static void dot_rows_c(float *y, const float *a, int64_t lda, const float *x, int32_t m, int32_t k)
{
    for (int32_t i = 0; i < m; i++) {
        y[i] = 0;
        for (int32_t l = 0; l < k; l++)
            y[i] += a[i * lda + l] * x[l];
    }
}

static void sum_rows_c(float *y, float alpha, const float *w, const float *a, int64_t lda, int32_t m, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        y[j] *= alpha;
    for (int32_t i = 0; i < m; i++)
        for (int32_t j = 0; j < n; j++)
            y[j] += w[i] * a[i * lda + j];
}

static void softmax_c(float *logit, int64_t ld, int32_t m, int32_t n, const int32_t *n_valid, prism_softmax *state,
                      float *alpha)
{
    for (int32_t i = 0; i < m; i++) {
        float *x = logit + i * ld, max = state[i].max, sum = 0;
        for (int32_t j = 0; j < n_valid[i]; j++)
            max = fmaxf(max, x[j]);
        const float base = max == -INFINITY ? 0.0f : max; /* nothing but -inf so far: every weight is 0 */
        for (int32_t j = 0; j < n_valid[i]; j++)
            sum += x[j] = exp2f(x[j] - base);
        for (int32_t j = n_valid[i]; j < n; j++)
            x[j] = 0.0f;
        alpha[i] = exp2f(state[i].max - base);
        state[i] = (prism_softmax){max, state[i].sum * alpha[i] + sum};
    }
}

static float scale_max_c(float *x, int32_t n, float factor, bool *finite)
{
    float max = -INFINITY;
    *finite = true;
    for (int32_t j = 0; j < n; j++) {
        x[j] *= factor;
        max = fmaxf(max, x[j]);
        *finite = *finite && isfinite(x[j]);
    }
    return max;
}

static void exp_row_c(float *x, int32_t n, float max)
{
    for (int32_t j = 0; j < n; j++)
        x[j] = expf(x[j] - max);
}

static void add_spread_c(float *x, const float *spread, const float *bias, int32_t n, float half, float slow,
                         float cap)
{
    for (int32_t j = 0; j < n; j++) /* fminf() passes over a NaN */
        x[j] += bias[j] + (spread ? fminf(half * spread[j] / sqrtf(1.0f + slow * spread[j]), cap) : 0.0f);
}

static void add_error_c(float *sum, const float *a, const float *b, int32_t n, float factor)
{
    for (int32_t j = 0; j < n; j++)
        sum[j] += factor * a[j] * (b[j] * sqrtf(b[j]));
}

void prism_tier_c(prism_tier *k)
{
    *k = (prism_tier){
        .panel = panel_c,
        .load_row = {load_row_f32_c, load_row_f16_c, load_row_bf16_c, load_row_q8_0_c},
        .add_row = {add_row_f32_c, add_row_f16_c, add_row_bf16_c, add_row_q8_0_c},
        .store_row = {store_row_f32_c, store_row_f16_c, store_row_bf16_c, NULL},
        .gemm = gemm_c,
        .dot_rows = dot_rows_c,
        .sum_rows = sum_rows_c,
        .softmax = softmax_c,
        .scale_max = scale_max_c,
        .exp_row = exp_row_c,
        .add_spread = add_spread_c,
        .add_error = add_error_c,
    };
}
