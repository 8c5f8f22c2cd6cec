/* Columns and diagonals of token-level attention: choosing the best, and what they cover. */
#ifndef PRISM_CORE_LINES_H
#define PRISM_CORE_LINES_H

#include <stdint.h>

/* Indices of the k largest of x (not negative, may be +inf), ascending; lower index first among equals. Returns how
 * many: k, or n where that is less. */
int32_t prism_top_k(const float *x, int32_t n, int32_t k, int32_t *index);

/* How many entries, best first, have an inclusive running sum of at most part * total: FlexPrefill's count. x finite
 * and not negative; fixed [n] scratch. Sums are integers (2^-40 of the largest). */
int32_t prism_count_within(const float *x, int32_t n, double target_part, uint64_t *fixed);

/*
 * MInference's keys for the 64 queries at positions end - 64 .. end - 1 (end a multiple of 64), as bits over positions
 * 0 .. end - 1: each distance, farthest first, claims the 64 keys that end at max(end - distance, 64); a claim that
 * touches the stretch before lengthens it by 64, as upstream does. Columns count where they lie before end.
 */
void prism_lines_mark(const int32_t *column, int32_t n_column, const int32_t *slash, int32_t n_slash, int32_t end,
                      uint64_t *keys);

/*
 * Splits the marked keys of a row into whole blocks and single keys: block v is whole if all keys of it before n_key
 * are marked. Returns both counts; index and key NULL: only those.
 */
typedef struct prism_line_count {
    int32_t n_block, n_key;
} prism_line_count;

prism_line_count prism_lines_split(const uint64_t *keys, int32_t n_key, int32_t block_size, int32_t *index,
                                   int32_t *key);

#endif
