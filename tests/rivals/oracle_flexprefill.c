/*
 * FlexPrefill. Budgets come from how many tokens hold gamma of a mass: where rel decides, both ends of the range are
 * tried and what lies between is open; a head whose distance is within rel of tau is open as a whole.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rivals.h"

static int by_falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* 1 + number of inclusive sums, largest first, that are at most part of the whole. */
static int need(const double *x, int n, double part)
{
    double *sorted = zeros(n, sizeof *sorted), total = 0, sum = 0;
    int count = 1;
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, by_falling);
    for (int i = 0; i < n; i++)
        total += sorted[i];
    for (int i = 0; i < n; i++) {
        sum += sorted[i];
        count += sum <= part * total;
    }
    free(sorted);
    return count;
}

static int clamp(int x, int lo, int hi)
{
    return x > hi ? hi : x < lo ? lo : x;
}

static void softmax(double *x, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++)
        sum += x[i] = exp(x[i] - max);
    for (int i = 0; i < n; i++)
        x[i] /= sum;
}

static double distance(const double *a, const double *b, int n)
{
    double kl_a = 0, kl_b = 0;
    for (int i = 0; i < n; i++) {
        const double m = (a[i] + b[i]) / 2;
        kl_a += a[i] > 0 ? a[i] * log(a[i] / m) : 0;
        kl_b += b[i] > 0 ? b[i] * log(b[i] / m) : 0;
    }
    return sqrt(kl_a / 2 + kl_b / 2);
}

/* Mean of n vectors. */
static void mean(const double *x, int n, int d, double *out)
{
    for (int j = 0; j < d; j++) {
        out[j] = 0;
        for (int i = 0; i < n; i++)
            out[j] += x[(long)i * d + j] / n;
    }
}

static void key_means(const rival_seq *s, int h, double *out)
{
    for (int v = 0; v < n_key_blocks(s); v++) {
        const int begin = v * s->block, left = n_keys(s) - begin;
        mean(key_of(s, h, begin), left < s->block ? left : s->block, s->d, out + (long)v * s->d);
    }
}

/* Marks lines: verdict[i][v] rises from dropped to open to kept. */
static void add(uint8_t *verdict, uint8_t how)
{
    if (how == KEPT || (how == OPEN && *verdict == DROPPED))
        *verdict = how;
}

/* The lo .. hi best of n, kept for certain and possibly. */
static void judge_range(const double *x, int n, int lo, int hi, uint8_t *verdict)
{
    bool *forced = zeros(n, sizeof *forced);
    uint8_t *more = zeros(n, 1);
    forced[0] = true;
    judge_top_k(x, forced, n, lo, verdict);
    judge_top_k(x, forced, n, hi, more);
    for (int v = 0; v < n; v++)
        if (verdict[v] != more[v])
            verdict[v] = OPEN;
    free(forced), free(more);
}

/* All pooled scores of a head, in one list. */
static void add_pooled(const rival_seq *s, int h, double gamma, const double *means, uint8_t *verdict)
{
    const int n_qblk = n_query_blocks(s), n_kblk = n_key_blocks(s), first = first_block(s);
    double *prob = zeros((long)n_qblk * n_kblk, sizeof *prob), *q = zeros(s->d, sizeof *q);
    bool *forced = zeros((long)n_qblk * n_kblk, sizeof *forced);
    uint8_t *judged = zeros((long)n_qblk * n_kblk, 1);
    int n = 0;
    for (int i = 0; i < n_qblk; i++) {
        const int begin = (first + i) * s->block - s->q_start, lo = begin > 0 ? begin : 0;
        const int end = begin + s->block < s->n_q ? begin + s->block : s->n_q;
        mean(query(s, h, lo), end - lo, s->d, q);
        for (int v = 0; v <= first + i; v++)
            prob[n + v] = s->scale * dot(q, means + (long)v * s->d, s->d);
        softmax(prob + n, first + i + 1);
        n += first + i + 1;
    }
    /* Inclusive: an entry is kept while the sum up to and with it is at most gamma * n_qblk. */
    for (int a = 0; a < n; a++) {
        double surely = prob[a], maybe = prob[a];
        for (int b = 0; b < n; b++)
            if (b != a) {
                surely += prob[b] * (1 - rel) > prob[a] * (1 + rel) ? prob[b] : 0;
                maybe += prob[b] * (1 + rel) >= prob[a] * (1 - rel) ? prob[b] : 0;
            }
        judged[a] = maybe * (1 + rel) <= gamma * n_qblk ? KEPT : surely * (1 - rel) > gamma * n_qblk ? DROPPED : OPEN;
    }
    n = 0;
    for (int i = 0; i < n_qblk; n += first + i + 1, i++)
        for (int v = 0; v <= first + i; v++)
            add(verdict + (long)i * n_kblk + v, judged[n + v]);
    free(prob), free(q), free(forced), free(judged);
}

