#include "oracle_moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double *key_at(const oracle_seq *s, const double *x, int h_kv, int t)
{
    return x + ((long)h_kv * oracle_n_kv(s) + t) * s->d;
}

static const double *query_at(const oracle_seq *s, int h, int row)
{
    return s->q + ((long)h * s->n_q + row) * s->d;
}

/* ----------------------------------------------------------------------------------------------- entries ---- */

int oracle_mean_query(const oracle_seq *s, int h_kv, int b, double *mean)
{
    const int group = s->n_head / s->n_kv_head;
    int n = 0;
    for (int j = 0; j < s->d; j++)
        mean[j] = 0;
    for (int end = b + 1; n == 0 && end <= oracle_n_kblk(s); end++) /* no query yet: up to the first */
        for (int p = s->q_start / 16 * 16 + 15; p < end * s->block && p < oracle_n_kv(s); p += 16)
            for (int g = 0; g < group; g++, n++)
                for (int j = 0; j < s->d; j++)
                    mean[j] += query_at(s, h_kv * group + g, p - s->q_start)[j];
    for (int j = 0; j < s->d; j++)
        mean[j] /= n ? n : 1;
    return n;
}

/* Weights of the n listed tokens, by the mean query of their block; returns the logarithm of their tilted count. query:
 * the mean query times the tilt's factor. */
static double tilt(const oracle_seq *s, int h_kv, int block, const int *token, int n, double *weight, double *query)
{
    double mean = 0, square = 0, sum = 0, sum_t = 0;
    oracle_mean_query(s, h_kv, block, query);
    for (int i = 0; i < n; i++) {
        weight[i] = 0;
        for (int j = 0; j < s->d; j++)
            weight[i] += s->scale * query[j] * key_at(s, s->k, h_kv, token[i])[j];
        mean += weight[i] / n;
    }
    for (int i = 0; i < n; i++)
        square += pow(weight[i] - mean, 2) / n;
    const double factor = sqrt(square) > 0.8 ? 0.8 / sqrt(square) : 1;
    for (int i = 0; i < n; i++) {
        const double t = factor * (weight[i] - mean);
        weight[i] = exp(t);
        sum += weight[i];
        sum_t += weight[i] * t;
    }
    for (int i = 0; i < n; i++)
        weight[i] /= sum;
    for (int j = 0; j < s->d; j++)
        query[j] *= factor;
    return log(sum) - sum_t / sum;
}

/* Of the n listed tokens: tilted means of keys and values, their covariance, variances of groups of 8 dimensions. */
static void add_entry(const oracle_seq *s, oracle_entries *x, int h_kv, int block, const int *token, int n)
{
    const int e = x->n++, d = s->d;
    double *key = x->key + (long)e * d, *value = x->value + (long)e * d, *variance = x->variance + (long)e * x->n_group;
    double *weight = malloc((size_t)n * sizeof *weight), *covariance = x->covariance + (long)e * d * (d + 1);
    x->block[e] = block;
    x->count[e] = n;
    x->log_count[e] = tilt(s, h_kv, block, token, n, weight, covariance + (long)d * d);
    for (int j = 0; j < d; j++) {
        key[j] = value[j] = 0;
        for (int i = 0; i < n; i++) {
            key[j] += weight[i] * key_at(s, s->k, h_kv, token[i])[j];
            value[j] += weight[i] * key_at(s, s->v, h_kv, token[i])[j];
        }
    }
    for (int g = 0; g < x->n_group; g++) {
        const int end = 8 * (g + 1) < d ? 8 * (g + 1) : d;
        variance[g] = 0;
        for (int j = 8 * g; j < end; j++)
            for (int i = 0; i < n; i++)
                variance[g] += weight[i] * pow(key_at(s, s->k, h_kv, token[i])[j] - key[j], 2) / (end - 8 * g);
    }
    double *deviation = malloc((size_t)d * sizeof *deviation);
    for (int i = 0; i < n && x->covariances; i++) {
        for (int j = 0; j < d; j++)
            deviation[j] = weight[i] * (key_at(s, s->k, h_kv, token[i])[j] - key[j]);
        for (int l = 0; l < d; l++) {
            const double of_value = key_at(s, s->v, h_kv, token[i])[l] - value[l];
            double *row = covariance + (long)l * d;
            for (int j = 0; j < d; j++)
                row[j] += of_value * deviation[j];
        }
    }
    free(deviation);
    free(weight);
}

