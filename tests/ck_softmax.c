/* The online softmax of one tile: weights 2^(x - max), running max and sum, what earlier sums shrink by. */
#include <math.h>
#include <string.h>

#include "checkkern.h"
#include "cpu/cpu.h"

enum { max_rows = 35, max_cols = 128 };

typedef struct tile {
    int m, n;
    guarded logit;
    float before[max_rows][max_cols];
    int32_t n_valid[max_rows];
    prism_softmax state[max_rows], old[max_rows];
    float alpha[max_rows];
} tile;

enum row_kind {
    ROW_PLAIN,
    ROW_SPREAD,
    ROW_SOME_MINUS_INF,
    ROW_ALL_MINUS_INF,
    ROW_NAN,
    ROW_INF,
    ROW_TAIL_NAN,
    N_ROW_KIND
};

static void fill_row(float *x, int n, int n_valid, enum row_kind kind, rng *r)
{
    for (int j = 0; j < n; j++) {
        x[j] = (float)rng_normal(r) * (kind == ROW_SPREAD ? 80 : 4);
        if (kind == ROW_ALL_MINUS_INF || (kind == ROW_SOME_MINUS_INF && rng_range(r, 0, 1)))
            x[j] = -INFINITY;
        if (j >= n_valid)
            x[j] = kind == ROW_TAIL_NAN ? NAN : 1e30f; /* whatever stands there must not matter */
    }
    if (n_valid > 0 && kind == ROW_NAN)
        x[rng_range(r, 0, n_valid - 1)] = NAN;
    if (n_valid > 0 && kind == ROW_INF)
        x[rng_range(r, 0, n_valid - 1)] = INFINITY;
}

static tile tile_new(int n, int round, rng *r)
{
    tile t = {.m = rng_range(r, 1, max_rows), .n = n};
    t.logit = guarded_new((size_t)(t.m * n) * 4, 64);
    for (int i = 0; i < t.m; i++) {
        float *x = (float *)t.logit.data + i * n;
        t.n_valid[i] = round % 3 == 0 ? n : rng_range(r, 0, n);
        fill_row(x, n, t.n_valid[i], (enum row_kind)rng_range(r, 0, N_ROW_KIND - 1), r);
        memcpy(t.before[i], x, (size_t)n * 4);
        const bool first = rng_range(r, 0, 2) == 0;
        t.state[i] = first ? (prism_softmax){-INFINITY, 0}
                           : (prism_softmax){(float)rng_normal(r) * 20, (float)rng_unit(r) * 50 + 1};
        t.old[i] = t.state[i];
        t.alpha[i] = NAN;
    }
    return t;
}

/* 2^y: rounding y = x - max costs |y| 2^-24 ln 2, the polynomial's arithmetic 7.5e-8 (vector_softmax.h), the final
 * rounding 2^-24. Below 2^-126 a tier may flush to 0. */
static double exp2_bound(double y)
{
    return isinf(y) ? 0 : exp2(y) * (fabs(y) * 0x1p-24 + 1.5e-7) + 0x1p-125;
}

/* weights of the row, scale: what the logits were multiplied with; relative errors that the kernel for bfloat16 adds:
 * its coarser exp2 (kernels_*bf16.c), also in the sum, and the rounding of the weight, below 2^-126 to 0. */
static void check_row(const prism_tier *k, const tile *t, int i, const double *w, double scale, double coarse,
                      double rounding)
{
    const float *x = t->before[i];
    const int n_valid = t->n_valid[i];
    double max = t->old[i].max, sum = 0, bound = 0;
    bool spoiled = false; /* NaN or +inf among the valid: the row has no finite answer */
    for (int j = 0; j < n_valid; j++) {
        spoiled = spoiled || isnan(x[j]) || x[j] == INFINITY;
        max = (float)(scale * x[j]) > max ? (float)(scale * x[j]) : max;
    }
    for (int j = n_valid; j < t->n; j++)
        ck_ok(w[j] == 0, "%s softmax n %d: weight %g behind %d valid", k->name, t->n, w[j], n_valid);
    if (spoiled) {
        ck_ok(isnan(t->state[i].sum), "%s softmax: a NaN or infinite logit left the sum %g", k->name,
              (double)t->state[i].sum);
        return;
    }
    ck_near(t->state[i].max, max, 0, "%s softmax n %d: max", k->name, t->n);
    const double base = max == -INFINITY ? 0 : max;
    for (int j = 0; j < n_valid; j++) {
        const double y = scale * x[j] - base, want = exp2(y), error = exp2_bound(y) + coarse * want;
        ck_near(w[j], want, error + rounding * (want + error), "%s softmax n %d: weight of 2^%.9g", k->name, t->n, y);
        sum += want;
        bound += error;
    }
    const double y = t->old[i].max - base, alpha = exp2(y);
    ck_near(t->alpha[i], alpha, exp2_bound(y), "%s softmax: alpha of 2^%.9g", k->name, y);
    sum += alpha * t->old[i].sum;
    ck_near(t->state[i].sum, sum, bound + exp2_bound(y) * t->old[i].sum + (n_valid + 3) * 0x1p-24 * sum,
            "%s softmax n %d: sum", k->name, t->n);
}

static void check_tile(const prism_tier *k, const tile *t)
{
    double w[max_cols];
    k->softmax(t->logit.data, t->n, t->m, t->n, t->n_valid, (prism_softmax *)t->state, (float *)t->alpha);
    for (int i = 0; i < t->m; i++) {
        for (int j = 0; j < t->n; j++)
            w[j] = ((const float *)t->logit.data)[i * t->n + j];
        check_row(k, t, i, w, 1, 0, 0);
    }
}

static void check_tile_bf16(const prism_tier *k, const tile *t)
{
    double w[max_cols];
    guarded weight = guarded_new((size_t)(t->m * t->n) * 2, 64);
    const float scale = 0.127517436f;
    k->softmax_bf16(weight.data, t->logit.data, t->n, t->m, t->n, scale, t->n_valid, (prism_softmax *)t->state,
                    (float *)t->alpha);
    for (int i = 0; i < t->m; i++) {
        for (int j = 0; j < t->n; j++)
            w[j] = value_decode(PRISM_BF16, (const uint16_t *)weight.data + i * t->n + j);
        check_row(k, t, i, w, (double)scale, 3e-6, 0x1p-8);
    }
    guarded_free(&weight);
}

void ck_softmax(void)
{
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_tier k;
        prism_tier_get(ck_tiers[tier], &k);
        rng r = ck_rng("softmax");
        for (int round = 0; round < 600; round++) {
            tile t = tile_new(round / 2 % 2 ? 64 : 128, round, &r);
            if (k.softmax_bf16 && round % 2)
                check_tile_bf16(&k, &t);
            else
                check_tile(&k, &t);
            guarded_free(&t.logit);
        }
    }
}
