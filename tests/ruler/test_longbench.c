/* LongBench's tasks from small made-up files: prompts, cuts, scores, and lines that are not what they should be. */
#include "../lm/lm_test.h"

#include "eval/longbench.h"
#include "eval/rng.h"
#include "eval/text.h"
#include "lm/file.h"
#include "lm/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lm_model *model;
static char folder[] = "/tmp/test_longbenchXXXXXX", file[64];

static int setup(void **state)
{
    (void)state;
    ok(lm_model_open(RULER_TEST_MODEL, &model, &err));
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof file, "%s/trec.jsonl", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lm_model_close(model);
    remove(file);
    return rmdir(folder);
}

static eval_longbench_options options_for(const char *tasks)
{
    eval_longbench_options o;
    eval_longbench_options_init(&o);
    o.folder = RULER_TEST_DATA "/longbench";
    o.tasks = tasks;
    return o;
}

static void close_tasks(eval_task *tasks, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        tasks[i].close(&tasks[i]);
    free(tasks);
}

static size_t count_tokens(const char *text)
{
    lm_tokens ids = {0};
    ok(lm_model_encode(model, text, strlen(text), false, &ids, &err));
    const size_t n = ids.n;
    lm_tokens_free(&ids);
    return n;
}

/* The fields of a line as the file has them, read without the code under test. Free with cJSON_Delete(). */
static cJSON *line_of(const char *task, int32_t i)
{
    char path[512], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/longbench/%s.jsonl", RULER_TEST_DATA, task);
    ok(lm_read_file(path, 1 << 20, &text, &n, &err));
    char *at = text;
    while (i-- > 0)
        at = strchr(at, '\n') + 1;
    at[strcspn(at, "\n")] = 0;
    cJSON *line = cJSON_Parse(at);
    free(text);
    assert_non_null(line);
    return line;
}

/* -------------------------------------------------------------------------------------------------- tasks ---- */

static void check_sample(const eval_task *task, const eval_sample *s, const cJSON *line, int32_t n_answer)
{
    const char *context = lm_json_get(line, "context")->valuestring, *input = lm_json_get(line, "input")->valuestring;
    const cJSON *answers = lm_json_get(line, "answers");
    const int32_t category = eval_longbench_category(task->name);
    assert_int_equal(s->n_answer, n_answer);
    assert_int_equal(s->stop_at_newline, category == 3);
    assert_int_equal(s->no_template, category == 3 || category == 5);
    assert_non_null(strstr(s->prompt, context));
    assert_non_null(strstr(strstr(s->prompt, context) + strlen(context), input)); /* the question comes last */
    assert_null(strstr(s->prompt, "{context}"));
    assert_null(strstr(s->prompt, "{input}"));
    assert_int_equal(s->n_gold, cJSON_GetArraySize(answers));
    double worst = 1;
    for (size_t i = 0; i < s->n_gold; i++) {
        assert_string_equal(s->gold[i], cJSON_GetArrayItem(answers, (int)i)->valuestring);
        worst = fmin(worst, task->score(task, s, s->gold[i]));
    }
    assert_true(worst > 0.999); /* any of the references is as good as another */
    assert_true(task->score(task, s, "") == 0);
    assert_true(task->score(task, s, "zzz") < 0.5);
    if (category == 3) { /* models go on with another example */
        char more[256];
        snprintf(more, sizeof more, "\n%s\nQuestion: Number Person", s->gold[0]);
        assert_true(task->score(task, s, more) > 0.999);
    }
}

