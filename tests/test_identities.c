/* What must be the same whichever way it is asked for, to the last bit: full plans, views, batches, heads, threads. */
#include <stdlib.h>
#include <string.h>

#include <math.h>

#include "answers.h"

/* ---------------------------------------------------------------------------------------------- full plans ---- */

/* The options with which each method keeps every block. */
static prism_options keep_everything(const test_case *c, prism_method method)
{
    prism_options o = options_with(c, method, 1);
    o.minference_slash = o.minference_vertical = c->call.n_kv;
    o.flex_min_budget = c->call.n_kv;
    o.xattn_threshold = 1;
    o.flash_window = c->call.n_kv;
    o.moments_error = 0;
    return o;
}

/* Method dense, any method that keeps everything, short prompts, and a mask of ones are one and the same. */
static void test_full_is_dense(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(500, 8, 2, 64);
    test_case *c = case_new(&s, 1);
    prism_options o = options_with(c, PRISM_METHOD_DENSE, 0.5f);
    answer dense = attention(ctx, c, &o, PRISM_PATH_DENSE);
    for (int32_t method = 0; method < prism_method_count(); method++) {
        o = keep_everything(c, (prism_method)method);
        runner r = runner_new(ctx, &o, &c->call);
        assert_ok(runner_plan(&r, &o, &c->call));
        if (r.view.n_selected != r.view.n_causal)
            fail_msg("%s does not keep everything: %g", prism_method_name(o.method), r.view.density);
        answer one = attention(ctx, c, &o, r.view.path);
        assert_same_bits(&dense, &one);
        answer_free(&one);
        runner_free(&r);
        if (method == PRISM_METHOD_DENSE)
            continue;
        o = options_with(c, (prism_method)method, 0.5f);
        o.min_tokens = 501;
        one = attention(ctx, c, &o, PRISM_PATH_DENSE_SHORT);
        assert_same_bits(&dense, &one);
        answer_free(&one);
    }
    runner r = runner_new(ctx, &o, &c->call);
    assert_ok(runner_plan(&r, &o, &c->call));
    assert_null(r.view.index);
    for (int h = 0; h < 8; h++)
        for (int i = 0; i < 8; i++)
            for (int v = 0; v < 8; v++)
                assert_int_equal(runner_mask_row(&r, 0, h, i)[v], v <= i);
    assert_ok(prism_plan_from_mask(ctx, &c->call, 64, r.mask, 8 * 8 * 8, r.plan));
    case_poison_outputs(c);
    assert_ok(runner_attend(&r, &c->call));
    answer from_mask = read_answer(c);
    assert_same_bits(&dense, &from_mask);
    answer_free(&from_mask);
    answer_free(&dense);
    runner_free(&r);
    case_free(c);
}

static void test_min_tokens(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(500, 2, 2, 32);
    test_case *c = case_new(&s, 2);
    prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.5f);
    static const struct {
        int min_tokens;
        prism_path path;
    } rows[] = {{0, PRISM_PATH_SPARSE},
                {500, PRISM_PATH_SPARSE},
                {501, PRISM_PATH_DENSE_SHORT},
                {INT32_MAX, PRISM_PATH_DENSE_SHORT},
                {-1, PRISM_PATH_DENSE_SHORT}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        o.min_tokens = rows[i].min_tokens;
        answer a = attention(ctx, c, &o, rows[i].path);
        answer_free(&a);
    }
    case_free(c);
}

/* In a batch, short sequences take every block and long ones do not. */
static void test_min_tokens_in_batch(void **state)
{
    prism_ctx *ctx = *state;
    shape s = plain(200, 2, 2, 32);
    s.n_seq = 2;
    s.n_q[1] = 800;
    test_case *c = case_new(&s, 3);
    prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.3f);
    o.min_tokens = 400;
    runner r = runner_new(ctx, &o, &c->call);
    assert_ok(runner_plan(&r, &o, &c->call));
    assert_int_equal(r.view.path, PRISM_PATH_SPARSE);
    int n_long = 0;
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 13; i++)
            for (int v = 0; v < 13; v++) {
                assert_int_equal(runner_mask_row(&r, 0, h, i)[v], i < 4 && v <= i);
                n_long += runner_mask_row(&r, 1, h, i)[v];
            }
    assert_true(n_long < 2 * 13 * 14 / 2);
    runner_free(&r);
    case_free(c);
}

/* ------------------------------------------------------------------------------------------------- views ---- */

