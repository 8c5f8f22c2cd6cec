/* Misuse of contexts, workspaces, plans, pooled keys, and names. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api_fixture.h"
#include "support.h"

/* ------------------------------------------------------------------------------------- workspace and plan ---- */

static void test_workspace(void **state)
{
    fixture *f = *state;
    size_t bytes;
    assert_ok(prism_workspace_bytes(f->ctx, &f->options, &f->call, &bytes));
    assert_int_equal(prism_workspace_bytes(NULL, &f->options, &f->call, &bytes), PRISM_ERROR_INVALID);
    assert_says(f, prism_workspace_bytes(f->ctx, &f->options, &f->call, NULL), PRISM_ERROR_INVALID, "bytes NULL");
    char *w = f->workspace;
    assert_ok(prism_plan_build(f->ctx, &f->options, &f->call, f->plan, w, bytes));
    assert_ok(prism_attend(f->ctx, &f->call, f->plan, w, bytes));
    assert_says(f, prism_attention(f->ctx, &f->options, &f->call, f->plan, w, bytes - 1, NULL), PRISM_ERROR_WORKSPACE,
                "one byte short");
    assert_says(f, prism_attention(f->ctx, &f->options, &f->call, f->plan, w + 32, bytes, NULL), PRISM_ERROR_WORKSPACE,
                "misaligned");
    assert_says(f, prism_plan_build(f->ctx, &f->options, &f->call, f->plan, NULL, bytes), PRISM_ERROR_WORKSPACE,
                "NULL");
    assert_says(f, prism_plan_build(f->ctx, &f->options, &f->call, f->plan, w, 0), PRISM_ERROR_WORKSPACE, "0 bytes");
    assert_says(f, prism_attend(f->ctx, &f->call, f->plan, NULL, bytes), PRISM_ERROR_WORKSPACE, "attend, NULL");
    assert_says(f, prism_attend(f->ctx, &f->call, f->plan, w + 4, bytes), PRISM_ERROR_WORKSPACE, "attend, misaligned");
    assert_says(f, prism_attend(f->ctx, &f->call, f->plan, w, 64), PRISM_ERROR_WORKSPACE, "attend, short");
}

static void test_plan(void **state)
{
    fixture *f = *state;
    prism_plan *plan = (prism_plan *)f;
    assert_int_equal(prism_plan_create(NULL, &f->call, BLOCK, 0, &plan), PRISM_ERROR_INVALID);
    assert_says(f, prism_plan_create(f->ctx, &f->call, BLOCK, 0, NULL), PRISM_ERROR_INVALID, "out NULL");
    assert_says(f, prism_plan_create(f->ctx, &f->call, 100, 0, &plan), PRISM_ERROR_UNSUPPORTED, "block size");
    assert_null(plan);
    assert_says(f, prism_plan_create(f->ctx, &f->call, BLOCK, -1, &plan), PRISM_ERROR_INVALID, "density -1");
    assert_says(f, prism_plan_create(f->ctx, &f->call, BLOCK, NAN, &plan), PRISM_ERROR_INVALID, "density NaN");
    assert_says(f, prism_plan_create(f->ctx, &f->call, BLOCK, 1.5f, &plan), PRISM_ERROR_INVALID, "density 1.5");
    assert_says(f, prism_attend(f->ctx, &f->call, f->plan, f->workspace, ROOM), PRISM_ERROR_INVALID, "never built");
    prism_plan_view view = {.struct_size = sizeof view};
    assert_ok(prism_plan_read(f->plan, &view)); /* an empty plan */
    assert_int_equal(view.n_selected, 0);

    assert_ok(prism_plan_build(f->ctx, &f->options, &f->call, f->plan, f->workspace, ROOM));
    assert_int_equal(prism_plan_read(NULL, &view), PRISM_ERROR_INVALID);
    assert_int_equal(prism_plan_read(f->plan, NULL), PRISM_ERROR_INVALID);
    view.struct_size--;
    assert_int_equal(prism_plan_read(f->plan, &view), PRISM_ERROR_INVALID);
    uint8_t mask[HEADS * N_BLK * N_BLK];
    assert_int_equal(prism_plan_mask(NULL, mask, sizeof mask), PRISM_ERROR_INVALID);
    assert_int_equal(prism_plan_mask(f->plan, NULL, sizeof mask), PRISM_ERROR_INVALID);
    assert_int_equal(prism_plan_mask(f->plan, mask, sizeof mask - 1), PRISM_ERROR_INVALID);
    assert_ok(prism_plan_mask(f->plan, mask, sizeof mask));
    assert_int_equal(prism_plan_build(NULL, &f->options, &f->call, f->plan, f->workspace, ROOM), PRISM_ERROR_INVALID);
    assert_says(f, prism_plan_build(f->ctx, &f->options, &f->call, NULL, f->workspace, ROOM), PRISM_ERROR_INVALID,
                "plan NULL");
    assert_int_equal(prism_attend(NULL, &f->call, f->plan, f->workspace, ROOM), PRISM_ERROR_INVALID);
    assert_says(f, prism_attend(f->ctx, &f->call, NULL, f->workspace, ROOM), PRISM_ERROR_INVALID, "attend, plan NULL");
    assert_says(f, prism_attention(f->ctx, &f->options, &f->call, NULL, f->workspace, ROOM, NULL), PRISM_ERROR_INVALID,
                "attention, plan NULL");
    assert_int_equal(prism_attention(NULL, &f->options, &f->call, f->plan, f->workspace, ROOM, NULL),
                     PRISM_ERROR_INVALID);
    prism_stats stats = {.struct_size = sizeof stats - 1};
    assert_says(f, prism_attention(f->ctx, &f->options, &f->call, f->plan, f->workspace, ROOM, &stats),
                PRISM_ERROR_INVALID, "stats.struct_size");
    prism_plan_destroy(NULL);
}

