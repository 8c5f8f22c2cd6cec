/* Calls to test: shapes, layouts and data, with the logical values in double beside the tensors made of them. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include "oracle.h"
#include "support.h"

enum { MAX_SEQ = 4 };

typedef enum layout {
    TOKEN_MAJOR,
    HEAD_MAJOR,
    STRIDED, /* stride_dim 2, gaps everywhere */
    RAGGED,  /* packed rows, row_start */
    PAGED,   /* shuffled pages */
    N_LAYOUT,
    PADDED = N_LAYOUT /* as STRIDED with stride_dim 1; shape_nth() never takes it */
} layout;

typedef enum data_kind {
    DATA_RANDOM, /* normal noise around a direction of each block: rows with a few strong blocks */
    DATA_TIED,   /* every query equal, every key equal, sums exact */
    DATA_ONE_HOT,
    DATA_HUGE, /* queries and values times shape.big, keys divided by it */
    DATA_TINY, /* the other way round */
    N_DATA
} data_kind;

typedef struct shape {
    int n_seq, n_head, n_kv_head, d, block;
    int n_q[MAX_SEQ], q_start[MAX_SEQ];
    int n_beyond; /* keys after the last query, which nobody may see */
    prism_dtype dtype, out_dtype;
    layout q_layout, kv_layout, o_layout;
    int page_size;
    double scale; /* 0: the default */
    double big;   /* 0: 1e4 in float16, else 1e30 */
    data_kind data;
} shape;

/* A tensor and the memory that it alone owns, up to a guard page. Gaps, unused pages and foreign rows are poison. */
typedef struct placed {
    prism_tensor view;
    guarded memory, table; /* table: row_start or page_table */
} placed;

typedef struct test_case {
    shape s;
    oracle_seq seq[MAX_SEQ]; /* the logical values */
    placed q, k, v, o, lse;
    guarded lengths;
    int32_t *n_q_of, *n_kv_of, *q_start_of; /* in lengths */
    prism_call call;
    prism_bands bands;
} test_case;

/* Shape number index of an endless series that walks through dtypes, layouts, head counts and dimensions, page sizes,
 * chunk starts and tails. max_token bounds a sequence's keys. */
shape shape_nth(int index, int max_token, rng *r);

/* n_token[s] rows of n_head heads of d values. */
placed place_new(const shape *s, layout how, prism_dtype dtype, const int *n_token, int n_head, int d, rng *r);
void place_free(placed *p);
void *place_at(const placed *p, int s, int token, int head, int j);

test_case *case_new(const shape *s, uint64_t seed);
void case_free(test_case *c);

/* Queries [begin, end) of the case's only sequence, keys up to end. */
prism_call case_chunk(const test_case *c, int begin, int end);

/* Overwrites a logical value and its element. which: 'q', 'k' or 'v'. */
void case_poke(test_case *c, char which, int s, int head, int token, int j, double x);

/* Outputs as doubles [n_head][n_q][d] of sequence s. */
void case_read(const test_case *c, int s, double *out, double *lse);

/* Fills the outputs with poison; true if, apart from the outputs themselves, it is still there. */
void case_poison_outputs(test_case *c);
bool case_gaps_untouched(const test_case *c);

/* A context of one tier; NULL if this machine lacks it. */
prism_ctx *context_new(prism_isa isa, int n_thread);

/* Everything one call needs besides its tensors. */
typedef struct runner {
    prism_ctx *ctx;
    prism_plan *plan;
    guarded workspace;
    uint8_t *mask; /* [n_seq][n_head][n_qblk][n_kblk] */
    prism_plan_view view;
} runner;

/* Plan and workspace, exactly as large as asked for. */
runner runner_new(prism_ctx *ctx, const prism_options *options, const prism_call *call);
void runner_free(runner *r);
prism_status runner_plan(runner *r, const prism_options *options, const prism_call *call); /* and reads the mask */
prism_status runner_attend(runner *r, const prism_call *call);
extern void (*runner_wait)(void); /* called before outputs are read, where set */
const uint8_t *runner_mask_row(const runner *r, int s, int h, int i);

/* The rows of sequence s as oracle_attend wants them: [n_head][own n_qblk][own n_kblk]. Caller frees. */
uint8_t *runner_mask_of(const runner *r, const test_case *c, int s);

oracle_rule rule_of(const prism_options *options, int dims[2][PRISM_MAX_D_HEAD]);

#endif
