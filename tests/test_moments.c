/* Moments: pooled state, estimates, selection and correction, judged by the oracle (oracle_moments.h), by closed
 * forms and by full attention. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "oracle_moments.h"

enum { N = 600, HEADS = 4, KV = 2, D = 64 };

static prism_options moments_options(const test_case *c, float error, prism_correction correct)
{
    prism_options o = options_with(c, PRISM_METHOD_MOMENTS, 0.9f);
    o.moments_error = error;
    o.correct = correct;
    return o;
}

/* Keys of one direction that turn with their position, as RoPE turns them, and noise. */
static void turn_keys(test_case *c)
{
    oracle_seq *s = &c->seq[0];
    rng r = {77};
    for (int h = 0; h < s->n_kv_head; h++)
        for (int t = 0; t < oracle_n_kv(s); t++)
            for (int j = 0; j < s->d / 2; j++) {
                const double angle = t * pow(1e4, -2.0 * j / s->d);
                case_poke(c, 'k', 0, h, t, j, 1.5 * cos(angle) + 0.3 * rng_normal(&r));
                case_poke(c, 'k', 0, h, t, j + s->d / 2, 1.5 * sin(angle) + 0.3 * rng_normal(&r));
            }
}

/* ------------------------------------------------------------------------------------------------ state ---- */

static prism_pooled new_state(guarded *memory, int n_kv_head, int d, int n)
{
    size_t bytes;
    prism_pooled x;
    const prism_options options = pooled_options(64, true);
    assert_ok(prism_pooled_bytes(&options, n_kv_head, d, n, &bytes));
    *memory = guarded_new(bytes, 64);
    memset(memory->data, 0, bytes); /* what alignment leaves between the arrays is compared, too */
    assert_ok(prism_pooled_init(&x, &options, n_kv_head, d, n, memory->data, bytes));
    return x;
}

/* Of one block and head against the oracle's entry. Exponents of the weights are off by the d + 4 roundings of a
 * product whose terms' magnitudes sum up to about 10, so weights by 3e-5; means by as much of the largest element,
 * variances by twice as much of its square. */
static void assert_moments(const prism_pooled *x, const oracle_entries *want, int b, int h)
{
    const int e = ORACLE_SINGLE + b, d = x->d_head, at = b * x->n_kv_head + h;
    double key = 0, value = 0;
    for (int j = 0; j < d; j++) {
        key = fmax(key, fabs(want->key[e * d + j]) + sqrt(8 * want->variance[e * want->n_group + j / 8]));
        value = fmax(value, fabs(want->value[e * d + j]));
    }
    assert_near(x->moments.log_count[at], want->log_count[e], 3e-5);
    for (int j = 0; j < d; j++) {
        assert_near(x->moments.key[at * d + j], want->key[e * d + j], 3e-5 * key);
        assert_near(x->moments.value[at * d + j], want->value[e * d + j], 3e-5 * (value + 4));
        assert_near(x->moments.variance[at * want->n_group + j / 8], want->variance[e * want->n_group + j / 8],
                    6e-5 * key * key);
    }
}

/* Sums of up to 64 keys: 64 roundings of 2^-24 of the sum of magnitudes; of queries likewise. */
static void test_state(void **state)
{
    for (int kind = 0; kind <= DATA_ONE_HOT; kind++)
        for (int q_start = 0; q_start < 200; q_start += 91) {
            shape s = plain(200 - q_start, 4, 2, 40);
            s.q_start[0] = q_start;
            s.data = (data_kind)kind;
            test_case *c = case_new(&s, 3);
            guarded memory;
            prism_pooled x = new_state(&memory, 2, 40, 200);
            prism_call call = c->call;
            call.pooled = &x;
            assert_ok(prism_pool_append(*state, &call));
            for (int h = 0; h < 2; h++) {
                oracle_entries want = oracle_entries_make(&c->seq[0], h, 3);
                for (int b = 0; b < 4; b++) {
                    double query[40];
                    const int n = b < 3 ? 64 : 200 - 192, at = b * 2 + h;
                    assert_int_equal(x.moments.n_query[at], oracle_mean_query(&c->seq[0], h, b, query));
                    for (int j = 0; j < 40; j++) {
                        double sum = 0, size = 0;
                        for (int t = 64 * b; t < 64 * b + n; t++) {
                            sum += c->seq[0].k[(h * 200 + t) * 40 + j];
                            size += fabs(c->seq[0].k[(h * 200 + t) * 40 + j]);
                        }
                        assert_near(x.key_sum[at * 40 + j], sum, 64 * 0x1p-24 * size);
                        assert_near(x.moments.query_sum[at * 40 + j], query[j] * x.moments.n_query[at],
                                    64 * 0x1p-24 * 4 * x.moments.n_query[at]);
                    }
                    if (b < 3)
                        assert_moments(&x, &want, b, h);
                }
                oracle_entries_free(&want);
            }
            guarded_free(&memory);
            case_free(c);
        }
}

