/* Method moments through the public API: pooled state, the plan, corrected attention, judged by oracle_moments.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"
#include "oracle_moments.h"

/* A GPU computes moments and queries as float16 in the products: logits of size 10 are off by 3e-3, so a block's error
 * by up to 1 %, and a log-sum-exp by 2e-2. On the CPU logits are off by (d + 3) 2^-24 of their magnitude, and bfloat16
 * weights by 2^-8. Outputs: 1 % of their norm, on a GPU for the same reason, on the CPU for values of 16 bits. */
static const double select_slack[] = {1e-3, 1e-2}, lse_slack[] = {1e-2, 2e-2}, out_slack = 1e-2;

typedef struct tally {
    long n_open, n_kept, n_all;
} tally;

/* A spread that differs from block to block, and a loud token: rows keep some blocks and prune others. */
static void vary_keys(test_case *c, rng *r)
{
    for (int s = 0; s < c->s.n_seq; s++)
        for (int h = 0; h < c->s.n_kv_head; h++) {
            double factor = 0;
            for (int t = 0, n = oracle_n_kv(&c->seq[s]); t < n; t++) {
                factor = t % c->s.block == 0 ? rng_unit(r) : factor;
                for (int j = 0; j < c->s.d; j++)
                    case_poke(c, 'k', s, h, t, j,
                              factor * c->seq[s].k[((long)h * n + t) * c->s.d + j] + (t == 3 ? 3 : 0));
            }
        }
}

static void check_plan(const oracle_seq *s, const prism_options *o, const uint8_t *mask, int tier, tally *count)
{
    const int n_qblk = oracle_n_qblk(s), n_kblk = oracle_n_kblk(s), first = oracle_first_qblk(s);
    double *want = malloc((size_t)n_kblk * sizeof *want);
    for (int h = 0; h < s->n_head; h++) {
        oracle_entries x = oracle_entries_make(s, h / (s->n_head / s->n_kv_head), n_kblk - 1);
        for (int i = 0; i < n_qblk; i++) {
            const uint8_t *row = mask + ((long)h * n_qblk + i) * n_kblk;
            const int own = first + i;
            oracle_errors(s, &x, h, i, want);
            ck_ok(row[own], "%s h %d block %d: its own block is pruned", ck_tier_name(tier), h, own);
            for (int b = 0; b < own; b++) {
                const int keeps = oracle_keeps(want, own, b, o->moments_error, select_slack[ck_is_gpu(tier)]);
                count->n_open += keeps < 0;
                count->n_kept += row[b];
                count->n_all++;
                ck_ok(keeps < 0 || row[b] == keeps, "%s h %d block %d: block %d has error %g, kept %d",
                      ck_tier_name(tier), h, own, b, want[b], row[b]);
            }
        }
        oracle_entries_free(&x);
    }
    free(want);
}

static void check_answer(const test_case *c, int s, const uint8_t *mask, bool variances, int tier)
{
    const oracle_seq *q = &c->seq[s];
    const long n_lse = (long)q->n_head * q->n_q, n_out = n_lse * q->d;
    double *out = malloc((size_t)n_out * sizeof *out), *lse = malloc((size_t)n_lse * sizeof *lse);
    double *got = malloc((size_t)n_out * sizeof *got), *got_lse = malloc((size_t)n_lse * sizeof *got_lse);
    double error = 0, size = 0, worst = 0;
    oracle_attend_corrected(q, mask, variances, out, lse);
    case_read(c, s, got, got_lse);
    for (long i = 0; i < n_out; i++) {
        error += (got[i] - out[i]) * (got[i] - out[i]);
        size += out[i] * out[i];
    }
    for (long i = 0; i < n_lse; i++)
        worst = fmax(worst, fabs(got_lse[i] - lse[i]));
    ck_ok(error <= out_slack * out_slack * size, "%s sequence %d, variances %d: outputs off by %.2e", ck_tier_name(tier),
          s, variances, sqrt(error / size));
    ck_ok(worst <= lse_slack[ck_is_gpu(tier)], "%s sequence %d, variances %d: lse off by %.2e", ck_tier_name(tier), s,
          variances, worst);
    free(out), free(lse), free(got), free(got_lse);
}

