/* The generator of needle prompts: fits, hides what it asks for, and makes the bundled examples again, byte for byte.
 */
#include "lm_test.h"

#include "eval/needle.h"
#include "lm/file.h"
#include "lm/lm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lm_model *model;
static const lm_tokenizer *tok;
static char *book;
static size_t n_book;

static int setup(void **state)
{
    (void)state;
    ok(lm_model_open(LM_TEST_MODEL, &model, &err));
    tok = lm_model_tokenizer(model);
    ok(lm_read_file(LM_TEST_DATA "/../../../eval/data/nostromo.txt", 1 << 24, &book, &n_book, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lm_model_close(model);
    free(book);
    return 0;
}

static void check_example(const char *name, int32_t n_token)
{
    char path[512], *wanted;
    size_t n;
    snprintf(path, sizeof path, "%s/../../../examples/%s", LM_TEST_DATA, name);
    ok(lm_read_file(path, 1 << 24, &wanted, &n, &err));
    eval_needle_spec spec;
    eval_needle_spec_init(&spec);
    spec.depth = 0.35;
    spec.n_token = n_token;
    eval_needle made;
    ok(eval_needle_make(&spec, tok, book, n_book, &made, &err));
    lm_text json = {0};
    ok(eval_needle_json(&made, 1, &json, &err));
    assert_int_equal(json.n, n);
    assert_memory_equal(json.data, wanted, n);
    lm_text_free(&json);
    eval_needle_free(&made);
    free(wanted);
}

static void examples(void **state)
{
    (void)state;
    check_example("needle-16k.json", 16200);
    check_example("needle-32k.json", 32500);
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

static void check_prompt(const eval_needle_spec *spec)
{
    static const char *const types[] = {"word", "number", "uuid"};
    eval_needle made;
    ok(eval_needle_make(spec, tok, book, n_book, &made, &err));
    assert_true(made.n_token <= spec->n_token && made.n_token > spec->n_token - 120);
    lm_tokens ids = {0};
    ok(lm_tokenizer_encode(tok, made.prompt, made.n_bytes, 0, &ids, &err));
    assert_int_equal(ids.n, made.n_token);
    lm_tokens_free(&ids);
    assert_true(made.depth > spec->depth - 0.1 && made.depth < spec->depth + 0.1);
    assert_int_equal(made.n_gold, 1);
    assert_int_equal(count(made.prompt, made.gold[0]), 1);
    const char *question = strstr(made.prompt, "\nWhat is the special magic ");
    assert_non_null(question);
    char needle[256], key[64];
    assert_int_equal(sscanf(strstr(question, " for "), " for %63s", key), 1);
    snprintf(needle, sizeof needle, " One of the special magic %ss for %s is: %s.", types[spec->value], key,
             made.gold[0]);
    assert_int_equal(count(made.prompt, needle), 1);
    if (spec->haystack != EVAL_HAYSTACK_NEEDLE)
        assert_int_equal(count(made.prompt, " One of the special magic "), spec->n_key);
    eval_needle_free(&made);
}

static void all_forms(void **state)
{
    (void)state;
    eval_needle_spec spec;
    eval_needle_spec_init(&spec);
    spec.n_token = 3000;
    for (int i = 0; i < 81; i++) {
        spec.haystack = (eval_haystack)(i % 3);
        spec.key = (eval_payload)(i / 3 % 3);
        spec.value = (eval_payload)(i / 9 % 3);
        spec.depth = i / 27 * 0.5;
        spec.n_key = 1 + i % 7;
        spec.seed = (uint64_t)i;
        check_prompt(&spec);
    }
    spec.haystack = EVAL_HAYSTACK_BOOK;
    spec.book_offset = n_book - 100; /* starts again at the beginning */
    check_prompt(&spec);
}

static void misuse(void **state)
{
    (void)state;
    eval_needle_spec spec, good;
    eval_needle_spec_init(&good);
    eval_needle out = {0};
    spec = good, spec.n_token = 50;
    refused(eval_needle_make(&spec, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "take");
    spec = good, spec.n_key = 0;
    refused(eval_needle_make(&spec, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "keys");
    spec = good, spec.depth = 1.5;
    refused(eval_needle_make(&spec, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "depth");
    spec = good, spec.value = (eval_payload)3;
    refused(eval_needle_make(&spec, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "type");
    spec = good, spec.book_offset = n_book;
    refused(eval_needle_make(&spec, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "bytes");
    refused(eval_needle_make(&good, tok, NULL, 0, &out, &err), LM_ERROR_INPUT, "text");
    refused(eval_needle_make(&good, tok, " \n  \n", 5, &out, &err), LM_ERROR_INPUT, "words");
    refused(eval_needle_make(NULL, tok, book, n_book, &out, &err), LM_ERROR_USAGE, "NULL");
    eval_needle_free(&out);
    eval_needle_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples),
        cmocka_unit_test(all_forms),
        cmocka_unit_test(misuse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
