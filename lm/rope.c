#include "rope.h"

#include <math.h>
#include <stdlib.h>

bool lm_rope_build(const lm_config *c, const float *factors, prism_rope *out, lm_error *err)
{
    const lm_rope *r = &c->rope;
    prism_status status = prism_rope_init(out, c->d_head);
    if (status == PRISM_OK)
        status = prism_rope_add(out, r->layout, 0, r->n_dim, r->base);
    if (status == PRISM_OK && r->scaling == LM_ROPE_LINEAR)
        status = prism_rope_scale_linear(out, r->factor);
    if (status == PRISM_OK && r->scaling == LM_ROPE_YARN)
        status =
            prism_rope_scale_yarn(out, r->base, r->factor, r->n_ctx_original, r->beta_fast, r->beta_slow, r->truncate);
    if (status == PRISM_OK && r->scaling == LM_ROPE_LLAMA3)
        status = prism_rope_scale_llama3(out, r->factor, r->low_freq_factor, r->high_freq_factor, r->n_ctx_original);
    if (status == PRISM_OK && r->scaling == LM_ROPE_FACTORS)
        status = prism_rope_scale_factors(out, factors, r->n_dim / 2);
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_INPUT, "the model's RoPE parameters are out of range (%s)",
                       prism_status_name(status));
    return true;
}

bool lm_rope_table_create(lm_rope_table *t, const prism_rope *rope, const lm_config *config, int32_t n_max,
                          lm_error *err)
{
    const size_t n = (size_t)n_max * (size_t)rope->n_pair * 2;
    *t = (lm_rope_table){.rope = rope,
                         .layout = config->rope.layout,
                         .n_max = n_max,
                         .scale = config->rope.attention_factor,
                         .step = malloc(n * sizeof *t->step),
                         .cos_sin = malloc(n * sizeof *t->cos_sin)};
    if (!t->step || !t->cos_sin) {
        lm_rope_table_destroy(t);
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for %zu bytes of rotation tables", n * 12);
    }
    double *at = t->step;
    for (int32_t i = 0; i < n_max; i++)
        for (int32_t j = 0; j < rope->n_pair; j++, at += 2) {
            at[0] = cos(i * rope->frequency[j]);
            at[1] = sin(i * rope->frequency[j]);
        }
    return true;
}

void lm_rope_table_destroy(lm_rope_table *t)
{
    free(t->step);
    free(t->cos_sin);
    *t = (lm_rope_table){0};
}

/* cos(a + b) and sin(a + b) with a at the last multiple of n_max and b from the table: in double, so that position
 * 131071 is as exact as position 1, and split by the position alone, so that tiles which start elsewhere give the same
 * bits. */
void lm_rope_table_set(lm_rope_table *t, int64_t first, int32_t n)
{
    const int32_t n_pair = t->rope->n_pair;
    double cos_a[PRISM_MAX_D_HEAD / 2], sin_a[PRISM_MAX_D_HEAD / 2];
    for (int32_t i = 0; i < n; i++) {
        const int64_t offset = (first + i) % t->n_max;
        for (int32_t j = 0; (i == 0 || offset == 0) && j < n_pair; j++) {
            const double angle = (double)(first + i - offset) * t->rope->frequency[j];
            cos_a[j] = t->scale * cos(angle);
            sin_a[j] = t->scale * sin(angle);
        }
        const double *b = t->step + (size_t)offset * (size_t)n_pair * 2;
        float *out = t->cos_sin + (size_t)i * (size_t)n_pair * 2;
        for (int32_t j = 0; j < n_pair; j++) {
            out[j] = (float)(cos_a[j] * b[2 * j] - sin_a[j] * b[2 * j + 1]);
            out[n_pair + j] = (float)(sin_a[j] * b[2 * j] + cos_a[j] * b[2 * j + 1]);
        }
    }
}

void lm_rope_apply(const lm_rope_table *t, int32_t i, float *heads, int32_t n_head)
{
    const int32_t n_pair = t->rope->n_pair, d = t->rope->d_head;
    const float *restrict c = t->cos_sin + (size_t)i * (size_t)n_pair * 2, *restrict s = c + n_pair;
    /* Two loops with fixed strides instead of one over rope->dim: these vectorise. */
    for (int32_t h = 0; h < n_head; h++) {
        float *restrict x = heads + (size_t)h * (size_t)d;
        if (t->layout == PRISM_ROPE_HALF_SPLIT) {
            for (int32_t j = 0; j < n_pair; j++) {
                const float a = x[j], b = x[j + n_pair];
                x[j] = a * c[j] - b * s[j];
                x[j + n_pair] = b * c[j] + a * s[j];
            }
        } else {
            for (int32_t j = 0; j < n_pair; j++) {
                const float a = x[2 * j], b = x[2 * j + 1];
                x[2 * j] = a * c[j] - b * s[j];
                x[2 * j + 1] = b * c[j] + a * s[j];
            }
        }
    }
}
