/* A run killed in the middle goes on where it was, and ends with the results of one that was not. */
#include "tests/lm/lm_test.h"

#include "eval/run.h"
#include "lm/json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_SAMPLE = 5, KILLED_AT = 3 };

static int n_made, killed_at = -1;

static bool make(const eval_task *task, int32_t i, eval_sample *out, lm_error *err)
{
    (void)task;
    char prompt[64];
    if (n_made++ == killed_at)
        raise(SIGKILL);
    snprintf(prompt, sizeof prompt, "Chapter %d. It was a dark night, and the old", i + 1);
    *out = (eval_sample){.prompt = strdup(prompt), .n_answer = 6};
    out->gold = malloc(sizeof *out->gold);
    out->gold[0] = strdup("man");
    out->n_gold = 1;
    return out->prompt || lm_fail(err, LM_ERROR_MEMORY, "no memory");
}

static double score(const eval_task *task, const eval_sample *sample, const char *answer)
{
    (void)task;
    (void)sample;
    return (double)strlen(answer) / 100;
}

static const eval_task task = {.name = "novel", .n_sample = N_SAMPLE, .make = make, .score = score};

/* 0: done; the session's machinery is made anew for each run, as a new process would. */
static int run(const char *path)
{
    lm_model *model;
    prism_ctx *ctx;
    eval_results *results;
    eval_methods methods;
    lm_error err;
    if (!lm_model_open(EVAL_TEST_MODEL, &model, &err) || prism_create(NULL, &ctx) ||
        !eval_methods_parse("dense,prism:min_tokens=0", NULL, &methods, &err))
        return 1;
    cJSON *header = eval_header_create("test", EVAL_TEST_MODEL, model, cJSON_CreateObject(), &err);
    const eval_run_options options = {.n_ctx = 64, .kv_type = LM_KV_AUTO};
    const int failed = !eval_results_open(path, header, &results, &err) ||
                       !eval_run(model, ctx, &task, 1, &methods, &options, results, NULL, &err);
    if (failed)
        print_error("%s\n", err.text);
    eval_results_close(results);
    eval_methods_free(&methods);
    prism_destroy(ctx);
    lm_model_close(model);
    return failed;
}

/* In a process of its own: OpenMP's threads do not survive a fork. */
static int run_apart(const char *path, int at)
{
    const pid_t child = fork();
    if (child == 0) {
        killed_at = at;
        _exit(run(path));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static eval_results *load(const char *path)
{
    lm_model *model;
    eval_results *results;
    ok(lm_model_open(EVAL_TEST_MODEL, &model, &err));
    cJSON *header = eval_header_create("test", EVAL_TEST_MODEL, model, cJSON_CreateObject(), NULL);
    ok(eval_results_open(path, header, &results, &err));
    lm_model_close(model);
    return results;
}

static void killed_and_resumed(void **state)
{
    (void)state;
    char whole[] = "/tmp/prism-whole-XXXXXX", parts[] = "/tmp/prism-parts-XXXXXX";
    close(mkstemp(whole));
    close(mkstemp(parts));
    assert_int_equal(run_apart(whole, -1), 0);
    int status = run_apart(parts, KILLED_AT);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    eval_results *r = load(parts);
    assert_int_equal(eval_results_count(r), KILLED_AT);
    eval_results_close(r);
    status = run_apart(parts, KILLED_AT); /* again, in the second method: three more are done */
    assert_true(WIFSIGNALED(status));
    assert_int_equal(run_apart(parts, -1), 0);
    assert_int_equal(run_apart(parts, 0), 0); /* nothing is left: no sample is made */

    eval_results *a = load(whole), *b = load(parts);
    static const char *const methods[] = {"dense", "prism:min_tokens=0"};
    static const char *const fields[] = {"score",     "answer",        "gold",         "density",
                                         "work_flop", "prompt_tokens", "answer_tokens"};
    assert_int_equal(eval_results_count(a), 2 * N_SAMPLE);
    assert_int_equal(eval_results_count(b), 2 * N_SAMPLE);
    for (int m = 0; m < 2; m++)
        for (int32_t i = 0; i < N_SAMPLE; i++) {
            const cJSON *x = eval_results_find(a, methods[m], "novel", 64, i);
            const cJSON *y = eval_results_find(b, methods[m], "novel", 64, i);
            assert_true(x && y);
            for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
                assert_non_null(lm_json_get(x, fields[f]));
                assert_true(cJSON_Compare(lm_json_get(x, fields[f]), lm_json_get(y, fields[f]), true));
            }
            assert_true(strlen(cJSON_GetStringValue(lm_json_get(x, "answer"))) > 0);
        }
    assert_true(eval_mean_of(a, "dense", NULL, 64, 0).score == eval_mean_of(b, "dense", "novel", 64, 0).score);
    assert_int_equal(eval_mean_of(a, "dense", NULL, 64, 2).n, 2);
    eval_results_close(a);
    eval_results_close(b);
    unlink(whole);
    unlink(parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed_and_resumed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
