/* Rotary frequencies: how fast each dimension of a head turns. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "prism_attn/prism.h"

static const double two_pi = 6.283185307179586476925;

prism_status prism_rope_init(prism_rope *rope, int32_t d_head)
{
    if (!rope || d_head < 1 || d_head > PRISM_MAX_D_HEAD)
        return PRISM_ERROR_INVALID;
    memset(rope, 0, sizeof *rope);
    rope->d_head = d_head;
    return PRISM_OK;
}

static bool has_room(const prism_rope *rope, int32_t n_pair)
{
    return rope && rope->d_head >= 1 && rope->d_head <= PRISM_MAX_D_HEAD && rope->n_pair >= 0 && n_pair >= 0 &&
           n_pair <= rope->d_head / 2 - rope->n_pair;
}

prism_status prism_rope_add(prism_rope *rope, prism_rope_layout layout, int32_t first_dim, int32_t n_dim, double base)
{
    if (n_dim < 2 || n_dim % 2 || !has_room(rope, n_dim / 2) || first_dim < 0 || first_dim > rope->d_head - n_dim ||
        !(base > 0) || !isfinite(base) || (layout != PRISM_ROPE_HALF_SPLIT && layout != PRISM_ROPE_INTERLEAVED))
        return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < n_dim / 2; j++) {
        const int32_t pair = rope->n_pair++;
        const int32_t a = layout == PRISM_ROPE_HALF_SPLIT ? j : 2 * j;
        const int32_t b = layout == PRISM_ROPE_HALF_SPLIT ? j + n_dim / 2 : 2 * j + 1;
        rope->dim[pair][0] = (int16_t)(first_dim + a);
        rope->dim[pair][1] = (int16_t)(first_dim + b);
        rope->frequency[pair] = pow(base, -2.0 * j / n_dim);
    }
    return PRISM_OK;
}

prism_status prism_rope_scale_linear(prism_rope *rope, double factor)
{
    if (!has_room(rope, 0) || !(factor > 0) || !isfinite(factor))
        return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < rope->n_pair; j++)
        rope->frequency[j] /= factor;
    return PRISM_OK;
}

prism_status prism_rope_scale_yarn(prism_rope *rope, double base, double factor, double n_ctx_original,
                                   double beta_fast, double beta_slow, int truncate)
{
    if (!has_room(rope, 0) || !(factor > 0) || !isfinite(factor) || !(base > 1) || !isfinite(base) ||
        !(n_ctx_original > 0) || !(beta_slow > 0) || !(beta_fast > beta_slow))
        return PRISM_ERROR_INVALID;
    /* The (real-valued) pair index that turns beta times within the original context. */
    const double per_log = rope->n_pair / log(base);
    double low = per_log * log(n_ctx_original / (beta_fast * two_pi));
    double high = per_log * log(n_ctx_original / (beta_slow * two_pi));
    if (truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, 2 * rope->n_pair - 1);
    if (high <= low)
        high = low + 0.001;
    for (int32_t j = 0; j < rope->n_pair; j++) {
        const double ramp = fmin(fmax((j - low) / (high - low), 0), 1);
        rope->frequency[j] *= ramp / factor + (1 - ramp);
    }
    return PRISM_OK;
}

prism_status prism_rope_scale_llama3(prism_rope *rope, double factor, double low_freq_factor, double high_freq_factor,
                                     double n_ctx_original)
{
    if (!has_room(rope, 0) || !(factor > 0) || !isfinite(factor) || !(low_freq_factor > 0) ||
        !(high_freq_factor > low_freq_factor) || !(n_ctx_original > 0))
        return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < rope->n_pair; j++) {
        const double turns = n_ctx_original * rope->frequency[j] / two_pi;
        const double keep = fmin(fmax((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0), 1);
        rope->frequency[j] *= (1 - keep) / factor + keep;
    }
    return PRISM_OK;
}

prism_status prism_rope_scale_factors(prism_rope *rope, const float *factor, int32_t n_factor)
{
    if (!has_room(rope, 0) || !factor || n_factor != rope->n_pair)
        return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < n_factor; j++)
        if (!(factor[j] > 0) || !isfinite(factor[j]))
            return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < n_factor; j++)
        rope->frequency[j] /= factor[j];
    return PRISM_OK;
}

prism_status prism_rope_set_axes(prism_rope *rope, const int32_t *axis_of_pair, int32_t n_pair, const double *advance,
                                 int32_t n_axis)
{
    if (!has_room(rope, 0) || !axis_of_pair || !advance || n_pair != rope->n_pair)
        return PRISM_ERROR_INVALID;
    for (int32_t j = 0; j < n_pair; j++) {
        const int32_t axis = axis_of_pair[j];
        if (axis < 0 || axis >= n_axis || !(advance[axis] >= 0) || !isfinite(advance[axis]))
            return PRISM_ERROR_INVALID;
    }
    for (int32_t j = 0; j < n_pair; j++)
        rope->frequency[j] *= advance[axis_of_pair[j]];
    return PRISM_OK;
}
