/*
 * lm/rope.h - rotary embedding from the frequencies that libprismattn also gets, so that the two cannot disagree.
 */
#ifndef LM_ROPE_H
#define LM_ROPE_H

#include "config.h"

/* The model's rotation after scaling. factors: [rope.n_dim / 2] with LM_ROPE_FACTORS, else NULL. */
bool lm_rope_build(const lm_config *config, const float *factors, prism_rope *out, lm_error *err);

/* cos and sin for n_max consecutive positions, kept per tile instead of per context: at 128K tokens of 64 pairs a whole
 * table would be as large as a layer of the KV cache. */
typedef struct lm_rope_table {
    const prism_rope *rope;
    prism_rope_layout layout;
    int32_t n_max;
    double scale;   /* of cos and sin: YaRN's attention factor */
    double *step;   /* [n_max][n_pair][2] cos and sin of i * frequency */
    float *cos_sin; /* [n_max][2][n_pair] of the tile */
} lm_rope_table;

bool lm_rope_table_create(lm_rope_table *table, const prism_rope *rope, const lm_config *config, int32_t n_max,
                          lm_error *err);
void lm_rope_table_destroy(lm_rope_table *table);

/* Positions first .. first + n - 1. */
void lm_rope_table_set(lm_rope_table *table, int64_t first, int32_t n);
/* Rotates the n_head heads, d_head floats each, of the tile's i-th position. */
void lm_rope_apply(const lm_rope_table *table, int32_t i, float *heads, int32_t n_head);

#endif
