/* From raw Q and K to the plan: pool, calibrate, score, select, through the public API, judged by the oracle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"

/* Block means of one sequence, and the means of the magnitudes, which bound the rounding of the sums. */
typedef struct means {
    double *q, *k, *q_abs, *k_abs;
} means;

static double *pooled(const double *x, int n_head, int first, int n, int d, int block, bool magnitude)
{
    const int n_block = (first + n - 1) / block - first / block + 1;
    double *mean = malloc((size_t)n_head * (size_t)n_block * (size_t)d * sizeof *mean);
    double *row = malloc((size_t)n * (size_t)d * sizeof *row);
    if (!mean || !row)
        abort();
    for (int h = 0; h < n_head; h++) {
        for (long j = 0; j < (long)n * d; j++)
            row[j] = magnitude ? fabs(x[(long)h * n * d + j]) : x[(long)h * n * d + j];
        oracle_means(row, first, n, d, block, mean + (long)h * n_block * d);
    }
    free(row);
    return mean;
}

static means means_new(const oracle_seq *s)
{
    const int n_kv = oracle_n_kv(s);
    return (means){pooled(s->q, s->n_head, s->q_start, s->n_q, s->d, s->block, false),
                   pooled(s->k, s->n_kv_head, 0, n_kv, s->d, s->block, false),
                   pooled(s->q, s->n_head, s->q_start, s->n_q, s->d, s->block, true),
                   pooled(s->k, s->n_kv_head, 0, n_kv, s->d, s->block, true)};
}

static void means_free(means *m)
{
    free(m->q);
    free(m->k);
    free(m->q_abs);
    free(m->k_abs);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/*
 * How far the float logits of a row may be from the oracle's. With u = 2^-24, or 2^-20 where means are cut to 22 bits:
 *   a mean of B values has an error of (B + 2) u times the mean of magnitudes A, hence a dot product of n
 *     E_v = u sum_l [ (n + 2) |q_l k_l| + (B + 2) (A(q)_l |k_l| + |q_l| A(k)_l) ];
 *   the factor is made of four root mean squares, each with a relative error of (B + 2) u rms(A) / rms(mean).
 */
static double logit_bound(const oracle_seq *s, const oracle_rule *r, int band, int h, int i, const means *m,
                          const double *logit, double u)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), d = s->d, own = oracle_first_qblk(s) + i;
    const long q_at = (long)h * n_qblk * d, k_at = (long)(h / (s->n_head / s->n_kv_head)) * n_kblk * d;
    const int *dim = r->dim[band], n_dim = r->n_dim[band];
    const int row = r->causal ? i : 0, n_row = r->causal ? 1 : n_qblk, n_col = r->causal ? own + 1 : n_kblk;
    const double *q = m->q + q_at, *qa = m->q_abs + q_at, *k = m->k + k_at, *ka = m->k_abs + k_at;
    double spread = 0;
    for (int z = 0; z < 2; z++) {
        const int *list = z ? dim : NULL, n = z ? n_dim : d;
        spread += ratio(oracle_rms(qa + row * d, n_row, d, list, n), oracle_rms(q + row * d, n_row, d, list, n));
        spread += ratio(oracle_rms(ka, n_col, d, list, n), oracle_rms(k, n_col, d, list, n));
    }
    const double factor_error = r->calibrated ? (s->block + 2) * u * spread + 4 * u : u;
    const double factor = oracle_factor(s, r, band, h, i, m->q, m->k);
    double worst = 0;
    for (int v = 0; v <= own; v++) {
        double e = 0;
        for (int l = 0; l < n_dim; l++) {
            const int a = i * d + dim[l], b = v * d + dim[l];
            e += (n_dim + 2) * fabs(q[a] * k[b]) + (s->block + 2) * (qa[a] * fabs(k[b]) + fabs(q[a]) * ka[b]);
        }
        worst = fmax(worst, factor * u * e + fabs(logit[v]) * (factor_error + 4 * u));
    }
    return worst;
}

typedef struct tally {
    long n_decided, n_open;
} tally;

