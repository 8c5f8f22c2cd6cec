/* Columns and diagonals of token-level attention: chooses the best, and finds the keys that they cover. */
#ifndef PRISM_CORE_LINES_H
#define PRISM_CORE_LINES_H

#include <stdint.h>

/* Writes the ascending indices of the k largest x; the lower index goes first among equals. Returns how many: the
 * smaller of k and n. x is not negative, and may be +inf. */
int32_t prism_top_k(const float *x, int32_t n, int32_t k, int32_t *index);

/* Returns how many of x, best first, have an inclusive running sum of at most target_part * total: FlexPrefill's count.
 * x is finite and not negative; fixed [n] is scratch. Sums are integers (2^-40 of the largest). */
int32_t prism_count_within(const float *x, int32_t n, double target_part, uint64_t *fixed);

/*
 * Marks MInference's keys for the 64 queries at positions end - 64 .. end - 1, as bits over positions 0 .. end - 1. end
 * is a multiple of 64. Each distance, farthest first, claims the 64 keys that end at max(end - distance, 64). A claim
 * that touches the stretch before it lengthens that stretch by 64, as upstream does. Columns before end are marked too.
 */
void prism_lines_mark(const int32_t *column, int32_t n_column, const int32_t *slash, int32_t n_slash, int32_t end,
                      uint64_t *keys);

/*
 * Splits the marked keys of a row into whole blocks and single keys. A block is whole if all its keys before n_key are
 * marked. Returns both counts. index or key NULL: does not write blocks or keys.
 */
typedef struct prism_line_count {
    int32_t n_block, n_key;
} prism_line_count;

prism_line_count prism_lines_split(const uint64_t *keys, int32_t n_key, int32_t block_size, int32_t *index,
                                   int32_t *key);

#endif
