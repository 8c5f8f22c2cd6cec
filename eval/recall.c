#include "eval/recall.h"

#include "eval/exact.h"
#include "lm/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One method's plan and output for the call. */
typedef struct planned {
    prism_plan *plan;
    prism_plan_view view;
    float *o; /* [n_q][n_head][d] */
} planned;

/* Sums over a head's rows. */
typedef struct sums {
    double mass, n_query, error, norm, listed, causal, oracle;
} sums;

typedef struct measure {
    prism_ctx *ctx;
    const prism_call *call;
    int32_t q_start, block_size, first_block, n_qblk, n_row;
    const eval_methods *methods;
    planned *plans; /* [methods->n]; without plan: of another block size */
    sums *sums;     /* [methods->n][n_head] */
} measure;

/* ------------------------------------------------------------------------------------------------ plans ---- */

static bool plan_failed(prism_ctx *ctx, const eval_method *m, prism_status status, lm_error *err)
{
    const char *why = prism_last_error(ctx);
    return lm_fail(err, LM_ERROR_RUN, "%s: %s", m->label, why[0] ? why : prism_status_name(status));
}

static bool build(const measure *w, const eval_method *m, planned *p, lm_error *err)
{
    prism_call call = *w->call;
    prism_options options = m->options;
    call.pooled = NULL;
    call.lse = (prism_tensor){0};
    p->o = malloc((size_t)call.n_q * (size_t)call.n_head * (size_t)call.d_head * sizeof *p->o);
    size_t bytes = 0;
    prism_status status = prism_workspace_bytes(w->ctx, &options, &call, &bytes);
    void *workspace = status ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!status && (!p->o || !workspace)) {
        free(workspace);
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the plan of %s", m->label);
    }
    call.o = prism_tensor_token_major(p->o, PRISM_F32, call.n_q, call.n_head, call.d_head);
    p->view.struct_size = sizeof p->view;
    if (!status)
        status = prism_plan_create(w->ctx, &call, options.block_size, 0, &p->plan);
    if (!status)
        status = prism_attention(w->ctx, &options, &call, p->plan, workspace, bytes, NULL);
    if (!status)
        status = prism_plan_read(p->plan, &p->view);
    free(workspace);
    return !status || plan_failed(w->ctx, m, status, err);
}

/* ------------------------------------------------------------------------------------------------- rows ---- */

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Fewest blocks whose masses sum to what the plan keeps. sorted: descending. */
static int32_t fewest(const double *sorted, int32_t n_block, double mass)
{
    double sum = 0;
    int32_t n = 0;
    while (n < n_block && sum < mass * (1 - 1e-12)) /* the same sum in another order may fall short by roundings */
        sum += sorted[n++];
    return n;
}

static double row_mass(const prism_plan_view *v, int64_t row, const double *block_mass, const double *key_mass)
{
    double mass = 0;
    for (int64_t i = v->row_ptr[row]; i < v->row_ptr[row + 1]; i++)
        mass += block_mass[v->index ? v->index[i] : i - v->row_ptr[row]];
    for (int64_t i = v->key_ptr ? v->key_ptr[row] : 0; v->key_ptr && i < v->key_ptr[row + 1]; i++)
        mass += key_mass[v->key_index[i]];
    return mass;
}

static double row_listed(const prism_plan_view *v, int64_t row)
{
    const double keys = v->key_ptr ? (double)(v->key_ptr[row + 1] - v->key_ptr[row]) : 0;
    return (double)(v->row_ptr[row + 1] - v->row_ptr[row]) + keys / v->block_size;
}

/* Scratch of one thread. */
typedef struct scratch {
    double *o, *key_mass, *block_mass, *sorted; /* [block][d], [n_kv], [n_kblk], [n_kblk] */
} scratch;

static bool scratch_create(const measure *w, scratch *s)
{
    const size_t n_kblk = ((size_t)w->call->n_kv + (size_t)w->block_size - 1) / (size_t)w->block_size;
    s->o = malloc((size_t)w->block_size * (size_t)w->call->d_head * sizeof *s->o);
    s->key_mass = malloc((size_t)w->call->n_kv * sizeof *s->key_mass);
    s->block_mass = malloc(n_kblk * sizeof *s->block_mass);
    s->sorted = malloc(n_kblk * sizeof *s->sorted);
    return s->o && s->key_mass && s->block_mass && s->sorted;
}

static void scratch_free(scratch *s)
{
    free(s->o);
    free(s->key_mass);
    free(s->block_mass);
    free(s->sorted);
}

static void add_error(const measure *w, const float *o, int32_t head, int32_t first, int32_t n, const double *exact,
                      sums *out)
{
    const int32_t d = w->call->d_head;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < d; j++) {
            const double want = exact[i * d + j];
            const double got = (double)o[((int64_t)(first + i) * w->call->n_head + head) * d + j];
            out->error += (got - want) * (got - want);
            out->norm += want * want;
        }
}

