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
    refused(eval_methods_parse("prism:top_p=2", NULL, &m, &err), LM_ERROR_USAGE, "give a number above 0");
    refused(eval_methods_parse("prism:top_q=0.9", NULL, &m, &err), LM_ERROR_USAGE, "did you mean top_p?");
    refused(eval_methods_parse("prism:top_p", NULL, &m, &err), LM_ERROR_USAGE, "NAME=VALUE");
    refused(eval_methods_parse("prism:=1", NULL, &m, &err), LM_ERROR_USAGE, "NAME=VALUE");
    refused(eval_methods_parse("prism:method=dense", NULL, &m, &err), LM_ERROR_USAGE, "first word");
    refused(eval_methods_parse("dense,moments:top_p=0.9", NULL, &m, &err), LM_ERROR_USAGE, "prism, meanpool");
    refused(eval_methods_parse("prism:moments_error=0.1", NULL, &m, &err), LM_ERROR_USAGE, "prism does not go by");
    refused(eval_methods_parse("dense,prism,dense", NULL, &m, &err), LM_ERROR_USAGE, "twice");
    assert_null(m.items); /* untouched */
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    refused(eval_methods_parse(longest, NULL, &m, &err), LM_ERROR_USAGE, "longer");
}

/* What each form writes, recognised by strings of the published templates. The turns are those that the templates
 * themselves write, run as Jinja. */
static void templates(void **state)
{
    (void)state;
    static const struct {
        const char *text, *system, *name, *head, *tail;
    } cases[] = {
        {NULL, NULL, "none", "", ""},
        {"no mark", NULL, "unknown", "", ""},
        {"<start_of_turn>", NULL, "gemma", "", ""},
        {"{{ '<|im_start|>' + role }}", NULL, "chatml", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"{{ '<|im_start|>' + role }}", "Be brief.", "chatml",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"<|im_start|> {% if enable_thinking %} '<think>\\n\\n</think>\\n\\n'", NULL, "chatml", "<|im_start|>user\n",
         "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"},
        /* A system turn of the template's own: with a line feed, with its escape; one that is put together is none. */
        {"{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}", NULL, "chatml",
         "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"{{ '<|im_start|>system\\nIt\\'s me.\\n<|im_end|>\\n' }}", NULL, "chatml",
         "<|im_start|>system\nIt's me.\n<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"'<|im_start|>system\\n' + x + '<|im_end|>' '<|im_start|>system\\nBe<|im_end|>'", NULL, "chatml",
         "<|im_start|>system\nBe<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"'<|im_start|>system\nBe kind<|im_end|>'", "Be brief.", "chatml",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"},
        {"<|start_header_id|> <|end_header_id|>", NULL, "llama3", "<|start_header_id|>user<|end_header_id|>\n\n",
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
        {"<|start_header_id|> <|end_header_id|> Cutting Knowledge Date", " Be brief. ", "llama3",
         "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
         "Today Date: 26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
        {"'[INST] ' '<<SYS>>\\n'", NULL, "llama2", "[INST] ", " [/INST]"},
        {"'[INST] ' '<<SYS>>\\n'", "Be brief.", "llama2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n", " [/INST]"},
        {"'[INST] ' + content + ' [/INST]'", "Be brief.", "mistral", "[INST] Be brief.\n\n", " [/INST]"},
        {"' [INST] ' + system_message", NULL, "mistral-v1", " [INST] ", " [/INST]"},
        {"[AVAILABLE_TOOLS] \"[INST] \"", NULL, "mistral-v3", "[INST] ", "[/INST]"},
        {"[AVAILABLE_TOOLS] \"[INST]\"", NULL, "mistral-v3-tekken", "[INST]", "[/INST]"},
        {"'[SYSTEM_PROMPT] ' '[INST] '", "Be brief.", "mistral-v7", "[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] ",
         "[/INST]"},
        {"'[SYSTEM_PROMPT]' '[INST]'", "Be brief.", "mistral-v7-tekken",
         "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]", "[/INST]"},
        {"'<|user|>' eos_token '<|assistant|>'", NULL, "zephyr", "<|user|>\n", "</s>\n<|assistant|>\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        eval_chat chat;
        ok(eval_chat_from_template(cases[i].text, NULL, cases[i].system, &chat, &err));
        assert_string_equal(eval_chat_name(&chat), cases[i].name);
        assert_string_equal(chat.head.n ? chat.head.data : "", cases[i].head);
        assert_string_equal(chat.tail.n ? chat.tail.data : "", cases[i].tail);
        assert_int_equal(eval_chat_is_formed(&chat), cases[i].tail[0] != '\0');
        assert_int_equal(chat.has_template, cases[i].text != NULL);
        eval_chat_free(&chat);
    }
    eval_chat chat; /* by its name, whatever the template is, of which nothing is taken */
    ok(eval_chat_from_template("<|im_start|> Cutting Knowledge Date", "llama3", NULL, &chat, &err));
    assert_string_equal(chat.head.data, "<|start_header_id|>user<|end_header_id|>\n\n");
    eval_chat_free(&chat);
    refused(eval_chat_from_template("<|im_start|>", "gemma", NULL, &chat, &err), LM_ERROR_USAGE, "chatml, llama3");
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
    ok(eval_chat_open(EVAL_TEST_MODEL, NULL, NULL, &chat, &err));
    assert_string_equal(eval_chat_name(&chat), "none");
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
        eval_chat_free(&chat);
        ok(eval_chat_from_template(cases[i].form, NULL, NULL, &chat, &err));
        ok(eval_chat_encode(&chat, model, cases[i].prompt, strlen(cases[i].prompt), cases[i].prefix, 100, &tokens,
                            &dropped, &err));
        char *text = decode(model, &tokens);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(dropped, 0);
        free(text);
        lm_tokens_free(&tokens);
    }
    lm_tokens cut = {0};
    int32_t dropped, reserve;
    ok(eval_chat_reserve(&chat, model, &reserve, &err));
    static const char ten[] = "one two three four five six seven eight nine ten";
    ok(eval_chat_encode(&chat, model, ten, strlen(ten), "So", reserve + 3, &cut, &dropped, &err));
    assert_int_equal(cut.n, reserve + 3);
    assert_true(dropped > 0);
    char *text = decode(model, &cut);
    assert_memory_equal(text, "<|endoftext|><|im_start|>user\n", 30);
    assert_non_null(strstr(text, " ten<|im_end|>\n<|im_start|>assistant\nSo"));
    free(text);
    lm_tokens_free(&cut);
    eval_chat_free(&chat);
    lm_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists),     cmocka_unit_test(usual_list),
                                       cmocka_unit_test(base_is_kept), cmocka_unit_test(bad_lists),
                                       cmocka_unit_test(templates), cmocka_unit_test(prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
