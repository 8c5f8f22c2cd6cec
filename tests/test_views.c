/* Views from DLPack, and misuse of the rotary and band helpers. */
#include <math.h>
#include <string.h>

#include "check.h"

/* The frozen layout of DLPack's DLTensor. */
typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dl_tensor;

static float data[1000];
static int64_t shape[5] = {2, 3, 5, 7, 2}, strides[5] = {200, 40, 8, 1, 1};

static dl_tensor good(void)
{
    return (dl_tensor){data, 1, 0, 4, 2, 32, 1, shape, NULL, 0};
}

static void test_dlpack(void **state)
{
    (void)state;
    prism_tensor t;
    dl_tensor x = good();
    assert_ok(prism_tensor_from_dlpack(&x, "bhnd", &t)); /* row-major: h 3, n 5, d 7 */
    assert_true(t.data == data && t.dtype == PRISM_F32);
    assert_true(t.stride_seq == 105 && t.stride_head == 35 && t.stride_token == 7 && t.stride_dim == 1);
    assert_int_equal(t.n_element, 210);
    x.strides = strides;
    x.byte_offset = 8;
    assert_ok(prism_tensor_from_dlpack(&x, "bnhd", &t));
    assert_true(t.data == data + 2);
    assert_true(t.stride_seq == 200 && t.stride_token == 40 && t.stride_head == 8 && t.stride_dim == 1);
    assert_int_equal(t.n_element, 200 + 2 * 40 + 4 * 8 + 6 + 1);
    x = good();
    x.ndim = 3;
    x.bits = 16;
    assert_ok(prism_tensor_from_dlpack(&x, "nhd", &t));
    assert_true(t.dtype == PRISM_F16 && t.stride_seq == 0 && t.stride_token == 15 && t.stride_head == 5);
    x.code = 4;
    assert_ok(prism_tensor_from_dlpack(&x, "dhn", &t));
    assert_true(t.dtype == PRISM_BF16 && t.stride_dim == 15 && t.stride_token == 1);
}