/* Query block `block` of the call. */
static bool measure_row(const measure *w, int32_t head, int32_t block, const eval_exact_kv *kv, scratch *s,
                        sums *head_sums, lm_error *err)
{
    const int32_t b = w->block_size, kblk = w->first_block + block, n_kblk = kblk + 1;
    const int32_t begin = kblk * b > w->q_start ? kblk * b - w->q_start : 0;
    const int32_t end = (kblk + 1) * b - w->q_start < w->call->n_q ? (kblk + 1) * b - w->q_start : w->call->n_q;
    if (!eval_exact_rows(w->call, head, begin, end - begin, kv, s->o, s->key_mass, err))
        return false;
    memset(s->block_mass, 0, (size_t)n_kblk * sizeof *s->block_mass);
    for (int32_t k = 0; k < w->q_start + end; k++)
        s->block_mass[k / b] += s->key_mass[k];
    memcpy(s->sorted, s->block_mass, (size_t)n_kblk * sizeof *s->sorted);
    qsort(s->sorted, (size_t)n_kblk, sizeof *s->sorted, descending);
    for (int32_t m = 0; m < w->methods->n; m++) {
        if (!w->plans[m].plan)
            continue;
        const prism_plan_view *v = &w->plans[m].view;
        const int64_t row = (int64_t)head * v->n_qblk + block;
        const double mass = row_mass(v, row, s->block_mass, s->key_mass);
        sums *sum = &head_sums[m];
        sum->mass += mass * (end - begin);
        sum->n_query += end - begin;
        sum->listed += row_listed(v, row);
        sum->oracle += fewest(s->sorted, n_kblk, mass);
        sum->causal += n_kblk;
        add_error(w, w->plans[m].o, head, begin, end - begin, s->o, sum);
    }
    return true;
}

static bool measure_head(const measure *w, int32_t head, const eval_exact_kv *kv, lm_error *err)
{
    scratch s = {0};
    sums *head_sums = calloc((size_t)w->methods->n, sizeof *head_sums);
    bool ok = (scratch_create(w, &s) && head_sums) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for exact masses");
    const int32_t n_row = w->n_row > 0 && w->n_row < w->n_qblk ? w->n_row : w->n_qblk;
    for (int32_t r = 0; ok && r < n_row; r++)
        ok = measure_row(w, head, (int32_t)((int64_t)(r + 1) * w->n_qblk / n_row) - 1, kv, &s, head_sums, err);
    for (int32_t m = 0; ok && m < w->methods->n; m++)
        if (w->plans[m].plan)
            w->sums[m * w->call->n_head + head] = head_sums[m];
    scratch_free(&s);
    free(head_sums);
    return ok;
}

/* Heads of a KV head share its keys; they are examined at the same time. */
static bool measure_heads(const measure *w, lm_error *err)
{
    const int32_t group = w->call->n_head / w->call->n_kv_head;
    for (int32_t g = 0; g < w->call->n_kv_head; g++) {
        eval_exact_kv kv;
        if (!eval_exact_kv_load(w->call, g, &kv, err))
            return false;
        bool ok = true;
#pragma omp parallel for schedule(dynamic)
        for (int32_t h = 0; h < group; h++) {
            lm_error mine;
            if (!measure_head(w, g * group + h, &kv, &mine)) {
#pragma omp critical
                {
                    ok = false;
                    if (err)
                        *err = mine;
                }
            }
        }
        eval_exact_kv_free(&kv);
        if (!ok)
            return false;
    }
    return true;
}

/* All methods of one block size. */
static bool measure_size(measure *w, int32_t block_size, lm_error *err)
{
    bool ok = true, any = false;
    w->block_size = block_size;
    w->first_block = w->q_start / block_size;
    w->n_qblk = (w->q_start + w->call->n_q - 1) / block_size - w->first_block + 1;
    memset(w->plans, 0, (size_t)w->methods->n * sizeof *w->plans);
    for (int32_t m = 0; ok && m < w->methods->n; m++)
        if (w->methods->items[m].options.block_size == block_size) {
            any = true;
            ok = build(w, &w->methods->items[m], &w->plans[m], err);
        }
    ok = ok && (!any || measure_heads(w, err));
    for (int32_t m = 0; m < w->methods->n; m++) {
        prism_plan_destroy(w->plans[m].plan);
        free(w->plans[m].o);
    }
    return ok;
}

bool eval_recall_measure(prism_ctx *ctx, const prism_call *call, const eval_methods *methods, int32_t n_row,
                         eval_recall_head *out, lm_error *err)
{
    const size_t n = (size_t)methods->n * (size_t)call->n_head;
    measure w = {.ctx = ctx,
                 .call = call,
                 .methods = methods,
                 .n_row = n_row,
                 .q_start = call->q_start >= 0 ? call->q_start : call->n_kv - call->n_q};
    w.plans = calloc((size_t)methods->n, sizeof *w.plans);
    w.sums = calloc(n, sizeof *w.sums);
    bool ok = (w.plans && w.sums) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the measures of a layer");
    ok = ok && measure_size(&w, 64, err) && measure_size(&w, 128, err);
    for (size_t i = 0; ok && i < n; i++) {
        const sums *s = &w.sums[i];
        out[i] = (eval_recall_head){.mass = s->mass / s->n_query,
                                    .error = s->norm > 0 ? sqrt(s->error / s->norm) : 0,
                                    .density = s->listed / s->causal,
                                    .oracle = s->oracle / s->causal};
    }
    free(w.plans);
    free(w.sums);
    return ok;
}
