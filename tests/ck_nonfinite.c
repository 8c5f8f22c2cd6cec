/* NaN and infinities: what they must spoil, and what they must leave alone to the last bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"

static const double poisons[] = {NAN, INFINITY, -INFINITY};

static prism_options options_for(const test_case *c, prism_method method)
{
    prism_options o;
    prism_options_init(&o);
    o.method = method;
    o.calibration = PRISM_CALIBRATION_CAUSAL;
    o.block_size = c->s.block;
    o.top_p = 0.7f;
    o.min_tokens = 0;
    o.bands = &c->bands;
    return o;
}

static shape small_shape(int index, rng *r)
{
    shape s = shape_nth(index, 500, r);
    ck_gpu_fit(&s, true);
    s.n_seq = 1;
    s.scale = 0;
    s.q_start[0] = index % 3 ? rng_range(r, 0, 100) : 0;
    s.n_q[0] = index % 5 == 4 ? rng_range(r, 2, 4) : rng_range(r, 150, 400);
    return s;
}

typedef struct outputs {
    double *out, *lse;
} outputs;

static outputs attend(test_case *c, runner *r)
{
    const long n_row = (long)c->s.n_head * c->s.n_q[0];
    outputs o = {malloc((size_t)(n_row * c->s.d) * sizeof(double)), malloc((size_t)n_row * sizeof(double))};
    case_poison_outputs(c);
    ck_ok(runner_attend(r, &c->call) == PRISM_OK, "attend: %s", prism_last_error(r->ctx));
    case_read(c, 0, o.out, o.lse);
    return o;
}

static void outputs_free(outputs *o)
{
    free(o->out);
    free(o->lse);
}

/* Rows before position p are the same bits; every key and value from p on is poison. The plan stays the clean one. */
static void check_future_keys(test_case *c, runner *r, int p, double poison)
{
    const oracle_seq *s = &c->seq[0];
    outputs clean = attend(c, r);
    for (int h = 0; h < s->n_kv_head; h++)
        for (int t = p; t < oracle_n_kv(s); t++)
            for (int j = 0; j < s->d; j++) {
                case_poke(c, 'k', 0, h, t, j, poison);
                case_poke(c, 'v', 0, h, t, j, poison);
            }
    outputs after = attend(c, r);
    for (int h = 0; h < s->n_head; h++)
        for (int t = 0; t < s->n_q && s->q_start + t < p; t++) {
            const long row = (long)h * s->n_q + t;
            for (int j = 0; j < s->d; j++)
                ck_ok(after.out[row * s->d + j] == clean.out[row * s->d + j],
                      "h %d position %d [%d] changed with keys from %d on: %g, was %g", h, s->q_start + t, j, p,
                      after.out[row * s->d + j], clean.out[row * s->d + j]);
            ck_ok(after.lse[row] == clean.lse[row], "h %d position %d: lse changed with keys from %d on", h,
                  s->q_start + t, p);
        }
    outputs_free(&clean);
    outputs_free(&after);
}

/* One value of one token is poison: exactly the rows that read that token, and there exactly that dimension. */
static void check_one_value(test_case *c, runner *r, int token, int j, double poison)
{
    const oracle_seq *s = &c->seq[0];
    outputs clean = attend(c, r);
    for (int h = 0; h < s->n_kv_head; h++)
        case_poke(c, 'v', 0, h, token, j, poison);
    outputs after = attend(c, r);
    for (int h = 0; h < s->n_head; h++)
        for (int t = 0; t < s->n_q; t++) {
            const int position = s->q_start + t;
            const bool reads = token <= position &&
                               runner_mask_row(r, 0, h, position / s->block - oracle_first_qblk(s))[token / s->block];
            for (int l = 0; l < s->d; l++) {
                const long at = ((long)h * s->n_q + t) * s->d + l;
                ck_ok(reads && l == j ? !isfinite(after.out[at]) : after.out[at] == clean.out[at],
                      "value %g of token %d: h %d position %d [%d] is %g, was %g", poison, token, h, position, l,
                      after.out[at], clean.out[at]);
            }
        }
    outputs_free(&clean);
    outputs_free(&after);
}

