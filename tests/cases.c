#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
    if (!p) {
        perror("out of memory");
        exit(2);
    }
    return p;
}

shape shape_nth(int index, int max_token, rng *r)
{
    static const int dims[] = {64, 80, 96, 128, 192, 256, 1, 33, 100, 255, 16}, groups[] = {1, 4, 8, 2};
    static const int pages[] = {1, 16, 64, 128, 48, 7};
    shape s = {.n_seq = index % 3 == 2 ? rng_range(r, 2, 3) : 1,
               .n_kv_head = rng_range(r, 1, 2),
               .d = dims[index % 11],
               .block = index % 2 ? 64 : 128,
               .n_beyond = index % 4 == 1 ? rng_range(r, 1, 200) : 0,
               .dtype = (prism_dtype)(index % 3),
               .out_dtype = (prism_dtype)(index / 3 % 3),
               .q_layout = (layout)rng_range(r, 0, N_LAYOUT - 1),
               .kv_layout = (layout)(index % N_LAYOUT),
               .o_layout = (layout)rng_range(r, 0, N_LAYOUT - 1),
               .page_size = pages[index / N_LAYOUT % 6],
               .scale = index % 7 == 3 ? 0.3 : 0};
    s.n_head = s.n_kv_head * groups[index / 2 % 4];
    for (int i = 0; i < s.n_seq; i++) {
        const int start = index / 4 % 3; /* 0: none, 1: block-aligned, 2: anywhere */
        s.q_start[i] = start == 0 ? 0 : rng_range(r, 1, max_token / 2);
        if (start == 1)
            s.q_start[i] = s.q_start[i] / s.block * s.block;
        s.n_q[i] = index % 5 == 4 ? rng_range(r, 1, 3) : rng_range(r, 1, max_token - s.q_start[i]);
    }
    return s;
}

/* --------------------------------------------------------------------------------------------- placing ---- */

static int32_t *new_table(placed *p, int64_t n)
{
    p->table = guarded_new((size_t)n * sizeof(int32_t), sizeof(int32_t));
    return p->table.data;
}

static void place_pages(placed *p, const shape *s, const int *n_token, int max_token, int n_head, int d, rng *r)
{
    prism_tensor *x = &p->view;
    const int size = s->page_size, per_seq = (max_token + size - 1) / size;
    x->page_size = size;
    x->n_page = s->n_seq * per_seq + 3;
    x->stride_table = per_seq + 1;
    x->stride_head = d;
    x->stride_token = (int64_t)n_head * d;
    x->stride_page = (int64_t)size * n_head * d;
    if (size % 2) { /* heads outside, tokens inside */
        x->stride_head = (int64_t)size * d;
        x->stride_token = d;
    }
    int32_t *id = must(malloc((size_t)x->n_page * sizeof *id));
    for (int i = 0; i < x->n_page; i++)
        id[i] = i;
    for (int i = x->n_page - 1; i > 0; i--) {
        const int j = rng_range(r, 0, i), t = id[i];
        id[i] = id[j];
        id[j] = t;
    }
    int32_t *table = new_table(p, s->n_seq * x->stride_table);
    for (int i = 0, q = 0; q < s->n_seq; q++)
        for (int e = 0; e < x->stride_table; e++)
            table[q * x->stride_table + e] = e * size < n_token[q] ? id[i++] : -77; /* not to be looked at */
    free(id);
    x->page_table = table;
    x->n_element = x->n_page * x->stride_page;
}