/* A plan of another shape is refused, and a plan without room stays what it was. */
static void test_plan_shapes(void **state)
{
    fixture *f = *state;
    assert_ok(prism_plan_build(f->ctx, &f->options, &f->call, f->plan, f->workspace, ROOM));
    REFUSE_CALL(c.n_q = N - 1, DOOR_ATTEND, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.n_q = N - 1, c.q_start = 0), DOOR_ATTEND, PRISM_ERROR_INVALID);
    REFUSE_CALL((c.n_head = 2, c.n_kv_head = 1), DOOR_ATTEND, PRISM_ERROR_INVALID);
    prism_call small = f->call;
    prism_plan *plan;
    small.n_q = small.n_kv = 128;
    assert_ok(prism_plan_create(f->ctx, &small, BLOCK, 0, &plan));
    assert_ok(prism_plan_build(f->ctx, &f->options, &small, plan, f->workspace, ROOM));
    uint8_t before[HEADS * 2 * 2], after[HEADS * 2 * 2], all[HEADS * N_BLK * N_BLK] = {0};
    assert_ok(prism_plan_mask(plan, before, sizeof before));
    prism_options dense = f->options;
    dense.method = PRISM_METHOD_DENSE;
    assert_says(f, prism_plan_build(f->ctx, &f->options, &f->call, plan, f->workspace, ROOM), PRISM_ERROR_CAPACITY,
                "selected");
    assert_says(f, prism_plan_build(f->ctx, &dense, &f->call, plan, f->workspace, ROOM), PRISM_ERROR_CAPACITY, "dense");
    assert_says(f, prism_plan_from_mask(f->ctx, &f->call, BLOCK, all, sizeof all, plan), PRISM_ERROR_CAPACITY, "mask");
    prism_plan_view view = {.struct_size = sizeof view};
    assert_ok(prism_plan_read(plan, &view));
    assert_true(view.n_qblk == 2 && view.n_kblk == 2);
    assert_ok(prism_plan_mask(plan, after, sizeof after));
    assert_memory_equal(before, after, sizeof before);
    prism_plan_destroy(plan);
}