/* Block 0: its farthest tokens first, one by one. */
static void add_first_block(const oracle_seq *s, oracle_entries *x, int h_kv)
{
    double *mean = calloc((size_t)s->d, sizeof *mean);
    int *order = malloc((size_t)s->block * sizeof *order);
    double *distance = calloc((size_t)s->block, sizeof *distance);
    for (int t = 0; t < s->block; t++)
        for (int j = 0; j < s->d; j++)
            mean[j] += key_at(s, s->k, h_kv, t)[j] / s->block;
    for (int t = 0; t < s->block; t++) {
        order[t] = t;
        for (int j = 0; j < s->d; j++)
            distance[t] += pow(key_at(s, s->k, h_kv, t)[j] - mean[j], 2);
    }
    for (int n = 0; n < s->block; n++) /* selection sort, the lower position first among equals */
        for (int m = n + 1; m < s->block; m++)
            if (distance[order[m]] > distance[order[n]] ||
                (distance[order[m]] == distance[order[n]] && order[m] < order[n])) {
                const int t = order[n];
                order[n] = order[m];
                order[m] = t;
            }
    for (int n = 0; n < ORACLE_SINGLE; n++)
        add_entry(s, x, h_kv, 0, order + n, 1);
    add_entry(s, x, h_kv, 0, order + ORACLE_SINGLE, s->block - ORACLE_SINGLE);
    free(mean);
    free(order);
    free(distance);
}

oracle_entries oracle_entries_with(const oracle_seq *s, int h_kv, int own, bool covariances)
{
    const size_t n = (size_t)own + ORACLE_SINGLE, d = (size_t)s->d;
    oracle_entries x = {.d = s->d, .n_group = (s->d + 7) / 8, .covariances = covariances};
    x.block = malloc(n * sizeof *x.block);
    x.count = malloc(n * sizeof *x.count);
    x.log_count = malloc(n * sizeof(double));
    x.key = malloc(n * d * sizeof(double));
    x.value = malloc(n * d * sizeof(double));
    x.variance = malloc(n * (size_t)x.n_group * sizeof(double));
    x.covariance = calloc(n * d * (d + 1) + 1, sizeof(double));
    int *token = malloc((size_t)s->block * sizeof *token);
    if (own > 0)
        add_first_block(s, &x, h_kv);
    for (int b = 1; b < own; b++) {
        for (int i = 0; i < s->block; i++)
            token[i] = b * s->block + i;
        add_entry(s, &x, h_kv, b, token, s->block);
    }
    free(token);
    return x;
}

oracle_entries oracle_entries_make(const oracle_seq *s, int h_kv, int own)
{
    return oracle_entries_with(s, h_kv, own, false);
}

void oracle_entries_free(oracle_entries *x)
{
    free(x->block);
    free(x->count);
    free(x->log_count);
    free(x->key);
    free(x->value);
    free(x->variance);
    free(x->covariance);
}

double oracle_entry_mass(const oracle_seq *s, const oracle_entries *x, int e, const double *q, oracle_law law,
                         double *variance)
{
    double dot = 0, sum = 0;
    for (int j = 0; j < s->d; j++) {
        dot += q[j] * x->key[(long)e * s->d + j];
        sum += x->count[e] > 1 ? q[j] * q[j] * x->variance[(long)e * x->n_group + j / 8] : 0;
    }
    sum *= s->scale * s->scale;
    if (variance)
        *variance = sum;
    const double spread = law == ORACLE_MEAN      ? 0
                          : law == ORACLE_CORRECT ? fmin(sum / 2, log(s->block) / 2)
                                                  : sum / 2 / sqrt(1 + sum / 4);
    return x->log_count[e] + s->scale * dot + spread;
}

/* ------------------------------------------------------------------------------------------------ errors ---- */

static double add_exp(double a, double b)
{
    const double max = a > b ? a : b;
    return max == -INFINITY ? max : max + log(exp(a - max) + exp(b - max));
}

static double exact_logit(const oracle_seq *s, const double *q, int h_kv, int t)
{
    double dot = 0;
    for (int j = 0; j < s->d; j++)
        dot += q[j] * key_at(s, s->k, h_kv, t)[j];
    return s->scale * dot;
}

static int entries_before(int own)
{
    return own > 0 ? own + ORACLE_SINGLE : 0;
}

void oracle_errors(const oracle_seq *s, const oracle_entries *x, int h, int i, double *error)
{
    const int own = oracle_first_qblk(s) + i, h_kv = h / (s->n_head / s->n_kv_head);
    int n_asked = 0, last = (own + 1) * s->block - 1;
    last = last < oracle_n_kv(s) - 1 ? last : oracle_n_kv(s) - 1;
    memset(error, 0, (size_t)own * sizeof *error);
    for (int p = own * s->block; p <= last; p++) {
        if (p < s->q_start || (p % 4 != 3 && p != last))
            continue;
        const double *q = query_at(s, h, p - s->q_start);
        double z = -INFINITY;
        for (int t = own * s->block; t <= p; t++)
            z = add_exp(z, exact_logit(s, q, h_kv, t));
        for (int e = 0; e < entries_before(own); e++)
            z = add_exp(z, oracle_entry_mass(s, x, e, q, ORACLE_SELECT, NULL));
        for (int e = 0; e < entries_before(own); e++) {
            double variance;
            const double mass = oracle_entry_mass(s, x, e, q, ORACLE_SELECT, &variance);
            if (x->count[e] > 1)
                error[x->block[e]] += pow(variance, 1.5) * exp(mass - z);
        }
        n_asked++;
    }
    for (int b = 0; b < own; b++)
        error[b] /= n_asked;
}