placed place_new(const shape *s, layout how, prism_dtype dtype, const int *n_token, int n_head, int d, rng *r)
{
    placed p = {0};
    int max_token = 0;
    for (int q = 0; q < s->n_seq; q++)
        max_token = n_token[q] > max_token ? n_token[q] : max_token;
    prism_tensor *x = &p.view;
    *x = how == HEAD_MAJOR ? prism_tensor_head_major(NULL, dtype, max_token, n_head, d)
                           : prism_tensor_token_major(NULL, dtype, max_token, n_head, d);
    x->n_element = s->n_seq * x->stride_seq;
    if (how == STRIDED || how == PADDED) {
        x->stride_dim = how == STRIDED ? 2 : 1;
        x->stride_head = x->stride_dim * d + 1;
        x->stride_token = n_head * x->stride_head + 3;
        x->stride_seq = max_token * x->stride_token + 5;
        x->n_element = (s->n_seq - 1) * x->stride_seq + (max_token - 1) * x->stride_token +
                       (n_head - 1) * x->stride_head + (d - 1) * x->stride_dim + 1;
    } else if (how == RAGGED) {
        int32_t *row_start = new_table(&p, s->n_seq);
        int at = 0;
        for (int q = s->n_seq - 1; q >= 0; q--) { /* backwards, and with a foreign row between */
            row_start[q] = at;
            at += n_token[q] + (q > 0);
        }
        x->row_start = row_start;
        x->n_element = at * x->stride_token;
    } else if (how == PAGED) {
        place_pages(&p, s, n_token, max_token, n_head, d, r);
    }
    const size_t size = prism_dtype_bytes(dtype);
    p.memory = guarded_new((size_t)x->n_element * size, size);
    memset(p.memory.data, 0xff, p.memory.bytes); /* NaN in every format */
    x->data = p.memory.data;
    return p;
}

void place_free(placed *p)
{
    guarded_free(&p->memory);
    guarded_free(&p->table);
}

void *place_at(const placed *p, int s, int token, int head, int j)
{
    const prism_tensor *x = &p->view;
    int64_t at = head * x->stride_head + j * x->stride_dim;
    if (x->page_table)
        at += x->page_table[s * x->stride_table + token / x->page_size] * x->stride_page +
              token % x->page_size * x->stride_token;
    else
        at += (x->row_start ? x->row_start[s] * x->stride_token : s * x->stride_seq) + token * x->stride_token;
    return (char *)x->data + at * (int64_t)prism_dtype_bytes(x->dtype);
}

/* ------------------------------------------------------------------------------------------------ data ---- */

static double make_value(const shape *s, char which, int token, int j, double direction, rng *r)
{
    const double big = s->dtype == PRISM_F16 ? 1e4 : s->big > 0 ? s->big : 1e30, small = 1 / big;
    const double strong = which == 'k' ? small : big, weak = which == 'k' ? big : small;
    const double noise = rng_normal(r) + 0.4 * direction;
    switch (s->data) {
    case DATA_TIED: return which == 'v' ? noise : 0.5;
    case DATA_ONE_HOT: return which == 'v' ? noise : j == token / s->block % s->d ? 4 : 0;
    case DATA_HUGE: return noise * strong / 8;
    case DATA_TINY: return noise * weak / 8;
    default: return noise;
    }
}

/* [n_head][n_token][d], values that the dtype holds exactly; written to the tensor too. Tokens from n_real on exist
 * in the tensor only, and stay NaN. The random numbers are those of one stream: a block skips what others draw. */
static double *fill(const shape *s, char which, int seq, const placed *p, int n_head, int n_token, rng *r)
{
    const int first = which == 'q' ? s->q_start[seq] : 0, first_block = first / s->block;
    const int n_block = n_token ? (first + n_token - 1) / s->block - first_block + 1 : 0;
    double *x = must(malloc((size_t)n_head * (size_t)n_token * (size_t)s->d * sizeof *x + 1));
#pragma omp parallel for collapse(2)
    for (int h = 0; h < n_head; h++)
        for (int b = 0; b < n_block; b++) {
            const int begin = b == 0 ? 0 : (first_block + b) * s->block - first;
            const int end = b + 1 == n_block ? n_token : (first_block + b + 1) * s->block - first;
            double direction[PRISM_MAX_D_HEAD], *at = x + ((size_t)h * (size_t)n_token + (size_t)begin) * (size_t)s->d;
            rng own = *r;
            rng_skip_normals(&own, (uint64_t)s->d * ((uint64_t)h * (uint64_t)(n_token + n_block) + (uint64_t)(begin + b)));
            for (int j = 0; j < s->d; j++)
                direction[j] = rng_normal(&own);
            for (int t = begin; t < end; t++)
                for (int j = 0; j < s->d; j++, at++) {
                    *at = value_round(s->dtype, make_value(s, which, first + t, j, direction[j], &own));
                    value_encode(s->dtype, *at, place_at(p, seq, t, h, j));
                }
        }
    rng_skip_normals(r, (uint64_t)s->d * (uint64_t)n_head * (uint64_t)(n_token + n_block));
    return x;
}

