/* Rules that turn a row of block masses into a set of blocks. */
#ifndef PRISM_CORE_RULE_H
#define PRISM_CORE_RULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum prism_rule_kind {
    PRISM_RULE_MASS,    /* best first until what is kept, forced blocks included, holds `threshold` of the mass */
    PRISM_RULE_RELATIVE /* at least `threshold` of the row's best */
} prism_rule_kind;

typedef struct prism_row_rule {
    prism_rule_kind kind;
    float threshold;
    int32_t n_sink;   /* forced: the first blocks */
    int32_t n_window; /* forced: the last blocks up to the row's own */
    int32_t n_last;   /* the sequence's last query blocks keep everything */
} prism_row_rule;

/*
 * Sets bits of blocks 0 .. n - 1; n - 1 is the row's own. Bits that are set already are forced, too: blocks whose score
 * is not finite. A row left empty gets its own block.
 *   mass      [n] finite, not negative
 *   n_after   query blocks of the sequence after this one
 *   fixed     [n] scratch
 * Masses are compared as integers (2^-40 of the largest) under PRISM_RULE_MASS, so that the set does not depend on the
 * order of summation; equal ones go lower index first.
 */
void prism_rule_apply(const prism_row_rule *rule, const double *mass, int32_t n, int32_t n_after, uint64_t *fixed,
                      uint64_t *bits);

#endif
