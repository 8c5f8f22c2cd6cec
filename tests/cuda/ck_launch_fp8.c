/* Attention with products of 8 bits (e4m3): against the oracle, and against the same computation in double with the
 * kernel's roundings to 8 bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch_case.h"

/* ||o - want|| / ||want|| for random inputs. Rounding to 4 significant bits is 2.6 % root mean square (P, V); Q and K
 * move scores (deviation 2) by 2 * 2.6 % * sqrt(2), weights by 7.4 %: 8.3 % in all. */
static const double exact = 0.11;
/* From the same numbers of 8 bits: tensor cores sum with some 14 bits, so scores differ by 2^-10, and one weight in a
 * hundred rounds to its other neighbour (up to 12 %): 1 %, and more where few queries leave nothing to average. */
static const double same = 0.015, same_of_one = 0.12;
/* Weights and values all alike: of a product's 8 bits 3 lie below what a sum over 8 tiles keeps; half of their range is
 * lost. */
static const double alike = 0x1p-6;

enum { TILE = 128 };
static const double top_weight = 8.8, slack = 2, far_below = -60, no_scale = -10000;

static double round_e4m3(double x)
{
    if (isnan(x) || x == 0)
        return x;
    const double size = fmin(fabs(x), 448), step = ldexp(1, (ilogb(size) < -6 ? -6 : ilogb(size)) - 3);
    return copysign(rint(size / step) * step, x);
}

/* Exponent of the scale that brings the largest finite number of n rows into (224, 448]; none: 0 of 0 numbers. */
static double exponent(const double *x, long n, double none)
{
    double max = 0;
    for (long i = 0; i < n; i++)
        max = isfinite(x[i]) ? fmax(max, fabs(x[i])) : max;
    return max == 0 ? none : fmax(ceil(log2(max / 448)), -60);
}

/* K or V of one KV head in 8 bits, with the exponent of each tile. */
typedef struct image {
    double *x, *e;
} image;

static image image_new(const oracle_seq *s, const double *from, double none)
{
    const int n_kv = oracle_n_kv(s), d = s->d, n_tile = (n_kv + TILE - 1) / TILE;
    image m = {malloc((size_t)n_kv * (size_t)d * sizeof(double)), malloc((size_t)n_tile * sizeof(double))};
    for (int t = 0; t < n_tile; t++) {
        const long begin = (long)t * TILE * d, end = t + 1 < n_tile ? begin + TILE * d : (long)n_kv * d;
        m.e[t] = exponent(from + begin, end - begin, none);
        for (long i = begin; i < end; i++)
            m.x[i] = round_e4m3(ldexp(from[i], m.e[t] == no_scale ? 0 : -(int)m.e[t]));
    }
    return m;
}

static void image_free(image *m)
{
    free(m->x);
    free(m->e);
}

/* Queries that share a scale: those of one run of 256 / d positions inside a block. */
static double query_exponent(const oracle_seq *s, const double *q, int row)
{
    const int run = 256 / s->d, p = s->q_start + row, begin = p / run * run, end = begin + run;
    const int from = begin > s->q_start ? begin - s->q_start : 0;
    const int to = end < oracle_n_kv(s) ? end - s->q_start : s->n_q;
    return exponent(q + (long)from * s->d, (long)(to - from) * s->d, 0);
}

/* As the kernel computes a row: tiles from the last to the first, weights rounded to 8 bits. */
static void emulate_row(const oracle_seq *s, const uint8_t *blocks, int row, const double *q_head, const image *k,
                        const image *v, double *o)
{
    const int d = s->d, p = s->q_start + row;
    const double e_q = query_exponent(s, q_head, row), scale = s->scale * 1.4426950408889634;
    double q[PRISM_MAX_D_HEAD], x[TILE], m = -INFINITY, l = 0, top = no_scale;
    for (int j = 0; j < d; j++) {
        q[j] = round_e4m3(ldexp(q_head[(long)row * d + j], -(int)e_q));
        o[j] = 0;
    }
    for (int t = p / TILE; t >= 0; t--) {
        if (blocks && !blocks[t])
            continue;
        const int n = p - t * TILE + 1 < TILE ? p - t * TILE + 1 : TILE;
        double a = -INFINITY;
        for (int c = 0; c < n; c++) {
            const double *key = k->x + ((long)t * TILE + c) * d;
            x[c] = 0;
            for (int j = 0; j < d; j++)
                x[c] += q[j] * key[j];
            x[c] *= ldexp(scale, (int)(e_q + k->e[t]));
            a = fmax(a, x[c]);
        }
        const double new_top = fmax(top, v->e[t]), below = fmax(v->e[t] - new_top, far_below);
        a = a - m <= slack ? m : a;
        const double moved = exp2(m - a), o_moved = moved * exp2(top - new_top);
        double sum = 0;
        for (int j = 0; j < d; j++)
            o[j] *= o_moved;
        for (int c = 0; c < n; c++) {
            const double w = exp2(x[c] - a + (top_weight - slack) + below), w8 = round_e4m3(w);
            sum += w;
            for (int j = 0; j < d; j++)
                o[j] += w8 * v->x[((long)t * TILE + c) * d + j];
        }
        l = l * moved + sum * exp2(-below);
        m = a;
        top = new_top;
    }
    for (int j = 0; j < d; j++)
        o[j] = l > 0 ? o[j] * exp2(top) / l : 0;
}