static prism_call make_call(test_case *c, bool uniform)
{
    const shape *s = &c->s;
    prism_call call;
    prism_call_init(&call);
    call.n_seq = s->n_seq;
    call.n_head = s->n_head;
    call.n_kv_head = s->n_kv_head;
    call.d_head = s->d;
    call.scale = (float)s->scale;
    for (int i = 0; i < s->n_seq; i++) {
        call.n_q = c->n_q_of[i] > call.n_q ? c->n_q_of[i] : call.n_q;
        call.n_kv = c->n_kv_of[i] > call.n_kv ? c->n_kv_of[i] : call.n_kv;
    }
    if (uniform) {
        call.q_start = s->q_start[0];
    } else {
        call.n_q_of = c->n_q_of;
        call.n_kv_of = c->n_kv_of;
        call.q_start_of = c->q_start_of;
    }
    call.q = c->q.view;
    call.k = c->k.view;
    call.v = c->v.view;
    call.o = c->o.view;
    call.lse = c->lse.view;
    return call;
}

test_case *case_new(const shape *s, uint64_t seed)
{
    test_case *c = must(calloc(1, sizeof *c));
    c->s = *s;
    rng r = {seed};
    bool uniform = true;
    c->lengths = guarded_new(3 * (size_t)s->n_seq * sizeof(int32_t), sizeof(int32_t));
    c->n_q_of = c->lengths.data;
    c->n_kv_of = c->n_q_of + s->n_seq;
    c->q_start_of = c->n_kv_of + s->n_seq;
    for (int i = 0; i < s->n_seq; i++) {
        c->n_q_of[i] = s->n_q[i];
        c->n_kv_of[i] = s->q_start[i] + s->n_q[i] + s->n_beyond;
        c->q_start_of[i] = s->q_start[i];
        uniform = uniform && s->n_q[i] == s->n_q[0] && s->q_start[i] == s->q_start[0];
    }
    c->q = place_new(s, s->q_layout, s->dtype, c->n_q_of, s->n_head, s->d, &r);
    c->k = place_new(s, s->kv_layout, s->dtype, c->n_kv_of, s->n_kv_head, s->d, &r);
    c->v = place_new(s, s->kv_layout, s->dtype, c->n_kv_of, s->n_kv_head, s->d, &r);
    c->o = place_new(s, s->o_layout, s->out_dtype, c->n_q_of, s->n_head, s->d, &r);
    c->lse = place_new(s, s->o_layout == PAGED ? RAGGED : s->o_layout, PRISM_F32, c->n_q_of, s->n_head, 1, &r);
    for (int i = 0; i < s->n_seq; i++) {
        const int n_kv = s->q_start[i] + s->n_q[i];
        const double scale = s->scale > 0 ? (double)(float)s->scale : 1 / sqrt(s->d);
        double *q = fill(s, 'q', i, &c->q, s->n_head, s->n_q[i], &r);
        double *k = fill(s, 'k', i, &c->k, s->n_kv_head, n_kv, &r);
        double *v = fill(s, 'v', i, &c->v, s->n_kv_head, n_kv, &r);
        c->seq[i] = (oracle_seq){s->n_head, s->n_kv_head, s->d, s->n_q[i], s->q_start[i], s->block, scale, q, k, v};
    }
    make_bands(&c->bands, s->d);
    c->call = make_call(c, uniform);
    return c;
}

