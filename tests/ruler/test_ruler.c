/* RULER's generators: every prompt fits, hides what it asks for, and comes out the same again. */
#include "../lm/lm_test.h"

#include "eval/ruler.h"
#include "lm/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lm_model *model;
static char folder[] = "/tmp/test_rulerXXXXXX";

static int setup(void **state)
{
    (void)state;
    ok(lm_model_open(RULER_TEST_MODEL, &model, &err));
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    lm_model_close(model);
    return rmdir(folder);
}

/* ------------------------------------------------------------------------------------------------- helpers ---- */

static eval_ruler_options options_for(const char *tasks, int32_t n_ctx)
{
    eval_ruler_options o;
    eval_ruler_options_init(&o);
    o.tasks = tasks;
    o.n_ctx = n_ctx;
    o.n_sample = 8;
    o.n_reserve = 1; /* BOS, which count_tokens() counts */
    o.haystack = RULER_TEST_BOOK;
    o.squad = RULER_TEST_DATA "/squad.json";
    o.hotpot = RULER_TEST_DATA "/hotpot.json";
    return o;
}

static void close_tasks(eval_task *tasks, int32_t n)
{
    for (int32_t i = n - 1; i >= 0; i--) /* any order will do */
        tasks[i].close(&tasks[i]);
    free(tasks);
}

typedef void check_sample(const eval_task *task, int32_t n_ctx, const eval_sample *sample);

static void each_sample(const char *names, check_sample *check)
{
    static const int32_t lengths[] = {2048, 4096, 8192};
    for (size_t l = 0; l < 3; l++) {
        eval_task *tasks;
        int32_t n;
        eval_ruler_options o = options_for(names, lengths[l]);
        ok(eval_ruler_open(&o, model, &tasks, &n, &err));
        for (int32_t t = 0; t < n; t++)
            for (int32_t i = 0; i < tasks[t].n_sample; i++) {
                eval_sample sample;
                ok(tasks[t].make(&tasks[t], i, &sample, &err));
                check(&tasks[t], lengths[l], &sample);
                eval_sample_free(&sample);
            }
        close_tasks(tasks, n);
    }
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        n++;
    return n;
}

static int32_t count_tokens(const eval_sample *s)
{
    const size_t n = strlen(s->prompt) + strlen(s->answer_prefix) + 2;
    char *whole = malloc(n);
    lm_tokens ids = {0};
    snprintf(whole, n, "%s %s", s->prompt, s->answer_prefix);
    ok(lm_model_encode(model, whole, n - 1, true, &ids, &err));
    const int32_t n_token = (int32_t)ids.n;
    lm_tokens_free(&ids);
    free(whole);
    return n_token;
}

/* The next word of a text, which moves on; false at its end. */
static bool next_word(const char **text, char word[64])
{
    *text += strspn(*text, " \n");
    const size_t n = strcspn(*text, " \n");
    snprintf(word, 64, "%.*s", n < 63 ? (int)n : 63, *text);
    *text += n;
    return n > 0;
}

/* --------------------------------------------------------------------------------------------- properties ---- */