static void test_plan_from_mask(void **state)
{
    fixture *f = *state;
    uint8_t mask[HEADS * N_BLK * N_BLK] = {0};
    prism_ctx *ctx = f->ctx;
    assert_int_equal(prism_plan_from_mask(NULL, &f->call, BLOCK, mask, sizeof mask, f->plan), PRISM_ERROR_INVALID);
    assert_says(f, prism_plan_from_mask(ctx, &f->call, BLOCK, NULL, sizeof mask, f->plan), PRISM_ERROR_INVALID, "NULL");
    assert_says(f, prism_plan_from_mask(ctx, &f->call, BLOCK, mask, sizeof mask, NULL), PRISM_ERROR_INVALID, "plan");
    assert_says(f, prism_plan_from_mask(ctx, &f->call, BLOCK, mask, sizeof mask - 1, f->plan), PRISM_ERROR_INVALID,
                "short");
    assert_says(f, prism_plan_from_mask(ctx, &f->call, 32, mask, sizeof mask, f->plan), PRISM_ERROR_UNSUPPORTED, "32");
    mask[1] = 1; /* block 1 for query block 0 */
    assert_says(f, prism_plan_from_mask(ctx, &f->call, BLOCK, mask, sizeof mask, f->plan), PRISM_ERROR_INVALID,
                "above the causal limit");
    mask[1] = 0;
    assert_ok(prism_plan_from_mask(ctx, &f->call, BLOCK, mask, sizeof mask, f->plan));
    assert_ok(prism_plan_mask(f->plan, mask, sizeof mask));
    for (int i = 0; i < (int)sizeof mask; i++) /* empty rows were given their own block */
        assert_int_equal(mask[i], i % N_BLK == i / N_BLK % N_BLK);
}

/* ------------------------------------------------------------------------------------------- pooled keys ---- */

