/* eval/metric_internal.h - the tokens that metrics compare. */
#ifndef EVAL_METRIC_INTERNAL_H
#define EVAL_METRIC_INTERNAL_H

#include "metric.h"
#include "text.h"

/* Slices of a text that outlives them. */
typedef struct metric_tokens {
    lm_string *items;
    size_t n;
} metric_tokens;

/* Appends the tokens of n bytes; room is the caller's (n tokens are enough). English: what stands between white space.
 * Chinese: characters, and runs of other letters and digits; other punctuation is a token each. */
void metric_split(const char *s, size_t n, eval_language language, metric_tokens *out);

bool metric_same(const lm_string *a, const lm_string *b);
int metric_compare(const void *a, const void *b); /* of lm_string, for qsort() */

#endif