static void check_case(test_case *c, float moments_error, tally *count)
{
    for (int tier = ck.gpu; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        for (int correct = PRISM_CORRECTION_MEAN; correct <= PRISM_CORRECTION_MOMENTS; correct++) {
            prism_options o;
            prism_options_init(&o);
            o.method = PRISM_METHOD_MOMENTS;
            o.block_size = c->s.block;
            o.moments_error = moments_error;
            o.min_tokens = 0;
            o.correct = (prism_correction)correct;
            runner r = runner_new(ctx, &o, &c->call);
            if (!ck_ok(runner_plan(&r, &o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx)))
                continue;
            ck_ok(r.view.path == PRISM_PATH_SPARSE && r.view.correct == (prism_correction)correct, "path %d",
                  r.view.path);
            case_poison_outputs(c);
            ck_ok(runner_attend(&r, &c->call) == PRISM_OK, "attend: %s", prism_last_error(ctx));
            ck_ok(case_gaps_untouched(c), "%s: wrote outside the output", ck_tier_name(tier));
            for (int s = 0; s < c->s.n_seq; s++) {
                uint8_t *mask = runner_mask_of(&r, c, s);
                if (c->s.n_q[s] > 0) {
                    if (correct == PRISM_CORRECTION_MOMENTS) /* the plan is the same */
                        check_plan(&c->seq[s], &o, mask, tier, count);
                    check_answer(c, s, mask, correct == PRISM_CORRECTION_MOMENTS, tier);
                }
                free(mask);
            }
            runner_free(&r);
        }
        prism_destroy(ctx);
    }
}

static uint8_t *plan_of(prism_ctx *ctx, const test_case *c, const prism_options *o)
{
    runner r = runner_new(ctx, o, &c->call);
    ck_ok(runner_plan(&r, o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx));
    uint8_t *mask = runner_mask_of(&r, c, 0);
    runner_free(&r);
    return mask;
}

/* A key that is not finite: rows that see its block keep it, all others keep their plan. So does the row of a query that
 * is not finite (one that scores blocks: every 4th), which keeps everything. */
static void check_not_finite(rng *r)
{
    enum { HEADS = 4, N = 16, BAD_KEY = 9 * 128 + 5, BAD_QUERY = 12 * 128 + 7 };
    static const double values[] = {NAN, INFINITY};
    const shape s = {.n_seq = 1, .n_head = HEADS, .n_kv_head = 2, .d = 128, .block = 128, .page_size = 16,
                     .dtype = PRISM_BF16, .out_dtype = PRISM_BF16, .n_q = {N * 128}};
    for (int tier = ck.gpu; tier < ck_n_tier(); tier++) {
        prism_ctx *ctx = ck_context(tier);
        test_case *c = case_new(&s, rng_next(r));
        prism_options o;
        prism_options_init(&o);
        o.method = PRISM_METHOD_MOMENTS, o.block_size = 128, o.min_tokens = 0, o.moments_error = 0.02f;
        vary_keys(c, r);
        uint8_t *good = plan_of(ctx, c, &o);
        for (int which = 0; which < 4; which++) {
            const bool key = which < 2;
            const int head = key ? 1 : 0, token = key ? BAD_KEY : BAD_QUERY;
            const double *x = key ? c->seq[0].k : c->seq[0].q, before = x[((long)head * N * 128 + token) * 128 + 3];
            case_poke(c, key ? 'k' : 'q', 0, head, token, 3, values[which % 2]);
            uint8_t *mask = plan_of(ctx, c, &o);
            case_poke(c, key ? 'k' : 'q', 0, head, token, 3, before);
            for (int h = 0; h < HEADS; h++)
                for (int i = 0; i < N; i++) {
                    const uint8_t *row = mask + (h * N + i) * N;
                    const bool sees = key ? h / 2 == 1 && i >= token / 128 : h == 0 && i == token / 128;
                    for (int v = 0; v <= i && sees; v++)
                        ck_ok(row[v] || (key && v != token / 128), "%s: %g in a %s: h %d block %d prunes %d",
                              ck_tier_name(tier), values[which % 2], key ? "key" : "query", h, i, v);
                    ck_ok(sees || !memcmp(row, good + (h * N + i) * N, N), "%s: %g in a %s reaches h %d block %d",
                          ck_tier_name(tier), values[which % 2], key ? "key" : "query", h, i);
                }
            free(mask);
        }
        free(good);
        case_free(c);
        prism_destroy(ctx);
    }
}

