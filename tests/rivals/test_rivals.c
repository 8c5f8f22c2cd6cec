/*
 * Each rival against its double-precision version: the plans are equal but for blocks and keys that a value within
 * float32's error of a threshold decides (at most 2 % of all in a test, a quarter in a case: one open diagonal of a
 * short prompt is much of it), and the output is exact attention over the plan.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"
#include "fixture.h"

/* Tails, chunks that start on and off the grid, GQA of 1, 2 and 3, ragged batches, one token. */
static const rival_case made_up[] = {
    {NULL, 2, 1, 64, 128, 1, {1024}, {0}, 1},
    {NULL, 4, 2, 128, 128, 1, {1000}, {0}, 2},
    {NULL, 2, 2, 64, 64, 1, {777}, {0}, 3},
    {NULL, 3, 1, 72, 64, 1, {500}, {700}, 4},
    {NULL, 2, 1, 64, 128, 1, {640}, {1024}, 5},
    {NULL, 2, 1, 64, 128, 2, {900, 333}, {0, 514}, 6},
    {NULL, 1, 1, 128, 64, 2, {1, 1300}, {1100, 0}, 7},
    {NULL, 2, 1, 96, 128, 1, {40}, {1500}, 8},
    {NULL, 1, 1, 64, 64, 1, {65}, {0}, 9},
};

static const rival_case golden[] = {
    {RIVALS_GOLDEN "/book.safetensors", 1, 1, 128, 128, 1, {4096}, {0}, 11},
    {RIVALS_GOLDEN "/needle.safetensors", 1, 1, 128, 128, 1, {3001}, {0}, 12},
    {RIVALS_GOLDEN "/needle.safetensors", 1, 1, 128, 64, 1, {1500}, {2500}, 13},
};

static long all_open, all_keys; /* of a test */

typedef void (*block_oracle)(const rival_seq *s, const rival_params *p, uint8_t *verdict);

/* Verdicts on keys [n_head][n_qblk][n_kv] of either kind of oracle. */
static uint8_t *judge(const rival_seq *s, const rival_params *p, block_oracle of_blocks)
{
    const long n_row = (long)s->n_head * n_query_blocks(s), n_kv = n_keys(s), n_kblk = n_key_blocks(s);
    uint8_t *keys = zeros(n_row * n_kv, 1);
    if (!of_blocks) {
        oracle_minference(s, p, keys);
        return keys;
    }
    uint8_t *blocks = zeros(n_row * n_kblk, 1);
    of_blocks(s, p, blocks);
    for (long row = 0; row < n_row; row++)
        for (long c = 0; c < n_kv; c++)
            keys[row * n_kv + c] = blocks[row * n_kblk + c / s->block];
    free(blocks);
    return keys;
}

/* Some query rows of a block: all would take the oracle too long. */
static void check_outputs(const rival_fixture *f, int s, int h, int i, const uint8_t *reads)
{
    const rival_seq *q = &f->seq[s];
    double out[PRISM_MAX_D_HEAD];
    const int begin = (first_block(q) + i) * q->block - q->q_start, end = begin + q->block;
    for (int t = begin > 0 ? begin : 0; t < end && t < q->n_q; t += 29) {
        oracle_row(q, h, t, reads, out);
        const float *got = f->o + (((long)s * q->n_head + h) * f->n_q + t) * q->d;
        for (int j = 0; j < q->d; j++)
            if (!(fabs((double)got[j] - out[j]) <= 2e-4 * (1 + fabs(out[j]))))
                fail_msg("sequence %d head %d row %d dim %d: %g, want %g", s, h, t, j, (double)got[j], out[j]);
    }
}

static void compare(const rival_case *c, const prism_options *o, block_oracle of_blocks, prism_isa isa)
{
    rival_fixture *f = fixture_new(c, isa);
    if (!f)
        return;
    const rival_params p = params_of(o);
    prism_stats stats;
    long n_open = 0, n_all = 0, n_listed = 0;
    fixture_run(f, o, &stats);
    for (int s = 0; s < c->n_seq; s++) {
        const rival_seq *q = &f->seq[s];
        const int n_kv = n_keys(q);
        uint8_t *want = judge(q, &p, of_blocks), *reads = zeros(n_kv, 1);
        for (int h = 0; h < c->n_head; h++)
            for (int i = 0; i < n_query_blocks(q); i++) {
                const uint8_t *w = want + ((long)h * n_query_blocks(q) + i) * n_kv;
                fixture_row(f, s, h, i, reads);
                for (int key = 0; key < n_kv; key++) {
                    n_open += w[key] == OPEN;
                    n_listed += reads[key];
                    if (w[key] != OPEN && w[key] != reads[key])
                        fail_msg("%s seed %u: sequence %d head %d block %d key %d: %d, want %d",
                                 prism_method_name(o->method), c->seed, s, h, i, key, reads[key], w[key]);
                }
                n_all += n_kv;
                check_outputs(f, s, h, i, reads);
            }
        free(want), free(reads);
    }
    if (n_open * 4 > n_all)
        fail_msg("%s seed %u: %ld of %ld keys are open", prism_method_name(o->method), c->seed, n_open, n_all);
    all_open += n_open;
    all_keys += n_all;
    print_message("  %-12s seed %2u: density %.3f, open %.4f, work %.3f of dense\n", prism_method_name(o->method),
                  c->seed, stats.density, (double)n_open / (double)n_all, stats.work_flop / stats.dense_flop);
    fixture_free(f);
}

