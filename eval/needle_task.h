/* eval/needle_task.h - needle prompts (needle.h) as tasks: one for each haystack, pair of types and depth. */
#ifndef EVAL_NEEDLE_TASK_H
#define EVAL_NEEDLE_TASK_H

#include "eval/needle.h"
#include "eval/task.h"

typedef struct eval_needle_options {
    const eval_haystack *haystacks;
    int32_t n_haystack;
    eval_payload key, value;
    int32_t n_key;
    const double *depths;
    int32_t n_depth;
    int32_t n_ctx;     /* prompt, answer and n_reserve */
    int32_t n_reserve; /* tokens of BOS and of the model's chat template */
    int32_t n_sample;  /* per task */
    uint64_t seed;     /* sample i of every task has seed + i: the same needles at every depth */
    const char *book;  /* text of the book haystack; borrowed while tasks are open */
    size_t n_book;
} eval_needle_options;

/* Tasks named needle/HAYSTACK/KEY-VALUE/kKEYS/dDEPTH, e.g. "needle/book/word-number/k4/d0.50". The caller closes each
 * and free()s *tasks; the model must outlive them. */
bool eval_needle_open(const eval_needle_options *options, const lm_model *model, eval_task **tasks, int32_t *n_task,
                      lm_error *err);

#endif