/* One key or query holds a poison: its block (its row) is selected, other rows keep their plan, and the output is what
 * dense attention gives: NaN where the poison is read, finite elsewhere. */
static void check_one_key(test_case *c, prism_ctx *ctx, char which, int token, double poison)
{
    const oracle_seq *s = &c->seq[0];
    const prism_options o = options_for(c, PRISM_METHOD_PRISM);
    runner r = runner_new(ctx, &o, &c->call);
    runner_plan(&r, &o, &c->call);
    uint8_t *clean = runner_mask_of(&r, c, 0);
    for (int h = 0; h < (which == 'k' ? s->n_kv_head : s->n_head); h++)
        case_poke(c, which, 0, h, token, 0, poison);
    ck_ok(runner_plan(&r, &o, &c->call) == PRISM_OK, "plan_build with a poison");
    outputs got = attend(c, &r);
    const int n_kblk = oracle_n_kblk(s), block = which == 'k' ? token / s->block : (s->q_start + token) / s->block;
    for (int h = 0; h < s->n_head; h++) {
        for (int i = 0; i < oracle_n_qblk(s); i++) {
            const int own = oracle_first_qblk(s) + i;
            const uint8_t *row = runner_mask_row(&r, 0, h, i);
            for (int v = 0; v <= own; v++)
                if (which == 'k' ? own >= block && v == block : own == block)
                    ck_ok(row[v], "%c %g at %d: block %d not selected by block %d", which, poison, token, v, own);
            if (own < block || (which == 'q' && own > block))
                ck_ok(!memcmp(row, clean + ((long)h * oracle_n_qblk(s) + i) * n_kblk, (size_t)n_kblk),
                      "%c %g at %d: the plan of block %d changed", which, poison, token, own);
        }
        for (int t = 0; t < s->n_q; t++) {
            const bool spoiled = which == 'k' ? s->q_start + t >= token : t == token;
            const double x = got.out[((long)h * s->n_q + t) * s->d];
            /* An infinite key may also give a logit of -inf, weight 0: then the row stays finite. */
            ck_ok(spoiled ? isnan(x) || !isnan(poison) : isfinite(x), "%c %g at %d: h %d row %d is %g", which, poison,
                  token, h, t, x);
        }
    }
    outputs_free(&got);
    free(clean);
    runner_free(&r);
}

void ck_nonfinite(void)
{
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        rng r = ck_rng("nonfinite");
        prism_ctx *ctx = ck_context(tier);
        for (int index = 0; index < 40; index += ck.every) {
            const shape s = small_shape(index, &r);
            const double poison = poisons[index % 3];
            const int n_kv = s.q_start[0] + s.n_q[0];
            test_case *c = case_new(&s, rng_next(&r));
            const prism_options o = options_for(c, index % 3 || s.n_q[0] < 5 ? PRISM_METHOD_DENSE : PRISM_METHOD_PRISM);
            runner run = runner_new(ctx, &o, &c->call);
            ck_ok(runner_plan(&run, &o, &c->call) == PRISM_OK, "plan_build: %s", prism_last_error(ctx));
            switch (index / 3 % 4) {
            case 0: check_future_keys(c, &run, rng_range(&r, s.q_start[0] + 1, n_kv - 1), poison); break;
            case 1: check_one_value(c, &run, rng_range(&r, 0, n_kv - 1), rng_range(&r, 0, s.d - 1), poison); break;
            case 2: check_one_key(c, ctx, 'k', rng_range(&r, 0, n_kv - 1), poison); break;
            default: check_one_key(c, ctx, 'q', rng_range(&r, 0, s.n_q[0] - 1), poison); break;
            }
            runner_free(&run);
            case_free(c);
        }
        prism_destroy(ctx);
    }
}
