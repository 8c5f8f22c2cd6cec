/*
 * cuDNN's attention, which prism bench times beside ours on a GPU, computes the same: else its time would mean nothing.
 *
 * Both round the weights to the tensors' type before the product with V, and what comes out: two roundings each, of at
 * most 2^-9 (bfloat16) or 2^-12 (float16) of what is rounded. Weights of one row are rounded each by itself, so that a
 * row is off by about as much of its length as one weight of its own: rows may differ by four such roundings, twice
 * that for chance. One key too many or too few changes a row of up to 2000 keys of noise by more than that:
 * 1/sqrt(2000) is 2^-5.5.
 */
#include "../lm/lm_test.h"

#include <math.h>
#include <prism_attn/prism_cuda.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cudnn.h"
#include "bench/device.h"

static prism_ctx *ctx;
static bool has_peer;

static int setup(void **state)
{
    (void)state;
    prism_config config;
    prism_config_init(&config);
    config.device = PRISM_DEVICE_CUDA;
    if (prism_create(&config, &ctx)) {
        prism_cuda_info info = {.struct_size = sizeof info};
        prism_cuda_describe(0, &info);
        print_message("no GPU: %s\n", info.problem);
        return 1;
    }
    char version[32];
    lm_error err;
    has_peer = bench_peer_version(version, sizeof version, &err);
    print_message("%s%s\n", has_peer ? "cuDNN " : "without the peer: ", has_peer ? version : err.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    prism_destroy(ctx);
    return 0;
}

/* ----------------------------------------------------------------------------------------------- answers ---- */

static double decode(prism_dtype dtype, uint16_t x)
{
    float value;
    const uint32_t bits = (uint32_t)x << 16;
    memcpy(&value, &bits, sizeof value);
    if (dtype == PRISM_BF16)
        return (double)value;
    const int exponent = x >> 10 & 31, m = x & 1023;
    const double magnitude = exponent == 31 ? NAN : exponent ? ldexp(1024 + m, exponent - 25) : ldexp(m, -24);
    return x & 0x8000 ? -magnitude : magnitude;
}

/* The output so far, for the caller to free. NaN in its place, so that what the next call leaves out shows. */
static uint16_t *take_output(lm_backend *device, const bench_tensors *t, const prism_call *call)
{
    const size_t bytes = (size_t)t->n_token * (size_t)t->n_head * (size_t)t->d_head * 2;
    uint16_t *host = malloc(bytes), *nothing = malloc(bytes);
    assert_true(host && nothing);
    device->ops->copy_out(device, host, call->o.data, bytes);
    memset(nothing, 0xff, bytes);
    device->ops->copy_in(device, call->o.data, nothing, bytes);
    ok(device->ops->finish(device, &err));
    free(nothing);
    return host;
}

static void attend(lm_backend *device, const prism_call *call)
{
    prism_options dense;
    prism_plan *plan;
    size_t bytes;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    assert_int_equal(prism_plan_create(ctx, call, dense.block_size, 0, &plan), PRISM_OK);
    assert_int_equal(prism_workspace_bytes(ctx, &dense, call, &bytes), PRISM_OK);
    void *workspace = device->ops->allocate(device, bytes + 64);
    assert_non_null(workspace);
    assert_int_equal(prism_attention(ctx, &dense, call, plan, workspace, bytes, NULL), PRISM_OK);
    ok(device->ops->finish(device, &err));
    prism_plan_destroy(plan);
    device->ops->release(device, workspace);
}

/* The largest |a - b| / |b| of a row: one token of one head. NaN if one is. */
static double worst_row(prism_dtype dtype, const uint16_t *a, const uint16_t *b, int64_t n_row, int32_t d)
{
    double worst = 0;
    for (int64_t i = 0; i < n_row; i++) {
        double off = 0, length = 0;
        for (int64_t j = i * d; j < (i + 1) * d; j++) {
            const double y = decode(dtype, b[j]), x = decode(dtype, a[j]);
            off += (x - y) * (x - y);
            length += y * y;
        }
        const double distance = sqrt(off / length);
        if (isnan(distance))
            return NAN;
        worst = fmax(worst, distance);
    }
    return worst;
}

static void compare(const bench_shape *shape, double bound)
{
    bench_tensors t;
    lm_backend *device;
    prism_call call;
    bench_cudnn *peer;
    ok(bench_tensors_random(shape, 5, 2, &t, &err));
    ok(bench_device_open(ctx, t.dtype, &device, &err));
    ok(bench_device_call(device, &t, t.n_token, &call, &err));
    attend(device, &call);
    uint16_t *ours = take_output(device, &t, &call);
    ok(bench_cudnn_create(device, &call, &peer, &err));
    ok(bench_cudnn_run(peer, &err));
    ok(device->ops->finish(device, &err));
    uint16_t *theirs = take_output(device, &t, &call);
    const double worst = worst_row(t.dtype, ours, theirs, (int64_t)t.n_token * t.n_head, t.d_head);
    print_message("%5d tokens, %2d/%d heads of %3d, %s: worst row off by %.1e\n", t.n_token, t.n_head, t.n_kv_head,
                  t.d_head, t.dtype == PRISM_BF16 ? "bf16" : "f16 ", worst);
    if (!(worst <= bound))
        fail_msg("off by %g, %g allowed", worst, bound);
    free(ours);
    free(theirs);
    bench_cudnn_destroy(peer);
    bench_device_close(device, ctx);
    bench_tensors_free(&t);
}

/* ----------------------------------------------------------------------------------------------- tests ---- */

/* Few: cuDNN compiles a kernel for each, which takes seconds. */
static void answers(void **state)
{
    (void)state;
    static const bench_shape shapes[] = {
        {100, 4, 4, 64, PRISM_BF16},  {1000, 8, 2, 128, PRISM_BF16}, {1000, 8, 2, 64, PRISM_F16},
        {2000, 8, 2, 64, PRISM_BF16}, {2000, 8, 2, 128, PRISM_F16},  {1920, 32, 8, 128, PRISM_BF16},
    };
    if (!has_peer)
        skip();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(&shapes[i], shapes[i].dtype == PRISM_BF16 ? 0x1p-6 : 0x1p-9);
}

static void refusals(void **state)
{
    (void)state;
    const bench_shape shape = {256, 4, 2, 64, PRISM_BF16};
    bench_tensors t;
    lm_backend *device;
    prism_call call;
    bench_cudnn *peer;
    lm_error why = {0};
    if (!has_peer)
        skip();
    ok(bench_tensors_random(&shape, 5, 2, &t, &err));
    ok(bench_device_open(ctx, t.dtype, &device, &err));
    ok(bench_device_call(device, &t, t.n_token, &call, &err));
    prism_call other = call;
    other.n_q = 100;
    assert_false(bench_cudnn_create(device, &other, &peer, &why));
    assert_int_equal(why.kind, LM_ERROR_UNSUPPORTED);
    other = call;
    other.q.dtype = other.k.dtype = other.v.dtype = other.o.dtype = PRISM_F32;
    assert_false(bench_cudnn_create(device, &other, &peer, &why));
    assert_int_equal(why.kind, LM_ERROR_UNSUPPORTED);
    bench_device_close(device, ctx);
    bench_tensors_free(&t);
}

/* Beside the methods, or the methods alone and the reason. */
static void beside_methods(void **state)
{
    (void)state;
    const bench_shape shape = {2048, 8, 2, 128, PRISM_BF16};
    bench_tensors t;
    bench_method methods[2] = {{.label = "prism"}, {.label = "dense"}};
    prism_options_init(&methods[0].options);
    prism_options_init(&methods[1].options);
    methods[1].options.method = PRISM_METHOD_DENSE;
    bench_peer_result peer;
    bench_attention_result r[2];
    const bench_attention_spec spec = {.methods = methods,
                                       .n_method = 2,
                                       .n_token = 2048,
                                       .density = 0.5,
                                       .seed = 1,
                                       .limits = {.reps = 3, .seconds = 10},
                                       .peer = &peer};
    ok(bench_tensors_random(&shape, 5, 2, &t, &err));
    ok(bench_attention(ctx, &t, &spec, r, &err));
    assert_true(r[0].call.n == 3 && r[1].call.n == 3);
    if (!has_peer) {
        assert_int_equal(peer.problem.kind, LM_ERROR_RUN);
        assert_non_null(strstr(peer.problem.text, "not installed"));
        assert_true(peer.call.n == 0 && r[0].speedup_over_peer == 0);
    } else {
        assert_int_equal(peer.problem.kind, LM_OK);
        assert_true(peer.call.n == 3 && peer.call.warm && peer.call.median > 0 && peer.flop == r[1].attend_flop);
        assert_true(peer.speedup == r[1].call.median / peer.call.median);
        assert_true(r[0].speedup_over_peer == peer.call.median / r[0].call.median);
    }
    bench_tensors_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_methods),
        cmocka_unit_test(answers),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