static double *emulate(const launch *l, int s)
{
    const oracle_seq *q = &l->c->seq[s];
    const int d = q->d, n_qblk = oracle_n_qblk(q), n_kblk = oracle_n_kblk(q), group = q->n_head / q->n_kv_head;
    double *out = malloc(((size_t)q->n_head * (size_t)q->n_q * (size_t)d + 1) * sizeof *out);
    for (int h = 0; h < q->n_head; h++) {
        const long at = (long)(h / group) * oracle_n_kv(q) * d;
        image k = image_new(q, q->k + at, 0), v = image_new(q, q->v + at, no_scale);
        const double *q_head = q->q + (long)h * q->n_q * d;
#pragma omp parallel for schedule(dynamic, 8)
        for (int t = 0; t < q->n_q; t++) {
            const int i = (q->q_start + t) / TILE - oracle_first_qblk(q);
            emulate_row(q, l->mask[s] ? l->mask[s] + ((long)h * n_qblk + i) * n_kblk : NULL, t, q_head, &k, &v,
                        out + ((long)h * q->n_q + t) * d);
        }
        image_free(&k);
        image_free(&v);
    }
    return out;
}

/* 0 bounds are not checked. */
static void compare(const launch *l, const char *what, double exact_bound, double same_bound)
{
    for (int s = 0; s < l->c->s.n_seq; s++) {
        const oracle_seq *q = &l->c->seq[s];
        launch_answer want = launch_expect(l, s), got = launch_read(l, s);
        long n_kind = 0;
        double worst = 0;
        for (long i = 0; i < got.n_out; i++)
            n_kind += !isfinite(got.out[i]) != !isfinite(want.out[i]);
        const double e = launch_distance(got.out, want.out, got.n_out);
        ck_ok(n_kind == 0, "%s%s: sequence %d: %ld not finite, or the reverse", l->name, what, s, n_kind);
        ck_ok(exact_bound == 0 || e < exact_bound, "%s%s: sequence %d: off by %.2e", l->name, what, s, e);
        for (long i = 0; i < got.n_lse; i++) {
            if (isfinite(want.lse[i]))
                worst = fmax(worst, fabs(got.lse[i] - want.lse[i]));
            n_kind += !isfinite(got.lse[i]) != !isfinite(want.lse[i]);
        }
        ck_ok(n_kind == 0 && worst < 0.5, "%s%s: sequence %d: lse off by %.2e", l->name, what, s, worst);
        double *x = same_bound > 0 && !l->spec.split && !l->spec.init ? emulate(l, s) : NULL;
        for (int h = 0; x && h < q->n_head; h++) {
            const long at = (long)h * q->n_q * q->d, n = (long)q->n_q * q->d;
            for (long i = at; i < at + n; i++)
                x[i] = isfinite(want.out[i]) ? x[i] : NAN; /* not compared */
            const double off = launch_distance(got.out + at, x + at, n);
            ck_ok(off < fmax(same_bound, same_of_one / sqrt(q->n_q)),
                  "%s%s: sequence %d head %d: off by %.2e from the same 8-bit numbers", l->name, what, s, h, off);
        }
        free(x);
        launch_answer_free(&want);
        launch_answer_free(&got);
    }
    ck_ok(case_gaps_untouched(l->c), "%s%s: wrote outside the output", l->name, what);
    ck_ok(l->ticket[0] == 0 && l->ticket[1] == 0, "%s%s: ticket", l->name, what);
}

static cudaError_t run_fp8(const prism_cu_attend *a, cudaStream_t stream)
{
    int32_t kernel = -1;
    const cudaError_t error = prism_attend_cuda(a, stream, &kernel);
    ck_ok(kernel == PRISM_CU_ATTEND_FP8, "kernel %d in the place of fp8", kernel);
    return error;
}

static launch *fp8_new(const launch_spec *spec, rng *r)
{
    launch *l = launch_new(spec, r);
    l->a.fp8_image = launch_memory(l, prism_fp8_image_bytes(&l->a.shape), 127);
    return l;
}

static void check(launch *l, const char *what, double exact_bound, double same_bound)
{
    const cudaError_t error = launch_run(l, run_fp8);
    if (ck_ok(error == cudaSuccess, "%s%s: error %d", l->name, what, error))
        compare(l, what, exact_bound, same_bound);
    launch_free(l);
}

