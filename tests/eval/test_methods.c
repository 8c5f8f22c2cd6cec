/* Lists of methods, and prompts in chat templates. */
#include "tests/lm/lm_test.h"

#include "eval/chat.h"
#include "eval/methods.h"

#include <stdlib.h>
#include <string.h>

static void lists(void **state)
{
    (void)state;
    eval_methods m;
    ok(eval_methods_parse("dense, prism:top_p=0.9:calibration=causal ,meanpool:block_size=64", NULL, &m, &err));
    assert_int_equal(m.n, 3);
    assert_string_equal(m.items[0].label, "dense");
    assert_int_equal(m.items[0].options.method, PRISM_METHOD_DENSE);
    assert_string_equal(m.items[1].label, "prism:top_p=0.9:calibration=causal");
    assert_int_equal(m.items[1].options.calibration, PRISM_CALIBRATION_CAUSAL);
    assert_float_equal(m.items[1].options.top_p, 0.9, 1e-6);
    assert_int_equal(m.items[2].options.block_size, 64);
    eval_methods_free(&m);
}

static void usual_list(void **state)
{
    (void)state;
    prism_options defaults;
    prism_options_init(&defaults);
    eval_methods m;
    ok(eval_methods_parse(NULL, NULL, &m, &err));
    assert_int_equal(m.n, 2);
    assert_int_equal(m.items[0].options.method, PRISM_METHOD_DENSE);
    assert_int_equal(m.items[1].options.method, defaults.method);
    assert_string_equal(m.items[1].label, prism_method_name(defaults.method));
    eval_methods_free(&m);
}

static void base_is_kept(void **state)
{
    (void)state;
    prism_options base;
    prism_options_init(&base);
    base.min_tokens = 77;
    eval_methods m;
    ok(eval_methods_parse("prism", &base, &m, &err));
    assert_int_equal(m.items[0].options.min_tokens, 77);
    eval_methods_free(&m);
}

static void bad_lists(void **state)
{
    (void)state;
    eval_methods m = {0};
    refused(eval_methods_parse("dense,magic", NULL, &m, &err), LM_ERROR_USAGE, "meanpool"); /* names those there are */
    refused(eval_methods_parse("", NULL, &m, &err), LM_ERROR_USAGE, "empty");
    refused(eval_methods_parse("dense,", NULL, &m, &err), LM_ERROR_USAGE, "empty");
    refused(eval_methods_parse("prism:top_p=2", NULL, &m, &err), LM_ERROR_USAGE, "range");
    refused(eval_methods_parse("prism:top_p", NULL, &m, &err), LM_ERROR_USAGE, "NAME=VALUE");
    refused(eval_methods_parse("prism:=1", NULL, &m, &err), LM_ERROR_USAGE, "NAME=VALUE");
    refused(eval_methods_parse("prism:method=dense", NULL, &m, &err), LM_ERROR_USAGE, "unknown");
    refused(eval_methods_parse("dense,moments:top_p=0.9", NULL, &m, &err), LM_ERROR_USAGE, "prism, meanpool");
    refused(eval_methods_parse("prism:moments_error=0.1", NULL, &m, &err), LM_ERROR_USAGE, "prism does not go by");
    refused(eval_methods_parse("dense,prism,dense", NULL, &m, &err), LM_ERROR_USAGE, "twice");
    assert_null(m.items); /* untouched */
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    refused(eval_methods_parse(longest, NULL, &m, &err), LM_ERROR_USAGE, "longer");
}

static void templates(void **state)
{
    (void)state;
    eval_chat chat;
    eval_chat_from_template(NULL, &chat);
    assert_int_equal(chat.form, EVAL_CHAT_NONE);
    eval_chat_from_template("{{ '<|im_start|>' + role }}", &chat);
    assert_int_equal(chat.form, EVAL_CHAT_CHATML);
    assert_string_equal(chat.head, "<|im_start|>user\n");
    assert_string_equal(chat.tail, "<|im_end|>\n<|im_start|>assistant\n");
    eval_chat_from_template("<|im_start|> {% if enable_thinking %}", &chat);
    assert_non_null(strstr(chat.tail, "<think>\n\n</think>\n\n"));
    eval_chat_from_template("<|start_header_id|>", &chat);
    assert_int_equal(chat.form, EVAL_CHAT_LLAMA3);
    assert_string_equal(chat.head, "<|start_header_id|>user<|end_header_id|>\n\n");
    eval_chat_from_template("[INST] {{ content }} [/INST]", &chat);
    assert_int_equal(chat.form, EVAL_CHAT_UNKNOWN);
    assert_string_equal(chat.head, "");
}

static char *decode(const lm_model *model, const lm_tokens *tokens)
{
    lm_text text = {0};
    ok(lm_tokenizer_decode(lm_model_tokenizer(model), tokens->ids, tokens->n, 0, &text, &err));
    return text.data;
}

/* What a model is given: joined by one space without a template, wrapped with one, cut inside the user's turn. */
static void prompts(void **state)
{
    (void)state;
    lm_model *model;
    ok(lm_model_open(EVAL_TEST_MODEL, &model, &err));
    eval_chat chat;
    ok(eval_chat_open(EVAL_TEST_MODEL, &chat, &err));
    assert_int_equal(chat.form, EVAL_CHAT_NONE);
    static const struct {
        const char *prompt, *prefix, *form, *want;
    } cases[] = {
        {"What is it?", "It is", "", "<|endoftext|>What is it? It is"},
        {"What is it?", NULL, "", "<|endoftext|>What is it?"},
        {"Words:", "\n\nAnswer:", "", "<|endoftext|>Words:\n\nAnswer:"},
        {"Hi", "Yes", "<|im_start|>", "<|endoftext|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lm_tokens tokens = {0};
        int32_t dropped;
        eval_chat_from_template(cases[i].form, &chat);
        ok(eval_chat_encode(&chat, model, cases[i].prompt, cases[i].prefix, 100, &tokens, &dropped, &err));
        char *text = decode(model, &tokens);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(dropped, 0);
        free(text);
        lm_tokens_free(&tokens);
    }
    lm_tokens cut = {0};
    int32_t dropped, reserve;
    ok(eval_chat_reserve(&chat, model, &reserve, &err));
    ok(eval_chat_encode(&chat, model, "one two three four five six seven eight nine ten", "So", reserve + 3, &cut,
                        &dropped, &err));
    assert_int_equal(cut.n, reserve + 3);
    assert_true(dropped > 0);
    char *text = decode(model, &cut);
    assert_memory_equal(text, "<|endoftext|><|im_start|>user\n", 30);
    assert_non_null(strstr(text, " ten<|im_end|>\n<|im_start|>assistant\nSo"));
    free(text);
    lm_tokens_free(&cut);
    lm_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists),     cmocka_unit_test(usual_list),
                                       cmocka_unit_test(base_is_kept), cmocka_unit_test(bad_lists),
                                       cmocka_unit_test(templates), cmocka_unit_test(prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