static void check_size(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    const int32_t n = count_tokens(s) + s->n_answer;
    if (n > n_ctx || n < n_ctx / 2)
        fail_msg("%s: %d tokens of %d", task->name, (int)n, (int)n_ctx);
    assert_true(s->n_gold > 0 && !s->stop_at_newline);
    char all[1024] = "It says: ";
    for (size_t i = 0; i < s->n_gold; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s, ", s->gold[i]);
    assert_true(task->score(task, s, all) == 1);
    assert_true(task->score(task, s, "") == 0);
    for (size_t i = 0; i < s->n_gold; i++)
        if (!strstr(s->prompt, s->gold[i]) && strncmp(task->name, "qa", 2) != 0)
            fail_msg("%s: '%s' is not in the prompt", task->name, s->gold[i]);
}

static void all_fit(void **state)
{
    (void)state;
    /* qa has few made-up documents, so that only the upper bound can be asked of it: see qa() */
    each_sample("niah_single_1,niah_single_2,niah_single_3,niah_multikey_1,niah_multikey_2,niah_multivalue,"
                "niah_multiquery,vt,cwe,fwe,niah_multikey_3",
                check_size);
}

static void check_needles(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    (void)n_ctx;
    const bool many = strstr(task->name, "multiv") || strstr(task->name, "multiq");
    const bool uuid = strstr(task->name, "multikey_3") || strstr(task->name, "single_3");
    assert_int_equal(s->n_gold, many ? 4 : 1);
    char part[128];
    for (size_t i = 0; i < s->n_gold; i++) {
        snprintf(part, sizeof part, "is: %s.", s->gold[i]);
        assert_int_equal(count(s->prompt, part), 1);
        assert_int_equal(count(s->prompt, s->gold[i]), 1);
        assert_int_equal(strlen(s->gold[i]), uuid ? 36 : 7);
    }
    /* the prompt asks for the key that the needle has */
    const char *question = strstr(s->prompt, "\nWhat "), *for_key = strstr(question, " for ") + 5;
    const size_t n_key = strcspn(for_key, ", ");
    snprintf(part, sizeof part, "s for %.*s is: ", (int)n_key, for_key);
    assert_int_equal(count(s->prompt, part), strstr(task->name, "multiv") ? 4 : 1);
    const char *needle = strstr(s->prompt, part) + strlen(part);
    bool found = false;
    for (size_t i = 0; i < s->n_gold; i++)
        found = found || strncmp(needle, s->gold[i], strlen(s->gold[i])) == 0;
    assert_true(found);
    snprintf(part, sizeof part, "special magic %s%s for %.*s", uuid ? "uuid" : "number", many ? "s" : "", (int)n_key,
             for_key);
    assert_non_null(strstr(s->answer_prefix, part));
    assert_true(strncmp(s->prompt, many ? "Some special" : "A special", 9) == 0);
    const size_t n_needle = count(s->prompt, "One of the special magic ");
    if (strstr(task->name, "multikey_1") || many)
        assert_int_equal(n_needle, 4);
    else if (strstr(task->name, "single"))
        assert_int_equal(n_needle, 1);
    else
        assert_true(n_needle > 20);
}

static void needles(void **state)
{
    (void)state;
    each_sample("niah", check_needles);
}

/* Among so many distractors some would have a needle's key by chance. */
static void distractors(void **state)
{
    (void)state;
    eval_ruler_options o = options_for("niah_multikey_2", 16384);
    o.n_sample = 700;
    eval_task *tasks;
    int32_t n;
    ok(eval_ruler_open(&o, model, &tasks, &n, &err));
    for (int32_t i = 0; i < o.n_sample; i++) {
        eval_sample s;
        ok(tasks->make(tasks, i, &s, &err));
        check_needles(tasks, o.n_ctx, &s);
        eval_sample_free(&s);
    }
    close_tasks(tasks, n);
}

static void check_vt(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    (void)task;
    (void)n_ctx;
    assert_int_equal(s->n_gold, 5);
    const char *at = s->prompt;
    char part[64], value[16];
    assert_int_equal(sscanf(strrchr(s->answer_prefix, 'v'), "value %15[0-9]", value), 1);
    snprintf(part, sizeof part, "VAR %s = %s ", s->gold[0], value);
    for (int i = 0; i < 5; i++) {
        if (i > 0)
            snprintf(part, sizeof part, "VAR %s = VAR %s ", s->gold[i], s->gold[i - 1]);
        assert_int_equal(count(s->prompt, part), 1);
        assert_true(strstr(s->prompt, part) > at || i == 0); /* in order */
        at = strstr(s->prompt, part);
    }
    assert_int_equal(count(s->prompt, " are assigned the value"), 3); /* twice in the example, once in the question */
    assert_int_equal(count(s->prompt, "VAR "), 2 * 9);
}

static void variables(void **state)
{
    (void)state;
    each_sample("vt", check_vt);
}

static void check_cwe(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    (void)task;
    assert_int_equal(s->n_gold, 10);
    assert_int_equal(count(s->prompt, "Below is a numbered list"), 2); /* a solved example comes first */
    const char *list = strstr(strstr(s->prompt, "\n\nBelow") + 3, "\n") + 1;
    const size_t n = strcspn(list, "\n");
    const char *rest = list;
    char number[64], word[64];
    int times[10] = {0};
    for (int i = 1; rest < list + n; i++) {
        assert_true(next_word(&rest, number) && next_word(&rest, word));
        assert_int_equal(atoi(number), i);
        for (int k = 0; k < 10; k++)
            times[k] += strcmp(word, s->gold[k]) == 0;
    }
    for (int k = 0; k < 10; k++)
        assert_int_equal(times[k], n_ctx < 4096 ? 6 : 30);
}

static void common_words(void **state)
{
    (void)state;
    each_sample("cwe", check_cwe);
}

static void check_fwe(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    (void)task;
    (void)n_ctx;
    assert_int_equal(s->n_gold, 3);
    const char *coded = strstr(s->prompt, "coded words. ") + 13, *end = strchr(coded, '\n');
    size_t times[3] = {0};
    char word[64];
    for (const char *at = coded; at < end && next_word(&at, word);)
        for (int i = 0; i < 3; i++)
            times[i] += strcmp(word, s->gold[i]) == 0;
    assert_true(times[0] > times[1] && times[1] > times[2] && times[2] > 1);
    /* no other word is as frequent as the third */
    char other[64];
    for (const char *at = coded; at < end && next_word(&at, other);) {
        size_t n = 0;
        if (strcmp(other, "...") == 0 || strcmp(other, s->gold[0]) == 0 || strcmp(other, s->gold[1]) == 0 ||
            strcmp(other, s->gold[2]) == 0)
            continue;
        for (const char *again = coded; again < end && next_word(&again, word);)
            n += strcmp(word, other) == 0;
        assert_true(n < times[2]);
    }
}

static void frequent_words(void **state)
{
    (void)state;
    each_sample("fwe", check_fwe);
}

static void check_qa(const eval_task *task, int32_t n_ctx, const eval_sample *s)
{
    assert_true(count_tokens(s) + s->n_answer <= n_ctx);
    bool found = false;
    for (size_t i = 0; i < s->n_gold; i++)
        found = found || strstr(s->prompt, s->gold[i]);
    assert_true(found);
    const size_t n = count(s->prompt, "Document ");
    char part[32];
    for (size_t i = 1; i <= n; i++) {
        snprintf(part, sizeof part, "Document %zu:\n", i);
        assert_int_equal(count(s->prompt, part), 1);
    }
    assert_true(n >= 2);
    assert_int_equal(count(s->prompt, "Answer the question based on the given documents."), 2);
    assert_true(task->score(task, s, s->gold[s->n_gold - 1]) == 1); /* any reference will do */
    assert_true(task->score(task, s, "no idea") == 0);
    if (strcmp(task->name, "qa_squad") == 0) { /* a document that answers is there once, and no other twice */
        snprintf(part, sizeof part, "lives in %s.", s->gold[1]);
        assert_int_equal(count(s->prompt, part), 1);
    } else {
        assert_int_equal(count(s->prompt, "Shared valley\n"), 1);
        snprintf(part, sizeof part, " rises on %s.", s->gold[0]);
        assert_int_equal(count(s->prompt, part), 1);
    }
}

static void qa(void **state)
{
    (void)state;
    each_sample("qa", check_qa);
    /* Too short for the ten paragraphs of a question: those with the answer stay. */
    eval_ruler_options o = options_for("qa_hotpot", 400);
    o.n_sample = 100;
    eval_task *tasks;
    int32_t n;
    ok(eval_ruler_open(&o, model, &tasks, &n, &err));
    assert_int_equal(tasks->n_sample, 12);
    for (int32_t i = 0; i < 12; i++) {
        eval_sample s;
        ok(tasks->make(tasks, i, &s, &err));
        assert_non_null(strstr(s.prompt, " rises on "));
        assert_true(count_tokens(&s) + s.n_answer <= 400);
        eval_sample_free(&s);
    }
    close_tasks(tasks, n);
    /* Where even these are too long, that is an error: never a prompt without its answer. */
    o.n_ctx = 256;
    o.n_reserve = 60;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "too short");
}

