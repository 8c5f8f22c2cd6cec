/* Calls to judge: data with structure, recorded Q and K, and one library call beside the values in double. */
#ifndef TESTS_RIVALS_FIXTURE_H
#define TESTS_RIVALS_FIXTURE_H

#include "prism_attn/prism.h"
#include "rivals.h"

enum { MAX_SEQ = 2 };

typedef struct rival_case {
    const char *golden; /* a recording, or NULL: made up from the seed */
    int n_head, n_kv_head, d, block;
    int n_seq, n_q[MAX_SEQ], q_start[MAX_SEQ];
    unsigned seed;
} rival_case;

/* A case in memory: [seq][head][token][d] float32 and the call on it; rival_seq views in double of each sequence. */
typedef struct rival_fixture {
    rival_case c;
    float *q, *k, *v, *o;
    double *dq[MAX_SEQ], *dk[MAX_SEQ], *dv[MAX_SEQ];
    int32_t n_q_of[MAX_SEQ], n_kv_of[MAX_SEQ], q_start_of[MAX_SEQ];
    int n_q, n_kv; /* the longest */
    prism_call call;
    rival_seq seq[MAX_SEQ];
    prism_ctx *ctx;
    prism_plan *plan;
    void *workspace;
    size_t workspace_bytes;
    prism_plan_view view;
} rival_fixture;

rival_fixture *fixture_new(const rival_case *c, prism_isa isa);
void fixture_free(rival_fixture *f);

/* Plan and workspace for these options, plan built and read, attention done. Asserts that all of it succeeds. */
void fixture_run(rival_fixture *f, const prism_options *options, prism_stats *stats);

/* reads[c] for c < n_kv: what row i (query block) of head h of sequence s lists. */
void fixture_row(const rival_fixture *f, int s, int h, int i, uint8_t *reads);

/* Defaults, with min_tokens 0; the second from the first. */
prism_options rival_options(prism_method method, int block);
rival_params params_of(const prism_options *o);

#endif
