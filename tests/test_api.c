/* Misuse of calls and options: the expected status, a sentence, and nothing written. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_fixture.h"

/* ------------------------------------------------------------------------------------------------ the call ---- */

static void test_good_call(void **state)
{
    fixture *f = *state;
    size_t bytes;
    assert_string_equal(prism_last_error(f->ctx), "");
    assert_ok(prism_workspace_bytes(f->ctx, &f->options, &f->call, &bytes));
    assert_true(bytes <= ROOM);
    prism_stats stats = {.struct_size = sizeof stats};
    assert_ok(prism_attention(f->ctx, &f->options, &f->call, f->plan, f->workspace, bytes, &stats));
    assert_true(stats.density > 0 && stats.density <= 1 && stats.path == PRISM_PATH_SPARSE);
    assert_true(stats.n_causal == HEADS * N_BLK * (N_BLK + 1) / 2);
}

static void test_call_counts(void **state)
{
    fixture *f = *state;
    assert_refused(f, NULL, &f->options, ALL_DOORS, PRISM_ERROR_INVALID, "call NULL");
    REFUSE_CALL(c.struct_size = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.struct_size--, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_seq = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_seq = -1, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_q = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_q = INT32_MIN, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv = N - 1, ALL_DOORS, PRISM_ERROR_INVALID); /* fewer keys than queries */
    REFUSE_CALL(c.n_q = N + 1, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_head = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_head = 5, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_head = 0, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_head = 3, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_head = 8, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.d_head = 0, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.d_head = 257, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.q_start = -2, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q_start = 1, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q_start = INT32_MAX, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.scale = -1, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.scale = NAN, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.scale = INFINITY, ALL_DOORS, PRISM_ERROR_INVALID);
}

static void test_call_features(void **state)
{
    fixture *f = *state;
    const float one[HEADS] = {1, 1, 1, 1};
    REFUSE_CALL(c.softcap = 30, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.softcap = NAN, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.window = 4096, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.alibi_slope = one, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.sink_logit = one, ALL_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.lse.dtype = PRISM_F16, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_UNSUPPORTED);
}

static void test_call_ragged(void **state)
{
    fixture *f = *state;
    const int32_t negative[1] = {-1}, large[1] = {N + 1}, one[1] = {1}, far[1] = {INT32_MAX};
    REFUSE_CALL(c.n_q_of = negative, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_q_of = large, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_of = negative, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_of = large, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.n_kv_of = one, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q_start_of = negative, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q_start_of = one, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q_start_of = far, ALL_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.q_start_of = far, c.n_q_of = one, c.n_kv = INT32_MAX), ALL_DOORS, PRISM_ERROR_INVALID);
}

static void test_call_tensors(void **state)
{
    fixture *f = *state;
    const int32_t bad_page[1] = {1}, good_page[1] = {0}, negative[1] = {-1};
    REFUSE_CALL(c.q.data = NULL, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.data = NULL, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.v.data = NULL, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.data = NULL, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.data = (char *)f->q + 2, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.dtype = (prism_dtype)4, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.dtype = (prism_dtype)-1, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.dtype = PRISM_Q8_0, DATA_DOORS, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL(c.o.dtype = PRISM_Q8_0, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_UNSUPPORTED);
    REFUSE_CALL((c.k.dtype = PRISM_Q8_0, c.k.stride_token += 16), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.dtype = PRISM_Q8_0, c.k.stride_dim = 32), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.stride_token = -1, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.stride_head = INT64_MIN, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.stride_dim = -1, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.stride_seq = -1, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.n_element = -1, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.n_element--, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.n_element--, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.v.n_element--, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.n_element--, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.lse.n_element--, DOOR_ATTEND | DOOR_ATTENTION, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.stride_token++, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.q.stride_token = INT64_MAX, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.stride_token = INT64_MAX / (N - 1), c.k.n_element = 0), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.q.stride_dim = INT64_MAX, c.q.n_element = 0), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.k.row_start = negative, DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = good_page, c.k.page_size = 0, c.k.n_page = 1), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = good_page, c.k.page_size = N, c.k.n_page = 0), DATA_DOORS, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = good_page, c.k.page_size = N, c.k.n_page = 1, c.k.stride_page = -1), DATA_DOORS,
                PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = good_page, c.k.page_size = N, c.k.n_page = 1, c.k.stride_table = 0), DATA_DOORS,
                PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = bad_page, c.k.page_size = N, c.k.n_page = 1, c.k.stride_table = 1), DATA_DOORS,
                PRISM_ERROR_INVALID);
    REFUSE_CALL((c.k.page_table = negative, c.k.page_size = N, c.k.n_page = 1, c.k.stride_table = 1), DATA_DOORS,
                PRISM_ERROR_INVALID);
    REFUSE_CALL((c.q.page_table = good_page, c.q.page_size = N, c.q.n_page = INT32_MAX, c.q.stride_table = 1,
                 c.q.stride_page = INT64_MAX / 2),
                DATA_DOORS, PRISM_ERROR_INVALID);
}