static void all_tasks(void **state)
{
    (void)state;
    static const int32_t n_answer[EVAL_LONGBENCH_N_TASK] = {128, 128, 64, 64,  32, 32, 32, 128, 512, 512, 512,
                                                            512, 64,  32, 128, 64, 32, 32, 32,  64,  64};
    eval_task *tasks;
    int32_t n;
    eval_longbench_options o = options_for("all");
    ok(eval_longbench_open(&o, model, &tasks, &n, &err));
    assert_int_equal(n, EVAL_LONGBENCH_N_TASK);
    for (int32_t t = 0; t < n; t++) {
        assert_string_equal(tasks[t].name, eval_longbench_names[t]);
        assert_int_equal(tasks[t].n_sample, 3);
        for (int32_t i = 0; i < 3; i++) {
            eval_sample s;
            cJSON *line = line_of(tasks[t].name, i);
            ok(tasks[t].make(&tasks[t], i, &s, &err));
            check_sample(&tasks[t], &s, line, n_answer[t]);
            eval_sample_free(&s);
            cJSON_Delete(line);
        }
    }
    close_tasks(tasks, n);
    o = options_for("code,trec");
    o.n_sample = 2;
    ok(eval_longbench_open(&o, model, &tasks, &n, &err));
    assert_int_equal(n, 3);
    assert_string_equal(tasks[0].name, "trec");
    assert_int_equal(tasks[2].n_sample, 2);
    close_tasks(tasks, n);
}

static bool is_utf8(const char *s)
{
    for (size_t n = strlen(s), length; n > 0; s += length, n -= length)
        if (eval_utf8_next(s, n, &length) == 0xFFFD)
            return false;
    return true;
}

static void cuts(void **state)
{
    (void)state;
    static const char *const names[] = {"gov_report", "vcsum", "dureader", "passage_retrieval_en", "trec"};
    for (size_t k = 0; k < 5; k++)
        for (int32_t room = 64; room < 400; room += 37)
            for (int truncation = 0; truncation < 2; truncation++) {
                eval_task *tasks;
                int32_t n;
                eval_sample whole, cut;
                eval_longbench_options o = options_for(names[k]);
                ok(eval_longbench_open(&o, model, &tasks, &n, &err));
                ok(tasks->make(tasks, 0, &whole, &err));
                close_tasks(tasks, n);
                o.n_reserve = 5;
                o.n_ctx = room + whole.n_answer + 5;
                o.truncation = (eval_truncation)truncation;
                ok(eval_longbench_open(&o, model, &tasks, &n, &err));
                ok(tasks->make(tasks, 0, &cut, &err));
                const size_t n_cut = count_tokens(cut.prompt), n_whole = count_tokens(whole.prompt);
                assert_true(n_cut <= (size_t)room && (n_cut + 16 > (size_t)room || n_cut == n_whole));
                assert_true(is_utf8(cut.prompt));
                const size_t length = strlen(cut.prompt), from = strlen(whole.prompt) - 12;
                assert_string_equal(cut.prompt + length - 12, whole.prompt + from); /* the cue stays */
                if (truncation == EVAL_TRUNCATE_MIDDLE)
                    assert_memory_equal(cut.prompt, whole.prompt, 30); /* the instruction stays */
                else
                    assert_string_equal(cut.prompt, whole.prompt + strlen(whole.prompt) - length);
                eval_sample_free(&whole);
                eval_sample_free(&cut);
                close_tasks(tasks, n);
            }
}

/* -------------------------------------------------------------------------------------------------- misuse ---- */

static void misuse(void **state)
{
    (void)state;
    eval_task *tasks;
    int32_t n;
    eval_longbench_options o = options_for("trec,nonsense");
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "'nonsense'");
    o.tasks = "";
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "no tasks");
    refused(eval_longbench_open(&o, NULL, &tasks, &n, &err), LM_ERROR_USAGE, "NULL");
    o = options_for("all");
    o.folder = NULL;
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "name the folder");
    o.folder = "/nowhere";
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_INPUT, "/nowhere/narrativeqa.jsonl");
    o = options_for("gov_report");
    o.n_ctx = 512;
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "too short");
    o = options_for("trec");
    o.n_sample = -1;
    refused(eval_longbench_open(&o, model, &tasks, &n, &err), LM_ERROR_USAGE, "negative");
    o = options_for("trec");
    ok(eval_longbench_open(&o, model, &tasks, &n, &err));
    eval_sample s;
    refused(tasks->make(tasks, 3, &s, &err), LM_ERROR_USAGE, "no sample 3");
    close_tasks(tasks, n);
}