/* A query that is not finite takes no part in the mean; a call without queries leaves moments untilted. */
static void test_state_without_queries(void **state)
{
    const shape s = plain(200, 4, 2, 40);
    test_case *c = case_new(&s, 4);
    guarded memory, other;
    prism_pooled x = new_state(&memory, 2, 40, 200), y = new_state(&other, 2, 40, 200);
    prism_call call = c->call;
    call.pooled = &x;
    case_poke(c, 'q', 0, 1, 31, 7, NAN);
    assert_ok(prism_pool_append(*state, &call));
    assert_int_equal(x.moments.n_query[0], 2 * 4 - 1);
    assert_int_equal(x.moments.n_query[1], 2 * 4);
    for (int i = 0; i < 3 * 2 * 40; i++)
        assert_true(isfinite(x.moments.key[i]) && isfinite(x.moments.value[i]));
    call.pooled = &y;
    call.q.data = NULL;
    assert_ok(prism_pool_append(*state, &call));
    for (int i = 0; i < 3 * 2; i++) {
        assert_int_equal(y.moments.n_query[i], 0);
        assert_near(y.moments.log_count[i], log(i < 2 ? 64 - ORACLE_SINGLE : 64), 1e-6);
    }
    for (int i = 2 * 40; i < 3 * 2 * 40; i++) /* the mean of the keys: 64 roundings of magnitudes up to 4 */
        assert_near(y.moments.key[i], y.key_sum[i] / 64, 64 * 0x1p-24 * 4);
    guarded_free(&memory);
    guarded_free(&other);
    case_free(c);
}

/* --------------------------------------------------------------------------------------------- estimates ---- */

/* The estimate against the mass itself, in double: exact where keys are alike, nearer than the mean alone where they
 * spread like a Gaussian or turn. */
static void test_estimate(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        shape s = plain(512, 1, 1, D);
        s.data = kind == 3 ? DATA_RANDOM : (data_kind)kind;
        test_case *c = case_new(&s, 5);
        if (kind == 3)
            turn_keys(c);
        const oracle_seq *q = &c->seq[0];
        oracle_entries x = oracle_entries_make(q, 0, 7);
        double with = 0, without = 0;
        for (int e = ORACLE_SINGLE + 1; e < x.n; e++)
            for (int row = 448; row < 512; row++) {
                double mass = 0;
                for (int t = x.block[e] * 64; t < (x.block[e] + 1) * 64; t++) {
                    double dot = 0;
                    for (int j = 0; j < D; j++)
                        dot += q->q[row * D + j] * q->k[t * D + j];
                    mass += exp(q->scale * dot);
                }
                with += fabs(oracle_entry_mass(q, &x, e, q->q + row * D, ORACLE_CORRECT, NULL) - log(mass));
                without += fabs(oracle_entry_mass(q, &x, e, q->q + row * D, ORACLE_MEAN, NULL) - log(mass));
            }
        const int n = (x.n - ORACLE_SINGLE - 1) * 64;
        if (kind == DATA_TIED || kind == DATA_ONE_HOT)
            assert_near(with / n, 0, 1e-12);
        else
            assert_true(with < 0.6 * without && without / n > 0.05);
        oracle_entries_free(&x);
        case_free(c);
    }
}

/* ------------------------------------------------------------------------------------------------ select ---- */

