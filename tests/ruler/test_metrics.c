/* Metrics against values counted by hand, and against those that record_metrics.py wrote down. */
#include "../lm/lm_test.h"

#include "eval/longbench.h"
#include "eval/metric.h"
#include "lm/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define close_to(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static void match(void **state)
{
    (void)state;
    char *gold[] = {"Alpha", "beta", "\xC3\x89t\xC3\xA9"}; /* Été */
    close_to(eval_match_all("  ALPHA, \xC3\xA9t\xC3\xA9\n", gold, 3), 2.0 / 3);
    close_to(eval_match_all("", gold, 3), 0);
    close_to(eval_match_all("alphabetical: beta", gold, 2), 1);
    close_to(eval_match_any("none", gold, 3), 0);
    close_to(eval_match_any("the beta", gold, 3), 1);
    char *two_lines[] = {"a\nb"};
    close_to(eval_match_all("A\tB", two_lines, 1), 1); /* control characters become newlines */
}

static void f1(void **state)
{
    (void)state;
    close_to(eval_f1("The cat sat.", "a cat", EVAL_ENGLISH), 2.0 / 3);
    close_to(eval_f1("the", "the", EVAL_ENGLISH), 0); /* nothing is left of it */
    close_to(eval_f1("x x y", "x x x", EVAL_ENGLISH), 2.0 / 3);
    close_to(eval_f1("state-of-the-art", "stateoftheart", EVAL_ENGLISH), 1);
    close_to(eval_f1("\xE5\x8C\x97\xE4\xBA\xAC\xE3\x80\x82", "\xE5\x8C\x97\xE4\xBA\xAC", EVAL_CHINESE), 1);
    close_to(eval_f1("\xE5\x8C\x97\xE6\xB5\xB7", "\xE5\x8C\x97\xE4\xBA\xAC", EVAL_CHINESE), 0.5);
}

static void rouge(void **state)
{
    (void)state;
    /* "b c d" in common: 3 of 4 and 3 of 4 */
    assert_true(fabs(eval_rouge_l("a b c d", "b c d e", EVAL_ENGLISH) - 0.75) < 1e-7);
    /* found over two sentences: {w1 w2} and {w1 w3 w5}: 4 of the reference's 5, 4 of the answer's 8 */
    const double p = 4.0 / 8, r = 4.0 / 5;
    assert_true(fabs(eval_rouge_l("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", EVAL_ENGLISH) -
                     2 * p * r / (p + r)) < 1e-7);
    close_to(eval_rouge_l("", "x", EVAL_ENGLISH), 0);
    close_to(eval_rouge_l("...", "x", EVAL_ENGLISH), 0);
}

static void labels_and_numbers(void **state)
{
    (void)state;
    char *classes[] = {"City", "Country", "Other location", "location", "Other", "Mountain"};
    close_to(eval_classification("City", "City", classes, 6), 1);
    close_to(eval_classification("City or Country", "City", classes, 6), 0.5);
    close_to(eval_classification("Country", "City", classes, 6), 0);
    /* parts of the right label's name do not count, however they are ordered */
    close_to(eval_classification("Other location", "Other location", classes, 6), 1);
    close_to(eval_classification("Other location, Mountain", "Other location", classes, 6), 0.5);
    close_to(eval_count("There are 12 of 30", "12"), 0.5);
    close_to(eval_count("none", "12"), 0);
    close_to(eval_count("123", "12"), 0);
    close_to(eval_retrieval("Paragraph 3", "Paragraph 3", EVAL_ENGLISH), 1);
    close_to(eval_retrieval("3, not 4", "Paragraph 3", EVAL_ENGLISH), 0.5);
    close_to(eval_retrieval("3", "nothing", EVAL_ENGLISH), 0);
    close_to(eval_retrieval("\xE6\xAE\xB5\xE8\x90\xBD"
                            "7",
                            "\xE6\xAE\xB5\xE8\x90\xBD"
                            "7",
                            EVAL_CHINESE),
             1);
}

static void edit(void **state)
{
    (void)state;
    close_to(eval_edit_similarity("return x;\nmore", "return x;"), 1);
    close_to(eval_edit_similarity("\n# a remark\n```\nreturn x;", "return x;"), 1);
    close_to(eval_edit_similarity("# only a remark", "return x;"), 0);
    close_to(eval_edit_similarity("", "return x;"), 0);
    close_to(eval_edit_similarity("abcd", "bcde"), 0.75);
    /* difflib gives 0.125: half a percent goes to the even neighbour, as in Python */
    close_to(eval_edit_similarity("axxxxxxx", "ayyyyyyy"), 0.12);
}

