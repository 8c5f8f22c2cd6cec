#include "core/lines.h"

#include <assert.h>
#include <math.h>

#include "core/half.h"
#include "core/topp.h"

enum { line_rows = 64 }; /* queries, and keys of a diagonal, that MInference treats together */

static const double fixed_one = 0x1p40;

static int32_t count_from(const float *x, int32_t n, float cut)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += x[i] >= cut;
    return count;
}

/* Returns the largest cut that at least k of x reach. Bisects on the bits of the float. */
static float find_cut(const float *x, int32_t n, int32_t k)
{
    uint32_t lo = 0, hi = prism_float_bits(INFINITY) + 1;
    while (hi - lo > 1) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (count_from(x, n, prism_float_from_bits(mid)) >= k)
            lo = mid;
        else
            hi = mid;
    }
    return prism_float_from_bits(lo);
}

int32_t prism_top_k(const float *x, int32_t n, int32_t k, int32_t *index)
{
    if (k <= 0)
        return 0;
    int32_t m = 0, left = k < n ? k : n;
    const float cut = k < n ? find_cut(x, n, k) : 0.0f;
    const float above = cut < INFINITY ? nextafterf(cut, INFINITY) : NAN; /* nothing is above +inf */
    left -= count_from(x, n, above);
    for (int32_t i = 0; i < n; i++) {
        if (x[i] > cut)
            index[m++] = i;
        else if (x[i] == cut && left > 0) {
            index[m++] = i;
            left--;
        }
    }
    return m;
}

static uint64_t mass_from(const float *x, const uint64_t *fixed, int32_t n, float cut, int32_t *count)
{
    uint64_t mass = 0;
    int32_t m = 0;
    for (int32_t i = 0; i < n; i++) {
        mass += x[i] >= cut ? fixed[i] : 0;
        m += x[i] >= cut;
    }
    *count = m;
    return mass;
}

int32_t prism_count_within(const float *x, int32_t n, double target_part, uint64_t *fixed)
{
    float max = 0;
    for (int32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    if (max <= 0)
        return n;
    uint64_t total = 0;
    for (int32_t i = 0; i < n; i++) {
        fixed[i] = (uint64_t)((double)x[i] / (double)max * fixed_one);
        total += fixed[i];
    }
    const uint64_t target = (uint64_t)(target_part * (double)total);
    if (target >= total)
        return n;
    /* Finds the largest value at which the running sum passes the target. */
    int32_t count;
    uint32_t lo = 0, hi = prism_float_bits(max) + 1;
    while (hi - lo > 1) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (mass_from(x, fixed, n, prism_float_from_bits(mid), &count) > target)
            lo = mid;
        else
            hi = mid;
    }
    const float cut = prism_float_from_bits(lo);
    const uint64_t above = mass_from(x, fixed, n, nextafterf(cut, INFINITY), &count);
    const uint64_t each = (uint64_t)((double)cut / (double)max * fixed_one);
    return count + (each ? (int32_t)((target - above) / each) : 0);
}

/* Sets bits [begin, end), whole words where possible. */
static void fill(uint64_t *bits, int32_t begin, int32_t end)
{
    for (int32_t at = begin; at < end;) {
        const int32_t in = at & 63, n = end - at < 64 - in ? end - at : 64 - in;
        const uint64_t ones = n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
        bits[at >> 6] |= ones << in;
        at += n;
    }
}

void prism_lines_mark(const int32_t *column, int32_t n_column, const int32_t *slash, int32_t n_slash, int32_t end,
                      uint64_t *keys)
{
    int32_t from = 0, to = 0; /* the stretch so far; empty at first */
    for (int32_t i = n_slash - 1; i >= 0; i--) {
        if (slash[i] >= end)
            continue;
        const int32_t claim = end - slash[i] > line_rows ? end - slash[i] : line_rows;
        if (to == 0 || claim > to + line_rows) {
            fill(keys, from, to);
            from = claim - line_rows;
            to = claim;
        } else if (claim > to) {
            to += line_rows;
        }
    }
    fill(keys, from, to < end ? to : end); /* the last claim may overshoot into keys that no query here sees */
    for (int32_t i = 0; i < n_column && column[i] < end; i++)
        keys[column[i] >> 6] |= UINT64_C(1) << (column[i] & 63);
}

/* Word w of a block of len keys, without the bits past them. */
static uint64_t block_word(const uint64_t *word, int32_t w, int32_t len)
{
    const int32_t left = len - w * 64;
    return left >= 64 ? word[w] : word[w] & ((UINT64_C(1) << left) - 1);
}

prism_line_count prism_lines_split(const uint64_t *keys, int32_t n_key, int32_t block_size, int32_t *index,
                                   int32_t *key)
{
    prism_line_count n = {0, 0};
    assert(block_size % 64 == 0);
    for (int32_t begin = 0; begin < n_key; begin += block_size) {
        const int32_t len = n_key - begin < block_size ? n_key - begin : block_size;
        const uint64_t *word = keys + begin / 64;
        int32_t marked = 0;
        for (int32_t w = 0; w * 64 < len; w++)
            marked += __builtin_popcountll(block_word(word, w, len));
        if (marked == len) {
            if (index)
                index[n.n_block] = begin / block_size;
            n.n_block++;
            continue;
        }
        for (int32_t w = 0; key && w * 64 < len; w++)
            for (uint64_t x = block_word(word, w, len); x; x &= x - 1)
                *key++ = begin + w * 64 + __builtin_ctzll(x);
        n.n_key += marked;
    }
    return n;
}