/* ---------------------------------------------------------------------------------------------------- seeds ---- */

static char *prompt_of(const eval_ruler_options *o, int32_t i)
{
    eval_task *tasks;
    int32_t n;
    eval_sample s;
    ok(eval_ruler_open(o, model, &tasks, &n, &err));
    ok(tasks->make(tasks, i, &s, &err));
    char *prompt = strdup(s.prompt);
    eval_sample_free(&s);
    close_tasks(tasks, n);
    return prompt;
}

static void seeds(void **state)
{
    (void)state;
    for (int t = 0; t < EVAL_RULER_N_TASK; t++) {
        eval_ruler_options o = options_for(eval_ruler_name(t), 4096), other = o;
        other.seed = 43;
        char *first = prompt_of(&o, 3), *again = prompt_of(&o, 3), *next = prompt_of(&o, 4),
             *elsewhere = prompt_of(&other, 3);
        assert_string_equal(first, again);
        assert_string_not_equal(first, next);
        assert_string_not_equal(first, elsewhere);
        free(first);
        free(again);
        free(next);
        free(elsewhere);
    }
}

static void reserve(void **state)
{
    (void)state;
    for (int t = 0; t < EVAL_RULER_N_TASK; t++) {
        eval_ruler_options o = options_for(eval_ruler_name(t), 2048);
        o.n_reserve = 300;
        eval_task *tasks;
        int32_t n;
        eval_sample s;
        ok(eval_ruler_open(&o, model, &tasks, &n, &err));
        for (int32_t i = 0; i < tasks->n_sample; i++) {
            ok(tasks->make(tasks, i, &s, &err));
            assert_true(count_tokens(&s) + s.n_answer + 299 <= 2048);
            eval_sample_free(&s);
        }
        refused(tasks->make(tasks, -1, &s, &err), LM_ERROR_USAGE, "no sample");
        refused(tasks->make(tasks, tasks->n_sample, &s, &err), LM_ERROR_USAGE, "no sample");
        close_tasks(tasks, n);
    }
}