/* Blocks whose error is farther from the threshold than arithmetic in float32 can move it must be right. An error is
 * a sum of weights times sigma cubed: logits of d products are off by (d + 3) u of their magnitudes, below 2e-4 here,
 * variances by as many roundings, exponentials by 2^-21, and a sum of 32 tokens over 16 bits' worth of terms. */
static void check_selection(void **state, test_case *c, float error, int *n_open, int *n_kept, int *n_all)
{
    const double slack = 1e-3;
    prism_options o = moments_options(c, error, PRISM_CORRECTION_DEFAULT);
    runner r = runner_new(*state, &o, &c->call);
    assert_ok(runner_plan(&r, &o, &c->call));
    assert_int_equal(r.view.correct, PRISM_CORRECTION_MOMENTS);
    for (int h = 0; h < c->seq[0].n_head; h++) {
        oracle_entries x = oracle_entries_make(&c->seq[0], h / (c->s.n_head / c->s.n_kv_head), oracle_n_kblk(&c->seq[0]) - 1);
        for (int i = 0; i < oracle_n_qblk(&c->seq[0]); i++) {
            const int own = oracle_first_qblk(&c->seq[0]) + i;
            double *want = malloc((size_t)(own + 1) * sizeof *want);
            oracle_errors(&c->seq[0], &x, h, i, want);
            assert_true(runner_mask_row(&r, 0, h, i)[own]);
            for (int b = 0; b < own; b++) {
                const bool kept = runner_mask_row(&r, 0, h, i)[b];
                ++*n_all;
                *n_kept += kept;
                const int keeps = oracle_keeps(want, own, b, error, slack);
                if (keeps < 0)
                    ++*n_open;
                else if (kept != keeps)
                    fail_msg("head %d, row %d, block %d: error %g, kept %d", h, i, b, want[b], kept);
            }
            free(want);
        }
        oracle_entries_free(&x);
    }
    runner_free(&r);
}

static void test_select(void **state)
{
    int n_open = 0, n_kept = 0, n_all = 0;
    for (int kind = 0; kind < 4; kind++)
        for (int q_start = 0; q_start < 300; q_start += 133) {
            shape s = plain(N - q_start, HEADS, KV, kind == 2 ? 36 : D);
            s.q_start[0] = q_start;
            s.data = kind == 3 ? DATA_RANDOM : (data_kind)kind;
            test_case *c = case_new(&s, 9 + (unsigned)q_start);
            if (kind == 3)
                turn_keys(c);
            check_selection(state, c, 0.02f, &n_open, &n_kept, &n_all);
            case_free(c);
        }
    assert_true(n_open * 50 < n_all && n_kept * 10 > n_all && n_kept * 10 < n_all * 9);
}

static void test_no_error_is_dense(void **state)
{
    const shape s = plain(500, HEADS, KV, D);
    test_case *c = case_new(&s, 1);
    prism_options o = options_with(c, PRISM_METHOD_DENSE, 1);
    answer dense = attention(*state, c, &o, PRISM_PATH_DENSE);
    o = moments_options(c, 0, PRISM_CORRECTION_DEFAULT);
    answer got = attention(*state, c, &o, PRISM_PATH_DENSE);
    assert_same_bits(&dense, &got);
    answer_free(&got);
    o = options_with(c, PRISM_METHOD_PRISM, 1);
    o.correct = PRISM_CORRECTION_MOMENTS;
    got = attention(*state, c, &o, PRISM_PATH_DENSE);
    assert_same_bits(&dense, &got);
    answer_free(&got);
    answer_free(&dense);
    case_free(c);
}

/* ----------------------------------------------------------------------------------------------- correct ---- */

/* Outputs within rel of the values' magnitudes, which are at most `value` here; lse within rel. */
static void assert_answer(const answer *got, const double *out, const double *lse, double value, double rel)
{
    for (size_t i = 0; i < got->n_out; i++)
        assert_near(got->out[i], out[i], rel * value);
    for (size_t i = 0; i < got->n_lse; i++)
        assert_near(got->lse[i], lse[i], rel * (1 + fabs(lse[i])));
}

