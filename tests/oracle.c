#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int oracle_n_kv(const oracle_seq *s)
{
    return s->q_start + s->n_q;
}

int oracle_first_qblk(const oracle_seq *s)
{
    return s->q_start / s->block;
}

int oracle_n_kblk(const oracle_seq *s)
{
    return s->n_q ? (oracle_n_kv(s) - 1) / s->block + 1 : 0;
}

int oracle_n_qblk(const oracle_seq *s)
{
    return s->n_q ? oracle_n_kblk(s) - oracle_first_qblk(s) : 0;
}

static double *new_doubles(long n)
{
    double *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
    if (!x)
        abort();
    return x;
}

/* ------------------------------------------------------------------------------------------------- pool ---- */

void oracle_means(const double *row, int first, int n, int d, int block, double *mean)
{
    const int first_block = first / block, last_block = (first + n - 1) / block;
    for (int b = first_block; b <= last_block; b++, mean += d) {
        const int from = b * block > first ? b * block - first : 0;
        const int to = (b + 1) * block < first + n ? (b + 1) * block - first : n;
        for (int j = 0; j < d; j++) {
            double sum = 0;
            for (int t = from; t < to; t++)
                sum += row[(long)t * d + j];
            mean[j] = sum / (to - from);
        }
    }
}

/* -------------------------------------------------------------------------------------------- calibrate ---- */

double oracle_rms(const double *row, int n, int d, const int *dim, int n_dim)
{
    double sum = 0;
    int n_counted = 0;
    for (int i = 0; i < n; i++, row += d) {
        bool finite = true;
        for (int j = 0; j < d; j++)
            finite = finite && isfinite(row[j]);
        if (!finite)
            continue;
        n_counted++;
        for (int j = 0; j < n_dim; j++)
            sum += row[dim ? dim[j] : j] * row[dim ? dim[j] : j];
    }
    return n_counted ? sqrt(sum / ((double)n_counted * n_dim)) : 0;
}

oracle_strength oracle_calibrate(const double *q_mean, int n_q, const double *k_mean, int n_k, int d, const int *dim,
                                 int n_dim, double softmax_scale)
{
    oracle_strength c;
    c.rq = oracle_rms(q_mean, n_q, d, NULL, d);
    c.rk = oracle_rms(k_mean, n_k, d, NULL, d);
    c.rq_z = oracle_rms(q_mean, n_q, d, dim, n_dim);
    c.rk_z = oracle_rms(k_mean, n_k, d, dim, n_dim);
    c.tau = sqrt((double)n_dim / d) * (c.rq_z / c.rq) * (c.rk_z / c.rk);
    c.factor = softmax_scale * sqrt(d) / (sqrt(n_dim) * c.tau);
    if (!isfinite(c.factor))
        c.factor = 0;
    return c;
}

/* ----------------------------------------------------------------------------------------------- select ---- */

double oracle_factor(const oracle_seq *s, const oracle_rule *r, int band, int h, int i, const double *q_mean,
                     const double *k_mean)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), d = s->d, n_visible = oracle_first_qblk(s) + i + 1;
    const double *q = q_mean + (long)h * n_qblk * d, *k = k_mean + (long)(h / (s->n_head / s->n_kv_head)) * n_kblk * d;
    const int *dim = r->dim[band];
    const int n_dim = r->n_dim[band];
    if (!r->calibrated)
        return s->scale;
    if (r->causal)
        return oracle_calibrate(q + (long)i * d, 1, k, n_visible, d, dim, n_dim, s->scale).factor;
    return oracle_calibrate(q, n_qblk, k, n_kblk, d, dim, n_dim, s->scale).factor;
}

void oracle_logits(const oracle_seq *s, const oracle_rule *r, int band, int h, int i, const double *q_mean,
                   const double *k_mean, double *logit)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), d = s->d;
    const double *q = q_mean + ((long)h * n_qblk + i) * d;
    const double *k = k_mean + (long)(h / (s->n_head / s->n_kv_head)) * n_kblk * d;
    const double factor = oracle_factor(s, r, band, h, i, q_mean, k_mean);
    for (int v = 0; v <= oracle_first_qblk(s) + i; v++) {
        double dot = 0;
        for (int l = 0; l < r->n_dim[band]; l++)
            dot += q[r->dim[band][l]] * k[(long)v * d + r->dim[band][l]];
        logit[v] = dot * factor;
    }
}

void oracle_softmax(double *x, int n)
{
    double max = -INFINITY, sum = 0;
    for (int v = 0; v < n; v++)
        if (isfinite(x[v]) && x[v] > max)
            max = x[v];
    for (int v = 0; v < n; v++) {
        x[v] = isfinite(x[v]) ? exp(x[v] - max) : 0;
        sum += x[v];
    }
    for (int v = 0; v < n; v++)
        x[v] = sum > 0 ? x[v] / sum : 0;
}

void oracle_topp(const double *prob, int n, double p, bool *keep)
{
    double before = 0;
    memset(keep, 0, (size_t)n * sizeof *keep);
    while (before < p) {
        int best = -1;
        for (int v = 0; v < n; v++)
            if (!keep[v] && (best < 0 || prob[v] > prob[best]))
                best = v;
        if (best < 0)
            return;
        keep[best] = true;
        before += prob[best];
    }
}

