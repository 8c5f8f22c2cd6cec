/* Attention over a plan: full, selected and arbitrary plans; outputs and log-sum-exp judged by the oracle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"
#include "cpu/cpu.h"

/* What the oracle says about one sequence, and how far float arithmetic may be from it. */
typedef struct verdict {
    double *out, *lse, *weight; /* weight: sum of p |v|, the scale of an output's error */
    double *logit_error;        /* [n_head][n_q] */
} verdict;

static double *new_doubles(long n)
{
    double *x = malloc((size_t)n * sizeof *x + 1);
    if (!x)
        abort();
    return x;
}

/* Calls whose tensors all are bfloat16, on tiers with dot products of it. */
static bool uses_bf16(prism_isa isa, const test_case *c)
{
    prism_tier k;
    prism_tier_get(isa, &k);
    return k.gemm_bf16 && c->s.dtype == PRISM_BF16 && c->s.out_dtype == PRISM_BF16;
}

/* A dot product of d terms, its operands scaled and rounded once, is within (d + 3) u of the sum of magnitudes. */
static double logit_error(const oracle_seq *s, const uint8_t *mask, int h, int t)
{
    const int h_kv = h / (s->n_head / s->n_kv_head), n_kv = oracle_n_kv(s), d = s->d, p = s->q_start + t;
    const uint8_t *row = mask + ((long)h * oracle_n_qblk(s) + p / s->block - oracle_first_qblk(s)) * oracle_n_kblk(s);
    const double *q = s->q + ((long)h * s->n_q + t) * d;
    double worst = 0;
    for (int c = 0; c <= p; c++) {
        const double *k = s->k + ((long)h_kv * n_kv + c) * d;
        double magnitude = 0;
        for (int j = 0; row[c / s->block] && j < d; j++)
            magnitude += fabs(q[j] * k[j]);
        worst = fmax(worst, magnitude);
    }
    return worst * s->scale * (d + 3) * 0x1p-24;
}

static verdict judge(const oracle_seq *s, const uint8_t *mask)
{
    const long n_out = (long)s->n_head * s->n_q * s->d, n_row = (long)s->n_head * s->n_q;
    const long n_value = (long)s->n_kv_head * oracle_n_kv(s) * s->d;
    verdict v = {new_doubles(n_out), new_doubles(n_row), new_doubles(n_out), new_doubles(n_row)};
    oracle_attend(s, mask, v.out, v.lse);
    double *magnitude = new_doubles(n_value);
    for (long i = 0; i < n_value; i++)
        magnitude[i] = fabs(s->v[i]);
    oracle_seq abs_seq = *s;
    abs_seq.v = magnitude;
    oracle_attend(&abs_seq, mask, v.weight, NULL);
    free(magnitude);
    for (int h = 0; h < s->n_head; h++)
        for (int t = 0; t < s->n_q; t++)
            v.logit_error[(long)h * s->n_q + t] = logit_error(s, mask, h, t);
    return v;
}

static void verdict_free(verdict *v)
{
    free(v->out);
    free(v->lse);
    free(v->weight);
    free(v->logit_error);
}

/*
 * Output: each weight is off by the error e of its logit, 2e relative after normalising, by 2^-22 for exp2 and its
 * argument of up to some tens (ck_softmax), and sums of n terms rescaled once a block by (n + 3 n_block) u: all
 * relative to sum p |v|; weight_unit where weights are rounded before their product with the values. Then one rounding
 * to the output's format. lse: e, the same summing error, and two roundings.
 */
/*
 * bfloat16 operands: the dot products of Q and K are of exact products and round no more than float32 ones (on Arm
 * twice as much). A weight is rounded to bfloat16 after it entered the sum, 2^-8 relative, and its exp2 is off by 3e-6
 * (ck_softmax), in numerator and denominator. What is below 2^-126 counts as 0: weights, products with values, sums.
 */