static double largest_value(const oracle_seq *s)
{
    double max = 0;
    for (long i = 0; i < (long)s->n_kv_head * oracle_n_kv(s) * s->d; i++)
        max = fmax(max, fabs(s->v[i]));
    return max;
}

/* Any method's plan, corrected, against the oracle with the same plan; in one call and in two. Logits up to some tens
 * are off by (d + 3) 2^-24 of their magnitude, weights by twice that, variances alike: 2e-4 together. */
static void test_correct(void **state)
{
    static const prism_method methods[] = {PRISM_METHOD_MOMENTS,    PRISM_METHOD_PRISM,
                                           PRISM_METHOD_MEANPOOL,   PRISM_METHOD_FLEXPREFILL,
                                           PRISM_METHOD_XATTENTION, PRISM_METHOD_FLASHPREFILL};
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++)
        for (int correct = PRISM_CORRECTION_MEAN; correct <= PRISM_CORRECTION_MOMENTS; correct++) {
            shape s = plain(470, HEADS, KV, m % 2 ? 36 : D);
            s.q_start[0] = m == 2 ? 77 : 0;
            test_case *c = case_new(&s, 20 + m);
            oracle_seq *q = &c->seq[0];
            prism_options o = options_with(c, methods[m], 0.5f);
            o.correct = (prism_correction)correct;
            o.moments_error = 0.5f;
            o.flash_alpha = 0.95f;
            o.flash_sink = 0;
            o.flash_window = 1;
            o.flash_last = 0;
            o.xattn_threshold = 0.5f;
            o.flex_gamma = 0.5f;
            o.flex_min_budget = 64;
            runner r = runner_new(*state, &o, &c->call);
            assert_ok(runner_plan(&r, &o, &c->call));
            if (!(r.view.density < 0.95))
                fail_msg("%s prunes nothing: density %g", prism_method_name(methods[m]), r.view.density);
            uint8_t *mask = runner_mask_of(&r, c, 0);
            case_poison_outputs(c);
            assert_ok(runner_attend(&r, &c->call));
            answer two = read_answer(c);
            double *out = malloc(two.n_out * sizeof *out), *lse = malloc(two.n_lse * sizeof *lse);
            oracle_attend_corrected(q, mask, correct == PRISM_CORRECTION_MOMENTS, out, lse);
            assert_answer(&two, out, lse, largest_value(q), 2e-4);
            answer one = attention(*state, c, &o, PRISM_PATH_SPARSE);
            assert_same_bits(&one, &two);
            assert_true(case_gaps_untouched(c));
            answer_free(&one);
            answer_free(&two);
            free(out);
            free(lse);
            free(mask);
            runner_free(&r);
            case_free(c);
        }
}

/* Keys that are alike inside every block: their moments say all, and pruning everything costs nothing. The tolerance is
 * that of summing, 2^-24 for each of 600 keys. */
static void test_alike_is_exact(void **state)
{
    for (int kind = DATA_TIED; kind <= DATA_ONE_HOT; kind++) {
        shape s = plain(N, HEADS, KV, D);
        s.data = (data_kind)kind;
        test_case *c = case_new(&s, 31);
        oracle_seq *q = &c->seq[0];
        prism_options o = moments_options(c, FLT_MAX, PRISM_CORRECTION_DEFAULT);
        runner r = runner_new(*state, &o, &c->call);
        assert_ok(runner_plan(&r, &o, &c->call));
        assert_int_equal(r.view.n_selected, HEADS * 10); /* nothing but the own block */
        answer got = attention(*state, c, &o, PRISM_PATH_SPARSE);
        double *out = malloc(got.n_out * sizeof *out), *lse = malloc(got.n_lse * sizeof *lse);
        oracle_attend(q, NULL, out, lse);
        assert_answer(&got, out, lse, largest_value(q), N * 0x1p-24);
        answer_free(&got);
        free(out);
        free(lse);
        runner_free(&r);
        case_free(c);
    }
}

