/* Launch functions of moments by themselves: pooling in one call and in two, the correction of a plan of the test's own.
 * Choosing is judged through the API (ck_moments.c). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/block_moments.h"
#include "launch_case.h"
#include "oracle_moments.h"

typedef struct moments {
    launch *l;
    prism_cu_moments m;
    size_t n_row, n_covariance;
} moments;

static moments moments_new(launch *l)
{
    const prism_cu_shape *s = &l->a.shape;
    moments x = {.l = l, .n_row = (size_t)s->n_seq * (size_t)s->n_kblk * (size_t)s->n_kv_head};
    prism_cu_moments *m = &x.m;
    const size_t n = x.n_row * (size_t)s->d_head * sizeof(float);
    *m = (prism_cu_moments){.shape = *s, .q = l->a.q, .k = l->a.k, .v = l->a.v, .block_size = 128, .scale = l->a.scale};
    m->n_block_seq = s->n_kblk;
    m->k_sum = launch_memory(l, n, 0xff), m->key = launch_memory(l, n, 0xff);
    m->variance = launch_memory(l, n / 8, 0xff), m->value = launch_memory(l, n, 0xff);
    m->log_count = launch_memory(l, x.n_row * sizeof(float), 0xff), m->query_sum = launch_memory(l, n, 0xff);
    m->n_query = launch_memory(l, x.n_row * sizeof(int32_t), 0xff);
    x.n_covariance = (size_t)s->n_seq * (size_t)prism_moment_slots(s->n_kblk) * (size_t)s->n_kv_head *
                     (size_t)prism_moment_slot_floats(s->d_head);
    m->covariance = launch_memory(l, x.n_covariance * sizeof(float), 0xff);
    m->moments_image = launch_memory(l, (size_t)prism_moments_image_bytes(s), 0x7f);
    m->o = l->a.o, m->init_o = l->a.o.data, m->init_lse = l->a.lse, m->row_ptr = l->a.row_ptr, m->index = l->a.index;
    m->lse_stride_seq = l->a.lse_stride_seq, m->lse_stride_token = l->a.lse_stride_token;
    m->lse_stride_head = l->a.lse_stride_head, m->lse_row_start = l->a.lse_row_start;
    return x;
}

static bool pool(const moments *x)
{
    const cudaError_t a = prism_moments_pool_cuda(&x->m, NULL), b = prism_moments_image_cuda(&x->m, NULL);
    runner_wait();
    return ck_ok(!a && !b, "%s: pooling: errors %d, %d", x->l->name, a, b);
}

/* Covariances, and below them mean queries, of the slots whose blocks are whole: factors are two numbers of 16 bits,
 * off by 2^-17; so within 1e-4 of the norm. Slots that are not whole are not written. */
static void check_slots(const moments *x, const oracle_entries *want, int h, int n_whole, const char *what)
{
    const int d = want->d, n_kv_head = x->m.shape.n_kv_head;
    const long size = prism_moment_slot_floats(d);
    for (int slot = 0; slot < prism_moment_slots(x->m.shape.n_kblk); slot++) {
        const float *got = x->m.covariance + ((long)slot * n_kv_head + h) * size;
        double error[2] = {0}, norm[2] = {0};
        if (prism_moment_slot_end(slot) > n_whole) {
            ck_ok(isnan(got[0]) && isnan(got[size - 1]), "%s%s: head %d: slot %d was written", x->l->name, what, h,
                  slot);
            continue;
        }
        for (long i = 0; i < size; i++) {
            double sum = 0;
            for (int b = prism_moment_slot_begin(slot); b < prism_moment_slot_end(slot); b++)
                sum += want->covariance[(ORACLE_SINGLE + b) * size + i];
            error[i >= size - d] += ((double)got[i] - sum) * ((double)got[i] - sum);
            norm[i >= size - d] += sum * sum;
        }
        for (int i = 0; i < 2; i++)
            ck_ok(error[i] <= 1e-8 * norm[i], "%s%s: head %d: slot %d: %s off by %.2e", x->l->name, what, h, slot,
                  i ? "queries" : "covariances", sqrt(error[i] / norm[i]));
    }
}

