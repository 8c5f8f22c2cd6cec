#include "ops.h"

#include <math.h>
#include <string.h>

void lm_rms_norm(const float *x, const float *weight, int64_t n, float eps, float *out)
{
    float sums[8] = {0}; /* eight chains: strict float order would make this loop scalar */
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            sums[j] += x[i + j] * x[i + j];
    double sum = 0;
    for (int j = 0; j < 8; j++)
        sum += (double)sums[j];
    for (; i < n; i++)
        sum += (double)(x[i] * x[i]);
    const float scale = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

/* exp(-x) for the sigmoid, branch-free so that it vectorises (libm's does not without -ffast-math): 2^k times a
 * polynomial on [-ln2/2, ln2/2]. Clamped where silu has long reached its limits; NaN stays NaN. */
static inline float exp_clamped(float x)
{
    const float magic = 0x1.8p23f; /* adding it rounds to the nearest integer */
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shifted = x * 0x1.715476p0f + magic, k = shifted - magic;
    const float r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
    float p = 0x1.6850e4p-10f;
    p = p * r + 0x1.123bccp-7f;
    p = p * r + 0x1.555b98p-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0x1.fffff8p-2f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

void lm_swiglu(float *restrict gate, const float *restrict up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_clamped(-gate[i])) * up[i];
}

double lm_nll(const float *x, int64_t n, int32_t token)
{
    float max = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)max);
    return log(sum) + (double)max - (double)x[token];
}

bool lm_all_finite(const float *x, int64_t n)
{
    uint32_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7f800000;
}

int32_t lm_argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return lm_all_finite(x, n) ? (int32_t)best : -1;
}