static void check_sequence(const test_case *c, int s, const verdict *v, int tier_at, const prism_ctx *ctx)
{
    const char *tier = ck_tier_name(tier_at);
    const prism_isa isa = ck_is_gpu(tier_at) ? PRISM_ISA_C : ck_tiers[tier_at];
    const bool bf16 = uses_bf16(isa, c);
    const double gpu_unit = ck_weight_unit(tier_at, ctx, c->s.dtype);
    const double arm = bf16 && isa == PRISM_ISA_NEONBF16 ? 2 : 1, exp2_error = bf16 ? 3e-6 + 0x1p-21 : 0x1p-21;
    const oracle_seq *q = &c->seq[s];
    const double u = 0x1p-24, n = oracle_n_kv(q) + 3.0 * oracle_n_kblk(q);
    double *out = new_doubles((long)q->n_head * q->n_q * q->d), *lse = new_doubles((long)q->n_head * q->n_q);
    case_read(c, s, out, lse);
    for (int h = 0; h < q->n_head; h++)
        for (int t = 0; t < q->n_q; t++) {
            const long row = (long)h * q->n_q + t;
            const double logit = arm * v->logit_error[row], sums = arm * n * u;
            const double rel = 2 * logit + sums + (bf16 ? 0x1p-8 + exp2_error : 0) + exp2_error + gpu_unit;
            for (int j = 0; j < q->d; j++) {
                const double want = v->out[row * q->d + j], exact = value_round(c->s.out_dtype, want);
                const double rounding = value_unit(c->s.out_dtype) * (fabs(want) + rel * v->weight[row * q->d + j]);
                const double subnormal = c->s.out_dtype == PRISM_F16 ? 0x1p-25 : 0x1p-133; /* half a step */
                const double tiny = subnormal + (bf16 ? (n + 1) * 0x1p-126 : 0);
                const double bound = rel * v->weight[row * q->d + j] + rounding + tiny;
                ck_near(out[row * q->d + j], isinf(exact) ? exact : want, bound, "%s seq %d h %d row %d of %d [%d]",
                        tier, s, h, t, q->n_q, j);
            }
            ck_near(lse[row], v->lse[row], logit + sums + exp2_error + 4 * u * fabs(v->lse[row]),
                    "%s seq %d h %d row %d: lse", tier, s, h, t);
        }
    free(out);
    free(lse);
}

static prism_options options_for(const test_case *c, int kind)
{
    prism_options o;
    prism_options_init(&o);
    o.block_size = c->s.block;
    o.method = kind == 0 ? PRISM_METHOD_DENSE : PRISM_METHOD_PRISM;
    o.top_p = 0.6f;
    o.min_tokens = 0;
    o.bands = &c->bands;
    return o;
}

/* A plan of nobody's: any blocks up to each row's own, the own one sometimes missing. */
static void plan_at_random(runner *r, const test_case *c, rng *rand)
{
    const size_t bytes = (size_t)r->view.n_row * (size_t)r->view.n_kblk;
    memset(r->mask, 0, bytes);
    for (int s = 0; s < c->s.n_seq; s++)
        for (int h = 0; h < c->s.n_head; h++)
            for (int i = 0; i < oracle_n_qblk(&c->seq[s]); i++)
                for (int v = 0; v <= oracle_first_qblk(&c->seq[s]) + i; v++)
                    ((uint8_t *)runner_mask_row(r, s, h, i))[v] = rng_range(rand, 0, 2) == 0;
    ck_ok(prism_plan_from_mask(r->ctx, &c->call, c->s.block, r->mask, bytes, r->plan) == PRISM_OK, "plan_from_mask: %s",
          prism_last_error(r->ctx));
    ck_ok(prism_plan_fetch(r->ctx, r->plan) == PRISM_OK && prism_plan_mask(r->plan, r->mask, bytes) == PRISM_OK,
          "plan_mask");
}

