#include "eval/exact.h"

#include "lm/tensor.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TILE 256 /* keys whose logits are computed together */

/* ---------------------------------------------------------------------------------------------- reading ---- */

static double to_double(const prism_tensor *t, int64_t at)
{
    static const lm_dtype types[] = {[PRISM_F32] = LM_F32, [PRISM_F16] = LM_F16, [PRISM_BF16] = LM_BF16};
    float value;
    lm_to_float(types[t->dtype], (const uint8_t *)t->data + (size_t)at * prism_dtype_bytes(t->dtype), &value, 1);
    return (double)value;
}

double eval_tensor_at(const prism_tensor *t, int32_t token, int32_t head, int32_t dim)
{
    int64_t at = head * t->stride_head + dim * t->stride_dim;
    if (t->page_table)
        at += t->page_table[token / t->page_size] * t->stride_page + token % t->page_size * t->stride_token;
    else
        at += ((t->row_start ? t->row_start[0] : 0) + (int64_t)token) * t->stride_token;
    return to_double(t, at);
}

static void load_rows(const prism_tensor *t, int32_t first, int32_t n, int32_t head, int32_t d, double *out)
{
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < d; j++)
            out[(int64_t)i * d + j] = eval_tensor_at(t, first + i, head, j);
}

bool eval_exact_kv_load(const prism_call *call, int32_t kv_head, eval_exact_kv *out, lm_error *err)
{
    const size_t count = (size_t)call->n_kv * (size_t)call->d_head;
    *out = (eval_exact_kv){.n = call->n_kv, .d = call->d_head};
    out->k = malloc(count * sizeof(double));
    out->v = malloc(count * sizeof(double));
    if (!out->k || !out->v) {
        eval_exact_kv_free(out);
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d keys in double precision", call->n_kv);
    }
    load_rows(&call->k, 0, call->n_kv, kv_head, call->d_head, out->k);
    load_rows(&call->v, 0, call->n_kv, kv_head, call->d_head, out->v);
    return true;
}

void eval_exact_kv_free(eval_exact_kv *kv)
{
    free(kv->k);
    free(kv->v);
    *kv = (eval_exact_kv){0};
}

/* ------------------------------------------------------------------------------------------------- rows ---- */

/* Queries at positions p0 .. p0 + n - 1, and what is known of their softmax. */
typedef struct rows {
    int32_t n, d, p0;
    double scale;
    double *q, *s, *max, *sum; /* [n][d], [n][TILE], [n], [n] */
    const eval_exact_kv *kv;
} rows;

/* Logits of keys k0 .. k0 + n_k - 1; -inf where a query may not look. */
static void logits(const rows *r, int32_t k0, int32_t n_k)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r->n, n_k, r->d, r->scale, r->q, r->d,
                r->kv->k + (int64_t)k0 * r->d, r->d, 0, r->s, TILE);
    for (int32_t i = 0; i < r->n; i++)
        for (int32_t j = r->p0 + i - k0 < 0 ? 0 : r->p0 + i - k0 + 1; j < n_k; j++)
            r->s[i * TILE + j] = -INFINITY;
}

static void find_denominators(rows *r, int32_t n_key)
{
    for (int32_t i = 0; i < r->n; i++) {
        r->max[i] = -INFINITY;
        r->sum[i] = 0;
    }
    for (int32_t k0 = 0; k0 < n_key; k0 += TILE) {
        const int32_t n_k = n_key - k0 < TILE ? n_key - k0 : TILE;
        logits(r, k0, n_k);
        for (int32_t i = 0; i < r->n; i++) {
            const double *s = r->s + i * TILE;
            double max = r->max[i], sum = 0;
            for (int32_t j = 0; j < n_k; j++)
                max = s[j] > max ? s[j] : max;
            if (max == -INFINITY)
                continue;
            for (int32_t j = 0; j < n_k; j++)
                sum += exp(s[j] - max);
            r->sum[i] = r->sum[i] * exp(r->max[i] - max) + sum;
            r->max[i] = max;
        }
    }
}

static void accumulate(rows *r, int32_t n_key, double *o, double *mass)
{
    for (int32_t k0 = 0; k0 < n_key; k0 += TILE) {
        const int32_t n_k = n_key - k0 < TILE ? n_key - k0 : TILE;
        logits(r, k0, n_k);
        for (int32_t i = 0; i < r->n; i++)
            for (int32_t j = 0; j < n_k; j++) {
                double *s = &r->s[i * TILE + j];
                *s = exp(*s - r->max[i]) / r->sum[i];
                mass[k0 + j] += *s / r->n;
            }
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, r->n, r->d, n_k, 1, r->s, TILE,
                    r->kv->v + (int64_t)k0 * r->d, r->d, 1, o, r->d);
    }
}

bool eval_exact_rows(const prism_call *call, int32_t head, int32_t first, int32_t n, const eval_exact_kv *kv, double *o,
                     double *mass, lm_error *err)
{
    const int32_t d = call->d_head, q_start = call->q_start >= 0 ? call->q_start : call->n_kv - call->n_q;
    const size_t n_rows = (size_t)n;
    rows r = {.n = n,
              .d = d,
              .p0 = q_start + first,
              .kv = kv,
              .scale = call->scale > 0 ? (double)call->scale : 1 / sqrt((double)d)};
    double *memory = malloc(n_rows * ((size_t)d + TILE + 2) * sizeof *memory);
    if (!memory)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for exact attention");
    r.q = memory;
    r.s = r.q + n_rows * (size_t)d;
    r.max = r.s + n_rows * TILE;
    r.sum = r.max + n_rows;
    load_rows(&call->q, first, n, head, d, r.q);
    memset(o, 0, n_rows * (size_t)d * sizeof *o);
    memset(mass, 0, (size_t)kv->n * sizeof *mass);
    find_denominators(&r, r.p0 + n);
    accumulate(&r, r.p0 + n, o, mass);
    free(memory);
    return true;
}