/* A text that is shorter than the context starts again; needles still come once. */
static void short_text(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/a.txt", folder);
    FILE *f = fopen(path, "w");
    fputs("One sentence is here. Mr. Smith wrote another one!\n\n\tAnd a third", f);
    fclose(f);
    eval_ruler_options o = options_for("niah_multiquery", 2048);
    o.haystack = NULL;
    o.essays = folder;
    char *prompt = prompt_of(&o, 0);
    assert_int_equal(count(prompt, "One of the special magic "), 4);
    assert_true(count(prompt, "Mr. Smith wrote") > 50);
    free(prompt);
    remove(path);
    eval_task *tasks;
    int32_t n;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, "no .txt files");
}

/* -------------------------------------------------------------------------------------------------- misuse ---- */

static void misuse(void **state)
{
    (void)state;
    eval_task *tasks;
    int32_t n;
    eval_ruler_options o = options_for("niah,nonsense", 4096);
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "'nonsense'");
    o.tasks = "";
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "no tasks");
    o.tasks = "vt,,cwe";
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "no task ''");
    refused(eval_ruler_open(&o, NULL, &tasks, &n, &err), LM_ERROR_USAGE, "NULL");
    o = options_for("vt", 512);
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "too short");
    o = options_for("vt", 10);
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "context");
    o = options_for("vt", 4096);
    o.n_reserve = 4000;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "too short");
    o = options_for("vt", 4096);
    o.n_sample = 0;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "samples");
    o = options_for("all", 4096);
    o.squad = NULL;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "qa_squad needs the SQuAD");
    o = options_for("qa", 4096);
    o.hotpot = NULL;
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "qa_hotpot needs HotpotQA");
    o = options_for("qa", 4096);
    o.squad = "/nowhere.json";
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, "/nowhere.json");
    o = options_for("cwe", 4096);
    o.haystack = RULER_TEST_MODEL; /* not a text */
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, "not a text");
    o.haystack = "/nowhere.txt";
    refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, "/nowhere.txt");
}

