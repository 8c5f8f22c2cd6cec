/* Prefill in chunks against prefill at once, pooled keys, and plans as objects. Where the arithmetic is the same the
 * bits are; elsewhere the tolerance stands with its reason. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"

enum { N_CHUNKED = 777, CHUNK_HEADS = 4, CHUNK_KV = 2, CHUNK_D = 64 };

static prism_pooled new_pooled(guarded *memory)
{
    size_t bytes;
    prism_pooled x;
    const prism_options options = pooled_options(64, false);
    assert_ok(prism_pooled_bytes(&options, CHUNK_KV, CHUNK_D, N_CHUNKED, &bytes));
    *memory = guarded_new(bytes, 64);
    assert_ok(prism_pooled_init(&x, &options, CHUNK_KV, CHUNK_D, N_CHUNKED, memory->data, bytes));
    return x;
}

/* Keys whose fast dimensions grow along the prompt: energies of a part of it are not those of the whole. */
static void let_keys_drift(test_case *c)
{
    for (int h = 0; h < CHUNK_KV; h++)
        for (int t = 0; t < N_CHUNKED; t++)
            for (int j = 0; j < c->bands.n_high; j++) {
                const double x = c->seq[0].k[(h * N_CHUNKED + t) * CHUNK_D + c->bands.high[j]];
                case_poke(c, 'k', 0, h, t, c->bands.high[j], x * (1 + t / 64));
            }
}

/* Chunks ending at `end[]`. Rows of the plan and outputs, collected, must be those of the whole call. */
static void check_chunks(prism_ctx *ctx, const int *end, const prism_options *o, bool same_plan)
{
    const shape s = plain(N_CHUNKED, CHUNK_HEADS, CHUNK_KV, CHUNK_D);
    test_case *c = case_new(&s, 8);
    let_keys_drift(c);
    guarded memory, whole_memory;
    prism_pooled pooled = new_pooled(&memory), whole = new_pooled(&whole_memory);
    prism_options options = *o;
    options.bands = &c->bands;
    runner all = runner_new(ctx, &options, &c->call);
    assert_ok(runner_plan(&all, &options, &c->call));
    answer want = attention(ctx, c, &options, all.view.path);
    case_poison_outputs(c);
    for (int begin = 0; begin < N_CHUNKED; begin = *end++) {
        prism_call call = case_chunk(c, begin, *end);
        call.pooled = &pooled;
        runner r = runner_new(ctx, &options, &call);
        assert_ok(runner_plan(&r, &options, &call));
        assert_int_equal(pooled.n_token, *end);
        for (int h = 0; same_plan && h < CHUNK_HEADS; h++)
            for (int i = 0; i < r.view.n_qblk; i++)
                assert_memory_equal(runner_mask_row(&r, 0, h, i), runner_mask_row(&all, 0, h, begin / 64 + i),
                                    (size_t)(begin / 64 + i + 1));
        assert_ok(runner_attend(&r, &call));
        runner_free(&r);
    }
    answer got = read_answer(c);
    if (same_plan)
        assert_same_bits(&want, &got);
    prism_call call = c->call;
    call.pooled = &whole;
    assert_ok(prism_pool_append(ctx, &call));
    assert_memory_equal(memory.data, whole_memory.data, memory.bytes); /* however the keys came in */
    answer_free(&want);
    answer_free(&got);
    runner_free(&all);
    guarded_free(&memory);
    guarded_free(&whole_memory);
    case_free(c);
}

static const int aligned_ends[] = {64, 320, 384, 704, N_CHUNKED},
                 ragged_ends[] = {1, 100, 129, 300, 301, 700, N_CHUNKED};

static void test_chunks_aligned(void **state)
{
    const test_case dummy = {.s = {.block = 64}};
    prism_options o = causal_options(&dummy);
    check_chunks(*state, aligned_ends, &o, true);
    o = options_with(&dummy, PRISM_METHOD_MEANPOOL, 0.7f); /* uncalibrated: rows know nothing of each other */
    check_chunks(*state, aligned_ends, &o, true);
}

