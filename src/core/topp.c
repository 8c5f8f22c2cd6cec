#include "core/topp.h"

#include <assert.h>
#include <math.h>

#include "core/half.h"

static const double fixed_one = 0x1p40;

void prism_bits_fill(uint64_t *bits, int32_t begin, int32_t end)
{
    for (int32_t v = begin; v < end; v++)
        prism_bits_set(bits, v);
}

static uint64_t mass_from(const float *weight, const uint64_t *fixed, int32_t n, float cut)
{
    uint64_t mass = 0;
    for (int32_t v = 0; v < n; v++)
        mass += weight[v] >= cut ? fixed[v] : 0;
    return mass;
}

/* Returns the largest cut with mass(weight >= cut) >= target. Bisects on the bits of the float: non-negative floats and
 * their bits have the same order. */
static float find_cut(const float *weight, const uint64_t *fixed, int32_t n, uint64_t target)
{
    uint32_t lo = 0, hi = prism_float_bits(1.0f) + 1; /* mass(lo) >= target > mass(hi) = 0 */
    while (hi - lo > 1) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (mass_from(weight, fixed, n, prism_float_from_bits(mid)) >= target)
            lo = mid;
        else
            hi = mid;
    }
    return prism_float_from_bits(lo);
}

void prism_topp_row(const float *weight, int32_t n, float top_p, uint64_t *fixed, uint64_t *bits)
{
    if (top_p >= 1.0f) {
        prism_bits_fill(bits, 0, n);
        return;
    }
    uint64_t total = 0;
    for (int32_t v = 0; v < n; v++) {
        assert(weight[v] >= 0.0f && weight[v] <= 1.0f);
        fixed[v] = (uint64_t)((double)weight[v] * fixed_one);
        total += fixed[v];
    }
    const uint64_t target = (uint64_t)ceil((double)top_p * (double)total);
    if (total == 0 || target == 0)
        return;

    const float cut = find_cut(weight, fixed, n, target);
    uint64_t before = mass_from(weight, fixed, n, nextafterf(cut, 2.0f));
    for (int32_t v = 0; v < n; v++) {
        if (weight[v] > cut) {
            prism_bits_set(bits, v);
        } else if (weight[v] == cut && before < target) {
            prism_bits_set(bits, v);
            before += fixed[v];
        }
    }
}
