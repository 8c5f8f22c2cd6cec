#include "launch_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "prism_attn/prism_cuda.h"

void launch_lengths(launch_spec *spec, int n_q, int n_kv, int n_head, int n_kv_head)
{
    spec->s.n_seq = 1;
    spec->s.n_q[0] = n_q;
    spec->s.q_start[0] = n_kv - n_q;
    spec->s.n_head = n_head;
    spec->s.n_kv_head = n_kv_head;
}

void *launch_memory(launch *l, size_t bytes, int byte)
{
    if (l->n_memory == LAUNCH_MAX_MEMORY)
        abort();
    guarded *g = &l->memory[l->n_memory++];
    *g = guarded_new(bytes, 64);
    memset(g->data, byte, bytes);
    return g->data;
}

/* ---------------------------------------------------------------------------------------------- tensors ---- */

prism_cu_view launch_view(const placed *p, int n_head, int d, int n_token)
{
    const prism_tensor *x = &p->view;
    prism_cu_view v = {.data = x->data,
                       .stride_seq = x->stride_seq,
                       .stride_token = x->stride_token,
                       .stride_head = x->stride_head,
                       .row_start = x->row_start,
                       .page_table = x->page_table,
                       .stride_table = x->stride_table,
                       .stride_page = x->stride_page,
                       .n_token = n_token,
                       .page_size = x->page_size,
                       .n_page = x->n_page};
    if (x->row_start)
        v.n_token = (x->n_element - (n_head - 1) * x->stride_head - d) / x->stride_token + 1;
    return v;
}

prism_cu_shape launch_shape(const test_case *c)
{
    static const int32_t dtypes[] = {PRISM_CU_F32, PRISM_CU_F16, PRISM_CU_BF16};
    prism_cu_shape s = {.n_seq = c->s.n_seq,
                        .n_head = c->s.n_head,
                        .n_kv_head = c->s.n_kv_head,
                        .d_head = c->s.d,
                        .dtype = dtypes[c->s.dtype],
                        .n_q = c->call.n_q,
                        .n_kv = c->call.n_kv,
                        .q_start = c->s.q_start[0]};
    for (int i = 0; i < c->s.n_seq; i++) {
        const int n_qblk = oracle_n_qblk(&c->seq[i]), n_kblk = (c->n_kv_of[i] + c->s.block - 1) / c->s.block;
        s.n_qblk = n_qblk > s.n_qblk ? n_qblk : s.n_qblk;
        s.n_kblk = n_kblk > s.n_kblk ? n_kblk : s.n_kblk;
    }
    if (c->s.n_seq > 1) {
        s.q_start = 12345; /* not to be looked at */
        s.n_q_of = c->n_q_of;
        s.n_kv_of = c->n_kv_of;
        s.q_start_of = c->q_start_of;
    }
    return s;
}

/* ------------------------------------------------------------------------------------------------ plans ---- */

static void fill_row(const launch_spec *spec, const oracle_seq *q, int own, uint8_t *mask, uint8_t *keys, rng *r)
{
    for (int v = 0; v <= own; v++)
        mask[v] = spec->density == 0 || v == own || rng_unit(r) < spec->density;
    if (spec->empty > 0 && rng_unit(r) < spec->empty)
        memset(mask, 0, (size_t)own + 1);
    for (int t = 0; keys && t < oracle_n_kv(q) && t < (own + 1) * q->block; t++)
        keys[t] = !mask[t / q->block] && rng_unit(r) < spec->keys;
}

static void make_plan(launch *l, rng *r)
{
    for (int s = 0; s < l->c->s.n_seq; s++) {
        const oracle_seq *q = &l->c->seq[s];
        const int n_qblk = oracle_n_qblk(q), n_kblk = oracle_n_kblk(q), n_kv = oracle_n_kv(q);
        const size_t n_row = (size_t)q->n_head * (size_t)n_qblk;
        l->mask[s] = calloc(n_row * (size_t)n_kblk + 1, 1);
        l->keys[s] = l->spec.keys > 0 ? calloc(n_row * (size_t)n_kv + 1, 1) : NULL;
        for (size_t row = 0; row < n_row; row++)
            fill_row(&l->spec, q, oracle_first_qblk(q) + (int)row % n_qblk, l->mask[s] + row * (size_t)n_kblk,
                     l->keys[s] ? l->keys[s] + row * (size_t)n_kv : NULL, r);
    }
}

/* Longest rows of each KV head first, in order of their numbers among equals. */
static const int32_t *order_of_rows(launch *l, const int64_t *row_ptr, int n_row)
{
    const int per = n_row / (l->c->s.n_seq * l->c->s.n_kv_head);
    int32_t *order = launch_memory(l, (size_t)n_row * sizeof *order, 0);
    for (int first = 0; first < n_row; first += per)
        for (int i = first; i < first + per; i++) {
            int at = i;
            for (; at > first; at--) {
                const int64_t before = row_ptr[order[at - 1] + 1] - row_ptr[order[at - 1]];
                if (before >= row_ptr[i + 1] - row_ptr[i])
                    break;
                order[at] = order[at - 1];
            }
            order[at] = i;
        }
    return order;
}