typedef struct line {
    int n_q, n_kv, n_head, n_kv_head;
    launch_spec spec;
} line;

static launch_spec spec_of(const line *x, int d, prism_dtype dtype)
{
    launch_spec spec = x->spec;
    launch_lengths(&spec, x->n_q, x->n_kv, x->n_head, x->n_kv_head);
    spec.s.d = d, spec.s.dtype = dtype, spec.s.block = spec.s.block ? spec.s.block : TILE;
    return spec;
}

static const line lines[] = {
    {1024, 1024, 4, 1, {.density = 0}},
    {1000, 1000, 4, 2, {.density = 0}},
    {700, 1000, 2, 2, {.density = 0.5}},
    {1537, 2049, 6, 2, {.density = 0.3, .empty = 0.2, .init = true}},
    {2048, 2048, 8, 1, {.density = 0.1}},
    {1, 1, 2, 1, {.density = 0}},
    {5, 133, 2, 1, {.init = true}},
    {5, 133, 2, 1, {.density = 0}},
    {128, 4096, 2, 1, {.density = 0.5, .split = true}},
    {15, 9000, 8, 1, {.split = true, .init = true}},
    {300, 6000, 2, 1, {.density = 0.6, .empty = 0.3, .split = true, .init = true}},
    {200, 331, 4, 2, {.s = {.n_beyond = 169}, .density = 0.5}},
    {1000, 1500, 4, 2, {.density = 0.3, .full = FLAG_SET}},
    {1000, 1500, 4, 2, {.density = 0.3, .full = FLAG_CLEAR}},
    {300, 6000, 2, 1, {.density = 0.6, .empty = 0.3}},
};

static void check_shapes(int d, prism_dtype dtype, rng *r)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const launch_spec spec = spec_of(&lines[i], d, dtype);
        check(fp8_new(&spec, r), "", exact, same);
    }
}

static void check_poison(int d, prism_dtype dtype, rng *r)
{
    static const struct {
        char where;
        double what, stands_for; /* an infinite key is NaN in 8 bits */
        const char *name;
    } poisons[] = {{'v', NAN, NAN, " NaN in v"},  {'v', INFINITY, INFINITY, " Inf in v"},
                   {'v', -INFINITY, -INFINITY, " -Inf in v"}, {'k', NAN, NAN, " NaN in k"},
                   {'k', INFINITY, NAN, " Inf in k"},         {'q', NAN, NAN, " NaN in q"}};
    for (size_t i = 0; i < sizeof poisons / sizeof *poisons; i++)
        for (int split = 0; split < 2; split++) {
            const line x = {333, split ? 5000 : 1000, 2, 1, {.density = 0.7, .split = split}};
            const launch_spec spec = spec_of(&x, d, dtype);
            launch *l = fp8_new(&spec, r);
            const char where = poisons[i].where;
            const int n = where == 'q' ? x.n_q : x.n_kv, at[] = {n - 1, n - 70, n - 200, 130, 0};
            for (int t = 0; t < 5; t++)
                for (int h = 0; h < (where == 'q' ? 2 : 1); h++) {
                    const int j = at[t] * 7 % d;
                    case_poke(l->c, where, 0, h, at[t], j, poisons[i].what);
                    if (where == 'k')
                        ((double *)l->c->seq[0].k)[((long)h * n + at[t]) * d + j] = poisons[i].stands_for;
                }
            check(l, poisons[i].name, exact, same);
        }
}

/* Multiplies token t of Q, K or V by factor(t), and adds. */
static void change(launch *l, char where, double (*factor)(int t), double add)
{
    const oracle_seq *s = &l->c->seq[0];
    const double *x = where == 'q' ? s->q : where == 'k' ? s->k : s->v;
    const int n_head = where == 'q' ? s->n_head : s->n_kv_head, n = where == 'q' ? s->n_q : oracle_n_kv(s);
    for (int h = 0; h < n_head; h++)
        for (int t = 0; t < n; t++)
            for (int j = 0; j < s->d; j++)
                case_poke(l->c, where, 0, h, t, j, x[((long)h * n + t) * s->d + j] * factor(t) + add);
}

static double by_24_bits(int t) { return ldexp(1, t / TILE % 25 - 12); }
static double one_of_three(int t) { return t / TILE % 3 == 1; }
static double nothing(int t) { return 0 * t; }
static double by_block(int t) { return ldexp(1, t / TILE % 10 - 9); }
static double by_token(int t) { return ldexp(1, t % 10 - 9); }
static double half(int t) { return 0.5 + 0 * t; }
static double tenth(int t) { return 0.1 + 0 * t; }