/* Without a correction the sink is kept, and nothing else changes the sum. */
static void test_uncorrected_keeps_sink(void **state)
{
    const shape s = plain(N, HEADS, KV, D);
    test_case *c = case_new(&s, 32);
    prism_options o = moments_options(c, FLT_MAX, PRISM_CORRECTION_NONE);
    runner r = runner_new(*state, &o, &c->call);
    assert_ok(runner_plan(&r, &o, &c->call));
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < 10; i++)
            for (int b = 0; b < 10; b++)
                assert_int_equal(runner_mask_row(&r, 0, h, i)[b], b == 0 || b == i);
    uint8_t *mask = runner_mask_of(&r, c, 0);
    answer got = attention(*state, c, &o, PRISM_PATH_SPARSE);
    double *out = malloc(got.n_out * sizeof *out), *lse = malloc(got.n_lse * sizeof *lse);
    oracle_attend(&c->seq[0], mask, out, lse);
    assert_answer(&got, out, lse, largest_value(&c->seq[0]), 2e-4); /* as in test_correct */
    answer_free(&got);
    free(out);
    free(lse);
    free(mask);
    runner_free(&r);
    case_free(c);
}

/* ------------------------------------------------------------------------------------------------ chunks ---- */

/* Chunks on the grid, their moments kept, give the bits of the whole prompt without any. Elsewhere other tokens ask,
 * but the state is the same. */
static void test_chunks(void **state)
{
    static const int aligned[] = {64, 192, 448, N}, ragged[] = {1, 65, 130, 400, 401, N};
    const shape s = plain(N, HEADS, KV, D);
    for (int cut = 0; cut < 2; cut++) {
        test_case *c = case_new(&s, 41);
        prism_options o = moments_options(c, 0.05f, PRISM_CORRECTION_DEFAULT);
        answer want = attention(*state, c, &o, PRISM_PATH_SPARSE);
        guarded memory, whole_memory;
        prism_pooled pooled = new_state(&memory, KV, D, N), whole = new_state(&whole_memory, KV, D, N);
        case_poison_outputs(c);
        const int *end = cut ? ragged : aligned;
        for (int begin = 0; begin < N; begin = *end++) {
            prism_call call = case_chunk(c, begin, *end);
            call.pooled = &pooled;
            runner r = runner_new(*state, &o, &call);
            assert_ok(prism_attention(*state, &o, &call, r.plan, r.workspace.data, r.workspace.bytes, NULL));
            assert_int_equal(pooled.n_token, *end);
            runner_free(&r);
        }
        answer got = read_answer(c);
        if (!cut)
            assert_same_bits(&want, &got);
        prism_call call = c->call;
        call.pooled = &whole;
        assert_ok(prism_pool_append(*state, &call));
        assert_memory_equal(memory.data, whole_memory.data, memory.bytes);
        answer_free(&want);
        answer_free(&got);
        guarded_free(&memory);
        guarded_free(&whole_memory);
        case_free(c);
    }
}

/* -------------------------------------------------------------------------------------------- not finite ---- */

static int row_of(int h, int t)
{
    return (h * N + t) * D;
}

/* A key that is NaN keeps its block; blocks of rows before it and heads that do not see it keep their bits. (Rows of
 * its own block share a plan with rows that see it.) */
static void test_bad_key(void **state)
{
    const shape s = plain(N, HEADS, KV, D);
    test_case *c = case_new(&s, 51);
    prism_options o = moments_options(c, 0.5f, PRISM_CORRECTION_DEFAULT);
    answer want = attention(*state, c, &o, PRISM_PATH_SPARSE);
    for (int at = 0; at < 2; at++) {
        const int token = at ? 200 : 3;
        case_poke(c, 'k', 0, 0, token, 5, NAN);
        runner r = runner_new(*state, &o, &c->call);
        assert_ok(runner_plan(&r, &o, &c->call));
        for (int h = 0; h < HEADS / KV; h++)
            for (int i = token / 64; i < 10; i++)
                assert_true(runner_mask_row(&r, 0, h, i)[token / 64]);
        answer got = attention(*state, c, &o, PRISM_PATH_SPARSE);
        for (int h = 0; h < HEADS; h++)
            for (int t = 0; t < N; t++)
                if (h >= HEADS / KV || t < token / 64 * 64)
                    assert_memory_equal(got.out + row_of(h, t), want.out + row_of(h, t), D * sizeof(double));
                else if (t >= token)
                    assert_true(isnan(got.out[row_of(h, t)])); /* as in full attention */
        answer_free(&got);
        runner_free(&r);
        case_poke(c, 'k', 0, 0, token, 5, 0.25);
        answer_free(&want);
        want = attention(*state, c, &o, PRISM_PATH_SPARSE);
    }
    answer_free(&want);
    case_free(c);
}