int oracle_keeps(const double *error, int n, int b, double bound, double slack)
{
    double least = 0, most = 0;
    for (int i = 0; i < n; i++) {
        least += i == b || error[i] <= error[b] * (1 - slack) ? error[i] * (1 - slack) : 0;
        most += error[i] <= error[b] * (1 + slack) ? error[i] * (1 + slack) : 0;
    }
    if (error[b] * (1 - slack) * least >= bound * bound)
        return 1;
    return error[b] * (1 + slack) * most >= bound * bound ? -1 : 0;
}

/* ------------------------------------------------------------------------------------------------ attend ---- */

/* For each power of two below the number of blocks, the mean over so many blocks of the covariances and of the tilts'
 * queries: [power][d + 1][d]. */
static double *mean_covariances(const oracle_entries *x, int n_block)
{
    const long size = (long)x->d * (x->d + 1);
    int n_power = 0;
    while (1 << n_power <= n_block)
        n_power++;
    double *mean = calloc((size_t)(n_power * size) + 1, sizeof *mean);
    for (int j = 0; j < n_power; j++)
        for (int b = 0; b < 1 << j; b++)
            for (long i = 0; i < size; i++)
                mean[j * size + i] += x->covariance[(ORACLE_SINGLE + b) * size + i] / (1 << j);
    return mean;
}

/* Adds weight * scale * covariance * (q - mean query) to out. mean: of the row's own block. */
static void add_linear(const oracle_seq *s, const double *mean, int own, double weight, const double *q, double *out)
{
    int j = 0;
    while (2 << j <= own)
        j++;
    mean += (long)j * s->d * (s->d + 1);
    for (int e = 0; e < s->d; e++)
        for (int l = 0; l < s->d; l++)
            out[e] += weight * s->scale * mean[(long)e * s->d + l] * (q[l] - mean[(long)s->d * s->d + l]);
}

/* The entries of the blocks that are not listed; *lse = -inf, and out untouched, where there is none. mean NULL: without
 * variances. */
static void add_entries(const oracle_seq *s, const oracle_entries *x, const double *mean, int own,
                        const uint8_t *listed, const double *q, double *out, double *lse)
{
    const oracle_law law = mean ? ORACLE_CORRECT : ORACLE_MEAN;
    double of_blocks = 0;
    *lse = -INFINITY;
    for (int e = 0; e < entries_before(own); e++)
        if (!listed[x->block[e]])
            *lse = add_exp(*lse, oracle_entry_mass(s, x, e, q, law, NULL));
    for (int e = 0; e < entries_before(own); e++) {
        if (listed[x->block[e]])
            continue;
        const double weight = exp(oracle_entry_mass(s, x, e, q, law, NULL) - *lse);
        of_blocks += e >= ORACLE_SINGLE ? weight : 0;
        for (int j = 0; j < s->d; j++)
            out[j] += weight * x->value[(long)e * s->d + j];
    }
    if (mean && own > 0)
        add_linear(s, mean, own, of_blocks, q, out);
}

void oracle_correct(const oracle_seq *s, const uint8_t *mask, bool variances, double *out, double *lse)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), first = oracle_first_qblk(s);
    const int group = s->n_head / s->n_kv_head;
    memset(out, 0, (size_t)s->n_head * (size_t)s->n_q * (size_t)s->d * sizeof *out);
    for (int h_kv = 0; h_kv < s->n_kv_head; h_kv++) {
        const oracle_entries x = oracle_entries_with(s, h_kv, first + n_qblk - 1, variances);
        double *mean = variances ? mean_covariances(&x, first + n_qblk - 1) : NULL;
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
        for (int h = h_kv * group; h < (h_kv + 1) * group; h++)
            for (int t = 0; t < s->n_q; t++) {
                const int own = (s->q_start + t) / s->block;
                add_entries(s, &x, mean, own, mask + ((long)h * n_qblk + own - first) * n_kblk,
                            query_at(s, h, t), out + ((long)h * s->n_q + t) * s->d,
                            lse + (long)h * s->n_q + t);
            }
        free(mean);
        oracle_entries_free((oracle_entries *)&x);
    }
}

void oracle_attend_corrected(const oracle_seq *s, const uint8_t *mask, bool variances, double *out, double *lse)
{
    const size_t n_row = (size_t)s->n_head * (size_t)s->n_q;
    double *out0 = malloc(n_row * (size_t)s->d * sizeof *out0), *lse0 = malloc(n_row * sizeof *lse0);
    oracle_correct(s, mask, variances, out0, lse0);
    oracle_attend_from(s, mask, NULL, out0, lse0, out, lse);
    free(out0);
    free(lse0);
}
