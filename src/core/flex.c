#include "core/flex.h"

#include <math.h>

#include "core/half.h"
#include "core/lines.h"
#include "core/topp.h"

static const double fixed_one = 0x1p40; /* of a probability: a head's rows together stay far below 2^64 */

static double total(const float *x, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum;
}

/* x log(x / m), 0 at x = 0 */
static double term(double x, double m)
{
    return x > 0 ? x * log(x / m) : 0;
}

double prism_flex_distance(const float *a, const float *b, int32_t n)
{
    const double all_a = total(a, n), all_b = total(b, n);
    if (!(all_a > 0 && all_b > 0))
        return 1;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const double p = (double)a[i] / all_a, q = (double)b[i] / all_b, m = (p + q) / 2;
        sum += term(p, m) + term(q, m);
    }
    return sqrt(sum > 0 ? sum / 2 : 0);
}

void prism_flex_block_sums(const float *x, int32_t n, int32_t block, float *sum)
{
    for (int32_t v = 0; v * block < n; v++) {
        const int32_t end = (v + 1) * block < n ? (v + 1) * block : n;
        double s = 0;
        for (int32_t i = v * block; i < end; i++)
            s += x[i] < INFINITY ? (double)x[i] : 0;
        sum[v] = (float)s;
    }
}

int32_t prism_flex_budget(const float *x, int32_t n, int32_t block, double gamma, int32_t min_block, int32_t max_block,
                          uint64_t *fixed)
{
    const double all = total(x, n);
    const int32_t need = all > 0 ? 1 + prism_count_within(x, n, gamma, fixed) : 1, n_block = need / block + 1;
    return n_block > max_block ? max_block : n_block < min_block ? min_block : n_block;
}

static uint64_t mass_from(const float *prob, const uint64_t *fixed, int64_t n, float cut, int64_t *count)
{
    uint64_t mass = 0;
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        mass += prob[i] >= cut ? fixed[i] : 0;
        m += prob[i] >= cut;
    }
    *count = m;
    return mass;
}

/* Sets the bits of entries above cut, and of the first `ties` entries at it. */
static void keep_from(const float *prob, int32_t first, int32_t n_row, float cut, int64_t ties, uint64_t *bits,
                      int32_t n_word)
{
    for (int32_t i = 0; i < n_row; prob += first + i + 1, i++)
        for (int32_t v = 0; v <= first + i; v++) {
            const bool tie = prob[v] == cut && ties > 0;
            ties -= tie;
            if (tie || prob[v] > cut)
                prism_bits_set(bits + (int64_t)i * n_word, v);
        }
}

void prism_flex_keep_flat(const float *prob, int32_t first, int32_t n_row, double gamma, uint64_t *fixed,
                          uint64_t *bits, int32_t n_word)
{
    const int64_t n = (int64_t)n_row * first + (int64_t)n_row * (n_row + 1) / 2;
    uint64_t all = 0;
    for (int64_t i = 0; i < n; i++)
        all += fixed[i] = (uint64_t)((double)prob[i] * fixed_one);
    const uint64_t target = (uint64_t)(gamma * n_row * fixed_one);
    if (target >= all) {
        keep_from(prob, first, n_row, -1.0f, 0, bits, n_word);
        return;
    }
    int64_t count;
    uint32_t lo = 0, hi = prism_float_bits(1.0f) + 2; /* a lone block's 1 may have been rounded up by an ulp */
    while (hi - lo > 1) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (mass_from(prob, fixed, n, prism_float_from_bits(mid), &count) > target)
            lo = mid;
        else
            hi = mid;
    }
    const float cut = prism_float_from_bits(lo);
    const uint64_t above = mass_from(prob, fixed, n, nextafterf(cut, INFINITY), &count);
    const uint64_t each = (uint64_t)((double)cut * fixed_one);
    keep_from(prob, first, n_row, cut, each ? (int64_t)((target - above) / each) : 0, bits, n_word);
}