/* Question files that are not what they should be, each with a part of what is said about it. */
static void hostile_questions(void **state)
{
    (void)state;
    static const struct {
        bool is_squad;
        const char *text, *part;
    } cases[] = {
        {true, "", ""},
        {true, "[]", "not a SQuAD file"},
        {true, "{\"data\": 3}", "not a SQuAD file"},
        {true, "{\"data\": []}", "no question"},
        {true, "{\"data\": [1]}", "without \"paragraphs\""},
        {true, "{\"data\": [{\"paragraphs\": [{\"context\": 1}]}]}", "without \"context\""},
        {true, "{\"data\": [{\"paragraphs\": [{\"context\": \"x\", \"qas\": [{\"answers\": [1]}]}]}]}",
         "without \"question\""},
        {true,
         "{\"data\": [{\"paragraphs\": [{\"context\": \"x\", \"qas\": [{\"question\": \"q\", \"answers\": [1]}]}]}]}",
         "without \"text\""},
        {true,
         "{\"data\": [{\"paragraphs\": [{\"context\": \"x\", \"qas\": [{\"question\": \"q\", \"answers\": []}]}]}]}",
         "no question"},
        {false, "{}", "not a HotpotQA file"},
        {false, "[]", "no question"},
        {false, "[1]", "a question without"},
        {false, "[{\"question\": \"q\", \"answer\": \"a\", \"context\": [[1, []]], \"supporting_facts\": []}]",
         "not [title"},
        {false, "[{\"question\": \"q\", \"answer\": \"a\", \"context\": [\"t\"], \"supporting_facts\": []}]",
         "not [title"},
        {false, "[{\"question\": \"q\", \"answer\": \"a\", \"context\": [[\"t\", [1]]], \"supporting_facts\": []}]",
         "not a string"},
        {false, "[{\"question\": \"q\", \"answer\": \"a\"", ""},
    };
    char path[64];
    snprintf(path, sizeof path, "%s/q.json", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *f = fopen(path, "w");
        fputs(cases[i].text, f);
        fclose(f);
        eval_ruler_options o = options_for(cases[i].is_squad ? "qa_squad" : "qa_hotpot", 2048);
        *(cases[i].is_squad ? &o.squad : &o.hotpot) = path;
        eval_task *tasks;
        int32_t n;
        refused(eval_ruler_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, cases[i].part);
    }
    /* One document is enough to go on. */
    FILE *f = fopen(path, "w");
    fputs("[{\"question\": \"q\", \"answer\": \"a\", \"context\": [], \"supporting_facts\": [1, [], [2]]},"
          " {\"question\": \"q\", \"answer\": \"a\", \"context\": [[\"t\", []]], \"supporting_facts\": []}]",
          f);
    fclose(f);
    eval_ruler_options o = options_for("qa_hotpot", 2048);
    o.hotpot = path;
    char *prompt = prompt_of(&o, 0);
    assert_int_equal(count(prompt, "Document "), 1);
    free(prompt);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_fit),    cmocka_unit_test(needles),      cmocka_unit_test(distractors),
        cmocka_unit_test(variables),  cmocka_unit_test(common_words), cmocka_unit_test(frequent_words),
        cmocka_unit_test(qa),         cmocka_unit_test(seeds),        cmocka_unit_test(reserve),
        cmocka_unit_test(short_text), cmocka_unit_test(misuse),       cmocka_unit_test(hostile_questions)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
