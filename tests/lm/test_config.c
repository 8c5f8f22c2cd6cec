/* config.json in its spellings, GGUF metadata, and what must be refused. */
#include "lm_test.h"

#include "lm/config.h"
#include "lm/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BASE                                                                                                           \
    "\"vocab_size\":100,\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"                          \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-5"

static bool read_config(const char *text, lm_config *out, lm_error *err)
{
    cJSON *json = lm_json_parse(text, strlen(text), "config.json", err);
    const bool done = json && lm_config_from_json(json, NULL, "config.json", out, err);
    cJSON_Delete(json);
    return done;
}

static void test_families(void **state)
{
    (void)state;
    lm_config c;
    ok(read_config("{\"model_type\":\"llama\"," BASE ",\"bos_token_id\":1,\"eos_token_id\":[2,3,2]}", &c, &err));
    assert_true(!c.family->qk_norm && !c.tied && c.d_head == 16 && c.bos_id == 1 && c.n_eos == 2 && c.eos_id[1] == 3);
    assert_true(c.rope.scaling == LM_ROPE_NONE && c.rope.base == 10000 && c.rope.layout == PRISM_ROPE_HALF_SPLIT);
    ok(read_config("{\"model_type\":\"qwen3\"," BASE ",\"head_dim\":128,\"tie_word_embeddings\":true,"
                   "\"rope_theta\":1000000.0,\"eos_token_id\":null,\"rope_scaling\":null}",
                   &c, &err));
    assert_true(c.family->qk_norm && c.tied && c.d_head == 128 && c.rope.base == 1e6 && c.n_eos == 0 && c.bos_id == -1);
}

static void test_scaling(void **state)
{
    (void)state;
    lm_config c;
    /* The spellings of transformers 4 (with "type", then "rope_type") and 5. */
    ok(read_config("{\"model_type\":\"llama\"," BASE ",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\","
                   "\"factor\":2.0}}",
                   &c, &err));
    assert_true(c.rope.scaling == LM_ROPE_LINEAR && c.rope.factor == 2 && c.rope.base == 5e5);
    ok(read_config("{\"model_type\":\"llama\"," BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
                   "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
                   &c, &err));
    assert_true(c.rope.scaling == LM_ROPE_LLAMA3 && c.rope.n_ctx_original == 8192);
    ok(read_config("{\"model_type\":\"qwen3\"," BASE ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,"
                   "\"rope_theta\":1e6}}",
                   &c, &err));
    assert_true(c.rope.scaling == LM_ROPE_YARN && c.rope.base == 1e6 && c.rope.n_ctx_original == 4096);
    assert_true(fabs(c.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12 && c.rope.truncate);
    ok(read_config("{\"model_type\":\"qwen3\"," BASE
                   ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7}}",
                   &c, &err));
    assert_true(c.rope.scaling == LM_ROPE_NONE && c.rope.base == 7);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        lm_error_kind kind;
        const char *part;
    } cases[] = {
        {"[]", LM_ERROR_INPUT, "not a JSON object"},
        {"{}", LM_ERROR_UNSUPPORTED, "model_type"},
        {"{\"model_type\":\"mamba\"}", LM_ERROR_UNSUPPORTED, "mamba"},
        {"{\"model_type\":\"llama\"}", LM_ERROR_INPUT, "num_hidden_layers"},
        {"{\"model_type\":\"llama\"," BASE ",\"hidden_act\":\"gelu\"}", LM_ERROR_UNSUPPORTED, "gelu"},
        {"{\"model_type\":\"llama\"," BASE ",\"mlp_bias\":true}", LM_ERROR_UNSUPPORTED, "mlp_bias"},
        {"{\"model_type\":\"llama\"," BASE ",\"quantization_config\":{}}", LM_ERROR_UNSUPPORTED, "quantization_config"},
        {"{\"model_type\":\"llama\"," BASE ",\"head_dim\":257}", LM_ERROR_INPUT, "size of a head"},
        {"{\"model_type\":\"llama\"," BASE ",\"head_dim\":1e99}", LM_ERROR_INPUT, "head_dim"},
        {"{\"model_type\":\"llama\"," BASE ",\"bos_token_id\":100}", LM_ERROR_INPUT, "bos_token_id"},
        {"{\"model_type\":\"llama\"," BASE ",\"eos_token_id\":\"</s>\"}", LM_ERROR_INPUT, "eos_token_id"},
        {"{\"model_type\":\"llama\"," BASE ",\"rope_theta\":0}", LM_ERROR_INPUT, "RoPE base"},
        {"{\"model_type\":\"llama\"," BASE ",\"rope_scaling\":3}", LM_ERROR_INPUT, "rope_scaling"},
        {"{\"model_type\":\"llama\"," BASE ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
         LM_ERROR_UNSUPPORTED, "dynamic"},
        {"{\"model_type\":\"llama\"," BASE ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0.5}}", LM_ERROR_INPUT,
         "scaling factor"},
        {"{\"model_type\":\"llama\"," BASE ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
         LM_ERROR_UNSUPPORTED, "full_attention"},
        {"{\"model_type\":\"llama\"," BASE ",\"partial_rotary_factor\":0.5}", LM_ERROR_UNSUPPORTED,
         "partial_rotary_factor"},
        {"{\"model_type\":\"llama\"," BASE ",\"is_causal\":false}", LM_ERROR_UNSUPPORTED, "is_causal"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lm_config c;
        refused(read_config(cases[i].text, &c, &err), cases[i].kind, cases[i].part);
    }
}