/* Layouts, page sizes and batching are views: the bits are those of plain tensors. */
static void test_layouts(void **state)
{
    prism_ctx *ctx = *state;
    for (int dtype = 0; dtype < 3; dtype++) {
        shape s = plain(330, 4, 2, 80);
        s.q_start[0] = 70;
        s.dtype = s.out_dtype = (prism_dtype)dtype;
        test_case *c = case_new(&s, 4);
        prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
        const answer want = attention(ctx, c, &o, PRISM_PATH_SPARSE);
        static const int pages[] = {1, 16, 64, 128};
        for (int i = 0; i < N_LAYOUT - 1 + 4; i++) {
            s.q_layout = s.o_layout = s.kv_layout = i < N_LAYOUT - 1 ? (layout)i : PAGED;
            s.page_size = i < N_LAYOUT - 1 ? 1 : pages[i - (N_LAYOUT - 1)];
            s.n_beyond = 50 * (i % 2);
            test_case *other = case_new(&s, 4);
            for (int which = 0; which < 3; which++) { /* the same logical values */
                const char name = "qkv"[which];
                const oracle_seq *from = &c->seq[0];
                const double *x = which == 0 ? from->q : which == 1 ? from->k : from->v;
                const int heads = which ? 2 : 4, n = which ? 400 : 330;
                for (int at = 0; at < heads * n * 80; at++)
                    case_poke(other, name, 0, at / 80 / n, at / 80 % n, at % 80, x[at]);
            }
            answer got = attention(ctx, other, &o, PRISM_PATH_SPARSE);
            assert_same_bits(&want, &got);
            assert_true(case_gaps_untouched(other));
            answer_free(&got);
            case_free(other);
        }
        answer_free((answer *)&want);
        case_free(c);
    }
}

/* One sequence of a ragged batch alone. */
static prism_call only(const test_case *c, int s)
{
    prism_call call = c->call;
    prism_tensor *const views[] = {&call.q, &call.k, &call.v, &call.o, &call.lse};
    call.n_seq = 1;
    call.n_q_of += s;
    call.n_kv_of += s;
    call.q_start_of += s;
    for (int i = 0; i < 5; i++) {
        if (views[i]->row_start)
            views[i]->row_start += s;
        else if (views[i]->page_table)
            views[i]->page_table += s * views[i]->stride_table;
        else {
            const int64_t skip = s * views[i]->stride_seq;
            views[i]->data = (char *)views[i]->data + skip * (int64_t)prism_dtype_bytes(views[i]->dtype);
            views[i]->n_element -= skip;
        }
    }
    return call;
}

/* Keys or values of a case, [token][head][d], as blocks of 32: factor 2^-5, values cut to whole numbers of it. The case
 * takes over what the blocks say. */
static prism_tensor quantise(test_case *c, char which, int n_token, int n_head, int d, void *blocks)
{
    char *block = blocks;
    const double *x = which == 'k' ? c->seq[0].k : c->seq[0].v; /* [n_head][n_token][d] */
    for (int t = 0; t < n_token; t++)
        for (int h = 0; h < n_head; h++)
            for (int j = 0; j < d; j++) {
                const double scaled = x[((long)h * n_token + t) * d + j] * 32;
                const int value = (int)fmax(-128, fmin(127, scaled));
                if (j % 32 == 0) {
                    value_encode(PRISM_F16, 1.0 / 32, block);
                    block += 2;
                }
                *block++ = (char)value;
                case_poke(c, which, 0, h, t, j, value / 32.0);
            }
    return prism_tensor_token_major(blocks, PRISM_Q8_0, n_token, n_head, d);
}

/* A quantised cache gives the bits of the numbers it stands for; few queries too. */
static void test_q8_0(void **state)
{
    prism_ctx *ctx = *state;
    for (int n_q = 330; n_q > 0; n_q -= 329) {
        shape s = plain(n_q, 4, 2, 64);
        s.q_start[0] = 330 - n_q;
        test_case *c = case_new(&s, 12);
        const size_t bytes = (size_t)330 * 2 * 64 / 32 * 34;
        guarded k = guarded_new(bytes, 2), v = guarded_new(bytes, 2);
        const prism_tensor q8_k = quantise(c, 'k', 330, 2, 64, k.data), q8_v = quantise(c, 'v', 330, 2, 64, v.data);
        const prism_options o = options_with(c, n_q > 1 ? PRISM_METHOD_PRISM : PRISM_METHOD_DENSE, 0.7f);
        const prism_path path = n_q > 1 ? PRISM_PATH_SPARSE : PRISM_PATH_DENSE;
        answer want = attention(ctx, c, &o, path);
        c->call.k = q8_k;
        c->call.v = q8_v;
        answer got = attention(ctx, c, &o, path);
        assert_same_bits(&want, &got);
        answer_free(&want);
        answer_free(&got);
        guarded_free(&k);
        guarded_free(&v);
        case_free(c);
    }
}

