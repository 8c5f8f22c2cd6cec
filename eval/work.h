/*
 * eval/work.h - work of a prefill: the operations spent on choosing what to read, and on reading it.
 *
 * Counted as prism_stats.work_flop is (2 for a multiply-add, diagonal blocks whole), layer by layer, from the hooks of
 * a session. Compare methods by work where density misleads: some list single keys, some spend much on choosing.
 */
#ifndef EVAL_WORK_H
#define EVAL_WORK_H

#include "lm/lm.h"

typedef struct eval_work {
    double flop;
    int32_t n_q, d_head; /* of the call under way */
} eval_work;

/* Hooks. user: an eval_work, or a struct that starts with one. */
void eval_work_on_call(void *user, int32_t layer, const prism_call *call);
void eval_work_on_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan);

#endif
