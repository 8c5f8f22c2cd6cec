/*
 * Entries: what query tokens score instead of keys (docs/moments.md, "Entries"), packed like keys and values. The first
 * PRISM_MOMENT_SINGLE entries are the single tokens of block 0. Entry PRISM_MOMENT_SINGLE + b holds the moments of
 * block b; those of block 0 leave the single tokens out.
 */
#ifndef PRISM_CPU_ENTRIES_H
#define PRISM_CPU_ENTRIES_H

#include "core/block_moments.h"
#include "cpu/operand.h"

enum { PRISM_STRIP = PRISM_MAX_PANEL }; /* entries that are packed and read together */

/* The entries of one KV head. */
typedef struct prism_entries {
    float *key;      /* [strip][d x PRISM_STRIP, panels of entries] */
    float *spread;   /* [strip][n_group x PRISM_STRIP, panels]: variances */
    float *value;    /* [strip][PRISM_STRIP x d_pad, panels of dimensions]; NULL: not wanted */
    float *bias;     /* [strip x PRISM_STRIP]: log2 of the count; -inf past the last entry and where not usable */
    uint8_t *usable; /* [strip x PRISM_STRIP]: the entry's mean key and mean value are finite */
} prism_entries;

/* The tokens that a block's moments stand for: all tokens; in block 0 all but the single tokens. */
typedef struct prism_block_keys {
    int32_t s, h_kv, first; /* sequence, KV head, position of the block's first token */
    int32_t n, token[PRISM_MAX_BLOCK];
} prism_block_keys;

prism_block_keys prism_block_keys_of(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv,
                                     int32_t b);

/* Returns the moments of sequence s: in memory, which pool wrote, or in the caller's state. In pool_moments.c. */
prism_block_moments prism_moments_of_cpu(const prism_problem *p, void *memory, int32_t s);

static inline int32_t prism_entry_strips(const prism_problem *p)
{
    return (PRISM_MOMENT_SINGLE + p->n_kblk - 1) / PRISM_STRIP + 1;
}

prism_entries prism_entries_layout(const prism_problem *p, bool values, prism_arena *a);

/* Returns the floats of scratch that packing a strip needs. */
size_t prism_entries_stage(const prism_problem *p);

/* Packs one strip of entries. m: the moments of the sequence, which has at least one whole block. variances false:
 * packs no spread. Packs values if out->value is not NULL. */
void prism_entries_pack(const prism_tier *k, const prism_problem *p, const prism_block_moments *m,
                        bool variances, int32_t s, int32_t h_kv, int32_t strip, const prism_entries *out, float *stage);

/* Loads a query token for entries: query = q * scale * log2 e; square = the sums of query's squares over groups. */
void prism_entries_query(const prism_tier *k, const prism_problem *p, int32_t s, int32_t t, int32_t h,
                         float *query, float *square);

#endif
