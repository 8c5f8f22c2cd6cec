/*
 * The oracle: every stage of the library once more, in double precision, as slowly and as plainly as the formulas read.
 * It shares no code with src/ and is compiled without ISA flags and without contraction of a * b + c.
 *
 *   means -> strength of a band (calibration) -> logits -> softmax -> top-p -> union, sink, own block -> attention
 *
 * One sequence at a time. Query row i of n_q stands at position q_start + i and sees keys 0 .. q_start + i; the keys
 * beyond the last query do not exist here. Blocks lie on the absolute grid.
 */
#ifndef TESTS_ORACLE_H
#define TESTS_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct oracle_seq {
    int n_head, n_kv_head, d, n_q, q_start, block;
    double scale;    /* softmax scale */
    const double *q; /* [n_head][n_q][d] */
    const double *k; /* [n_kv_head][q_start + n_q][d] */
    const double *v; /* the same */
} oracle_seq;

int oracle_n_kv(const oracle_seq *s);
int oracle_first_qblk(const oracle_seq *s);
int oracle_n_qblk(const oracle_seq *s);
int oracle_n_kblk(const oracle_seq *s);

/* Means of the blocks that rows at positions first .. first + n - 1 touch, over the rows that are there. */
void oracle_means(const double *row, int first, int n, int d, int block, double *mean);

/* Root of the mean square over n rows of d and the listed dimensions (dim NULL: all). Rows with a non-finite element
 * do not count. */
double oracle_rms(const double *row, int n, int d, const int *dim, int n_dim);

/* What calibration finds for one band: tau = sqrt(d_z / d) (rq_z / rq) (rk_z / rk); logit = dot * factor, where
 * factor = softmax_scale * sqrt(d) / (sqrt(d_z) tau), and 0 for a band without energy. */
typedef struct oracle_strength {
    double rq, rk, rq_z, rk_z, tau, factor;
} oracle_strength;

oracle_strength oracle_calibrate(const double *q_mean, int n_q, const double *k_mean, int n_k, int d, const int *dim,
                                 int n_dim, double softmax_scale);

/* In place. Entries that are not finite get 0 and take no part. */
void oracle_softmax(double *x, int n);

/* Best first, lower index first among equals: keep while the mass before is below p. */
void oracle_topp(const double *prob, int n, double p, bool *keep);

/* As oracle_topp, but says for which blocks the answer is certain when every probability may be off by a relative
 * error of rel and an absolute one of tiny: 0 dropped, 1 kept, 2 open. */
void oracle_topp_certain(const double *prob, int n, double p, double rel, double tiny, uint8_t *verdict);

typedef struct oracle_rule {
    int n_band; /* 0: every block */
    const int *dim[2];
    int n_dim[2];
    double top_p[2];
    bool calibrated; /* false: factor is the softmax scale */
    bool causal;     /* calibration over what the row sees, else over all blocks */
    bool keep_sink, keep_own;
} oracle_rule;

/* What turns a dot product of means into a logit, for one row (head h, query block i) and band. */
double oracle_factor(const oracle_seq *s, const oracle_rule *r, int band, int h, int i, const double *q_mean,
                     const double *k_mean);

/* Logits of one row (head h, query block i) in one band: [first_qblk + i + 1]. */
void oracle_logits(const oracle_seq *s, const oracle_rule *r, int band, int h, int i, const double *q_mean,
                   const double *k_mean, double *logit);

/* The rows' masks [n_head][n_qblk][n_kblk]. */
void oracle_select(const oracle_seq *s, const oracle_rule *r, uint8_t *mask);

/* Attention over the blocks of mask [n_head][n_qblk][n_kblk] (NULL: all), causal by position.
 * out [n_head][n_q][d], lse [n_head][n_q]; either may be NULL. */
void oracle_attend(const oracle_seq *s, const uint8_t *mask, double *out, double *lse);

/* The same over single keys [n_head][n_qblk][n_kv] beside the blocks, and from a state: a row's result is as if one more
 * key of logit lse0 and value out0 were listed (lse0 -inf: no such key, and out0 is not read). keys, or out0 with lse0,
 * may be NULL. A row that lists nothing gives 0 and a log-sum-exp of -inf. */
void oracle_attend_from(const oracle_seq *s, const uint8_t *mask, const uint8_t *keys, const double *out0,
                        const double *lse0, double *out, double *lse);

#endif