void launch_lists(launch *l, uint8_t *const *mask, bool by_key, const int64_t **row_ptr, const int32_t **index,
                  const int32_t **order)
{
    const test_case *c = l->c;
    const prism_cu_shape dims = launch_shape(c);
    const int n_row = c->s.n_seq * c->s.n_head * dims.n_qblk;
    int64_t *ptr = launch_memory(l, ((size_t)n_row + 1) * sizeof *ptr, 0), n = 0;
    int32_t *list = NULL;
    for (int pass = 0; pass < 2; pass++) { /* count, then list; one more entry says where lists end */
        if (pass == 1)
            list = launch_memory(l, ((size_t)n + 1) * sizeof *list, 0xff);
        n = 0;
        for (int row = 0; row < n_row; row++) {
            const int s = row / dims.n_qblk / c->s.n_head, h = row / dims.n_qblk % c->s.n_head, i = row % dims.n_qblk;
            const oracle_seq *q = &c->seq[s];
            const int width = by_key ? oracle_n_kv(q) : oracle_n_kblk(q);
            const uint8_t *bits = mask[s] + ((int64_t)h * oracle_n_qblk(q) + i) * width;
            for (int v = 0; i < oracle_n_qblk(q) && v < width; v++) {
                if (bits[v] && list)
                    list[n] = v;
                n += bits[v];
            }
            ptr[row + 1] = n;
        }
    }
    *row_ptr = ptr;
    *index = list;
    if (order)
        *order = order_of_rows(l, ptr, n_row);
}

/* What the call reads where the flag is set: lists that lead nowhere. */
static void set_flag(launch *l)
{
    int32_t *full = launch_memory(l, sizeof *full, 0);
    l->a.full = full;
    *full = l->spec.full == FLAG_SET;
    if (!*full)
        return;
    for (int64_t i = 0; i <= l->a.shape.n_qblk * l->c->s.n_head * l->c->s.n_seq; i++)
        ((int64_t *)l->a.row_ptr)[i] = INT64_C(1) << 40;
    for (int s = 0; s < l->c->s.n_seq; s++) {
        free(l->mask[s]);
        l->mask[s] = NULL; /* every block */
        free(l->keys[s]);
        l->keys[s] = NULL;
    }
}

static void make_state(launch *l, rng *r)
{
    const test_case *c = l->c;
    l->init_o = place_new(&c->s, c->s.o_layout, c->s.out_dtype, c->n_q_of, c->s.n_head, c->s.d, r);
    l->init_lse = place_new(&c->s, c->s.o_layout, PRISM_F32, c->n_q_of, c->s.n_head, 1, r);
    for (int s = 0; s < c->s.n_seq; s++) {
        const oracle_seq *q = &c->seq[s];
        double *out = l->out0[s] = malloc(((size_t)q->n_head * (size_t)q->n_q * (size_t)q->d + 1) * sizeof *out);
        double *lse = l->lse0[s] = malloc(((size_t)q->n_head * (size_t)q->n_q + 1) * sizeof *lse);
        for (int h = 0; h < q->n_head; h++)
            for (int t = 0; t < q->n_q; t++, lse++) {
                const bool some = rng_unit(r) < 0.7;
                *lse = some ? value_round(PRISM_F32, 3 * rng_normal(r) + 4) : -INFINITY;
                value_encode(PRISM_F32, *lse, place_at(&l->init_lse, s, t, h, 0));
                for (int j = 0; j < q->d; j++, out++) {
                    *out = some ? value_round(c->s.dtype, rng_normal(r)) : NAN; /* not to be read */
                    value_encode(c->s.dtype, *out, place_at(&l->init_o, s, t, h, j));
                }
            }
    }
    l->a.init_o = l->init_o.view.data;
    l->a.init_lse = l->init_lse.view.data;
}

static void make_name(launch *l)
{
    const shape *s = &l->spec.s;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    snprintf(l->name, sizeof l->name, "d%d %s b%d H%d/%d n%d@%d x%d page %d density %g keys %g empty %g full %d%s%s",
             s->d, dtypes[s->dtype], s->block, s->n_head, s->n_kv_head, s->n_q[0], s->q_start[0], s->n_seq,
             s->kv_layout == PAGED ? s->page_size : 0, l->spec.density, l->spec.keys, l->spec.empty, (int)l->spec.full,
             l->spec.init ? " init" : "", l->spec.split ? " split" : "");
}

