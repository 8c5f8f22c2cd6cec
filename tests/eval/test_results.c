/* Results files: what is written is found again, whatever a kill left behind; what is not ours is left alone. */
#include "tests/lm/lm_test.h"

#include "eval/results.h"
#include "lm/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/prism-results-XXXXXX";

static cJSON *header(const char *model, double seed)
{
    cJSON *h = cJSON_CreateObject(), *m, *s;
    cJSON_AddNumberToObject(h, "prism_eval", 1);
    cJSON_AddStringToObject(h, "family", "test");
    m = cJSON_AddObjectToObject(h, "model");
    cJSON_AddStringToObject(m, "fingerprint", model);
    s = cJSON_AddObjectToObject(h, "settings");
    cJSON_AddNumberToObject(s, "seed", seed);
    return h;
}

static void add(eval_results *r, int32_t sample, double score)
{
    cJSON *record = eval_record_create("dense", "task", 64, sample);
    cJSON_AddNumberToObject(record, "score", score);
    cJSON_AddStringToObject(record, "answer", "two\nlines \"and\" quotes");
    ok(eval_results_add(r, record, &err));
}

static void put(const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static char *get(size_t *n)
{
    char *text;
    ok(lm_read_file(path, 1 << 20, &text, n, &err));
    return text;
}

static int start(void **state)
{
    (void)state;
    put("", 0);
    return 0;
}

static void write_three(void)
{
    eval_results *r;
    ok(eval_results_open(path, header("a", 1), &r, &err));
    for (int32_t i = 0; i < 3; i++)
        add(r, i, 0.1 * i);
    eval_results_close(r);
}

static void found_again(void **state)
{
    (void)state;
    write_three();
    eval_results *r;
    ok(eval_results_open(path, header("a", 1), &r, &err));
    assert_int_equal(eval_results_count(r), 3);
    const cJSON *record = eval_results_find(r, "dense", "task", 64, 1);
    assert_non_null(record);
    assert_true(eval_record_number(record, "score") == 0.1); /* bit for bit */
    assert_null(eval_results_find(r, "dense", "task", 64, 3));
    assert_null(eval_results_find(r, "dense", "task", 128, 1));
    assert_null(eval_results_find(r, "prism", "task", 64, 1));
    eval_results_close(r);
}

/* Cut anywhere: the complete lines are kept, and the file can be written on. */
static void torn_anywhere(void **state)
{
    (void)state;
    write_three();
    size_t n;
    char *whole = get(&n);
    for (size_t cut = 0; cut <= n; cut++) {
        int32_t lines = 0;
        put(whole, cut);
        for (size_t i = 0; i < cut; i++)
            lines += whole[i] == '\n';
        const int32_t complete = lines > 0 ? lines - 1 : 0; /* without the header */
        eval_results *r;
        ok(eval_results_open(path, header("a", 1), &r, &err));
        assert_int_equal(eval_results_count(r), complete);
        for (int32_t i = complete; i < 3; i++)
            add(r, i, 0.1 * i);
        eval_results_close(r);
        size_t again;
        char *text = get(&again);
        assert_int_equal(again, n);
        assert_memory_equal(text, whole, n);
        free(text);
    }
    free(whole);
}

/* A last line whose length reached the disk before its bytes did. */
static void torn_to_zeros(void **state)
{
    (void)state;
    write_three();
    size_t n;
    char *text = get(&n);
    memset(text + n - 10, 0, 9);
    put(text, n);
    free(text);
    eval_results *r;
    ok(eval_results_open(path, header("a", 1), &r, &err));
    assert_int_equal(eval_results_count(r), 2);
    eval_results_close(r);
}

static void others_are_refused(void **state)
{
    (void)state;
    eval_results *r = NULL;
    write_three();
    size_t n, after;
    char *before = get(&n);
    refused(eval_results_open(path, header("b", 1), &r, &err), LM_ERROR_INPUT, "another model");
    refused(eval_results_open(path, header("a", 2), &r, &err), LM_ERROR_INPUT, "seed is 1, here it is 2");
    assert_null(r);
    char *text = get(&after);
    assert_int_equal(after, n);
    assert_memory_equal(text, before, n);
    free(text);
    before[strcspn(before, "\n") + 5] = '}'; /* line 2 */
    put(before, n);
    refused(eval_results_open(path, header("a", 1), &r, &err), LM_ERROR_INPUT, "line 2");
    free(before);
    static const char *const notes[] = {"my notes\n", "my notes", "{\"a\":1}\n"};
    for (int i = 0; i < 3; i++) {
        put(notes[i], strlen(notes[i]));
        refused(eval_results_open(path, header("a", 1), &r, &err), LM_ERROR_INPUT, "left alone");
        text = get(&n);
        assert_string_equal(text, notes[i]);
        free(text);
    }
    refused(eval_results_open("/nowhere/at/all", header("a", 1), &r, &err), LM_ERROR_INPUT, "cannot open");
}

static void one_writer(void **state)
{
    (void)state;
    eval_results *r, *second = NULL;
    ok(eval_results_open(path, header("a", 1), &r, &err));
    refused(eval_results_open(path, header("a", 1), &second, &err), LM_ERROR_INPUT, "another run");
    eval_results_close(r);
}

static void in_memory(void **state)
{
    (void)state;
    eval_results *r;
    ok(eval_results_open(NULL, header("a", 1), &r, &err));
    add(r, 0, 1);
    assert_non_null(eval_results_find(r, "dense", "task", 64, 0));
    eval_results_close(r);
}

int main(void)
{
    const int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(found_again, start),   cmocka_unit_test_setup(torn_anywhere, start),
        cmocka_unit_test_setup(torn_to_zeros, start), cmocka_unit_test_setup(others_are_refused, start),
        cmocka_unit_test_setup(one_writer, start),    cmocka_unit_test_setup(in_memory, start),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
