/* Rules that turn a row of block masses into a set of blocks. */
#ifndef PRISM_CORE_RULE_H
#define PRISM_CORE_RULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum prism_rule_kind {
    PRISM_RULE_MASS,    /* keeps the best blocks until they hold `threshold` of the mass, forced blocks included */
    PRISM_RULE_RELATIVE /* keeps blocks of at least `threshold` times the row's best mass */
} prism_rule_kind;

typedef struct prism_row_rule {
    prism_rule_kind kind;
    float threshold;
    int32_t n_sink;   /* forced: so many first blocks */
    int32_t n_window; /* forced: so many last blocks, the row's own included */
    int32_t n_last;   /* so many last query blocks of the sequence keep everything */
} prism_row_rule;

/*
 * Sets bits of blocks 0 .. n - 1; block n - 1 is the row's own. Bits that are set already (scores that are not finite)
 * are forced too. A row that keeps nothing gets its own block.
 *   mass      [n] finite, not negative
 *   n_after   query blocks of the sequence after this one
 *   fixed     [n] scratch
 * PRISM_RULE_MASS compares masses as integers (2^-40 of the largest), so that the set does not depend on the order of
 * summation. Ties go to the lower index.
 */
void prism_rule_apply(const prism_row_rule *rule, const double *mass, int32_t n, int32_t n_after, uint64_t *fixed,
                      uint64_t *bits);

#endif
