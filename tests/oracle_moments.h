/* The oracle of docs/moments.md: entries, their estimates, the error of pruning a block, corrected attention. */
#ifndef TESTS_ORACLE_MOMENTS_H
#define TESTS_ORACLE_MOMENTS_H

#include "oracle.h"

enum { ORACLE_SINGLE = 16 };

/* Entry e of a KV head stands for count[e] keys of block[e], as if for e^log_count[e] that are all alike. */
typedef struct oracle_entries {
    int n, d, n_group;
    int *block, *count;
    double *log_count, *key, *variance, *value; /* [n], [n][d], [n][n_group], [n][d] */
    bool covariances;
    double *covariance; /* [n][d + 1][d]: of values and keys if `covariances`; the last row is the tilt's mean query */
} oracle_entries;

/* What the variance of the logits adds to an entry's mass: nothing, what a correction adds, what selection adds. */
typedef enum oracle_law { ORACLE_MEAN, ORACLE_CORRECT, ORACLE_SELECT } oracle_law;

/* Mean of the sampled queries of KV head h_kv's heads that block b's moments know; zeros if there is none. Returns how
 * many. */
int oracle_mean_query(const oracle_seq *s, int h_kv, int b, double *mean);

/* Entries of the blocks before `own`, all of them whole; none if own is 0. */
oracle_entries oracle_entries_make(const oracle_seq *s, int h_kv, int own);
oracle_entries oracle_entries_with(const oracle_seq *s, int h_kv, int own, bool covariances);
void oracle_entries_free(oracle_entries *x);

/* Logarithm of the entry's mass for a query [d], and the variance of the logits inside it. */
double oracle_entry_mass(const oracle_seq *s, const oracle_entries *x, int e, const double *q, oracle_law law,
                         double *variance);

/* The error of pruning each block before the own one of (head h, query block i): [first_qblk + i]. x: entries of the
 * head's KV head, of these blocks at least. */
void oracle_errors(const oracle_seq *s, const oracle_entries *x, int h, int i, double *error);

/* Whether a row with these errors [n] keeps block b: its error times the sum of the errors up to it is at least bound
 * squared. 1: yes; 0: no; -1: errors that are off by a factor 1 + slack decide. */
int oracle_keeps(const double *error, int n, int b, double bound, double slack);

/* What the blocks that are not in the mask contribute: their output [n_head][n_q][d] and log-sum-exp [n_head][n_q]; 0 and
 * -inf for a row without such blocks. */
void oracle_correct(const oracle_seq *s, const uint8_t *mask, bool variances, double *out, double *lse);

/* As oracle_attend, starting from oracle_correct()'s state. */
void oracle_attend_corrected(const oracle_seq *s, const uint8_t *mask, bool variances, double *out, double *lse);

#endif