/* Sums of 128 float32 numbers, and weights whose exponents are such sums of products: 1e-4 of the norm. */
static void check_state(const moments *x, const char *what)
{
    const oracle_seq *s = &x->l->c->seq[0];
    const int d = s->d, n_whole = oracle_n_kv(s) / s->block, Hk = s->n_kv_head;
    double *query = malloc((size_t)d * sizeof *query);
    for (int h = 0; h < Hk; h++) {
        oracle_entries want = oracle_entries_with(s, h, n_whole, true);
        double error[3] = {0}, size[3] = {0}, log_error = 0;
        long n_wrong = 0;
        for (int b = 0; b < n_whole; b++) {
            const int at = b * Hk + h, e = ORACLE_SINGLE + b;
            log_error = fmax(log_error, fabs((double)x->m.log_count[at] - want.log_count[e]));
            n_wrong += x->m.n_query[at] != oracle_mean_query(s, h, b, query) && b >= oracle_first_qblk(s);
            for (int j = 0; j < d; j++) {
                const double w[] = {want.key[e * d + j], want.value[e * d + j],
                                    want.variance[e * want.n_group + j / 8]};
                const float g[] = {x->m.key[at * d + j], x->m.value[at * d + j], x->m.variance[at * d / 8 + j / 8]};
                for (int i = 0; i < 3; i++) {
                    error[i] += ((double)g[i] - w[i]) * ((double)g[i] - w[i]);
                    size[i] += w[i] * w[i];
                }
            }
        }
        for (int i = 0; i < 3; i++)
            ck_ok(error[i] <= 1e-8 * size[i], "%s%s: head %d: %s off by %.2e", x->l->name, what, h,
                  i == 0 ? "keys" : i == 1 ? "values" : "variances", sqrt(error[i] / size[i]));
        ck_ok(log_error < 1e-3 && n_wrong == 0, "%s%s: head %d: counts off by %.2e, %ld numbers of queries wrong",
              x->l->name, what, h, log_error, n_wrong);
        check_slots(x, &want, h, n_whole, what);
        oracle_entries_free(&want);
    }
    free(query);
}

/* log-sum-exp within 2e-2, outputs within 1 % of their norm: products are of float16 (ck_moments.c). */
static void check_correction(moments *x, int mean)
{
    launch *l = x->l;
    x->m.mean = mean;
    case_poison_outputs(l->c);
    const cudaError_t error = prism_moments_correct_cuda(&x->m, NULL);
    runner_wait();
    ck_ok(!error, "%s: correction: error %d", l->name, error);
    for (int s = 0; s < l->c->s.n_seq && !error; s++) {
        const oracle_seq *q = &l->c->seq[s];
        launch_answer got = launch_read(l, s), want = launch_read(l, s);
        oracle_correct(q, l->mask[s], !mean, want.out, want.lse);
        double worst = 0;
        for (long i = 0; i < got.n_lse; i++) {
            if (isfinite(want.lse[i]))
                worst = fmax(worst, fabs(got.lse[i] - want.lse[i]));
            for (int j = 0; j < q->d && !isfinite(want.lse[i]); j++)
                got.out[i * q->d + j] = 0; /* never read */
        }
        const double e = launch_distance(got.out, want.out, got.n_out);
        ck_ok(launch_same_kind(got.lse, want.lse, got.n_lse, false) && worst < 2e-2 &&
                  launch_same_kind(got.out, want.out, got.n_out, false) && e < 1e-2,
              "%s: sequence %d, mean %d: lse off by %.2e, outputs by %.2e", l->name, s, mean, worst, e);
        launch_answer_free(&got);
        launch_answer_free(&want);
    }
}

static void check_nothing_pruned(moments *x, const char *what)
{
    launch *l = x->l;
    case_poison_outputs(l->c);
    const cudaError_t error = prism_moments_correct_cuda(&x->m, NULL);
    runner_wait();
    bool ok = !error;
    for (int s = 0; s < l->c->s.n_seq; s++) {
        launch_answer got = launch_read(l, s);
        for (long i = 0; i < got.n_lse; i++)
            ok = ok && got.lse[i] == -INFINITY;
        launch_answer_free(&got);
    }
    ck_ok(ok, "%s: %s", l->name, what);
}