launch *launch_new(const launch_spec *spec, rng *r)
{
    launch *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->spec = *spec;
    l->spec.s.out_dtype = l->spec.s.dtype;
    if (l->spec.s.page_size == 0)
        l->spec.s.page_size = 16;
    test_case *c = l->c = case_new(&l->spec.s, rng_next(r));
    prism_cu_attend *a = &l->a;
    const int d = c->s.d;
    a->scale = spec->has_scale ? spec->scale : (float)(2 / sqrt(d));
    for (int i = 0; i < c->s.n_seq; i++)
        c->seq[i].scale = (double)a->scale;
    a->shape = launch_shape(c);
    a->block_size = c->s.block;
    a->q = launch_view(&c->q, c->s.n_head, d, c->call.n_q);
    a->o = launch_view(&c->o, c->s.n_head, d, c->call.n_q);
    a->k = launch_view(&c->k, c->s.n_kv_head, d, c->call.n_kv);
    a->v = launch_view(&c->v, c->s.n_kv_head, d, c->call.n_kv);
    a->lse = c->lse.view.data;
    a->lse_stride_seq = c->lse.view.stride_seq;
    a->lse_stride_token = c->lse.view.stride_token;
    a->lse_stride_head = c->lse.view.stride_head;
    a->lse_row_start = c->lse.view.row_start;
    a->ticket = l->ticket = launch_memory(l, 2 * sizeof *l->ticket, 0);
    make_plan(l, r);
    if (spec->density > 0 || spec->empty > 0 || spec->keys > 0) {
        launch_lists(l, l->mask, false, &a->row_ptr, &a->index, &a->order);
        if (spec->keys > 0)
            launch_lists(l, l->keys, true, &a->key_ptr, &a->key_index, NULL);
        if (spec->full != FLAG_NONE)
            set_flag(l);
    }
    if (spec->init)
        make_state(l, r);
    make_name(l);
    if (spec->split) {
        a->scratch_bytes = prism_attend_scratch_bytes(&a->shape, a->block_size);
        ck_ok(a->scratch_bytes > 0, "%s: rows are not split", l->name);
        a->scratch = launch_memory(l, a->scratch_bytes, 0xff);
    }
    return l;
}

void launch_free(launch *l)
{
    for (int s = 0; s < l->c->s.n_seq; s++) {
        free(l->mask[s]);
        free(l->keys[s]);
        free(l->out0[s]);
        free(l->lse0[s]);
    }
    for (int i = 0; i < l->n_memory; i++)
        guarded_free(&l->memory[i]);
    place_free(&l->init_o);
    place_free(&l->init_lse);
    case_free(l->c);
    free(l);
}

/* ---------------------------------------------------------------------------------------------- running ---- */

cudaError_t launch_run(launch *l, launch_function *run)
{
    case_poison_outputs(l->c);
    const cudaError_t error = run(&l->a, NULL);
    runner_wait();
    return error;
}

static launch_answer answer_new(const launch *l, int s)
{
    const oracle_seq *q = &l->c->seq[s];
    launch_answer a = {.n_lse = (long)q->n_head * q->n_q};
    a.n_out = a.n_lse * q->d;
    a.out = malloc(((size_t)a.n_out + 1) * sizeof *a.out);
    a.lse = malloc(((size_t)a.n_lse + 1) * sizeof *a.lse);
    return a;
}

launch_answer launch_expect(const launch *l, int s)
{
    launch_answer a = answer_new(l, s);
    oracle_attend_from(&l->c->seq[s], l->mask[s], l->keys[s], l->out0[s], l->lse0[s], a.out, a.lse);
    return a;
}

launch_answer launch_read(const launch *l, int s)
{
    launch_answer a = answer_new(l, s);
    case_read(l->c, s, a.out, a.lse);
    return a;
}

void launch_answer_free(launch_answer *a)
{
    free(a->out);
    free(a->lse);
}

double launch_distance(const double *got, const double *want, long n)
{
    double error = 0, size = 0;
    for (long i = 0; i < n; i++)
        if (isfinite(got[i]) && isfinite(want[i])) {
            error += (got[i] - want[i]) * (got[i] - want[i]);
            size += want[i] * want[i];
        }
    return size > 0 ? sqrt(error / size) : sqrt(error);
}

bool launch_same_kind(const double *got, const double *want, long n, bool weights_underflow)
{
    for (long i = 0; i < n; i++) {
        if (weights_underflow && isinf(want[i]) && isnan(got[i]))
            continue;
        if (isnan(got[i]) != isnan(want[i]) || ((isinf(got[i]) || isinf(want[i])) && got[i] != want[i]))
            return false;
    }
    return true;
}

int launch_compute(void)
{
    prism_cuda_info info = {.struct_size = sizeof info};
    return prism_cuda_describe(0, &info) == PRISM_OK ? 10 * info.compute_major + info.compute_minor : 0;
}