static void compare_all(const prism_options *o, block_oracle of_blocks, const rival_case *cases, int n)
{
    for (int i = 0; i < n; i++) {
        prism_options mine = *o;
        mine.block_size = cases[i].block;
        compare(&cases[i], &mine, of_blocks, PRISM_ISA_AUTO);
        if (i == 1) { /* the other tiers, once */
            compare(&cases[i], &mine, of_blocks, PRISM_ISA_C);
            compare(&cases[i], &mine, of_blocks, PRISM_ISA_AVX2);
        }
    }
}

#define COUNT(x) ((int)(sizeof(x) / sizeof *(x)))

static void test_minference(void **state)
{
    (void)state;
    prism_options o = rival_options(PRISM_METHOD_MINFERENCE, 128);
    o.minference_vertical = 60;
    o.minference_slash = 120;
    compare_all(&o, NULL, made_up, COUNT(made_up));
    compare_all(&o, NULL, golden, COUNT(golden));
    o.minference_budget = 0.15f;
    compare_all(&o, NULL, made_up, COUNT(made_up));
    compare_all(&o, NULL, golden, 2);
}

static void test_flexprefill(void **state)
{
    (void)state;
    prism_options o = rival_options(PRISM_METHOD_FLEXPREFILL, 128);
    o.flex_min_budget = 128;
    o.flex_gamma = 0.4f;
    compare_all(&o, oracle_flexprefill, made_up, COUNT(made_up));
    o.flex_tau = 0.9f; /* more heads are block-sparse */
    compare_all(&o, oracle_flexprefill, made_up, COUNT(made_up));
    compare_all(&o, oracle_flexprefill, golden, COUNT(golden));
    o = rival_options(PRISM_METHOD_FLEXPREFILL, 128);
    compare_all(&o, oracle_flexprefill, golden, COUNT(golden));
    o.flex_max_budget = 700;
    compare_all(&o, oracle_flexprefill, golden, COUNT(golden));
}

static void test_xattention(void **state)
{
    (void)state;
    prism_options o = rival_options(PRISM_METHOD_XATTENTION, 128);
    compare_all(&o, oracle_xattention, made_up, COUNT(made_up));
    compare_all(&o, oracle_xattention, golden, COUNT(golden));
    for (o.xattn_stride = 4; o.xattn_stride <= 64; o.xattn_stride *= 4) {
        o.xattn_threshold = 0.7f;
        compare_all(&o, oracle_xattention, made_up, COUNT(made_up));
    }
}

static void test_flashprefill(void **state)
{
    (void)state;
    prism_options o = rival_options(PRISM_METHOD_FLASHPREFILL, 128);
    compare_all(&o, oracle_flashprefill, golden, COUNT(golden));
    o.flash_window = 1;
    o.flash_sink = 1;
    o.flash_last = 1;
    compare_all(&o, oracle_flashprefill, golden, COUNT(golden));
    o.flash_alpha = 0.5f;
    o.flash_sink = o.flash_last = 0;
    compare_all(&o, oracle_flashprefill, made_up, COUNT(made_up));
}

static int reset(void **state)
{
    (void)state;
    all_open = all_keys = 0;
    return 0;
}

static int check_open(void **state)
{
    (void)state;
    print_message("  open: %ld of %ld\n", all_open, all_keys);
    return all_open * 50 > all_keys;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_minference, reset, check_open),
        cmocka_unit_test_setup_teardown(test_flexprefill, reset, check_open),
        cmocka_unit_test_setup_teardown(test_xattention, reset, check_open),
        cmocka_unit_test_setup_teardown(test_flashprefill, reset, check_open),
    };
    if (argc > 1) /* one method, so that ctest runs them side by side */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