static void judge_head(const rival_seq *s, const rival_params *p, int h, uint8_t *verdict)
{
    const int n_kv = n_keys(s), n_kblk = n_key_blocks(s), B = s->block, n_last = s->n_q < B ? s->n_q : B;
    double *x = zeros(n_kv, sizeof *x), *y = zeros(n_kv, sizeof *y), *means = zeros((long)n_kblk * s->d, sizeof *means);
    double *bx = zeros(n_kblk, sizeof *bx), *by = zeros(n_kblk, sizeof *by), *a = zeros(n_kblk, sizeof *a);
    double *normal = zeros(n_kblk, sizeof *normal), *q = zeros(s->d, sizeof *q);
    uint8_t *column = zeros(n_kblk, 1), *slash = zeros(n_kblk, 1);
    probe(s, h, n_last, x, y);
    key_means(s, h, means);
    mean(query(s, h, s->n_q - n_last), n_last, s->d, q);
    for (int c = 0; c < n_kv; c++) {
        bx[c / B] += x[c];
        by[c / B] += y[c];
        normal[c / B] += x[c] / n_last;
    }
    for (int v = 0; v < n_kblk; v++)
        a[v] = s->scale * dot(q, means + (long)v * s->d, s->d);
    softmax(a, n_kblk);
    const double js = distance(a, normal, n_kblk);
    const int most = p->max_budget ? (p->max_budget + B - 1) / B : n_kblk, hi = most < n_kblk ? most : n_kblk;
    const int least = p->min_budget ? (p->min_budget + B - 1) / B : 1, lo = least < hi ? least : hi;
    if (fabs(js - p->tau) < 1e-3) {
        memset(verdict, OPEN, (size_t)n_query_blocks(s) * (size_t)n_kblk);
    } else {
        const bool sparse = js < p->tau;
        const double less = p->gamma * (1 - rel), more = p->gamma * (1 + rel);
        judge_range(bx, n_kblk, sparse ? lo : clamp(need(x, n_kv, less) / B + 1, lo, hi),
                    sparse ? lo : clamp(need(x, n_kv, more) / B + 1, lo, hi), column);
        judge_range(by, n_kblk, sparse ? lo : clamp(need(y, n_kv, less) / B + 1, lo, hi),
                    sparse ? lo : clamp(need(y, n_kv, more) / B + 1, lo, hi), slash);
        for (int i = 0; i < n_query_blocks(s); i++)
            for (int v = 0, own = first_block(s) + i; v <= own; v++) {
                add(verdict + (long)i * n_kblk + v, column[v]);
                add(verdict + (long)i * n_kblk + v, slash[own - v]);
            }
        if (sparse)
            add_pooled(s, h, p->gamma, means, verdict);
    }
    free(x), free(y), free(means), free(bx), free(by), free(a), free(normal), free(q), free(column), free(slash);
}

void oracle_flexprefill(const rival_seq *s, const rival_params *p, uint8_t *verdict)
{
    const int n_qblk = n_query_blocks(s), n_kblk = n_key_blocks(s), up = (p->min_budget + s->block - 1) / s->block;
    const bool everything = n_keys(s) <= (up > 2 ? up : 2) * s->block;
    memset(verdict, DROPPED, (size_t)s->n_head * (size_t)n_qblk * (size_t)n_kblk);
    for (int h = 0; h < s->n_head; h++) {
        uint8_t *mine = verdict + (long)h * n_qblk * n_kblk;
        if (!everything) {
            judge_head(s, p, h, mine);
            continue;
        }
        for (int i = 0; i < n_qblk; i++)
            memset(mine + (long)i * n_kblk, KEPT, (size_t)(first_block(s) + i + 1));
    }
    for (int h = 0; h < s->n_head; h++) /* nothing after the diagonal */
        for (int i = 0; i < n_qblk; i++)
            for (int v = first_block(s) + i + 1; v < n_kblk; v++)
                verdict[((long)h * n_qblk + i) * n_kblk + v] = DROPPED;
}