/* A value that is infinite leaves the correction, not the plan: rows that prune its block stay finite. */
static void test_bad_value(void **state)
{
    shape s = plain(N, HEADS, KV, D);
    s.data = DATA_TIED; /* nothing is worth keeping */
    test_case *c = case_new(&s, 52);
    prism_options o = moments_options(c, FLT_MAX, PRISM_CORRECTION_DEFAULT);
    case_poke(c, 'v', 0, 1, 100, 7, INFINITY);
    answer got = attention(*state, c, &o, PRISM_PATH_SPARSE);
    for (int h = 0; h < HEADS; h++)
        for (int t = 0; t < N; t++)
            for (int j = 0; j < D; j++)
                assert_int_equal(isfinite(got.out[row_of(h, t) + j]) != 0,
                                 !(h >= HEADS / KV && j == 7 && t >= 100 && t < 128));
    answer_free(&got);
    case_free(c);
}

/* --------------------------------------------------------------------------------------------------- API ---- */

static void test_refusals(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(N, HEADS, KV, D);
    test_case *c = case_new(&s, 61);
    size_t bytes;
    prism_options o = options_with(c, PRISM_METHOD_MINFERENCE, 0.9f);
    o.correct = PRISM_CORRECTION_MEAN; /* single keys are not whole blocks */
    assert_int_equal(prism_workspace_bytes(ctx, &o, &c->call, &bytes), PRISM_ERROR_INVALID);
    o.correct = (prism_correction)4;
    assert_int_equal(prism_workspace_bytes(ctx, &o, &c->call, &bytes), PRISM_ERROR_INVALID);

    o = moments_options(c, 0.05f, PRISM_CORRECTION_DEFAULT);
    runner r = runner_new(ctx, &o, &c->call);
    guarded memory = guarded_new(1 << 20, 64);
    prism_pooled pooled;
    const prism_options sums = pooled_options(64, false), moments = pooled_options(64, true);
    assert_ok(prism_pooled_init(&pooled, &sums, KV, D, N, memory.data, memory.bytes));
    prism_call call = c->call;
    call.pooled = &pooled; /* means only */
    assert_int_equal(runner_plan(&r, &o, &call), PRISM_ERROR_INVALID);
    assert_ok(prism_pooled_init(&pooled, &moments, KV, D, N, memory.data, memory.bytes));
    call.v.data = NULL; /* values are pooled with the keys */
    assert_int_equal(runner_plan(&r, &o, &call), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pool_append(ctx, &call), PRISM_ERROR_INVALID);
    assert_int_equal(pooled.n_token, 0);
    call.pooled = NULL; /* a plan alone reads no values */
    assert_ok(runner_plan(&r, &o, &call));
    call.v =
        (prism_tensor){.data = memory.data, .dtype = (prism_dtype)9, .stride_token = INT64_MAX}; /* nor looks at them */
    assert_ok(runner_plan(&r, &o, &call));

    assert_ok(prism_pooled_bytes(&moments, KV, D, N, &bytes));
    assert_int_equal(prism_pooled_init(&pooled, &moments, KV, D, N, memory.data, bytes - 1), PRISM_ERROR_CAPACITY);
    assert_int_equal(prism_pooled_init(&pooled, &moments, KV, D, N, (char *)memory.data + 4, bytes),
                     PRISM_ERROR_INVALID);
    guarded_free(&memory);
    runner_free(&r);
    case_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_without_queries),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_no_error_is_dense),
        cmocka_unit_test(test_correct),
        cmocka_unit_test(test_alike_is_exact),
        cmocka_unit_test(test_uncorrected_keeps_sink),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_bad_key),
        cmocka_unit_test(test_bad_value),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, new_context, drop_context);
}