/* One row of the plan. exact: scores are equal or sums exact by construction, so nothing is open. */
static void check_row(const oracle_seq *s, const oracle_rule *r, const means *m, int h, int i, const uint8_t *mask,
                      bool exact, int tier_at, tally *count)
{
    const char *tier = ck_tier_name(tier_at);
    const double u = ck_is_gpu(tier_at) ? 0x1p-20 : 0x1p-24;
    const int own = oracle_first_qblk(s) + i, n = own + 1, n_kblk = oracle_n_kblk(s);
    double *x = malloc((size_t)n_kblk * sizeof *x);
    uint8_t *verdict = calloc((size_t)n_kblk, 1), *one = malloc((size_t)n_kblk);
    bool *kept = malloc((size_t)n_kblk * sizeof *kept);
    for (int band = 0; band < r->n_band; band++) {
        oracle_logits(s, r, band, h, i, m->q, m->k, x);
        /* e^x moves by twice the error of the logits; exp_row itself adds less than 2e-6 (ck_rows). Weights are cut to
         * multiples of 2^-40 of the largest. */
        const double rel = exact ? 0 : 2 * logit_bound(s, r, band, h, i, m, x, u) + 2e-6, tiny = exact ? 0 : 0x1p-39;
        double mass = 0;
        oracle_softmax(x, n);
        if (exact) {
            oracle_topp(x, n, r->top_p[band], kept);
            for (int v = 0; v < n; v++)
                one[v] = kept[v];
        } else {
            oracle_topp_certain(x, n, r->top_p[band], rel, tiny, one);
        }
        for (int v = 0; v < n; v++) {
            verdict[v] = verdict[v] == 1 || one[v] == 1 ? 1 : verdict[v] | one[v];
            mass += mask[v] ? x[v] : 0;
        }
        ck_ok(mass >= r->top_p[band] - 2 * rel - 2 * n * tiny - 1e-12, "%s h %d block %d band %d: mass %.9g of %.9g",
              tier, h, own, band, mass, r->top_p[band]);
    }
    int n_certain = 0;
    for (int v = 0; v < n; v++) {
        if ((v == 0 && r->keep_sink) || (v == own && r->keep_own))
            verdict[v] = 1;
        n_certain += verdict[v] != 0;
    }
    for (int v = 0; v < n_kblk; v++) {
        const uint8_t want = v > own ? 0 : n_certain == 0 && v == own ? 1 : verdict[v];
        count->n_open += want == 2;
        count->n_decided += want != 2;
        ck_ok(want == 2 || mask[v] == want, "%s h %d block %d: key block %d is %d, not %d", tier, h, own, v, mask[v],
              want);
    }
    free(x), free(verdict), free(one), free(kept);
}

static void check_plan(const test_case *c, const prism_options *o, bool exact, tally *count)
{
    int dims[2][PRISM_MAX_D_HEAD];
    const oracle_rule rule = rule_of(o, dims);
    means m[MAX_SEQ];
    for (int s = 0; s < c->s.n_seq; s++)
        m[s] = means_new(&c->seq[s]);
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        runner r = runner_new(ctx, o, &c->call);
        if (ck_ok(runner_plan(&r, o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx)))
            for (int s = 0; s < c->s.n_seq; s++)
                for (int h = 0; h < c->s.n_head; h++)
                    for (int i = 0; i < oracle_n_qblk(&c->seq[s]); i++)
                        check_row(&c->seq[s], &rule, &m[s], h, i, runner_mask_row(&r, s, h, i), exact, tier, count);
        runner_free(&r);
        prism_destroy(ctx);
    }
    for (int s = 0; s < c->s.n_seq; s++)
        means_free(&m[s]);
}

static prism_options options_nth(int index, const test_case *c)
{
    static const float p[] = {0.95f, 0.9f, 0.5f, 0.37f, 0.99f, 0.999f};
    prism_options o;
    prism_options_init(&o);
    o.method = index % 5 == 4 ? PRISM_METHOD_MEANPOOL : PRISM_METHOD_PRISM;
    o.calibration = index % 2 ? PRISM_CALIBRATION_CAUSAL : PRISM_CALIBRATION_GLOBAL;
    o.block_size = c->s.block;
    o.top_p = p[index % 6];
    o.top_p_low = index % 4 == 1 ? 0.8f : 0;
    o.keep_sink = index % 3 != 1;
    o.keep_own = index % 4 != 2;
    o.min_tokens = 0;
    o.bands = &c->bands;
    return o;
}