static double number(const cJSON *o, const char *key)
{
    return lm_json_get(o, key)->valuedouble;
}

static const char *string(const cJSON *o, const char *key)
{
    return lm_json_get(o, key)->valuestring;
}

static void recorded(void **state)
{
    (void)state;
    cJSON *root = NULL;
    ok((root = lm_json_read(RULER_TEST_DATA "/metrics.json", 1 << 24, &err)) != NULL);
    const cJSON *item;
    int n = 0;
    cJSON_ArrayForEach(item, lm_json_get(root, "texts"))
    {
        const eval_language language = cJSON_IsTrue(lm_json_get(item, "zh")) ? EVAL_CHINESE : EVAL_ENGLISH;
        const char *answer = string(item, "answer"), *gold = string(item, "gold");
        const double f = eval_f1(answer, gold, language), l = eval_rouge_l(answer, gold, language);
        if (!(fabs(f - number(item, "f1")) < 1e-9) || !(fabs(l - number(item, "rouge_l")) < 1e-9))
            fail_msg("'%s' against '%s': F1 %.9f, wanted %.9f; ROUGE-L %.9f, wanted %.9f", answer, gold, f,
                     number(item, "f1"), l, number(item, "rouge_l"));
        n++;
    }
    cJSON_ArrayForEach(item, lm_json_get(root, "lines"))
    {
        const double ratio = eval_difflib_ratio(string(item, "a"), string(item, "b"));
        if (!(fabs(ratio - number(item, "ratio")) < 1e-12))
            fail_msg("'%s' against '%s': %.12f, wanted %.12f", string(item, "a"), string(item, "b"), ratio,
                     number(item, "ratio"));
        n++;
    }
    assert_true(n > 150);
    cJSON_Delete(root);
}

static void averages(void **state)
{
    (void)state;
    const char *names[] = {"narrativeqa", "qasper", "lcc", "ppl"};
    const double scores[] = {0.2, 0.4, 0.9, 7};
    close_to(eval_longbench_flat_average(names, scores, 4), 0.5);
    close_to(eval_longbench_category_average(names, scores, 4), 0.6);
    assert_true(isnan(eval_longbench_flat_average(names + 3, scores + 3, 1)));
    assert_true(isnan(eval_longbench_category_average(names, scores, 0)));
    int32_t of[EVAL_LONGBENCH_N_CATEGORY] = {0};
    for (int i = 0; i < EVAL_LONGBENCH_N_TASK; i++)
        of[eval_longbench_category(eval_longbench_names[i])]++;
    const int32_t wanted[EVAL_LONGBENCH_N_CATEGORY] = {4, 4, 4, 4, 3, 2};
    assert_memory_equal(of, wanted, sizeof of);
    assert_int_equal(eval_longbench_category("nothing"), -1);
}

/* Bytes that are no UTF-8, and texts without end: any value will do, but no crash. */
static void hostile(void **state)
{
    (void)state;
    static const char bad[] = "\xFF\xFE\xC3 \xE5\x8C. \x80\x80 \xF0\x9F\x98 the\xC0";
    char *list[] = {(char *)bad, ""};
    for (int language = 0; language < 2; language++) {
        assert_true(eval_f1(bad, bad, (eval_language)language) > 0.99);
        assert_true(eval_rouge_l(bad, bad, (eval_language)language) > 0.99);
        eval_retrieval(bad, bad, (eval_language)language);
    }
    eval_match_all(bad, list, 2);
    eval_classification(bad, bad, list, 2);
    eval_count(bad, bad);
    assert_true(eval_edit_similarity(bad, bad) == 1);
    char *large = malloc(200001);
    memset(large, 'a', 200000);
    large[200000] = 0;
    assert_true(eval_f1(large, "a", EVAL_ENGLISH) == 0);
    assert_true(eval_rouge_l(large, large, EVAL_CHINESE) > 0.99);
    assert_true(eval_edit_similarity("aaaa", large) < 0.01);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(match),    cmocka_unit_test(f1),
                                       cmocka_unit_test(rouge),    cmocka_unit_test(labels_and_numbers),
                                       cmocka_unit_test(edit),     cmocka_unit_test(recorded),
                                       cmocka_unit_test(averages), cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
