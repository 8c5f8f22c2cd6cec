/* What the GPU makes of the recorded blocks of every type (record_types.py): what the CPU makes of them, bit for bit. The
 * function stands in the GPU's part of the runner, a plug-in. */
#include "lm_test.h"

#include "lm/gguf.h"

#include <cuda_runtime_api.h>

#include <dlfcn.h>

typedef cudaError_t round_function(lm_dtype, const void *, int64_t, bool, void *, cudaStream_t);

enum { MAX_N = 1024 };

static bool is_nan(uint16_t x, lm_dtype type)
{
    return (x & 0x7fff) > (type == LM_BF16 ? 0x7f80 : 0x7c00);
}

static void compare(round_function *round, const lm_tensor *t, lm_dtype type)
{
    const int64_t n = t->dim[1];
    float wide[MAX_N];
    uint16_t want[MAX_N], have[MAX_N];
    void *in, *out;
    assert_true(n <= MAX_N);
    lm_to_float(t->dtype, t->data, wide, n);
    lm_from_float(type, wide, want, n);
    assert_int_equal(cudaMalloc(&in, t->bytes), cudaSuccess);
    assert_int_equal(cudaMalloc(&out, sizeof have), cudaSuccess);
    assert_int_equal(cudaMemcpy(in, t->data, t->bytes, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(round(t->dtype, in, n, type == LM_BF16, out, NULL), cudaSuccess);
    assert_int_equal(cudaMemcpy(have, out, (size_t)n * sizeof *have, cudaMemcpyDeviceToHost), cudaSuccess);
    for (int64_t i = 0; i < n; i++)
        if (is_nan(want[i], type) ? !is_nan(have[i], type) : have[i] != want[i])
            fail_msg("%s to %s, element %d: %04x, wanted %04x of %a", t->name, lm_dtype_name(type), (int)i, have[i],
                     want[i], (double)wide[i]);
    cudaFree(in);
    cudaFree(out);
}

static void test_types(void **state)
{
    (void)state;
    lm_gguf *g;
    void *plugin = dlopen(LM_TEST_PLUGIN, RTLD_NOW);
    if (!plugin)
        fail_msg("%s", dlerror());
    round_function *round = (round_function *)dlsym(plugin, "lm_cu_round");
    assert_non_null(round);
    ok(lm_gguf_open(LM_TEST_DATA "/types.gguf", &g, &err));
    for (int type = LM_F32 + 1; type < LM_DTYPE_COUNT; type++)
        if (lm_dtypes[type].widen) {
            const lm_tensor *t = lm_gguf_tensor(g, lm_dtypes[type].name);
            assert_non_null(t);
            compare(round, t, LM_BF16);
            compare(round, t, LM_F16);
        }
    lm_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_types)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
