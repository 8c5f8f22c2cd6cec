/*
 * The rivals once more, in double precision, as slowly and as plainly as their formulas read. No code is shared with
 * src/, and nothing is compiled with ISA flags or contraction of a * b + c.
 *
 * The library computes scores in float32: a probability may be off by a relative `rel`. An oracle therefore says of
 * each block (or key) dropped, kept, or open: open means that a value within rel of the threshold decides. Everything
 * else must be equal.
 */
#ifndef TESTS_RIVALS_H
#define TESTS_RIVALS_H

#include <stdbool.h>
#include <stdint.h>

enum { DROPPED = 0, KEPT = 1, OPEN = 2 };

/*
 * 128 products of float32 accumulate an error of at most 128 * 2^-24 * |q| |k|; times the scale that is below 1e-4 for
 * logits up to about 30, and so is the relative error of e^logit. Sums of positive terms do not amplify it.
 */
static const double rel = 2e-4, tiny = 1e-12;

/* One sequence. Query row i stands at q_start + i; keys 0 .. q_start + n_q - 1. Values as double. */
typedef struct rival_seq {
    int n_head, n_kv_head, d, n_q, q_start, block;
    double scale;
    const double *q;     /* [n_head][n_q][d] */
    const double *k, *v; /* [n_kv_head][n_kv][d] */
} rival_seq;

/* Each parameter named as in prism_options. */
typedef struct rival_params {
    int vertical, slash;
    double budget;
    double gamma, tau;
    int min_budget, max_budget;
    int stride;
    double threshold;
    double alpha;
    int sink, window, last;
} rival_params;

int n_keys(const rival_seq *s);
int first_block(const rival_seq *s);
int n_query_blocks(const rival_seq *s);
int n_key_blocks(const rival_seq *s);
const double *query(const rival_seq *s, int h, int i);
const double *key_of(const rival_seq *s, int h, int c); /* of query head h */
double dot(const double *a, const double *b, int n);
void *zeros(long n, unsigned long size); /* calloc that cannot fail */

/* Attention of the last n queries of head h: column[c] and slash[distance], sums over the queries. */
void probe(const rival_seq *s, int h, int n, double *column, double *slash);

/* Of n values, the k largest, when each may be off by rel: KEPT, DROPPED or OPEN. forced ones come first. */
void judge_top_k(const double *x, const bool *forced, int n, int k, uint8_t *verdict);

/* Of n masses, best first, while what is kept before, forced ones included, is below part of the total. */
void judge_mass(const double *x, const bool *forced, int n, double part, uint8_t *verdict);

/* Verdicts on blocks [n_head][n_qblk][n_kblk]. */
void oracle_flexprefill(const rival_seq *s, const rival_params *p, uint8_t *verdict);
void oracle_xattention(const rival_seq *s, const rival_params *p, uint8_t *verdict);
void oracle_flashprefill(const rival_seq *s, const rival_params *p, uint8_t *verdict);

/* Verdicts on keys [n_head][n_qblk][n_kv]. */
void oracle_minference(const rival_seq *s, const rival_params *p, uint8_t *verdict);

/* Exact attention of query row i of head h over the keys that reads[c] lists, causal. out [d]. */
void oracle_row(const rival_seq *s, int h, int i, const uint8_t *reads, double *out);

#endif