/* Windows as transformers has them: BASE has 4096 positions and 2 layers. part NULL: none is in force. */
static void test_windows(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"model_type\":\"llama\",\"sliding_window\":64,\"use_sliding_window\":true", NULL},
        {"\"model_type\":\"mistral\",\"sliding_window\":null", NULL},
        {"\"model_type\":\"mistral\"", NULL}, /* 4096 */
        {"\"model_type\":\"mistral\",\"sliding_window\":4095", "window of 4095"},
        {"\"model_type\":\"qwen2\",\"sliding_window\":64", NULL},
        {"\"model_type\":\"qwen2\",\"sliding_window\":64,\"use_sliding_window\":true", NULL}, /* from layer 28 up */
        {"\"model_type\":\"qwen2\",\"sliding_window\":64,\"use_sliding_window\":true,\"max_window_layers\":1",
         "window of 64"},
        {"\"model_type\":\"qwen3\",\"sliding_window\":64,\"layer_types\":[\"full_attention\",\"full_attention\"]",
         NULL},
        {"\"model_type\":\"qwen3\",\"sliding_window\":64,\"layer_types\":[\"full_attention\",\"sliding_attention\"]",
         "window of 64"},
        {"\"model_type\":\"qwen3\",\"layer_types\":[\"chunked_attention\"]", "chunked_attention"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lm_config c;
        char text[600];
        snprintf(text, sizeof text, "{%s,%s}", cases[i].text, BASE);
        if (cases[i].part)
            refused(read_config(text, &c, &err), LM_ERROR_UNSUPPORTED, cases[i].part);
        else
            ok(read_config(text, &c, &err));
    }
}

static void test_biases(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        lm_presence qkv, o;
    } cases[] = {
        {"\"model_type\":\"llama\"", LM_ABSENT, LM_ABSENT},
        {"\"model_type\":\"llama\",\"attention_bias\":true", LM_REQUIRED, LM_REQUIRED},
        {"\"model_type\":\"mistral\",\"attention_bias\":true", LM_ABSENT, LM_ABSENT}, /* no key of the family's */
        {"\"model_type\":\"qwen2\"", LM_REQUIRED, LM_ABSENT},
        {"\"model_type\":\"qwen3\",\"attention_bias\":true", LM_REQUIRED, LM_REQUIRED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lm_config c;
        char text[600];
        snprintf(text, sizeof text, "{%s,%s}", cases[i].text, BASE);
        ok(read_config(text, &c, &err));
        assert_true(c.qkv_bias == cases[i].qkv && c.o_bias == cases[i].o);
    }
}

/* Who decides about BOS: tokenizer_config.json, then the post-processor, then config.json. */
static void test_bos(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer_config;
        bool adds;
        int32_t bos_id;
        bool wanted;
    } cases[] = {
        {NULL, false, 0, true},
        {NULL, false, -1, false},
        {NULL, true, 5, true},
        {"{}", false, 0, false},
        {"{}", true, 0, true},
        {"{\"add_bos_token\":false}", true, 0, false},
        {"{\"add_bos_token\":true}", false, 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = cases[i].tokenizer_config;
        cJSON *json = text ? cJSON_Parse(text) : NULL;
        lm_config c = {.bos_id = cases[i].bos_id};
        ok(lm_config_decide_bos(&c, json, cases[i].adds, "tokenizer_config.json", &err));
        assert_int_equal(c.add_bos, cases[i].wanted);
        cJSON_Delete(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families), cmocka_unit_test(test_scaling), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_windows),  cmocka_unit_test(test_biases),  cmocka_unit_test(test_bos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