static void write_file(const char *text, size_t n)
{
    FILE *f = fopen(file, "w");
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

/* Opens what write_file() wrote, and makes all samples if that works. */
static bool try_file(lm_error *err)
{
    eval_task *tasks;
    int32_t n;
    eval_longbench_options o = options_for("trec");
    o.folder = folder;
    if (!eval_longbench_open(&o, model, &tasks, &n, err))
        return false;
    for (int32_t i = 0; i < tasks->n_sample; i++) {
        eval_sample s;
        if (tasks->make(tasks, i, &s, err)) {
            tasks->score(tasks, &s, "Number of bees");
            eval_sample_free(&s);
        }
    }
    close_tasks(tasks, n);
    return true;
}

#define GOOD "{\"input\": \"q\", \"context\": \"c\", \"answers\": [\"a\"], \"all_classes\": [\"a\", \"b\"]}"

static void hostile_lines(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part; /* NULL: it is fine */
    } cases[] = {
        {"", "no lines"},
        {"\n \n\r\n", "no lines"},
        {"\n" GOOD "\n\r\n" GOOD, NULL},
        {GOOD "\n{\"input\"", "line 2"},
        {"\n\n[]\n", "line 3: not a JSON object"},
        {"null", "not a JSON object"},
        {"{}", "no \"input\""},
        {"{\"input\": \"q\"}", "no \"context\""},
        {"{\"input\": 1, \"context\": \"c\"}", "input"},
        {"{\"input\": null, \"context\": \"c\"}", "no \"input\""},
        {"{\"input\": \"q\", \"context\": [\"c\"]}", "context"},
        {"{\"input\": \"q\", \"context\": \"c\"}", "\"answers\""},
        {"{\"input\": \"q\", \"context\": \"c\", \"answers\": \"a\"}", "\"answers\""},
        {"{\"input\": \"q\", \"context\": \"c\", \"answers\": []}", "\"answers\""},
        {"{\"input\": \"q\", \"context\": \"c\", \"answers\": [\"a\", 1]}", "\"answers\""},
        {"{\"input\": \"q\", \"context\": \"c\", \"answers\": [\"a\"]}", "\"all_classes\" is missing"},
        {"{\"input\": \"q\", \"context\": \"c\", \"answers\": [\"a\"], \"all_classes\": {\"a\": 1}}",
         "\"all_classes\""},
        {GOOD GOOD, "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(cases[i].text, strlen(cases[i].text));
        if (cases[i].part)
            refused(try_file(&err), LM_ERROR_INPUT, cases[i].part);
        else
            ok(try_file(&err));
    }
}

static void huge_lines(void **state)
{
    (void)state;
    const size_t n = (size_t)70 << 20;
    char *text = malloc(n);
    memset(text, '[', n); /* deeper than any reader should go */
    write_file(text, 1 << 20);
    refused(try_file(&err), LM_ERROR_INPUT, "line 1");
    memset(text, 'x', n);
    memcpy(text, "{\"input\": \"", 11);
    write_file(text, n);
    refused(try_file(&err), LM_ERROR_INPUT, "more than a line may have");
    free(text);
}

/* Every truncation of a good line, and many lines with wrong bytes: an error or a sample, never a crash. */
static void damaged_lines(void **state)
{
    (void)state;
    static const char good[] = GOOD;
    eval_rng rng = {1};
    lm_error ignored;
    for (size_t n = 0; n < sizeof good; n++) {
        write_file(good, n);
        assert_int_equal(try_file(&ignored), n == sizeof good - 1);
        if (n == sizeof good - 1)
            break;
    }
    for (int round = 0; round < 2000; round++) {
        char bad[sizeof good];
        memcpy(bad, good, sizeof good);
        for (int k = 0; k < 1 + round % 3; k++)
            bad[eval_rng_below(&rng, sizeof good - 1)] = (char)eval_rng_below(&rng, 256);
        write_file(bad, sizeof good - 1);
        try_file(&ignored);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_tasks),  cmocka_unit_test(cuts),
                                       cmocka_unit_test(misuse),     cmocka_unit_test(hostile_lines),
                                       cmocka_unit_test(huge_lines), cmocka_unit_test(damaged_lines)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