/* kind 0: full plan, 1: selected, 2: arbitrary */
static void check_attend(test_case *c, int kind, uint64_t seed)
{
    if (kind == 2 && ck.gpu && c->call.n_q_of) /* masks are for lengths that the host knows */
        kind = 1;
    const prism_options o = options_for(c, kind);
    verdict v[MAX_SEQ];
    uint8_t *first = NULL;
    size_t bytes = 0;
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        runner r = runner_new(ctx, &o, &c->call);
        ck_ok(runner_plan(&r, &o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx));
        if (kind == 2)
            plan_at_random(&r, c, &(rng){seed});
        if (tier == 0) { /* the C tier's plan serves all of them */
            bytes = (size_t)r.view.n_row * (size_t)r.view.n_kblk;
            first = malloc(bytes + 1);
            memcpy(first, r.mask, bytes);
            for (int s = 0; s < c->s.n_seq; s++) {
                uint8_t *mask = runner_mask_of(&r, c, s);
                v[s] = judge(&c->seq[s], mask);
                free(mask);
            }
        } else if (kind == 1) {
            prism_plan_from_mask(ctx, &c->call, c->s.block, first, bytes, r.plan);
        }
        case_poison_outputs(c);
        if (ck_ok(runner_attend(&r, &c->call) == PRISM_OK, "attend: %s", prism_last_error(ctx)))
            for (int s = 0; s < c->s.n_seq; s++)
                check_sequence(c, s, &v[s], tier, ctx);
        ck_ok(case_gaps_untouched(c), "%s: wrote outside the output", ck_tier_name(tier));
        runner_free(&r);
        prism_destroy(ctx);
    }
    for (int s = 0; s < c->s.n_seq; s++)
        verdict_free(&v[s]);
    free(first);
}

static void check_tails(void)
{
    rng r = ck_rng("attend tails");
    for (int tail = 1; tail < 128; tail += ck.every) {
        shape s = {.n_seq = 1, .n_head = 1, .n_kv_head = 1, .d = 32, .block = tail % 3 ? 128 : 64, .page_size = 16};
        s.q_start[0] = tail % 2 ? 128 - tail % 77 : 0;
        s.n_q[0] = 128 + tail - s.q_start[0];
        s.kv_layout = (layout)(tail % N_LAYOUT);
        ck_gpu_fit(&s, tail % 3 != 0);
        test_case *c = case_new(&s, rng_next(&r));
        check_attend(c, tail % 3, rng_next(&r));
        case_free(c);
    }
}

/* bfloat16 throughout, and query blocks of 32, 64, 96 and 128 rows, which some tiers take in strips; several blocks. */
static void check_strips(void)
{
    rng r = ck_rng("attend strips");
    static const int dims[] = {128, 64, 33, 96};
    for (int rows = 32; rows <= 128; rows += 32)
        for (int kind = 0; kind < 3; kind++) {
            shape s = {.n_seq = 1, .n_head = 2, .n_kv_head = 1, .d = dims[rows / 32 - 1], .page_size = 16};
            s.block = rows > 64 || kind == 1 ? 128 : 64;
            s.q_start[0] = 384;
            s.n_q[0] = rows;
            s.dtype = s.out_dtype = PRISM_BF16;
            ck_gpu_fit(&s, kind != 0);
            test_case *c = case_new(&s, rng_next(&r));
            check_attend(c, kind, rng_next(&r));
            case_free(c);
        }
}

void ck_attend(void)
{
    rng r = ck_rng("attend");
    for (int index = 0; index < 66; index += ck.every) {
        shape s = shape_nth(index, 400, &r);
        ck_gpu_fit(&s, index / 2 % 3 != 0);
        s.data = index % 3 ? DATA_RANDOM : (data_kind)(index / 3 % N_DATA);
        test_case *c = case_new(&s, rng_next(&r));
        check_attend(c, index / 2 % 3, rng_next(&r));
        case_free(c);
    }
    check_tails();
    check_strips();
}
