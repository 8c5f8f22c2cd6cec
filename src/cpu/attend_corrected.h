/* What pruned blocks contribute to attention: their entries start a row's softmax (docs/moments.md, "Correct"). */
#ifndef PRISM_CPU_CORRECT_H
#define PRISM_CPU_CORRECT_H

#include "cpu/entries.h"

/*
 * The value of a pruned block is its mean value plus a part linear in the query, which all blocks of a row share:
 * matrix q - shift. One of each for every slot of covariances.
 */
typedef struct prism_slopes {
    float *matrix; /* [slot][d x d_pad, panels of output dimensions], for queries as prism_entries_query() loads them */
    float *shift;  /* [slot][d_pad] */
} prism_slopes;

prism_slopes prism_slopes_layout(const prism_problem *p, prism_arena *a);
/* Packs one slot of KV head h_kv. stage: prism_entries_stage(). */
void prism_slopes_pack(const prism_tier *k, const prism_problem *p, const prism_block_moments *m, int32_t h_kv,
                       int32_t slot, const prism_slopes *out, float *stage);

/* Scratch of one thread. */
typedef struct prism_correct_tile {
    float *query, *square; /* [block][d], [block][n_group] */
    float *logit, *spread; /* [block][PRISM_STRIP] */
    float *bias;           /* [PRISM_STRIP]: of the entries that the row adds */
    float *linear;         /* [block][d_pad] */
    float *stage;          /* prism_entries_stage() */
} prism_correct_tile;

prism_correct_tile prism_correct_layout(const prism_problem *p, prism_arena *a);

/* Starts the softmax of query tokens `rows` of block `own`, whose row lists `list`. Sets states [m] and outputs
 * [m][d_pad], which were empty, as if attention had gone over the entries of all earlier blocks that are not listed. */
void prism_correct_start(const prism_tier *k, const prism_attend_job *job, int32_t s, int32_t h,
                         prism_range rows, int32_t own, prism_plan_row list, const prism_entries *entries,
                         const prism_slopes *slopes, const prism_correct_tile *t, prism_softmax *state, float *output);

#endif
