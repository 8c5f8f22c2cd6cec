/* FlexPrefill's formulas for one head (arXiv 2502.20766): which pattern, how large its budgets, which blocks. */
#ifndef PRISM_CORE_FLEX_H
#define PRISM_CORE_FLEX_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Returns the Jensen-Shannon distance sqrt(KL(a|m) / 2 + KL(b|m) / 2), m = (a + b) / 2, natural logarithm, 0 log 0 = 0.
 * Normalises both masses first. Returns 1 (far apart) if a mass is 0 everywhere.
 */
double prism_flex_distance(const float *a, const float *b, int32_t n);

/* Writes sum[v] = sum of x over [v * block, (v + 1) * block). An x that is +inf counts as 0. */
void prism_flex_block_sums(const float *x, int32_t n, int32_t block, float *sum);

/* Returns how many blocks hold gamma of the token-level mass x, between the two bounds. x is finite. */
int32_t prism_flex_budget(const float *x, int32_t n, int32_t block, double gamma, int32_t min_block, int32_t max_block,
                          uint64_t *fixed);

/*
 * Chooses among the pooled scores of a whole head. prob has rows i = 0 .. n_row - 1 of first + i + 1 probabilities
 * each, one after the other. Keeps the largest of all rows together while their inclusive sum is at most gamma * n_row;
 * the first goes first among equals. bits: n_word words for each row.
 */
void prism_flex_keep_flat(const float *prob, int32_t first, int32_t n_row, double gamma, uint64_t *fixed,
                          uint64_t *bits, int32_t n_word);

#endif