static void test_ragged_one_by_one(void **state)
{
    prism_ctx *ctx = *state;
    for (int index = 0; index < 10; index++) {
        rng r = {(uint64_t)index};
        shape s = shape_nth(index, 500, &r);
        s.n_seq = 3;
        for (int i = 0; i < 3; i++) {
            s.q_start[i] = i == 1 ? 100 : 0;
            s.n_q[i] = 90 + 133 * i;
        }
        test_case *c = case_new(&s, 5);
        prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
        o.calibration = index % 2 ? PRISM_CALIBRATION_CAUSAL : PRISM_CALIBRATION_GLOBAL;
        answer whole = attention(ctx, c, &o, PRISM_PATH_SPARSE);
        case_poison_outputs(c);
        for (int q = 0; q < 3; q++) {
            const prism_call call = only(c, q);
            runner run = runner_new(ctx, &o, &call);
            assert_ok(runner_plan(&run, &o, &call));
            assert_ok(runner_attend(&run, &call));
            runner_free(&run);
        }
        answer parts = read_answer(c);
        assert_same_bits(&whole, &parts);
        answer_free(&whole);
        answer_free(&parts);
        case_free(c);
    }
}

/* Sequences without a query take no part: nothing of theirs is read or written, wherever their keys end. */
static void test_empty_sequences(void **state)
{
    prism_ctx *ctx = *state;
    shape s = plain(200, 4, 2, 64);
    test_case *alone = case_new(&s, 6);
    prism_options o = options_with(alone, PRISM_METHOD_PRISM, 0.7f);
    answer want = attention(ctx, alone, &o, PRISM_PATH_SPARSE);
    prism_call call = alone->call;
    const int32_t n_q[3] = {0, 200, 0}, n_kv[3] = {5000, 200, 0}, q_start[3] = {5000, 0, 0}, row_start[3] = {7, 0, 0};
    call.n_seq = 3;
    call.n_kv = 5000;
    call.n_q_of = n_q;
    call.n_kv_of = n_kv;
    call.q_start_of = q_start;
    call.q.row_start = call.k.row_start = call.v.row_start = call.o.row_start = call.lse.row_start = row_start;
    runner r = runner_new(ctx, &o, &call);
    case_poison_outputs(alone);
    assert_ok(runner_plan(&r, &o, &call));
    assert_ok(runner_attend(&r, &call));
    answer got = read_answer(alone);
    assert_same_bits(&want, &got);
    answer_free(&want);
    answer_free(&got);
    runner_free(&r);
    case_free(alone);
}

/* Query heads and KV heads renamed: the outputs follow. */
static void test_permuted_heads(void **state)
{
    prism_ctx *ctx = *state;
    const shape s = plain(400, 6, 3, 64);
    test_case *c = case_new(&s, 7);
    const prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
    answer before = attention(ctx, c, &o, PRISM_PATH_SPARSE);
    static const int to[3] = {2, 0, 1}, swap[2] = {1, 0}; /* KV head, and the query heads in its group */
    test_case *p = case_new(&s, 7);
    for (int h = 0; h < 3; h++)
        for (int i = 0; i < 400 * 64; i++) {
            case_poke(p, 'k', 0, to[h], i / 64, i % 64, c->seq[0].k[h * 400 * 64 + i]);
            case_poke(p, 'v', 0, to[h], i / 64, i % 64, c->seq[0].v[h * 400 * 64 + i]);
            for (int g = 0; g < 2; g++)
                case_poke(p, 'q', 0, 2 * to[h] + swap[g], i / 64, i % 64, c->seq[0].q[(2 * h + g) * 400 * 64 + i]);
        }
    answer after = attention(ctx, p, &o, PRISM_PATH_SPARSE);
    for (int h = 0; h < 6; h++)
        assert_memory_equal(before.out + h * 400 * 64, after.out + (2 * to[h / 2] + swap[h % 2]) * 400 * 64,
                            400 * 64 * sizeof(double));
    answer_free(&before);
    answer_free(&after);
    case_free(c);
    case_free(p);
}

/* ----------------------------------------------------------------------------------------------- threads ---- */

/* Few queries against many keys split the keys over threads; there the order of sums follows the number of threads. */
static void test_thread_counts(void **state)
{
    (void)state;
    const shape s = plain(600, 8, 2, 64);
    test_case *c = case_new(&s, 14);
    for (int method = 0; method < 2; method++) {
        const prism_options o = options_with(c, (prism_method)method, 0.7f);
        const prism_path path = method ? PRISM_PATH_DENSE : PRISM_PATH_SPARSE;
        answer first = {0};
        for (int n = 1; n <= 3; n++) {
            prism_ctx *ctx = context_new(PRISM_ISA_AUTO, n);
            answer a = attention(ctx, c, &o, path);
            if (n == 1) {
                first = a;
            } else {
                assert_same_bits(&first, &a);
                answer_free(&a);
            }
            prism_destroy(ctx);
        }
        answer_free(&first);
    }
    case_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_is_dense),       cmocka_unit_test(test_min_tokens),
        cmocka_unit_test(test_min_tokens_in_batch), cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_ragged_one_by_one),   cmocka_unit_test(test_empty_sequences),
        cmocka_unit_test(test_permuted_heads),      cmocka_unit_test(test_thread_counts),
        cmocka_unit_test(test_q8_0),
    };
    return cmocka_run_group_tests(tests, new_context, drop_context);
}
