/* eval/metric.h - how an answer is scored against references, 0 .. 1. Texts are UTF-8. NaN: memory ran out. */
#ifndef EVAL_METRIC_H
#define EVAL_METRIC_H

#include <stddef.h>

/* Returns the share of references that the answer contains. Upper and lower case are the same. */
double eval_match_all(const char *answer, char *const *gold, size_t n_gold);
/* Returns 1 if the answer contains any of the references, else 0. */
double eval_match_any(const char *answer, char *const *gold, size_t n_gold);

#endif