/* Cut anywhere, means of queries change with the cut, so plans may; sums of keys must not. */
static void test_chunks_anywhere(void **state)
{
    const test_case dummy = {.s = {.block = 64}};
    const prism_options o = causal_options(&dummy);
    check_chunks(*state, ragged_ends, &o, false);
}

/* Dense attention cut anywhere. A chunk of few queries takes another path with sums in another order, so the bits may
 * differ there: then by the rounding of sums of N terms, relative to values of magnitude at most 8 (8 sigma). */
static void test_chunks_dense(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(N_CHUNKED, CHUNK_HEADS, CHUNK_KV, CHUNK_D);
    test_case *c = case_new(&s, 9);
    const prism_options o = options_with(c, PRISM_METHOD_DENSE, 1);
    answer want = attention(ctx, c, &o, PRISM_PATH_DENSE);
    case_poison_outputs(c);
    for (int begin = 0, i = 0; begin < N_CHUNKED; begin = ragged_ends[i++]) {
        const prism_call call = case_chunk(c, begin, ragged_ends[i]);
        runner r = runner_new(ctx, &o, &call);
        assert_ok(runner_plan(&r, &o, &call));
        assert_ok(runner_attend(&r, &call));
        runner_free(&r);
    }
    answer got = read_answer(c);
    for (size_t i = 0; i < want.n_out; i++)
        assert_near(got.out[i], want.out[i], N_CHUNKED * 0x1p-24 * 8);
    for (size_t i = 0; i < want.n_lse; i++)
        assert_near(got.lse[i], want.lse[i], N_CHUNKED * 0x1p-24);
    answer_free(&want);
    answer_free(&got);
    case_free(c);
}

/* Keys pooled once are never read again, not even those of a block that was left unfinished: poison them behind the
 * back of the second call. Rows of whole query blocks must not notice. */
static void test_pooled_once(void **state)
{
    enum { first = 300, first_whole = first / 64 + 1 };
    prism_ctx *ctx = *state;
    const shape s = plain(N_CHUNKED, CHUNK_HEADS, CHUNK_KV, CHUNK_D);
    test_case *c = case_new(&s, 10);
    prism_options o = causal_options(c);
    guarded memory;
    prism_pooled pooled = new_pooled(&memory);
    runner all = runner_new(ctx, &o, &c->call);
    assert_ok(runner_plan(&all, &o, &c->call));
    prism_call call = case_chunk(c, 0, first);
    call.pooled = &pooled;
    assert_ok(prism_pool_append(ctx, &call));
    assert_int_equal(pooled.n_token, first);
    for (int at = 0; at < CHUNK_KV * first * CHUNK_D; at++)
        case_poke(c, 'k', 0, at / CHUNK_D / first, at / CHUNK_D % first, at % CHUNK_D, NAN);
    call = case_chunk(c, first, N_CHUNKED);
    call.pooled = &pooled;
    runner r = runner_new(ctx, &o, &call);
    assert_ok(runner_plan(&r, &o, &call));
    for (int h = 0; h < CHUNK_HEADS; h++)
        for (int i = 1; i < r.view.n_qblk; i++)
            assert_memory_equal(runner_mask_row(&r, 0, h, i), runner_mask_row(&all, 0, h, first_whole + i - 1), 13);
    runner_free(&r);
    runner_free(&all);
    guarded_free(&memory);
    case_free(c);
}

/* ------------------------------------------------------------------------------------------------- plans ---- */

