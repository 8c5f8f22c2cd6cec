/* Top-p: the smallest set of blocks whose mass reaches p. */
#ifndef PRISM_CORE_TOPP_H
#define PRISM_CORE_TOPP_H

#include <stdint.h>

/*
 * Sets bit v of bits for every block v of a row that top-p keeps.
 *   weight  [n] unnormalised probabilities, finite, in [0, 1], the largest 1 (or all 0)
 *   fixed   [n] scratch
 * Goes through the blocks, best weight first and lower index first among equals, and keeps a block while the blocks
 * before it hold less than top_p of the total mass (paper, section 3.4). Masses are integers (2^-40 of the largest
 * weight), so the set depends neither on the order of summation nor on the machine. top_p >= 1 keeps everything.
 */
void prism_topp_row(const float *weight, int32_t n, float top_p, uint64_t *fixed, uint64_t *bits);

/* Sets bits [begin, end). */
void prism_bits_fill(uint64_t *bits, int32_t begin, int32_t end);

static inline void prism_bits_set(uint64_t *bits, int32_t v)
{
    bits[v >> 6] |= UINT64_C(1) << (v & 63);
}

#endif