static void test_pooled(void **state)
{
    fixture *f = *state;
    size_t bytes;
    prism_pooled x;
    prism_options o = pooled_options(BLOCK, false), odd = pooled_options(100, false);
    assert_ok(prism_pooled_bytes(&o, KV_HEADS, DIM, N, &bytes));
    assert_int_equal(bytes, N_BLK * KV_HEADS * DIM * sizeof(float));
    assert_int_equal(prism_pooled_bytes(&o, 0, DIM, N, &bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_bytes(&o, KV_HEADS, 257, N, &bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_bytes(&odd, KV_HEADS, DIM, N, &bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_bytes(&o, KV_HEADS, DIM, 0, &bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_bytes(&o, KV_HEADS, DIM, N, NULL), PRISM_ERROR_INVALID);
    const prism_status large = prism_pooled_bytes(&o, INT32_MAX, 256, INT32_MAX, &bytes);
    assert_true(large == PRISM_ERROR_INVALID || (double)bytes > 7e19);

    assert_ok(prism_pooled_bytes(&o, KV_HEADS, DIM, N, &bytes));
    char *memory = aligned_alloc(64, 1 << 14);
    assert_int_equal(prism_pooled_init(NULL, &o, KV_HEADS, DIM, N, memory, bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_init(&x, &o, KV_HEADS, DIM, N, NULL, bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_init(&x, &o, KV_HEADS, DIM, N, memory + 4, bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_init(&x, &o, KV_HEADS, DIM, -N, memory, bytes), PRISM_ERROR_INVALID);
    assert_int_equal(prism_pooled_init(&x, &o, KV_HEADS, DIM, N, memory, bytes - 1), PRISM_ERROR_CAPACITY);

    assert_ok(prism_pooled_init(&x, &o, KV_HEADS, DIM, N, memory, bytes));
    prism_call call = f->call;
    assert_says(f, prism_pool_append(f->ctx, &call), PRISM_ERROR_INVALID, "append without pooled");
    assert_says(f, prism_pool_append(f->ctx, NULL), PRISM_ERROR_INVALID, "append, call NULL");
    assert_int_equal(prism_pool_append(NULL, &call), PRISM_ERROR_INVALID);
    call.pooled = &x;
    assert_ok(prism_pool_append(f->ctx, &call));
    assert_int_equal(x.n_token, N);
    const unsigned doors = DOOR_PLAN | DOOR_ATTENTION;
    const prism_pooled full = x;
    REFUSE_CALL((c.pooled = &x, x.struct_size = 0), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.key_sum = NULL), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.n_kv_head = 1), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.d_head = 64), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.block_size = 128), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.n_token = -1), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.n_token = N + 1), doors, PRISM_ERROR_INVALID);
    x = full;
    REFUSE_CALL((c.pooled = &x, x.n_token_max = N - 1), doors, PRISM_ERROR_CAPACITY);
    free(memory);
}

/* ----------------------------------------------------------------------------------- everything else ---- */

static void test_context(void **state)
{
    (void)state;
    prism_config c;
    prism_ctx *ctx = (prism_ctx *)&c;
    prism_config_init(NULL);
    prism_config_init(&c);
    assert_int_equal(prism_create(&c, NULL), PRISM_ERROR_INVALID);
    c.struct_size--;
    assert_int_equal(prism_create(&c, &ctx), PRISM_ERROR_INVALID);
    assert_null(ctx);
    const struct {
        int32_t n_thread;
        int isa, device;
        prism_status status;
    } cases[] = {{-1, 0, 0, PRISM_ERROR_INVALID},
                 {1 << 30, 0, 0, PRISM_ERROR_INVALID},
                 {1, PRISM_N_ISA, 0, PRISM_ERROR_INVALID},
                 {1, -1, 0, PRISM_ERROR_INVALID},
                 {1, 0, 7, PRISM_ERROR_DEVICE},
                 {1, PRISM_ISA_C, 0, PRISM_OK},
                 {0, 0, 0, PRISM_OK}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        prism_config_init(&c);
        c.n_thread = cases[i].n_thread;
        c.isa = (prism_isa)cases[i].isa;
        c.device = (prism_device)cases[i].device;
        assert_int_equal(prism_create(&c, &ctx), cases[i].status);
        assert_true((ctx != NULL) == (cases[i].status == PRISM_OK));
        prism_destroy(ctx);
    }
    prism_destroy(NULL);
    assert_string_equal(prism_last_error(NULL), "");
}

static void test_info(void **state)
{
    fixture *f = *state;
    prism_info info = {.struct_size = sizeof info};
    assert_int_equal(prism_get_info(NULL, &info), PRISM_ERROR_INVALID);
    assert_int_equal(prism_get_info(f->ctx, NULL), PRISM_ERROR_INVALID);
    info.struct_size = 4;
    assert_int_equal(prism_get_info(f->ctx, &info), PRISM_ERROR_INVALID);
    info.struct_size = sizeof info;
    assert_ok(prism_get_info(f->ctx, &info));
    assert_true(info.n_thread >= 1 && info.isa >= PRISM_ISA_C && info.isa_name[0] && info.cpu_features);
    prism_destroy(NULL);

    /* PRISM_ISA is a cap; nonsense caps nothing. */
    prism_ctx *ctx;
    setenv("PRISM_ISA", "c", 1);
    assert_ok(prism_create(NULL, &ctx));
    assert_ok(prism_get_info(ctx, &info));
    assert_int_equal(info.isa, PRISM_ISA_C);
    assert_int_equal(info.fast_type, PRISM_F32);
    prism_destroy(ctx);
    setenv("PRISM_ISA", "mmx", 1);
    assert_ok(prism_create(NULL, &ctx));
    prism_destroy(ctx);
    unsetenv("PRISM_ISA");
}

static void test_names(void **state)
{
    (void)state;
    prism_method m;
    for (int i = 0; i < prism_method_count(); i++) {
        assert_non_null(prism_method_name((prism_method)i));
        assert_ok(prism_method_find(prism_method_name((prism_method)i), &m));
        assert_int_equal(m, i);
    }
    assert_null(prism_method_name((prism_method)-1));
    assert_null(prism_method_name((prism_method)prism_method_count()));
    assert_int_equal(prism_method_find("nothing", &m), PRISM_ERROR_INVALID);
    assert_int_equal(prism_method_find(NULL, &m), PRISM_ERROR_INVALID);
    assert_int_equal(prism_method_find("prism", NULL), PRISM_ERROR_INVALID);
    for (int i = -1; i < 9; i++)
        assert_non_null(prism_status_name((prism_status)i));
    assert_string_equal(prism_status_name(PRISM_ERROR_DEVICE), "PRISM_ERROR_DEVICE");
    assert_int_equal(prism_dtype_bytes((prism_dtype)4), 0);
    assert_true(prism_dtype_bytes(PRISM_F32) == 4 && prism_dtype_bytes(PRISM_BF16) == 2);
    assert_string_equal(prism_version(), "0.1.0");
    prism_call_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_with(test_workspace), test_with(test_plan), test_with(test_plan_shapes),    test_with(test_plan_from_mask),
        test_with(test_pooled),    test_with(test_info), cmocka_unit_test(test_context), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