void case_free(test_case *c)
{
    for (int i = 0; i < c->s.n_seq; i++) {
        free((void *)c->seq[i].q);
        free((void *)c->seq[i].k);
        free((void *)c->seq[i].v);
    }
    place_free(&c->q);
    place_free(&c->k);
    place_free(&c->v);
    place_free(&c->o);
    place_free(&c->lse);
    guarded_free(&c->lengths);
    free(c);
}

void case_poke(test_case *c, char which, int s, int head, int token, int j, double x)
{
    const placed *p = which == 'q' ? &c->q : which == 'k' ? &c->k : &c->v;
    const oracle_seq *o = &c->seq[s];
    const double *value = which == 'q' ? o->q : which == 'k' ? o->k : o->v;
    const int n_token = which == 'q' ? o->n_q : oracle_n_kv(o);
    x = value_round(c->s.dtype, x);
    ((double *)value)[((long)head * n_token + token) * o->d + j] = x;
    value_encode(c->s.dtype, x, place_at(p, s, token, head, j));
}

void case_read(const test_case *c, int s, double *out, double *lse)
{
    for (int h = 0; h < c->s.n_head; h++)
        for (int t = 0; t < c->s.n_q[s]; t++) {
            for (int j = 0; j < c->s.d; j++)
                *out++ = value_decode(c->s.out_dtype, place_at(&c->o, s, t, h, j));
            if (lse)
                *lse++ = value_decode(PRISM_F32, place_at(&c->lse, s, t, h, 0));
        }
}

void case_poison_outputs(test_case *c)
{
    memset(c->o.memory.data, guard_poison, c->o.memory.bytes);
    memset(c->lse.memory.data, guard_poison, c->lse.memory.bytes);
}

static bool only_poison_besides(const test_case *c, const placed *p, int d)
{
    unsigned char *copy = must(malloc(p->memory.bytes + 1));
    const size_t size = prism_dtype_bytes(p->view.dtype);
    memcpy(copy, p->memory.data, p->memory.bytes);
    for (int s = 0; s < c->s.n_seq; s++)
        for (int h = 0; h < c->s.n_head; h++)
            for (int t = 0; t < c->s.n_q[s]; t++)
                for (int j = 0; j < d; j++)
                    memset(copy + ((char *)place_at(p, s, t, h, j) - (char *)p->view.data), guard_poison, size);
    bool ok = true;
    for (size_t i = 0; i < p->memory.bytes; i++)
        ok = ok && copy[i] == guard_poison;
    free(copy);
    return ok;
}

bool case_gaps_untouched(const test_case *c)
{
    return only_poison_besides(c, &c->o, c->s.d) && only_poison_besides(c, &c->lse, 1);
}

/* ---------------------------------------------------------------------------------------------- chunks ---- */

prism_call case_chunk(const test_case *c, int begin, int end)
{
    prism_call call = c->call;
    prism_tensor *const views[] = {&call.q, &call.o, &call.lse};
    call.n_q = end - begin;
    call.n_kv = end;
    call.q_start = begin;
    for (int i = 0; i < 3; i++) {
        const int64_t skip = begin * views[i]->stride_token;
        views[i]->data = (char *)views[i]->data + skip * (int64_t)prism_dtype_bytes(views[i]->dtype);
        views[i]->n_element -= skip;
    }
    return call;
}

/* --------------------------------------------------------------------------------------------- running ---- */

prism_ctx *context_new(prism_isa isa, int n_thread)
{
    prism_config config;
    prism_config_init(&config);
    config.isa = isa;
    config.n_thread = n_thread;
    prism_ctx *ctx = NULL;
    prism_create(&config, &ctx);
    return ctx;
}