void ck_moments(void)
{
    static const struct {
        int n_q, n_kv, n_head, n_kv_head, d;
        prism_dtype dtype;
        float error, scale;
        bool long_on_cpu;
    } lines[] = {
        {2048, 2048, 4, 2, 128, PRISM_BF16, 0.02f, 0, false},  {1501, 5002, 6, 1, 128, PRISM_F16, 0.05f, 0, true},
        {1500, 1833, 4, 1, 64, PRISM_BF16, 0.02f, 0, false},   {12000, 12000, 2, 1, 128, PRISM_BF16, 0.005f, 0, true},
        {700, 70000, 2, 1, 128, PRISM_BF16, 0.003f, 0, true},  {1, 1, 2, 2, 128, PRISM_BF16, 0.02f, 0, false},
        {130, 131, 3, 1, 128, PRISM_F16, 0.02f, 0, false},     {200, 383, 3, 3, 128, PRISM_BF16, 0.02f, 0, false},
        {2048, 2048, 2, 2, 128, PRISM_F16, 0.02f, 0.2f, false}, {2048, 2048, 2, 2, 64, PRISM_F16, 9e9f, 0, false},
    };
    rng r = ck_rng("moments");
    tally count = {0, 0, 0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        shape s = {.n_seq = 1, .n_head = lines[i].n_head, .n_kv_head = lines[i].n_kv_head, .d = lines[i].d};
        s.block = 128, s.page_size = 16, s.dtype = s.out_dtype = lines[i].dtype, s.scale = (double)lines[i].scale;
        const int part = ck.gpu || lines[i].n_q < 1000 ? 1 : 3; /* the processor has several tiers */
        s.n_q[0] = lines[i].n_q / part, s.q_start[0] = lines[i].n_kv / part - s.n_q[0];
        if (lines[i].long_on_cpu && !ck.gpu)
            continue;
        test_case *c = case_new(&s, rng_next(&r));
        vary_keys(c, &r);
        check_case(c, lines[i].error, &count);
        case_free(c);
    }
    for (int i = 0; i < 4; i++) { /* ragged batches, keys packed and in pages; lengths on the device */
        static const int pages[] = {0, 1, 16, 256};
        shape s = {.n_seq = 3, .n_head = 4, .n_kv_head = 2, .d = 128, .block = 128, .n_q = {700, 1, 300}};
        s.q_start[1] = 1000, s.q_start[2] = 800, s.page_size = pages[i] ? pages[i] : 16;
        s.dtype = s.out_dtype = PRISM_BF16, s.q_layout = s.o_layout = RAGGED, s.kv_layout = pages[i] ? PAGED : RAGGED;
        test_case *c = case_new(&s, rng_next(&r));
        vary_keys(c, &r);
        check_case(c, 0.02f, &count);
        case_free(c);
    }
    check_not_finite(&r);
    ck_ok(count.n_kept * 20 > count.n_all && count.n_kept * 20 < count.n_all * 19 && count.n_open * 20 < count.n_all,
          "%ld of %ld blocks kept, %ld open", count.n_kept, count.n_all, count.n_open);
    printf("               kept %ld of %ld past blocks, open %ld\n", count.n_kept, count.n_all, count.n_open);
}
