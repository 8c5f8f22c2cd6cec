/*
 * eval/task.h - a task: questions with known answers, and how an answer is scored.
 *
 *   eval_task.make(i) -> eval_sample -> the model's answer -> eval_task.score() in 0 .. 1
 *
 * run.h knows this interface only. Each family of tasks fills it (needle_task.c, ruler.c).
 */
#ifndef EVAL_TASK_H
#define EVAL_TASK_H

#include "lm/lm.h"

/* One question. All memory is the sample's: eval_sample_free(). */
typedef struct eval_sample {
    char *prompt;        /* what a user would say; put into the model's chat template where the model has one */
    char *answer_prefix; /* how the answer begins, or NULL; given to the model after the prompt: as the start of its
                            turn, or after one space where there is no chat template */
    char **gold;         /* [n_gold] reference answers */
    size_t n_gold;
    int32_t n_answer;     /* most tokens to generate */
    bool stop_at_newline; /* the answer ends at the first newline that follows text */
} eval_sample;

void eval_sample_free(eval_sample *sample); /* {0} is allowed */

typedef struct eval_task eval_task;
struct eval_task {
    char name[64];
    int32_t n_sample;
    void *data; /* the family's own; freed by close */
    /* Sample i, 0 <= i < n_sample; the same every time. */
    bool (*make)(const eval_task *task, int32_t i, eval_sample *out, lm_error *err);
    /* Of an answer, 0 .. 1. */
    double (*score)(const eval_task *task, const eval_sample *sample, const char *answer);
    void (*close)(eval_task *task);
};

#endif