#define REFUSE_DL(change, order, status)                                                                               \
    do {                                                                                                               \
        dl_tensor x = good();                                                                                          \
        prism_tensor t = {.n_element = 77};                                                                            \
        change;                                                                                                        \
        if (prism_tensor_from_dlpack(&x, order, &t) != status)                                                         \
            fail_msg("%s, %s: not " #status, #change, #order);                                                         \
        assert_int_equal(t.n_element, 77);                                                                             \
    } while (0)

static void test_dlpack_misuse(void **state)
{
    (void)state;
    int64_t s[4] = {2, 3, 5, 7}, far[4] = {INT64_MAX, 1, 1, 1};
    prism_tensor out;
    dl_tensor y = good();
    assert_int_equal(prism_tensor_from_dlpack(NULL, "bnhd", &out), PRISM_ERROR_INVALID);
    assert_int_equal(prism_tensor_from_dlpack(&y, NULL, &out), PRISM_ERROR_INVALID);
    assert_int_equal(prism_tensor_from_dlpack(&y, "bnhd", NULL), PRISM_ERROR_INVALID);
    REFUSE_DL(x.data = NULL, "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL(x.shape = NULL, "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL(x.byte_offset = UINT64_MAX, "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL(x.ndim = 2, "hd", PRISM_ERROR_INVALID);
    REFUSE_DL(x.ndim = 5, "bnhdx", PRISM_ERROR_INVALID);
    REFUSE_DL(x.ndim = -4, "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL((void)0, "", PRISM_ERROR_INVALID);
    REFUSE_DL((void)0, "nhd", PRISM_ERROR_INVALID);
    REFUSE_DL((void)0, "bnnd", PRISM_ERROR_INVALID);
    REFUSE_DL((void)0, "bnhx", PRISM_ERROR_INVALID);
    REFUSE_DL(x.ndim = 3, "bnh", PRISM_ERROR_INVALID);
    REFUSE_DL(x.device_type = 2, "bnhd", PRISM_ERROR_UNSUPPORTED);
    REFUSE_DL(x.bits = 64, "bnhd", PRISM_ERROR_UNSUPPORTED);
    REFUSE_DL(x.code = 0, "bnhd", PRISM_ERROR_UNSUPPORTED);
    REFUSE_DL((x.code = 4, x.bits = 32), "bnhd", PRISM_ERROR_UNSUPPORTED);
    REFUSE_DL(x.lanes = 4, "bnhd", PRISM_ERROR_UNSUPPORTED);
    REFUSE_DL((x.shape = s, s[1] = 0), "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL((x.shape = s, s[1] = -3), "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL((x.shape = s, s[0] = s[1] = INT64_MAX / 2), "bnhd", PRISM_ERROR_INVALID);
    REFUSE_DL((x.strides = far, far[1] = -1), "bnhd", PRISM_ERROR_UNSUPPORTED);
    far[1] = INT64_MAX;
    REFUSE_DL(x.strides = far, "bnhd", PRISM_ERROR_INVALID);
}

#define INVALID(call) assert_int_equal(call, PRISM_ERROR_INVALID)

static void test_rope_misuse(void **state)
{
    (void)state;
    prism_rope r;
    INVALID(prism_rope_init(NULL, 64));
    INVALID(prism_rope_init(&r, 0));
    INVALID(prism_rope_init(&r, 257));
    assert_ok(prism_rope_init(&r, 64));
    const prism_rope before = r;
    INVALID(prism_rope_add(NULL, PRISM_ROPE_HALF_SPLIT, 0, 64, 1e4));
    INVALID(prism_rope_add(&r, (prism_rope_layout)2, 0, 64, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, -1, 64, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 1, 64, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, INT32_MAX, 2, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 63, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 0, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, -64, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, INT32_MAX - 1, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 64, 0));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 64, NAN));
    assert_memory_equal(&r, &before, sizeof r);
    assert_ok(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 64, 1e4));
    INVALID(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 2, 1e4)); /* no room for more pairs */
    const prism_rope full = r;
    const float factor[32] = {1};
    const int32_t axis[32] = {0};
    const double advance[1] = {1}, backwards[1] = {-1};
    INVALID(prism_rope_scale_linear(&r, 0));
    INVALID(prism_rope_scale_linear(NULL, 2));
    INVALID(prism_rope_scale_yarn(&r, 1, 4, 32768, 32, 1, 1));
    INVALID(prism_rope_scale_yarn(&r, 1e6, -4, 32768, 32, 1, 1));
    INVALID(prism_rope_scale_yarn(&r, 1e6, 4, NAN, 32, 1, 1));
    INVALID(prism_rope_scale_yarn(NULL, 1e6, 4, 32768, 32, 1, 1));
    INVALID(prism_rope_scale_llama3(&r, 8, 4, 1, 8192));
    INVALID(prism_rope_scale_llama3(&r, 8, 1, 1, 8192));
    INVALID(prism_rope_scale_llama3(NULL, 8, 1, 4, 8192));
    INVALID(prism_rope_scale_factors(&r, factor, 31));
    INVALID(prism_rope_scale_factors(&r, NULL, 32));
    INVALID(prism_rope_scale_factors(&r, factor, 32)); /* factor[1] is 0 */
    INVALID(prism_rope_set_axes(&r, axis, 31, advance, 1));
    INVALID(prism_rope_set_axes(&r, axis, 32, advance, 0));
    INVALID(prism_rope_set_axes(&r, axis, 32, backwards, 1));
    INVALID(prism_rope_set_axes(&r, NULL, 32, advance, 1));
    INVALID(prism_rope_set_axes(&r, axis, 32, NULL, 1));
    assert_memory_equal(&r, &full, sizeof r);
}

static void test_bands_misuse(void **state)
{
    (void)state;
    prism_rope r;
    prism_bands b = {.d_head = 5}, before = b;
    assert_ok(prism_rope_init(&r, 64));
    assert_ok(prism_rope_add(&r, PRISM_ROPE_HALF_SPLIT, 0, 64, 1e4));
    INVALID(prism_bands_split(NULL, &r, 32, 48));
    INVALID(prism_bands_split(&b, NULL, 32, 48));
    INVALID(prism_bands_split(&b, &r, 0, 0));
    INVALID(prism_bands_split(&b, &r, -2, 48));
    INVALID(prism_bands_split(&b, &r, 66, 48));
    INVALID(prism_bands_split(&b, &r, 32, 66));
    INVALID(prism_bands_split(&b, &r, 31, 48));
    INVALID(prism_bands_split(&b, &r, 32, 47));
    INVALID(prism_bands_auto(NULL, &r, 128));
    INVALID(prism_bands_auto(&b, NULL, 128));
    INVALID(prism_bands_auto(&b, &r, 0));
    prism_rope bad = r;
    bad.dim[3][0] = 64;
    INVALID(prism_bands_split(&b, &bad, 32, 48));
    bad = r;
    bad.dim[3][0] = -1;
    INVALID(prism_bands_auto(&b, &bad, 128));
    bad = r;
    bad.dim[3][0] = bad.dim[4][0]; /* one dimension in two pairs */
    INVALID(prism_bands_split(&b, &bad, 32, 48));
    bad = r;
    bad.frequency[7] = NAN;
    INVALID(prism_bands_split(&b, &bad, 32, 48));
    bad = r;
    bad.n_pair = 33;
    INVALID(prism_bands_split(&b, &bad, 32, 48));
    bad = r;
    bad.d_head = 300;
    INVALID(prism_bands_auto(&b, &bad, 128));
    assert_memory_equal(&b, &before, sizeof b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dlpack),
        cmocka_unit_test(test_dlpack_misuse),
        cmocka_unit_test(test_rope_misuse),
        cmocka_unit_test(test_bands_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
