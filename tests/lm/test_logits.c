/*
 * The runner against transformers: recorded logits of the same weights (see record_logits.py).
 *
 * Both sides compute in float32, so they differ by the order of additions (relative 6e-8 each, a few thousand of them
 * per logit through the layers, adding up like a random walk) and by transformers' float32 RoPE angles: at position
 * 600 an angle of 600 rad is off by up to 3e-5. Measured: 6e-7 to 2e-6 of the largest logit. A mistake of any kind
 * (a frequency, a permutation, an epsilon, one token of causality) costs more than 1e-3. The limit leaves room for
 * other machines' BLAS.
 */
#include "lm_test.h"

#include "lm/convert.h"
#include "lm/lm.h"
#include "lm/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLERANCE 2e-5

typedef struct expected {
    lm_safetensors *file;
    const int32_t *tokens, *positions;
    const float *logits;
    int32_t n_token, n_position, n_vocab;
    double worst, largest;
    int32_t n_seen;
} expected;

static void expected_open(expected *e, const char *path)
{
    *e = (expected){0};
    ok(lm_safetensors_open(path, &e->file, &err));
    const lm_tensor *tokens = lm_safetensors_find(e->file, "tokens");
    const lm_tensor *positions = lm_safetensors_find(e->file, "positions");
    const lm_tensor *logits = lm_safetensors_find(e->file, "logits");
    assert_true(tokens && positions && logits);
    e->tokens = tokens->data;
    e->positions = positions->data;
    e->logits = logits->data;
    e->n_token = (int32_t)tokens->dim[0];
    e->n_position = (int32_t)logits->dim[0];
    e->n_vocab = (int32_t)logits->dim[1];
    for (int64_t i = 0; i < (int64_t)e->n_position * e->n_vocab; i++)
        e->largest = fmax(e->largest, fabs((double)e->logits[i]));
}

static void compare(expected *e, int32_t position, const float *logits)
{
    for (int32_t p = 0; p < e->n_position; p++) {
        if (e->positions[p] != position)
            continue;
        e->n_seen++;
        for (int32_t v = 0; v < e->n_vocab; v++) {
            const double d = fabs((double)logits[v] - (double)e->logits[(int64_t)p * e->n_vocab + v]);
            e->worst = d <= e->worst ? e->worst : d; /* NaN sticks */
        }
    }
}

static bool on_logits(void *user, int32_t first, int32_t n, const float *logits)
{
    expected *e = user;
    for (int32_t i = 0; i < n; i++)
        compare(e, first + i, logits + (int64_t)i * e->n_vocab);
    return true;
}

static void finish(expected *e, const char *what, int32_t n_seen)
{
    print_message("%-44s %.1e of the largest logit\n", what, e->worst / e->largest);
    assert_int_equal(e->n_seen, n_seen);
    if (!(e->worst <= TOLERANCE * e->largest))
        fail_msg("%s: off by %g where logits reach %g", what, e->worst, e->largest);
    e->n_seen = 0;
    e->worst = 0;
}

static prism_ctx *context(void)
{
    prism_config config;
    prism_ctx *ctx = NULL;
    prism_config_init(&config);
    config.n_thread = 2;
    assert_int_equal(prism_create(&config, &ctx), PRISM_OK);
    return ctx;
}

/* Whole, in chunks, and by decoding the second half token by token. */
static void check_model(const char *path, expected *e)
{
    prism_ctx *ctx = context();
    lm_model *model = NULL;
    lm_session *s = NULL;
    ok(lm_model_open(path, &model, &err));
    assert_int_equal(lm_model_config(model)->n_vocab, e->n_vocab);
    prism_options dense;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    lm_session_options o;
    lm_session_options_init(&o);
    o.product = LM_PRODUCT_F32; /* as recorded */
    o.n_ctx = e->n_token;
    o.kv_type = PRISM_F32;
    o.options = &dense;
    o.on_logits = on_logits;
    o.user = e;
    const int32_t chunks[] = {0, 130};
    for (int i = 0; i < 2; i++) {
        o.chunk = chunks[i];
        ok(lm_session_create(model, ctx, &o, &s, &err));
        ok(lm_session_prefill(s, e->tokens, e->n_token, NULL, NULL, &err));
        compare(e, e->n_token - 1, lm_session_logits(s));
        finish(e, i ? "  in chunks" : path, e->n_position + 1);
        lm_session_destroy(s);
    }
    o.on_logits = NULL;
    ok(lm_session_create(model, ctx, &o, &s, &err));
    const int32_t half = e->n_token / 2;
    ok(lm_session_prefill(s, e->tokens, half, NULL, NULL, &err));
    for (int32_t t = half; t < e->n_token; t++)
        ok(lm_session_decode(s, e->tokens[t], &err));
    compare(e, e->n_token - 1, lm_session_logits(s));
    finish(e, "  decoded", 1);
    lm_session_destroy(s);
    lm_model_close(model);
    prism_destroy(ctx);
}

static void check_tiny(const char *name)
{
    char dir[512], path[560], gguf[] = "/tmp/lm-logits-XXXXXX";
    expected e;
    snprintf(dir, sizeof dir, "%s/%s", LM_TEST_DATA, name);
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    expected_open(&e, path);
    check_model(dir, &e);
    /* bf16 fits float32: the converted file must give the same, whatever its names, permutation and RoPE spelling. */
    const lm_convert_options o = {.type = LM_F32};
    close(mkstemp(gguf));
    ok(lm_convert(dir, gguf, &o, &err));
    check_model(gguf, &e);
    unlink(gguf);
    lm_safetensors_close(e.file);
}

static void test_llama3(void **state)
{
    (void)state, check_tiny("llama3");
}
static void test_llama_plain(void **state)
{
    (void)state, check_tiny("llama-plain");
}
static void test_qwen3_yarn(void **state)
{
    (void)state, check_tiny("qwen3-yarn");
}
static void test_qwen3_linear(void **state)
{
    (void)state, check_tiny("qwen3-linear");
}

static void test_bundled(void **state)
{
    (void)state;
    expected e;
    expected_open(&e, LM_TEST_DATA "/testbed.safetensors");
    check_model(LM_TEST_MODEL, &e);
    lm_safetensors_close(e.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama3),       cmocka_unit_test(test_llama_plain), cmocka_unit_test(test_qwen3_yarn),
        cmocka_unit_test(test_qwen3_linear), cmocka_unit_test(test_bundled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
