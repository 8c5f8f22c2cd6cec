#include <math.h>
#include <stdlib.h>

#include "rivals.h"

int n_keys(const rival_seq *s)
{
    return s->q_start + s->n_q;
}

int first_block(const rival_seq *s)
{
    return s->q_start / s->block;
}

int n_key_blocks(const rival_seq *s)
{
    return (n_keys(s) + s->block - 1) / s->block;
}

int n_query_blocks(const rival_seq *s)
{
    return n_key_blocks(s) - first_block(s);
}

const double *query(const rival_seq *s, int h, int i)
{
    return s->q + ((long)h * s->n_q + i) * s->d;
}

const double *key_of(const rival_seq *s, int h, int c)
{
    return s->k + ((long)(h / (s->n_head / s->n_kv_head)) * n_keys(s) + c) * s->d;
}

double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int j = 0; j < n; j++)
        sum += a[j] * b[j];
    return sum;
}

void *zeros(long n, unsigned long size)
{
    void *x = calloc((unsigned long)(n > 0 ? n : 1), size);
    if (!x)
        abort();
    return x;
}

void probe(const rival_seq *s, int h, int n, double *column, double *slash)
{
    const int n_kv = n_keys(s);
    double *p = zeros(n_kv, sizeof *p);
    for (int c = 0; c < n_kv; c++)
        column[c] = slash[c] = 0;
    for (int i = s->n_q - n; i < s->n_q; i++) {
        const int position = s->q_start + i;
        double max = -INFINITY, sum = 0;
        for (int c = 0; c <= position; c++) {
            p[c] = s->scale * dot(query(s, h, i), key_of(s, h, c), s->d);
            max = p[c] > max ? p[c] : max;
        }
        for (int c = 0; c <= position; c++)
            sum += p[c] = exp(p[c] - max);
        for (int c = 0; c <= position; c++) {
            column[c] += p[c] / sum;
            slash[position - c] += p[c] / sum;
        }
    }
    free(p);
}

static double low(double x)
{
    return x * (1 - rel) - tiny;
}

static double high(double x)
{
    return x * (1 + rel) + tiny;
}

void judge_top_k(const double *x, const bool *forced, int n, int k, uint8_t *verdict)
{
    int n_forced = 0;
    for (int i = 0; i < n; i++)
        n_forced += forced[i];
    for (int i = 0, rank = 0; i < n; i++) {
        if (forced[i]) { /* among themselves, the first go first */
            verdict[i] = rank++ < k ? KEPT : DROPPED;
            continue;
        }
        int surely = n_forced, maybe = n_forced; /* entries before this one */
        for (int j = 0; j < n; j++) {
            surely += !forced[j] && j != i && low(x[j]) > high(x[i]);
            maybe += !forced[j] && j != i && high(x[j]) >= low(x[i]);
        }
        verdict[i] = maybe < k ? KEPT : surely >= k ? DROPPED : OPEN;
    }
}

void judge_mass(const double *x, const bool *forced, int n, double part, uint8_t *verdict)
{
    double total = 0, taken = 0;
    for (int i = 0; i < n; i++) {
        total += x[i];
        taken += forced[i] ? x[i] : 0;
    }
    for (int i = 0; i < n; i++) {
        double surely = taken, maybe = taken;
        for (int j = 0; j < n; j++)
            if (!forced[j] && j != i) {
                surely += low(x[j]) > high(x[i]) ? x[j] : 0;
                maybe += high(x[j]) >= low(x[i]) ? x[j] : 0;
            }
        const bool in = high(maybe) < part * total * (1 - rel), out = low(surely) >= part * total * (1 + rel);
        verdict[i] = forced[i] || in ? KEPT : out ? DROPPED : OPEN;
    }
}

void oracle_row(const rival_seq *s, int h, int i, const uint8_t *reads, double *out)
{
    const int n = s->q_start + i + 1, h_kv = h / (s->n_head / s->n_kv_head);
    double *p = zeros(n, sizeof *p), max = -INFINITY, sum = 0;
    for (int c = 0; c < n; c++) {
        p[c] = reads[c] ? s->scale * dot(query(s, h, i), key_of(s, h, c), s->d) : -INFINITY;
        max = p[c] > max ? p[c] : max;
    }
    for (int j = 0; j < s->d; j++)
        out[j] = 0;
    for (int c = 0; c < n; c++)
        if (reads[c]) {
            const double w = exp(p[c] - max), *v = s->v + ((long)h_kv * n_keys(s) + c) * s->d;
            sum += w;
            for (int j = 0; j < s->d; j++)
                out[j] += w * v[j];
        }
    for (int j = 0; j < s->d; j++)
        out[j] /= sum;
    free(p);
}