/* Shapes whose products leave int32, int64 or size_t: refused, or a number that is right; never less than the truth. */
static void test_call_outputs(void **state)
{
    fixture *f = *state;
    const unsigned doors = DOOR_ATTEND | DOOR_ATTENTION;
    REFUSE_CALL(c.o = c.q, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.data = f->k, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.o.data = f->q + N * HEADS * DIM / 2, c.o.n_element = 0), doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.lse.data = f->o, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.lse.data = f->v, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.stride_dim = 0, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.stride_head = 0, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.o.stride_token = 0, doors, PRISM_ERROR_INVALID);
    REFUSE_CALL(c.lse.stride_head = 0, doors, PRISM_ERROR_INVALID);

    /* Queries and outputs that take turns in one buffer share no byte. */
    prism_call c = f->call;
    float *both = malloc(2 * N * HEADS * DIM * sizeof *both);
    for (int t = 0; t < N; t++)
        memcpy(both + 2 * t * HEADS * DIM, f->q + t * HEADS * DIM, HEADS * DIM * sizeof *both);
    c.q.data = both;
    c.o.data = both + HEADS * DIM;
    c.q.stride_token = c.o.stride_token = 2 * HEADS * DIM;
    c.q.n_element = c.o.n_element = 0;
    assert_ok(prism_attention(f->ctx, &f->options, &f->call, f->plan, f->workspace, ROOM, NULL));
    assert_ok(prism_attention(f->ctx, &f->options, &c, f->plan, f->workspace, ROOM, NULL));
    for (int t = 0; t < N; t++)
        assert_memory_equal(both + (2 * t + 1) * HEADS * DIM, f->o + t * HEADS * DIM, HEADS * DIM * sizeof *both);
    free(both);
}

static void test_call_overflow(void **state)
{
    fixture *f = *state;
    static const int32_t big[] = {1, 3, 1 << 16, INT32_MAX - 127, INT32_MAX};
    for (int i = 0; i < 5 * 5 * 5; i++) {
        prism_call c = f->call;
        size_t bytes = 0;
        c.n_kv_head = big[i % 5];
        c.n_head = c.n_kv_head;
        c.n_kv = big[i / 5 % 5];
        c.n_q = i / 25 % 5 ? 1 : c.n_kv;
        c.n_seq = i / 25 % 5 < 3 ? 1 << (i / 25 % 5 * 8) : 1;
        c.d_head = 256;
        f->options.method = PRISM_METHOD_DENSE;
        const prism_status status = prism_workspace_bytes(f->ctx, &f->options, &c, &bytes);
        assert_true(status == PRISM_OK || status == PRISM_ERROR_UNSUPPORTED);
        if (status == PRISM_OK) /* keys and values of one head are packed as float32 */
            assert_true((double)bytes >= 2.0 * 4 * 256 * c.n_kv);
        prism_plan *plan;
        if ((double)c.n_seq * c.n_head * (c.n_q / 64.0) * (c.n_kv / 64.0) < 1e8)
            continue; /* these would be granted */
        const prism_status created = prism_plan_create(f->ctx, &c, BLOCK, 0, &plan);
        assert_true(created == PRISM_OK || created == PRISM_ERROR_MEMORY || created == PRISM_ERROR_UNSUPPORTED);
        assert_true((created == PRISM_OK) == (plan != NULL));
        prism_plan_destroy(plan);
    }
}

/* -------------------------------------------------------------------------------------------- the options ---- */

