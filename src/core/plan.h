/* The plan: which key blocks, and which single keys, each query block reads. */
#ifndef PRISM_CORE_PLAN_H
#define PRISM_CORE_PLAN_H

#include <stdbool.h>

#include "core/problem.h"

struct prism_plan {
    int32_t n_seq, n_head, n_qblk, n_kblk, block_size;
    int64_t n_row, n_row_max, n_index_max;
    int32_t n_seq_max;
    prism_seq *seq;   /* [n_seq]: the shape that the plan was built for */
    int64_t *row_ptr; /* [n_row + 1] */
    int32_t *index;   /* [row_ptr[n_row]] */
    bool full;        /* every row lists all its causal blocks; index is unused */
    int64_t n_causal;
    prism_path path;
    int64_t n_key_max;
    int64_t *key_ptr;   /* [n_row + 1], meaningful if has_keys */
    int32_t *key_index; /* [key_ptr[n_row]] positions, ascending in a row, in none of the row's blocks */
    bool has_keys;
    prism_correction correct;  /* resolved: what blocks that are not listed contribute */
    prism_precision precision; /* of attention over the plan */
    double select_flop;        /* work of choosing and correcting */
    double correct_flop;       /* the part of select_flop for correcting */
    double pool_seconds;       /* the part of choosing that pooled */
    bool pools;                /* pooling was timed */
    /* If the device has its own memory, the plan lies there, and the arrays above are a copy. */
    const struct prism_backend *backend;
    void *device;
    bool stale;          /* the copy is behind */
    bool device_lengths; /* the host knows bounds only; seq and n_causal are current once fetched */
};

/* One row of n blocks: block t is index ? index[t] : t. */
typedef struct prism_plan_row {
    const int32_t *index;
    int64_t n;
} prism_plan_row;

static inline prism_plan_row prism_plan_get_row(const prism_plan *plan, int64_t row)
{
    const int64_t begin = plan->row_ptr[row];
    return (prism_plan_row){plan->full ? NULL : plan->index + begin, plan->row_ptr[row + 1] - begin};
}

/* A row's single keys. */
typedef struct prism_plan_keys {
    const int32_t *index;
    int64_t n;
} prism_plan_keys;

static inline prism_plan_keys prism_plan_get_keys(const prism_plan *plan, int64_t row)
{
    if (!plan->has_keys)
        return (prism_plan_keys){NULL, 0};
    return (prism_plan_keys){plan->key_index + plan->key_ptr[row], plan->key_ptr[row + 1] - plan->key_ptr[row]};
}

static inline int64_t prism_plan_n_key(const prism_plan *plan)
{
    return plan->has_keys ? plan->key_ptr[plan->n_row] : 0;
}

/* A listed key counts as 1 / block_size of a block. */
static inline double prism_plan_density(const prism_plan *plan)
{
    const double n_key = (double)prism_plan_n_key(plan), n_block = (double)plan->row_ptr[plan->n_row];
    return plan->n_causal ? (n_block + n_key / plan->block_size) / (double)plan->n_causal : 0;
}

bool prism_plan_matches(const prism_plan *plan, const prism_problem *p);

/* Reserves address space of a new plan for the most single keys that it can list: all keys but one of each block.
 * Memory that is never written costs nothing. If the system refuses, asks for half, and so on. */
void prism_plan_reserve_keys(prism_plan *plan);

/* Sets lengths and counts of the call; the plan has no rows and no single keys yet. false: no room for so many rows;
 * the plan is then unchanged. */
bool prism_plan_set_shape(prism_plan *plan, const prism_problem *p);

/* Lists every causal block of every row. prism_plan_set_shape() comes first. */
void prism_plan_fill_full(prism_plan *plan);

/* Makes rows from bitmaps [n_row][n_word]. false: no room for *n_selected blocks. */
bool prism_plan_set_bits(prism_plan *plan, const prism_problem *p, const uint64_t *bits, int64_t *n_selected);

/*
 * Opens rows with single keys: row r has n_block[r] blocks and n_key[r] keys. Afterwards the caller writes them at
 * index + row_ptr[r] and key_index + key_ptr[r]. false: no room for *n_block_all blocks and *n_key_all keys; the plan
 * is then unchanged.
 */
bool prism_plan_open(prism_plan *plan, const prism_problem *p, const int32_t *n_block, const int32_t *n_key,
                     int64_t *n_block_all, int64_t *n_key_all);

/* Makes rows from a mask [n_row][n_kblk]; an empty row gets its own block. false: row *bad_row has a block above the
 * causal limit, or *bad_row is -1 and there is no room for *n_selected blocks. The plan is then unchanged. */
bool prism_plan_set_mask(prism_plan *plan, const prism_problem *p, const uint8_t *mask, int64_t *bad_row,
                         int64_t *n_selected);

#endif