static void check_one(const launch_spec *spec, rng *r)
{
    launch *l = launch_new(spec, r);
    moments x = moments_new(l);
    if (pool(&x)) {
        if (spec->s.n_seq == 1)
            check_state(&x, "");
        check_correction(&x, 0);
        check_correction(&x, 1);
        const int32_t *index = x.m.index;
        int32_t *full = launch_memory(l, sizeof *full, 0);
        x.m.full = full, *full = 1;
        check_nothing_pruned(&x, "the flag is set");
        x.m.full = NULL, x.m.index = NULL;
        check_nothing_pruned(&x, "the full plan");
        x.m.index = index;
    }
    const prism_cu_shape whole = x.m.shape;
    const int n_first = whole.n_kv * 2 / 3 + 5;
    if (spec->s.n_seq == 1 && whole.n_kv > 1000 && whole.q_start == 0) { /* the same in two calls */
        memset(x.m.covariance, 0xff, x.n_covariance * sizeof(float));
        x.m.shape.n_q = x.m.shape.n_kv = n_first;
        const cudaError_t error = prism_moments_pool_cuda(&x.m, NULL);
        x.m.shape = whole;
        x.m.n_done = n_first;
        if (ck_ok(!error, "%s: pooling a part: error %d", l->name, error) && pool(&x))
            check_state(&x, " in two calls");
    }
    launch_free(l);
}

static void check_refused(int d, prism_dtype dtype, int block, rng *r)
{
    launch_spec spec = {.density = 0.5, .s = {.d = d, .dtype = dtype, .block = block}};
    launch_lengths(&spec, 300, 300, 2, 1);
    launch *l = launch_new(&spec, r);
    moments x = moments_new(l);
    x.m.block_size = block;
    const cudaError_t error[] = {prism_moments_pool_cuda(&x.m, NULL), prism_moments_image_cuda(&x.m, NULL),
                                 prism_moments_select_cuda(&x.m, NULL), prism_moments_correct_cuda(&x.m, NULL)};
    for (int i = 0; i < 4; i++)
        ck_ok(error[i] == cudaErrorNotSupported, "%s: function %d takes it: %d", l->name, i, error[i]);
    launch_free(l);
}

void ck_launch_moments(void)
{
    static const struct {
        int n_q, n_kv, n_head, n_kv_head, d;
        prism_dtype dtype;
    } lines[] = {{2048, 2048, 4, 2, 128, PRISM_BF16}, {1501, 5002, 6, 1, 128, PRISM_F16},
                 {3000, 3333, 4, 1, 64, PRISM_BF16},  {700, 70000, 2, 1, 128, PRISM_BF16},
                 {1, 1, 2, 2, 128, PRISM_BF16},       {130, 131, 3, 1, 128, PRISM_F16}};
    rng r = ck_rng("launch moments");
    if (launch_compute() != 90) {
        ck_ok(true, "sm_90a only");
        return;
    }
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        launch_spec spec = {.density = 0.4, .s = {.d = lines[i].d, .dtype = lines[i].dtype, .block = 128}};
        launch_lengths(&spec, lines[i].n_q, lines[i].n_kv, lines[i].n_head, lines[i].n_kv_head);
        check_one(&spec, &r);
    }
    for (int page = 0; page <= 256; page = page ? page * 16 : 1) {
        launch_spec spec = {.density = 0.4, .s = {.d = 128, .dtype = PRISM_BF16, .block = 128, .page_size = page}};
        launch_lengths(&spec, 1500, 1500, 4, 2);
        spec.s.n_seq = 3, spec.s.n_q[1] = 1, spec.s.q_start[1] = 2000, spec.s.n_q[2] = 700, spec.s.q_start[2] = 1400;
        spec.s.q_layout = spec.s.o_layout = RAGGED, spec.s.kv_layout = page ? PAGED : RAGGED;
        check_one(&spec, &r);
    }
    check_refused(128, PRISM_F32, 128, &r);
    check_refused(96, PRISM_BF16, 128, &r);
    check_refused(128, PRISM_BF16, 64, &r);
}