/* Tiles whose scales differ, up to where values vanish beside others; tiles of zeros. */
static void check_scales(int d, prism_dtype dtype, rng *r)
{
    static const struct {
        const char *name;
        char where;
        double (*factor)(int t);
    } scales[] = {{" values 2^-12 .. 2^12", 'v', by_24_bits}, {" zeros among the values", 'v', one_of_three},
                  {" no values", 'v', nothing},               {" no keys", 'k', nothing},
                  {" no queries", 'q', nothing},              {" keys 2^-9 .. 1", 'k', by_block},
                  {" queries 2^-9 .. 1", 'q', by_token}};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        const line x = {700, 5000, 2, 1, {.density = 0.6}};
        const launch_spec spec = spec_of(&x, d, dtype);
        launch *l = fp8_new(&spec, r);
        change(l, scales[i].where, scales[i].factor, 0);
        check(l, scales[i].name, 0, 2 * same);
    }
}

static void check_batches(int d, prism_dtype dtype, const int *pages, int n_page, int n_head, int n_kv_head, rng *r)
{
    static const int lengths[2][3][2] = {{{300, 700}, {515, 515}, {1, 2100}}, {{300, 3000}, {40, 40}, {7, 9000}}};
    for (int i = 0; i <= n_page; i++) {
        const bool last = i == n_page;
        const line x = {1, 1, n_head, n_kv_head, {.density = 0.5}};
        launch_spec spec = spec_of(&x, d, dtype);
        spec.s.n_seq = 3, spec.s.n_beyond = 77, spec.s.page_size = pages[last ? n_page - 1 : i];
        spec.s.q_layout = spec.s.o_layout = RAGGED, spec.s.kv_layout = spec.s.page_size ? PAGED : RAGGED;
        for (int s = 0; s < 3; s++) {
            spec.s.n_q[s] = lengths[last][s][0];
            spec.s.q_start[s] = lengths[last][s][1] - lengths[last][s][0];
        }
        spec.split = last && n_head == 4, spec.init = last, spec.empty = last ? 0.1 : 0;
        check(fp8_new(&spec, r), "", exact, same);
    }
}

static void check_refused(const launch_spec *change_to, int d, prism_dtype dtype, rng *r)
{
    const line x = {100, 100, 4, 2, *change_to};
    const launch_spec spec = spec_of(&x, d, dtype);
    launch *l = fp8_new(&spec, r);
    const cudaError_t image_error = prism_fp8_image_cuda(&l->a, NULL), error = launch_run(l, prism_attend_fp8);
    ck_ok(error == cudaErrorNotSupported && image_error == error, "%s: taken: %d, %d", l->name, image_error, error);
    launch_free(l);
}

void ck_launch_fp8(void)
{
    static const int pages[] = {0, 1, 8, 16, 64, 128, 256}, few[] = {0, 16, 64}, two[] = {0, 64};
    rng r = ck_rng("launch fp8");
    if (launch_compute() != 90) {
        ck_ok(true, "sm_90a only");
        return;
    }
    for (int d = 64; d <= 128; d += 64)
        for (int dtype = PRISM_F16; dtype <= PRISM_BF16; dtype++) {
            check_shapes(d, (prism_dtype)dtype, &r);
            check_poison(d, (prism_dtype)dtype, &r);
            check_scales(d, (prism_dtype)dtype, &r);
        }
    for (int n = 8192; n <= 131072; n *= 16) { /* weights alike, values around 1: lost bits do not cancel */
        const line x = {128, n, 2, 1, {.density = 0}};
        const launch_spec spec = spec_of(&x, 128, PRISM_BF16);
        launch *l = fp8_new(&spec, &r);
        change(l, 'v', half, 1);
        change(l, 'q', tenth, 0);
        check(l, " keys alike", 0, alike);
    }
    check_batches(128, PRISM_BF16, pages, 7, 4, 2, &r);
    check_batches(64, PRISM_F16, few, 3, 4, 2, &r);
    check_batches(128, PRISM_BF16, two, 2, 32, 8, &r);
    const launch_spec plain = {.density = 0}, narrow = {.s = {.block = 64}}, negative = {.has_scale = true, .scale = -0.1f};
    const launch_spec zero = {.has_scale = true}, keys = {.density = 0.5, .keys = 0.1};
    const launch_spec padded = {.s = {.q_layout = PADDED, .kv_layout = PADDED, .o_layout = PADDED}};
    check_refused(&plain, 128, PRISM_F32, &r);
    check_refused(&plain, 72, PRISM_BF16, &r);
    check_refused(&plain, 256, PRISM_BF16, &r);
    check_refused(&narrow, 128, PRISM_BF16, &r);
    check_refused(&negative, 128, PRISM_BF16, &r);
    check_refused(&zero, 128, PRISM_BF16, &r);
    check_refused(&padded, 128, PRISM_BF16, &r);
    check_refused(&keys, 128, PRISM_BF16, &r);
}
