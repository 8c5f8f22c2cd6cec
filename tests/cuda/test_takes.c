/* Which attention kernel a call gets on a GPU, and what is refused: the rows of src/cuda/takes.c. Needs no GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cuda/takes.h"
#include "stages.h"

static const uint32_t f32 = 1u << PRISM_CU_F32, bf16 = 1u << PRISM_CU_BF16;

/* A call that every kernel of 16 bits takes on an H200. */
static const prism_cu_ask good = {
    .capability = 90, .dtypes = 1u << PRISM_CU_BF16, .d_head = 128, .block_size = 128, .n_kblk = 100, .scale = 0.1f};

static void expect_kernel(const prism_cu_ask *ask, prism_cu_kernel kernel)
{
    assert_int_equal(prism_cu_attend_kernel(ask, 0), kernel);
}

/* The good call with another value in one field. */
#define EXPECT_KERNEL(field, value, kernel)                                                                            \
    do {                                                                                                               \
        prism_cu_ask other = good;                                                                                     \
        other.field = (value);                                                                                         \
        expect_kernel(&other, kernel);                                                                                 \
    } while (0)

static void test_dispatch(void **state)
{
    (void)state;
    expect_kernel(&good, PRISM_CU_ATTEND_SM90);
    assert_int_equal(prism_cu_attend_kernel(&good, PRISM_CU_ATTEND_SM90 + 1), PRISM_CU_ATTEND_SM80);
    assert_int_equal(prism_cu_attend_kernel(&good, PRISM_CU_ATTEND_SM80 + 1), PRISM_CU_ATTEND_ANY);
    assert_int_equal(prism_cu_attend_kernel(&good, PRISM_CU_ATTEND_ANY + 1), PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(capability, 80, PRISM_CU_ATTEND_SM80);
    EXPECT_KERNEL(capability, 100, PRISM_CU_ATTEND_SM80);
    EXPECT_KERNEL(capability, 75, PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(d_head, 64, PRISM_CU_ATTEND_SM90);
    EXPECT_KERNEL(d_head, 256, PRISM_CU_ATTEND_SM90);
    EXPECT_KERNEL(d_head, 96, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(d_head, 257, PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(dtypes, f32, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(dtypes, f32 | bf16, PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(odd, true, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(single_keys, true, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(scale, 0, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(paged_queries, true, PRISM_CU_ATTEND_ANY);
    EXPECT_KERNEL(endless, true, PRISM_CU_ATTEND_SM80);
    EXPECT_KERNEL(stride_dim, true, PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(paged_lse, true, PRISM_N_CU_KERNEL);
    EXPECT_KERNEL(fp8, true, PRISM_CU_ATTEND_FP8);
}

/* The copy engine of sm90 fetches a page or a tile at a time; sm80 takes every page. */
static void test_pages(void **state)
{
    (void)state;
    static const struct {
        int d_head, block_size, k_page, v_page;
        bool sm90;
    } cases[] = {
        {128, 128, 16, 16, true},  {128, 128, 64, 64, true},  {128, 128, 128, 128, true}, {128, 128, 256, 256, true},
        {128, 128, 1, 1, false},   {128, 128, 4, 4, false},   {128, 128, 48, 48, false},  {128, 128, 192, 192, false},
        {128, 128, 16, 32, false}, {128, 128, 16, 0, false},  {128, 128, 0, 16, false},   {128, 64, 192, 192, true},
        {128, 64, 128, 128, true}, {256, 128, 64, 64, true},  {256, 128, 96, 96, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prism_cu_ask ask = good;
        ask.d_head = cases[i].d_head, ask.block_size = cases[i].block_size;
        ask.k_page = cases[i].k_page, ask.v_page = cases[i].v_page;
        expect_kernel(&ask, cases[i].sm90         ? PRISM_CU_ATTEND_SM90
                            : ask.d_head == 256   ? PRISM_CU_ATTEND_ANY
                                                  : PRISM_CU_ATTEND_SM80);
    }
}

static void test_tensors(void **state)
{
    (void)state;
    static char memory[64] __attribute__((aligned(16)));
    static const int32_t table[1];
    const prism_cu_shape shape = {.d_head = 64, .n_kblk = 7};
    const prism_cu_view none = {.stride_token = 1},
                        whole = {.data = memory, .stride_seq = 64, .stride_token = 64, .stride_head = 64, .n_token = 1};
    prism_cu_ask ask = {0};
    prism_cu_ask_tensors(&ask, &shape, &whole, &whole, &none, &none);
    assert_true(ask.d_head == 64 && ask.n_kblk == 7 && !ask.odd && !ask.endless && !ask.paged_queries && !ask.k_page);
    prism_cu_view x = whole;
    x.data = memory + 2;
    prism_cu_ask_tensors(&ask, &shape, &whole, &x, &none, &none);
    assert_true(ask.odd);
    ask = (prism_cu_ask){0};
    x = whole, x.stride_page = 4; /* counts where there are pages */
    prism_cu_ask_tensors(&ask, &shape, &whole, &x, &none, &none);
    assert_false(ask.odd);
    x.page_table = table, x.page_size = 16;
    prism_cu_ask_tensors(&ask, &shape, &x, &x, &whole, &none);
    assert_true(ask.odd && ask.paged_queries && ask.k_page == 16 && ask.v_page == 0);
    ask = (prism_cu_ask){0};
    x = whole, x.row_start = table, x.n_token = 0;
    prism_cu_ask_tensors(&ask, &shape, &x, &whole, &whole, &whole);
    assert_true(ask.endless);
}

static void expect_refusal(prism_stage stage, const prism_cu_ask *ask, const char *sentence)
{
    char text[256];
    const char *got = prism_cu_refuses((int)stage, ask, text, sizeof text);
    if (!sentence)
        assert_null(got);
    else
        assert_string_equal(got, sentence);
}

#define EXPECT_REFUSAL(stage, field, value, sentence)                                                                  \
    do {                                                                                                               \
        prism_cu_ask other = good;                                                                                     \
        other.field = (value);                                                                                         \
        expect_refusal(stage, &other, sentence);                                                                       \
    } while (0)

static void test_refusals(void **state)
{
    (void)state;
    static const prism_stage there[] = {PRISM_STAGE_ATTEND, PRISM_STAGE_SELECT, PRISM_STAGE_SELECT_MOMENTS,
                                        PRISM_STAGE_CORRECT};
    for (int i = 0; i < 4; i++)
        expect_refusal(there[i], &good, NULL);
    EXPECT_REFUSAL(PRISM_STAGE_ATTEND, d_head, 80, NULL); /* sm90 does not take it, any does */
    EXPECT_REFUSAL(PRISM_STAGE_ATTEND, dtypes, f32 | bf16, "attention needs q, k, v and o of one type");
    EXPECT_REFUSAL(PRISM_STAGE_ATTEND, fp8, true, NULL);
    prism_cu_ask fp8 = good;
    fp8.fp8 = true, fp8.block_size = 64;
    expect_refusal(PRISM_STAGE_ATTEND, &fp8, "precision fp8 needs blocks of 128");
    fp8.capability = 80;
    expect_refusal(PRISM_STAGE_ATTEND, &fp8, "precision fp8 needs compute capability 9.0 (H100, H200)");
    EXPECT_REFUSAL(PRISM_STAGE_SELECT, d_head, 80, "selection needs d_head 64, 96, 128, 192 or 256");
    EXPECT_REFUSAL(PRISM_STAGE_SELECT, n_kblk, 24576, NULL);
    EXPECT_REFUSAL(PRISM_STAGE_SELECT, n_kblk, 24577, "a list of blocks needs at most 24576 key blocks");
    EXPECT_REFUSAL(PRISM_STAGE_SELECT_MOMENTS, d_head, 256, "pooling of moments needs d_head 64 or 128");
    EXPECT_REFUSAL(PRISM_STAGE_SELECT_MOMENTS, n_kblk, 16385,
                   "selection by moments needs at most 16384 key blocks");
    EXPECT_REFUSAL(PRISM_STAGE_CORRECT, scale, -1, "correction by moments needs a softmax scale above 0");
    EXPECT_REFUSAL(PRISM_STAGE_CORRECT, dtypes, f32, "pooling of moments needs float16 or bfloat16");
    expect_refusal(PRISM_STAGE_SELECT_LINES, &good,
                   "the method needs a stage that is missing there; the stages are attend, correct, select, "
                   "select_moments");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