#define REFUSE_OPTIONS(change, status)                                                                                 \
    do {                                                                                                               \
        prism_options o = f->options;                                                                                  \
        prism_bands b = f->bands;                                                                                      \
        o.bands = &b;                                                                                                  \
        change;                                                                                                        \
        assert_refused(f, &f->call, &o, DOOR_BYTES | DOOR_PLAN | DOOR_ATTENTION, status, #change);                     \
    } while (0)

static void test_options(void **state)
{
    fixture *f = *state;
    assert_refused(f, &f->call, NULL, DOOR_BYTES | DOOR_PLAN | DOOR_ATTENTION, PRISM_ERROR_INVALID, "options NULL");
    REFUSE_OPTIONS(o.struct_size = 0, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.struct_size--, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.method = (prism_method)99, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.method = (prism_method)-1, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.calibration = (prism_calibration)2, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.block_size = 0, PRISM_ERROR_UNSUPPORTED);
    REFUSE_OPTIONS(o.block_size = 96, PRISM_ERROR_UNSUPPORTED);
    REFUSE_OPTIONS(o.block_size = -128, PRISM_ERROR_UNSUPPORTED);
    REFUSE_OPTIONS(o.top_p = 0, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.top_p = 1.01f, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.top_p = NAN, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.top_p_high = -0.1f, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.top_p_low = NAN, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.keep_sink = 2, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.keep_own = -1, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.min_tokens = -2, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(o.bands = NULL, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.high[1] = b.high[0], PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.d_head = 64, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.n_high = -1, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.n_low = DIM + 1, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.high[3] = DIM, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.low[3] = -1, PRISM_ERROR_INVALID);
    REFUSE_OPTIONS(b.n_high = b.n_low = 0, PRISM_ERROR_INVALID);
}

static void test_options_by_name(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"method", "dense"},       {"method", "meanpool"},      {"method", "prism"}, {"calibration", "causal"},
        {"calibration", "global"}, {"block_size", "64"},        {"top_p", "0.9"},    {"top_p", "1"},
        {"top_p_high", "0.5"},     {"top_p_low", "0"},          {"keep_sink", "0"},  {"keep_own", "1"},
        {"min_tokens", "8K"},      {"min_tokens", "2147483647"}, {"top_p", ".9"},    {"top_p", "1"}};
    static const char *const bad[][2] = {
        {"method", "magic"},  {"method", ""},         {"calibration", "2"}, {"block_size", "65"}, {"block_size", "96"},
        {"block_size", ""},   {"top_p", "0"},         {"top_p", "1.1"},     {"top_p", "nan"},     {"top_p", "0.9x"},
        {"top_p", "-0.5"},    {"top_p", "1e-60"},     {"keep_sink", "2"},   {"keep_own", "yes"},  {"min_tokens", "1.5"},
        {"min_tokens", "-2"}, {"min_tokens", "1e10"}, {"bands", "0"},       {"struct_size", "8"}, {"", "1"},
        {"Top_p", "0.5"},     {"top_p", " 0.5"},      {"top_p", "+0.5"},    {"top_p", "0x1p-1"},  {"top_p", "inf"},
        {"min_tokens", " 5"}, {"min_tokens", "+5"},   {"min_tokens", "1e3"}, {"min_tokens", "0x10"},
        {"min_tokens", "K"},
        {"min_tokens", "2097152K"}, {"min_tokens", "8KK"}, {"top_p", "0.0001K"}};
    prism_options o, before;
    prism_options_init(&o);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (prism_options_set(&o, good[i][0], good[i][1]))
            fail_msg("%s = %s was refused", good[i][0], good[i][1]);
    assert_true(o.method == PRISM_METHOD_PRISM && o.block_size == 64 && o.top_p == 1 && o.top_p_high == 0.5f);
    assert_true(o.keep_sink == 0 && o.min_tokens == INT32_MAX && o.calibration == PRISM_CALIBRATION_GLOBAL);
    before = o;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (prism_options_set(&o, bad[i][0], bad[i][1]) != PRISM_ERROR_INVALID)
            fail_msg("%s = %s was accepted", bad[i][0], bad[i][1]);
    assert_int_equal(prism_options_set(NULL, "top_p", "1"), PRISM_ERROR_INVALID);
    assert_int_equal(prism_options_set(&o, NULL, "1"), PRISM_ERROR_INVALID);
    assert_int_equal(prism_options_set(&o, "top_p", NULL), PRISM_ERROR_INVALID);
    assert_memory_equal(&o, &before, sizeof o);
    prism_options_init(NULL);
}

