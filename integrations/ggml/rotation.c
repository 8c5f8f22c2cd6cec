/*
 * rotation: what turned the queries. The graph still holds it: the attention's query is a view of the output of a ROPE
 * operation, or of that times a Hadamard matrix where the cache is quantised. Frequencies are those of ggml's
 * documented parameters, YaRN's interpolation included. Keys were turned alike.
 */
#include "plugin.h"

#include <math.h>

enum { mode_interleaved = 0, mode_half_split = 2, mode_sections = 8, mode_mixed_sections = 40 };

static double yarn_pair(double n_dim, double n_ctx, double turns, double base)
{
    return n_dim * log(n_ctx / (turns * 2 * M_PI)) / (2 * log(base));
}

/* Share of the unscaled frequency in pair j. */
static double yarn_share(const ggml_tensor *rope, int32_t j)
{
    const double n_dim = rope->op_params[1], n_ctx = rope->op_params[4], base = float_param(rope, 5);
    const double low = fmax(0, floor(yarn_pair(n_dim, n_ctx, float_param(rope, 9), base)));
    const double high = fmin(n_dim - 1, ceil(yarn_pair(n_dim, n_ctx, float_param(rope, 10), base)));
    const double y = (j - low) / fmax(0.001, high - low);
    return (1 - fmin(1, fmax(0, y))) * float_param(rope, 7);
}

static void scale_frequencies(const ggml_tensor *rope, prism_rope *out)
{
    const float *factor = rope->src[2] ? rope->src[2]->data : NULL;
    const double interpolation = float_param(rope, 6);
    for (int32_t j = 0; j < out->n_pair; j++) {
        const double f = out->frequency[j] / (factor ? factor[j] : 1);
        const double share = float_param(rope, 7) != 0 ? yarn_share(rope, j) : 0;
        out->frequency[j] = f * interpolation * (1 - share) + f * share;
    }
}

static bool read_rope(const ggml_tensor *t, int32_t d_head, prism_rope *out)
{
    const int32_t n_dim = t->op_params[1], mode = t->op_params[2];
    /* With sections the coordinate differs between pairs, but text advances all of them alike. */
    const bool half_split = mode == mode_half_split || mode == mode_sections || mode == mode_mixed_sections;
    if ((!half_split && mode != mode_interleaved) || t->ne[0] != d_head || n_dim > d_head)
        return false;
    if (prism_rope_init(out, d_head) ||
        prism_rope_add(out, half_split ? PRISM_ROPE_HALF_SPLIT : PRISM_ROPE_INTERLEAVED, 0, n_dim, float_param(t, 5)))
        return false;
    scale_frequencies(t, out);
    return true;
}

/* The matrix as ggml uses it: symmetric, orthonormal, entry (i, j) negative where i & j has an odd number of bits. */
static bool is_hadamard(const ggml_tensor *t)
{
    const int64_t n = t->ne[0];
    if (t->type != GGML_TYPE_F32 || t->ne[1] != n || t->ne[2] != 1 || n < 2 || (n & (n - 1)) || !t->data ||
        t->nb[0] != 4 || t->nb[1] != 4 * (size_t)n)
        return false;
    const float *x = t->data, size = 1 / sqrtf((float)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            const float want = __builtin_parityll((unsigned long long)(i & j)) ? -size : size;
            if (fabsf(x[i * n + j] - want) > 1e-5f * size)
                return false;
        }
    return true;
}

void plugin_unmix(float *x, int32_t n, int32_t n_mixed)
{
    const float size = 1 / sqrtf((float)n_mixed);
    for (int32_t from = 0; from < n; from += n_mixed) {
        float *y = x + from;
        for (int32_t half = 1; half < n_mixed; half *= 2)
            for (int32_t i = 0; i < n_mixed; i += 2 * half)
                for (int32_t j = i; j < i + half; j++) {
                    const float a = y[j], b = y[j + half];
                    y[j] = a + b;
                    y[j + half] = a - b;
                }
        for (int32_t i = 0; i < n_mixed; i++)
            y[i] *= size;
    }
}

static bool keeps_elements(int32_t op)
{
    const ggml_op_codes *c = &ggml.op;
    return op == c->view || op == c->permute || op == c->reshape || op == c->cont || op == c->scale ||
           op == c->rms_norm;
}

static int64_t n_element(const ggml_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

void plugin_rotation_find(const ggml_tensor *q, int32_t d_head, plugin_rotation *rotation)
{
    rotation->found = false;
    rotation->n_mixed = 0;
    const int64_t n = n_element(q);
    for (const ggml_tensor *t = q; t && n_element(t) == n;) {
        if (t->op == ggml.op.rope) {
            rotation->found = read_rope(t, d_head, &rotation->rope);
            return;
        }
        if (t->op == ggml.op.mul_mat && !rotation->n_mixed && t->src[0] && is_hadamard(t->src[0]) &&
            d_head % t->src[0]->ne[0] == 0) {
            rotation->n_mixed = (int32_t)t->src[0]->ne[0];
            t = t->src[1];
        } else if (keeps_elements(t->op)) {
            t = t->src[0];
        } else {
            return;
        }
    }
}
