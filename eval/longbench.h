/*
 * eval/longbench.h - the 21 tasks of LongBench, from local files in its own format.
 *
 *   FOLDER/<task>.jsonl, one object a line: input, context, answers, all_classes (and length, dataset, language, _id)
 *
 * docs/tasks.md has the tasks, where to get the files, and how the scores relate to published ones.
 */
#ifndef EVAL_LONGBENCH_H
#define EVAL_LONGBENCH_H

#include "task.h"

#define EVAL_LONGBENCH_N_TASK 21
extern const char *const eval_longbench_names[EVAL_LONGBENCH_N_TASK];

#define EVAL_LONGBENCH_N_CATEGORY 6
extern const char *const eval_longbench_categories[EVAL_LONGBENCH_N_CATEGORY];

typedef enum eval_truncation {
    EVAL_TRUNCATE_MIDDLE = 0, /* as LongBench: the prompt's two halves stay, what lies between them goes */
    EVAL_TRUNCATE_LEFT = 1    /* as lm-eval: the prompt's end stays */
} eval_truncation;

typedef struct eval_longbench_options {
    const char *folder; /* where <task>.jsonl are */
    const char *tasks;  /* comma list of names or categories (single_doc_qa, ...), or all */
    int32_t n_sample;   /* at most, per task: the first ones of the file; 0: all */
    int32_t n_ctx;      /* longer prompts are cut so that prompt, n_reserve and answer fit */
    int32_t n_reserve;  /* tokens of BOS and of the model's chat template */
    eval_truncation truncation;
} eval_longbench_options;

/* All tasks, all samples, 32768 tokens, no reserve, cut in the middle. folder is the caller's to set. */
void eval_longbench_options_init(eval_longbench_options *options);

/* Opens the tasks in the order of eval_longbench_names and checks every line that will be used. The caller closes each
 * one and free()s *tasks; the model must outlive them. The files are mapped, and must not shrink while tasks are open.
 * USAGE: an unknown name, no folder; INPUT: a file is missing or a line malformed (the message has its number);
 * MEMORY. */
bool eval_longbench_open(const eval_longbench_options *options, const lm_model *model, eval_task **tasks,
                         int32_t *n_task, lm_error *err);

/* Index into eval_longbench_categories; -1: no such task. */
int32_t eval_longbench_category(const char *task);

/* The two averages in use, over the tasks that were run: scores[i] belongs to names[i]. Names that are no LongBench
 * task are left out; NaN where none is left. flat: mean of tasks. category: mean of the categories' means. */
double eval_longbench_flat_average(const char *const *names, const double *scores, int32_t n);
double eval_longbench_category_average(const char *const *names, const double *scores, int32_t n);

#endif
