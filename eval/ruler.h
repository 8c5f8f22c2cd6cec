/*
 * eval/ruler.h - the 13 tasks of RULER, made to measure for a context length and a tokenizer.
 *
 *   niah_single_1..3  niah_multikey_1..3  niah_multivalue  niah_multiquery     needles in a haystack
 *   vt  cwe  fwe                                                               variables, common and frequent words
 *   qa_squad  qa_hotpot                                                        questions over documents
 *
 * docs/tasks.md has what each task asks and where it differs from the original generator.
 */
#ifndef EVAL_RULER_H
#define EVAL_RULER_H

#include "task.h"

#define EVAL_RULER_N_TASK 13
const char *eval_ruler_name(int32_t i); /* of task i, 0 .. EVAL_RULER_N_TASK - 1 */

typedef struct eval_ruler_options {
    const char *tasks;    /* comma list of names or groups: all, niah (8), qa (2), synthetic (all but qa) */
    int32_t n_ctx;        /* prompt, answer prefix, answer and n_reserve together stay within it */
    int32_t n_reserve;    /* tokens of BOS and of the model's chat template */
    int32_t n_sample;     /* per task; a QA task has at most as many as its file has questions */
    uint64_t seed;        /* the same seed and tokenizer: the same prompts */
    const char *haystack; /* text file; NULL: the book that is bundled, see eval_bundled_file() */
    const char *essays; /* folder of .txt files, used in the order of their names instead of the haystack; NULL: none */
    const char *squad;  /* SQuAD v2 development set, JSON; wanted by qa_squad only */
    const char *hotpot; /* HotpotQA development set with distractors, JSON; wanted by qa_hotpot only */
} eval_ruler_options;

/* All synthetic tasks, 4096 tokens, no reserve, 100 samples, seed 42, the bundled book. */
void eval_ruler_options_init(eval_ruler_options *options);

/* Opens the tasks in the order of eval_ruler_name(). The caller closes each one (in any order) and free()s *tasks; the
 * model must outlive them. A sample's prompt and answer_prefix are to be joined by one space where the model has no
 * chat template; that is how the size was counted.
 * USAGE: an unknown name, a context too short for a task, or a QA task without its file (the message says where it is
 * to be had); INPUT: a file that cannot be read or is not what it should be; MEMORY. */
bool eval_ruler_open(const eval_ruler_options *options, const lm_model *model, eval_task **tasks, int32_t *n_task,
                     lm_error *err);

#endif
