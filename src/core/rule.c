#include "core/rule.h"

#include <math.h>

#include "core/topp.h"

static const double fixed_one = 0x1p40;

static bool has_bit(const uint64_t *bits, int32_t v)
{
    return bits[v >> 6] >> (v & 63) & 1;
}

static double largest(const double *mass, int32_t n)
{
    double max = 0;
    for (int32_t v = 0; v < n; v++)
        max = mass[v] > max ? mass[v] : max;
    return max;
}

static uint64_t mass_from(const uint64_t *fixed, int32_t n, uint64_t cut)
{
    uint64_t mass = 0;
    for (int32_t v = 0; v < n; v++)
        mass += fixed[v] >= cut ? fixed[v] : 0;
    return mass;
}

/* Counts forced blocks first. Then keeps the others, best first, while the mass before them is below the target. */
static void keep_mass(double threshold, const double *mass, int32_t n, uint64_t *fixed, uint64_t *bits)
{
    const double max = largest(mass, n);
    if (max <= 0)
        return;
    uint64_t total = 0, forced = 0;
    for (int32_t v = 0; v < n; v++) {
        fixed[v] = (uint64_t)(mass[v] / max * fixed_one);
        total += fixed[v];
        if (has_bit(bits, v)) {
            forced += fixed[v];
            fixed[v] = 0;
        }
    }
    const uint64_t target = (uint64_t)ceil(threshold * (double)total);
    if (forced >= target)
        return;
    /* Finds the largest cut whose blocks hold the missing mass. */
    const uint64_t missing = target - forced;
    uint64_t lo = 0, hi = (uint64_t)fixed_one + 1;
    while (hi - lo > 1) {
        const uint64_t mid = lo + (hi - lo) / 2;
        if (mass_from(fixed, n, mid) >= missing)
            lo = mid;
        else
            hi = mid;
    }
    uint64_t before = mass_from(fixed, n, lo + 1);
    for (int32_t v = 0; v < n; v++) {
        if (fixed[v] > lo) {
            prism_bits_set(bits, v);
        } else if (fixed[v] == lo && before < missing) {
            prism_bits_set(bits, v);
            before += fixed[v];
        }
    }
}

static void keep_relative(double threshold, const double *mass, int32_t n, uint64_t *bits)
{
    const double max = largest(mass, n);
    for (int32_t v = 0; v < n && max > 0; v++)
        if (mass[v] >= threshold * max)
            prism_bits_set(bits, v);
}

void prism_rule_apply(const prism_row_rule *rule, const double *mass, int32_t n, int32_t n_after, uint64_t *fixed,
                      uint64_t *bits)
{
    if (n_after < rule->n_last || (rule->kind == PRISM_RULE_MASS && rule->threshold >= 1)) {
        prism_bits_fill(bits, 0, n);
        return;
    }
    prism_bits_fill(bits, 0, rule->n_sink < n ? rule->n_sink : n);
    prism_bits_fill(bits, rule->n_window < n ? n - rule->n_window : 0, n);
    if (rule->kind == PRISM_RULE_MASS)
        keep_mass((double)rule->threshold, mass, n, fixed, bits);
    else
        keep_relative((double)rule->threshold, mass, n, bits);
    for (int32_t v = 0; v < n; v++)
        if (has_bit(bits, v))
            return;
    prism_bits_set(bits, n - 1);
}
