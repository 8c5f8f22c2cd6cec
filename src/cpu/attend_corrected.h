/* What pruned blocks contribute to attention: their entries start a row's softmax (docs/moments.md, "Correct"). */
#ifndef PRISM_CPU_CORRECT_H
#define PRISM_CPU_CORRECT_H

#include "cpu/entries.h"

/* Scratch of one thread. */
typedef struct prism_correct_tile {
    float *query, *square; /* [block][d], [block][n_group] */
    float *logit, *spread; /* [block][PRISM_STRIP] */
    float *bias;           /* [PRISM_STRIP]: of the entries that the row adds */
    float *stage;          /* prism_entries_stage() */
} prism_correct_tile;

prism_correct_tile prism_correct_layout(const prism_problem *p, prism_arena *a);

/* Starts the softmax of query tokens `rows` of block `own`, whose row lists `list`. Sets states [m] and outputs
 * [m][d_pad], which were empty, as if attention had gone over the entries of all earlier blocks that are not listed. */
void prism_correct_start(const prism_tier *k, const prism_attend_job *job, int32_t s, int32_t h,
                         prism_range rows, int32_t own, prism_plan_row list, const prism_entries *entries,
                         const prism_correct_tile *t, prism_softmax *state, float *output);

#endif