/* Each option once, with a default in its range that a new prism_options holds and prism_options_set() takes. */
static void test_option_rows(void **state)
{
    (void)state;
    prism_option_info o = {.struct_size = sizeof o}, short_struct = {.struct_size = sizeof o - 1};
    prism_options fresh, set;
    char text[64];
    int32_t n = 0;
    prism_options_init(&fresh);
    set = fresh;
    for (; !prism_option_at(n, &o); n++) {
        assert_true(o.value >= o.min && o.value <= o.max && strlen(o.text) > 0);
        assert_true((o.kind == PRISM_OPTION_NAME) == (o.names != NULL) && (!o.names || o.n_name == (int)o.max + 1));
        snprintf(text, sizeof text, "%.17g", o.value);
        assert_ok(prism_options_set(&set, o.name, o.names ? o.names[(int)o.value] : text));
        int32_t n_method = 0;
        for (int32_t m = 0; m < prism_method_count(); m++)
            n_method += prism_method_uses((prism_method)m, o.name);
        if (n_method == 0)
            fail_msg("no method goes by %s", o.name);
        for (int32_t i = 0; i < n; i++) {
            prism_option_info before = {.struct_size = sizeof before};
            assert_ok(prism_option_at(i, &before));
            assert_string_not_equal(before.name, o.name);
        }
    }
    assert_true(n > 0 && fresh.method == PRISM_METHOD_PRISM);
    assert_memory_equal(&set, &fresh, sizeof set);
    assert_int_equal(prism_option_at(-1, &o), PRISM_ERROR_INVALID);
    assert_int_equal(prism_option_at(n, &o), PRISM_ERROR_INVALID);
    assert_int_equal(prism_option_at(0, &short_struct), PRISM_ERROR_INVALID);
    assert_int_equal(prism_option_at(0, NULL), PRISM_ERROR_INVALID);
    for (int32_t m = 0; m < prism_method_count(); m++)
        assert_true(strlen(prism_method_name((prism_method)m)) > 0 && strlen(prism_method_text((prism_method)m)) > 0);
    assert_null(prism_method_text((prism_method)prism_method_count()));
}

/* A value that is not the default. */
static void set_otherwise(prism_options *options, const prism_option_info *o)
{
    const double value = o->value != o->min ? o->min : o->max;
    char text[64];
    snprintf(text, sizeof text, "%.17g", value);
    assert_ok(prism_options_set(options, o->name, o->names ? o->names[(int)value] : text));
}

/* Options that a method does not go by change no bit of its results. */
static void test_options_of_others(void **state)
{
    fixture *f = *state;
    float first[N * HEADS * DIM];
    for (int32_t m = 0; m < prism_method_count(); m++) {
        prism_options o = f->options;
        prism_option_info option = {.struct_size = sizeof option};
        o.method = (prism_method)m;
        assert_ok(prism_attention(f->ctx, &o, &f->call, f->plan, f->workspace, ROOM, NULL));
        memcpy(first, f->o, sizeof first);
        for (int32_t i = 0; !prism_option_at(i, &option); i++) {
            prism_options changed = o;
            if (prism_method_uses((prism_method)m, option.name))
                continue;
            set_otherwise(&changed, &option);
            assert_ok(prism_attention(f->ctx, &changed, &f->call, f->plan, f->workspace, ROOM, NULL));
            if (memcmp(first, f->o, sizeof first))
                fail_msg("%s goes by %s", prism_method_name((prism_method)m), option.name);
        }
        assert_true(prism_method_uses((prism_method)m, "block_size") && prism_method_uses((prism_method)m, "correct"));
    }
    assert_true(prism_method_uses(PRISM_METHOD_PRISM, "top_p") && prism_method_uses(PRISM_METHOD_MEANPOOL, "top_p"));
    assert_int_equal(prism_method_uses(PRISM_METHOD_MOMENTS, "top_p"), 0);
    assert_true(prism_method_uses(PRISM_METHOD_PRISM, "bands") && !prism_method_uses(PRISM_METHOD_MEANPOOL, "bands"));
    assert_int_equal(prism_method_uses(PRISM_METHOD_PRISM, "magic"), 0);
    assert_int_equal(prism_method_uses(PRISM_METHOD_PRISM, NULL), 0);
    assert_int_equal(prism_method_uses((prism_method)prism_method_count(), "block_size"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_with(test_good_call),         test_with(test_call_counts),
        test_with(test_call_features),     test_with(test_call_ragged),
        test_with(test_call_tensors),      test_with(test_call_overflow),
        test_with(test_call_outputs),
        test_with(test_options),           cmocka_unit_test(test_options_by_name),
        cmocka_unit_test(test_option_rows), test_with(test_options_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