static void check(prism_ctx *ctx, prism_status status)
{
    if (status) {
        fprintf(stderr, "%s: %s\n", prism_status_name(status), prism_last_error(ctx));
        exit(1);
    }
}

runner runner_new(prism_ctx *ctx, const prism_options *options, const prism_call *call)
{
    runner r = {.ctx = ctx};
    size_t bytes;
    check(ctx, prism_workspace_bytes(ctx, options, call, &bytes));
    r.workspace = guarded_new(bytes, 64);
    check(ctx, prism_plan_create(ctx, call, options->block_size, 0, &r.plan));
    return r;
}

void runner_free(runner *r)
{
    prism_plan_destroy(r->plan);
    guarded_free(&r->workspace);
    free(r->mask);
}

prism_status runner_plan(runner *r, const prism_options *options, const prism_call *call)
{
    memset(r->workspace.data, 0xff, r->workspace.bytes); /* nothing may rest on what an earlier call left */
    const prism_status status = prism_plan_build(r->ctx, options, call, r->plan, r->workspace.data, r->workspace.bytes);
    if (status)
        return status;
    r->view.struct_size = sizeof r->view;
    check(r->ctx, prism_plan_fetch(r->ctx, r->plan));
    check(r->ctx, prism_plan_read(r->plan, &r->view));
    const size_t bytes = (size_t)r->view.n_row * (size_t)r->view.n_kblk;
    r->mask = must(realloc(r->mask, bytes + 1));
    check(r->ctx, prism_plan_mask(r->plan, r->mask, bytes));
    return PRISM_OK;
}

void (*runner_wait)(void);

prism_status runner_attend(runner *r, const prism_call *call)
{
    memset(r->workspace.data, 0xff, r->workspace.bytes);
    const prism_status status = prism_attend(r->ctx, call, r->plan, r->workspace.data, r->workspace.bytes);
    if (runner_wait)
        runner_wait();
    return status;
}

const uint8_t *runner_mask_row(const runner *r, int s, int h, int i)
{
    return r->mask + (((int64_t)s * r->view.n_head + h) * r->view.n_qblk + i) * r->view.n_kblk;
}

uint8_t *runner_mask_of(const runner *r, const test_case *c, int s)
{
    const oracle_seq *q = &c->seq[s];
    const int n_qblk = oracle_n_qblk(q), n_kblk = oracle_n_kblk(q);
    uint8_t *mask = must(malloc((size_t)q->n_head * (size_t)n_qblk * (size_t)n_kblk + 1)), *at = mask;
    for (int h = 0; h < q->n_head; h++)
        for (int i = 0; i < n_qblk; i++, at += n_kblk)
            memcpy(at, runner_mask_row(r, s, h, i), (size_t)n_kblk);
    return mask;
}

oracle_rule rule_of(const prism_options *o, int dims[2][PRISM_MAX_D_HEAD])
{
    oracle_rule r = {.causal = o->calibration == PRISM_CALIBRATION_CAUSAL,
                     .keep_sink = o->keep_sink,
                     .keep_own = o->keep_own,
                     .calibrated = o->method == PRISM_METHOD_PRISM};
    const prism_bands *b = o->bands;
    for (int band = 0; band < (r.calibrated ? 2 : 1); band++) {
        const int n = !r.calibrated ? b->d_head : band ? b->n_low : b->n_high;
        const float own_p = band ? o->top_p_low : o->top_p_high;
        for (int j = 0; j < n; j++)
            dims[r.n_band][j] = !r.calibrated ? j : band ? b->low[j] : b->high[j];
        if (n == 0)
            continue;
        r.dim[r.n_band] = dims[r.n_band];
        r.n_dim[r.n_band] = n;
        r.top_p[r.n_band++] = r.calibrated && own_p > 0 ? (double)own_p : (double)o->top_p;
    }
    return r;
}