static void test_plan_round_trip(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(600, 4, 1, 64);
    test_case *c = case_new(&s, 11);
    const prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.6f);
    runner a = runner_new(ctx, &o, &c->call), b = runner_new(ctx, &o, &c->call);
    assert_ok(runner_plan(&a, &o, &c->call));
    const size_t bytes = (size_t)(a.view.n_row * a.view.n_kblk);
    assert_ok(prism_plan_from_mask(ctx, &c->call, 64, a.mask, bytes, b.plan));
    b.view.struct_size = sizeof b.view;
    assert_ok(prism_plan_read(b.plan, &b.view));
    assert_int_equal(a.view.n_selected, b.view.n_selected);
    assert_int_equal(a.view.n_causal, b.view.n_causal);
    assert_int_equal(a.view.n_causal, 4 * 10 * 11 / 2);
    assert_memory_equal(a.view.row_ptr, b.view.row_ptr, (size_t)(a.view.n_row + 1) * sizeof(int64_t));
    assert_memory_equal(a.view.index, b.view.index, (size_t)a.view.n_selected * sizeof(int32_t));
    for (int64_t r = 0; r < a.view.n_row; r++)
        for (int64_t t = a.view.row_ptr[r] + 1; t < a.view.row_ptr[r + 1]; t++)
            assert_true(a.view.index[t] > a.view.index[t - 1]);
    assert_near(a.view.density, (double)a.view.n_selected / (double)a.view.n_causal, 1e-15);
    runner_free(&a);
    runner_free(&b);
    case_free(c);
}

static void test_sink_and_own(void **state)
{
    prism_ctx *ctx = *state;
    shape s = plain(700, 2, 2, 64);
    test_case *c = case_new(&s, 12);
    prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.2f);
    long n[2][2] = {{0}};
    for (int sink = 0; sink < 2; sink++)
        for (int own = 0; own < 2; own++) {
            o.keep_sink = sink;
            o.keep_own = own;
            runner r = runner_new(ctx, &o, &c->call);
            assert_ok(runner_plan(&r, &o, &c->call));
            for (int h = 0; h < 2; h++)
                for (int i = 0; i < 11; i++) {
                    const uint8_t *row = runner_mask_row(&r, 0, h, i);
                    assert_true((!sink || row[0]) && (!own || row[i]));
                    assert_non_null(memchr(row, 1, (size_t)i + 1)); /* never an empty row */
                }
            n[sink][own] = r.view.n_selected;
            runner_free(&r);
        }
    assert_true(n[0][0] < n[0][1] && n[0][0] < n[1][0] && n[1][0] < n[1][1]);
    case_free(c);
}

/* A plan with room for less than this call selects says so, and stays what it was. */
static void test_plan_without_room(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(2000, 2, 2, 32);
    test_case *c = case_new(&s, 13);
    prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.1f);
    runner r = runner_new(ctx, &o, &c->call);
    prism_plan_destroy(r.plan);
    assert_ok(prism_plan_create(ctx, &c->call, 64, 0.15f, &r.plan));
    assert_ok(runner_plan(&r, &o, &c->call));
    const int64_t n_selected = r.view.n_selected;
    const size_t bytes = (size_t)(r.view.n_row * r.view.n_kblk);
    uint8_t *before = malloc(bytes);
    memcpy(before, r.mask, bytes);
    o.top_p = 0.99f;
    assert_int_equal(runner_plan(&r, &o, &c->call), PRISM_ERROR_CAPACITY);
    memset(r.mask, 1, bytes);
    for (int64_t i = 0; i < (int64_t)bytes; i++)
        r.mask[i] = i % 32 <= i / 32 % 32;
    assert_int_equal(prism_plan_from_mask(ctx, &c->call, 64, r.mask, bytes, r.plan), PRISM_ERROR_CAPACITY);
    assert_ok(prism_plan_read(r.plan, &r.view));
    assert_int_equal(r.view.n_selected, n_selected);
    assert_ok(prism_plan_mask(r.plan, r.mask, bytes));
    assert_memory_equal(before, r.mask, bytes);
    free(before);
    runner_free(&r);
    case_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_aligned),    cmocka_unit_test(test_chunks_anywhere),
        cmocka_unit_test(test_chunks_dense),      cmocka_unit_test(test_pooled_once),
        cmocka_unit_test(test_plan_round_trip),   cmocka_unit_test(test_sink_and_own),
        cmocka_unit_test(test_plan_without_room),
    };
    return cmocka_run_group_tests(tests, new_context, drop_context);
}