/* Longer prompts, many rows, many key blocks: what the shapes of shape_nth() do not reach. On the processor, whose tiers
 * are many, a part of them. */
static void check_long(rng *r, tally *count)
{
    static const struct {
        int n_q, n_kv, n_head, n_kv_head, d, block;
        prism_dtype dtype;
        data_kind data;
        float top_p;
        bool is_causal, on_cpu;
    } lines[] = {
        {8192, 8192, 8, 2, 128, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
        {8192, 8192, 8, 2, 128, 128, PRISM_F16, DATA_RANDOM, 0.9f, false, false},
        {5000, 9001, 4, 4, 128, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
        {5000, 9001, 3, 1, 64, 64, PRISM_BF16, DATA_RANDOM, 0.95f, false, false},
        {3000, 3000, 3, 3, 96, 64, PRISM_F32, DATA_RANDOM, 0.9f, true, true},
        {2000, 2500, 4, 2, 192, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
        {2000, 2000, 2, 2, 256, 128, PRISM_F32, DATA_RANDOM, 0.95f, true, false},
        {32768, 32768, 8, 1, 128, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
        {20480, 20480, 2, 2, 128, 128, PRISM_BF16, DATA_TIED, 0.6f, true, false},
        {300, 20000, 2, 1, 64, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, true},
        {1000, 300000, 2, 1, 128, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
        {200, 2200000, 1, 1, 64, 128, PRISM_BF16, DATA_RANDOM, 0.95f, true, false},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!ck.gpu && !lines[i].on_cpu)
            continue;
        shape s = {.n_seq = 1, .n_head = lines[i].n_head, .n_kv_head = lines[i].n_kv_head, .d = lines[i].d,
                   .block = lines[i].block, .dtype = lines[i].dtype, .out_dtype = lines[i].dtype, .page_size = 16,
                   .n_q = {lines[i].n_q}, .q_start = {lines[i].n_kv - lines[i].n_q}, .data = lines[i].data};
        test_case *c = case_new(&s, rng_next(r));
        prism_options o = options_nth(0, c);
        o.top_p = lines[i].top_p;
        o.calibration = lines[i].is_causal ? PRISM_CALIBRATION_CAUSAL : PRISM_CALIBRATION_GLOBAL;
        check_plan(c, &o, s.data == DATA_TIED, count);
        case_free(c);
    }
}

/* Keys appended in two calls, the first of which ends inside a block: sums of a block's keys, 128 roundings of the sum of
 * magnitudes; and the same plan each time. */
static void check_append(rng *r)
{
    const shape s = {.n_seq = 1, .n_head = 4, .n_kv_head = 2, .d = 128, .block = 128, .dtype = PRISM_BF16,
                     .out_dtype = PRISM_BF16, .page_size = 16, .n_q = {3000}};
    test_case *c = case_new(&s, rng_next(r));
    const prism_options o = options_nth(0, c);
    means m = means_new(&c->seq[0]);
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        prism_pooled pooled;
        size_t bytes = 0;
        prism_pooled_bytes(&o, 2, 128, 3000, &bytes);
        guarded memory = guarded_new(bytes, 64);
        ck_ok(prism_pooled_init(&pooled, &o, 2, 128, 3000, memory.data, bytes) == PRISM_OK, "pooled_init");
        for (int end = 1537; end <= 3000; end += 1463) {
            prism_call call = case_chunk(c, pooled.n_token, end);
            call.pooled = &pooled;
            ck_ok(prism_pool_append(ctx, &call) == PRISM_OK, "append: %s", prism_last_error(ctx));
        }
        if (runner_wait)
            runner_wait();
        for (int b = 0; b < oracle_n_kblk(&c->seq[0]); b++)
            for (int h = 0; h < 2; h++)
                for (int j = 0; j < 128; j++) {
                    const int n = 3000 - b * 128 < 128 ? 3000 - b * 128 : 128;
                    const long at = ((long)h * oracle_n_kblk(&c->seq[0]) + b) * 128 + j;
                    ck_near((double)pooled.key_sum[(b * 2 + h) * 128 + j], n * m.k[at], 128 * 0x1p-24 * n * m.k_abs[at],
                            "%s: sum of block %d head %d [%d]", ck_tier_name(tier), b, h, j);
                }
        uint8_t *first = NULL;
        for (int i = 0; i < 4; i++) {
            runner run = runner_new(ctx, &o, &c->call);
            ck_ok(runner_plan(&run, &o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx));
            uint8_t *mask = runner_mask_of(&run, c, 0);
            ck_ok(!first || !memcmp(first, mask, 4 * 24 * 24), "%s: another plan the next time", ck_tier_name(tier));
            free(first);
            first = mask;
            runner_free(&run);
        }
        free(first);
        guarded_free(&memory);
        prism_destroy(ctx);
    }
    means_free(&m);
    case_free(c);
}

/* In a batch whose lengths the device knows, sequences below min_tokens keep everything; one without queries, nothing. */
static void check_short_in_batch(rng *r)
{
    shape s = {.n_seq = 3, .n_head = 4, .n_kv_head = 2, .d = 128, .block = 128, .dtype = PRISM_BF16,
               .out_dtype = PRISM_BF16, .page_size = 16, .n_q = {3000, 700, 0}, .q_start = {0, 0, 900}};
    s.q_layout = s.o_layout = s.kv_layout = RAGGED;
    test_case *c = case_new(&s, rng_next(r));
    prism_options o = options_nth(0, c);
    o.top_p = 0.5f;
    o.min_tokens = 701;
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        runner run = runner_new(ctx, &o, &c->call);
        int n_long = 0;
        ck_ok(runner_plan(&run, &o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx));
        for (int h = 0; h < 4; h++)
            for (int i = 0; i < 24; i++)
                for (int v = 0; v < 24; v++) {
                    n_long += runner_mask_row(&run, 0, h, i)[v];
                    ck_ok(runner_mask_row(&run, 1, h, i)[v] == (i < 6 && v <= i), "%s: short sequence, h %d %d, %d",
                          ck_tier_name(tier), h, i, v);
                    ck_ok(!runner_mask_row(&run, 2, h, i)[v], "%s: no queries, h %d %d, %d", ck_tier_name(tier), h, i, v);
                }
        ck_ok(n_long < 4 * 24 * 25 / 2, "%s: the long sequence is dense", ck_tier_name(tier));
        runner_free(&run);
        prism_destroy(ctx);
    }
    case_free(c);
}

void ck_select(void)
{
    rng r = ck_rng("select"), r_long = ck_rng("select long");
    tally random = {0, 0}, other = {0, 0}, far = {0, 0};
    for (int index = 0; index < 90; index += ck.every) {
        shape s = shape_nth(index, 1400, &r);
        ck_gpu_fit(&s, true);
        s.data = index % 3 ? DATA_RANDOM : (data_kind)(index / 3 % N_DATA);
        const bool exact = s.data == DATA_TIED;
        for (int i = 0; exact && i < s.n_seq; i++) { /* tails whose mean is exact: a power of two of rows */
            s.q_start[i] = s.q_start[i] / s.block * s.block;
            s.n_q[i] = s.n_q[i] / s.block * s.block + (16 << rng_range(&r, 0, 2));
        }
        test_case *c = case_new(&s, rng_next(&r));
        const prism_options o = options_nth(index, c);
        check_plan(c, &o, exact, s.data == DATA_RANDOM ? &random : &other);
        case_free(c);
    }
    check_append(&r_long);
    check_short_in_batch(&r_long);
    if (ck.every == 1) {
        check_long(&r_long, &far);
        ck_ok(far.n_open * 10 < far.n_decided, "long prompts: %ld decisions of %ld are open", far.n_open,
              far.n_decided + far.n_open);
    }
    /* A bound so wide that nothing is decided would make these checks idle. */
    ck_ok(random.n_decided > 5000 / ck.every && random.n_open * 50 < random.n_decided, "%ld of %ld decisions are open",
          random.n_open, random.n_decided + random.n_open);
    printf("           decided %ld blocks, open %ld; of other data %ld, %ld\n", random.n_decided, random.n_open,
           other.n_decided, other.n_open);
}