void oracle_topp_certain(const double *prob, int n, double p, double rel, double tiny, uint8_t *verdict)
{
#pragma omp parallel for if (n > 200)
    for (int v = 0; v < n; v++) {
        double least = 0, most = 0; /* mass that may stand before v */
        for (int w = 0; w < n; w++) {
            const double lo = prob[w] * (1 - rel) - tiny, hi = prob[w] * (1 + rel) + tiny;
            if (w == v)
                continue;
            if (lo > prob[v] * (1 + rel) + tiny)
                least += lo;
            if (hi >= prob[v] * (1 - rel) - tiny)
                most += hi;
        }
        verdict[v] = most < p ? 1 : least >= p ? 0 : 2;
    }
}

void oracle_select(const oracle_seq *s, const oracle_rule *r, uint8_t *mask)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), d = s->d, n_kv = oracle_n_kv(s);
    double *q_mean = new_doubles((long)s->n_head * n_qblk * d), *k_mean = new_doubles((long)s->n_kv_head * n_kblk * d);
    double *x = new_doubles(n_kblk);
    bool *keep = calloc((size_t)n_kblk + 1, sizeof *keep);
    for (int h = 0; h < s->n_head; h++)
        oracle_means(s->q + (long)h * s->n_q * d, s->q_start, s->n_q, d, s->block, q_mean + (long)h * n_qblk * d);
    for (int h = 0; h < s->n_kv_head; h++)
        oracle_means(s->k + (long)h * n_kv * d, 0, n_kv, d, s->block, k_mean + (long)h * n_kblk * d);
    memset(mask, 0, (size_t)s->n_head * (size_t)n_qblk * (size_t)n_kblk);
    for (int h = 0; h < s->n_head; h++)
        for (int i = 0; i < n_qblk; i++) {
            uint8_t *row = mask + ((long)h * n_qblk + i) * n_kblk;
            const int own = oracle_first_qblk(s) + i;
            int n_kept = 0;
            for (int band = 0; band < r->n_band; band++) {
                oracle_logits(s, r, band, h, i, q_mean, k_mean, x);
                for (int v = 0; v <= own; v++)
                    row[v] |= !isfinite(x[v]);
                oracle_softmax(x, own + 1);
                oracle_topp(x, own + 1, r->top_p[band], keep);
                for (int v = 0; v <= own; v++)
                    row[v] |= keep[v] || r->top_p[band] >= 1;
            }
            for (int v = 0; v <= own; v++) {
                row[v] |= r->n_band == 0 || (v == 0 && r->keep_sink);
                n_kept += row[v];
            }
            if (r->keep_own || n_kept == 0)
                row[own] = 1;
        }
    free(q_mean);
    free(k_mean);
    free(x);
    free(keep);
}

/* ----------------------------------------------------------------------------------------------- attend ---- */

/* One row over the listed blocks (NULL: all) and keys (NULL: none), from the state out0, lse0 (-inf: none). */
static void attend_row(const oracle_seq *s, int h, int t, const uint8_t *blocks, const uint8_t *keys,
                       const double *out0, double lse0, double *logit, double *out, double *lse)
{
    const int p = s->q_start + t, d = s->d;
    const long at = (long)(h / (s->n_head / s->n_kv_head)) * oracle_n_kv(s) * d;
    const double *q = s->q + ((long)h * s->n_q + t) * d, *k = s->k + at, *v = s->v + at;
    double max = lse0, sum = 0;
    for (int c = 0; c <= p; c++) {
        if (blocks && !blocks[c / s->block] && !(keys && keys[c]))
            continue;
        logit[c] = 0;
        for (int j = 0; j < d; j++)
            logit[c] += q[j] * k[(long)c * d + j];
        logit[c] *= s->scale;
        max = fmax(max, logit[c]);
    }
    for (int j = 0; j < d; j++)
        out[j] = 0;
    for (int c = -1; c <= p; c++) {
        if (c < 0 ? lse0 == -INFINITY : blocks && !blocks[c / s->block] && !(keys && keys[c]))
            continue;
        const double w = exp((c < 0 ? lse0 : logit[c]) - max), *x = c < 0 ? out0 : v + (long)c * d;
        sum += w;
        for (int j = 0; j < d; j++)
            out[j] += w * x[j];
    }
    for (int j = 0; j < d && sum != 0; j++)
        out[j] /= sum;
    *lse = max + log(sum);
}

void oracle_attend_from(const oracle_seq *s, const uint8_t *mask, const uint8_t *keys, const double *out0,
                        const double *lse0, double *out, double *lse)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), n_kv = oracle_n_kv(s);
#pragma omp parallel
    {
        double *logit = new_doubles(n_kv), *spare = new_doubles(s->d), lse_spare;
#pragma omp for collapse(2) schedule(dynamic, 8)
        for (int h = 0; h < s->n_head; h++)
            for (int t = 0; t < s->n_q; t++) {
                const long row = (long)h * s->n_q + t;
                const long at = (long)h * n_qblk + (s->q_start + t) / s->block - oracle_first_qblk(s);
                attend_row(s, h, t, mask ? mask + at * n_kblk : NULL, keys ? keys + at * n_kv : NULL,
                           out0 ? out0 + row * s->d : NULL, lse0 ? lse0[row] : -INFINITY, logit,
                           out ? out + row * s->d : spare, lse ? lse + row : &lse_spare);
            }
        free(logit);
        free(spare);
    }
}

void oracle_attend(const oracle_seq *s, const uint8_t *mask, double *out, double *lse)
{
    oracle_attend_from(s, mask, NULL, NULL, NULL, out, lse);
}
