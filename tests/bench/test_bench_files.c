/* The CSV file of a report, by the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_command.h"

static void check(const char *report, const char *wanted)
{
    char path[] = "/tmp/prism-bench-files-XXXXXX", written[512];
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    const bench_args args = {.csv = path};
    const bench_state s = {.args = &args, .report = cJSON_Parse(report)};
    assert_non_null(s.report);
    assert_int_equal(bench_write_files(&s), EXIT_DONE);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    written[fread(written, 1, sizeof written - 1, f)] = '\0';
    fclose(f);
    remove(path);
    assert_string_equal(written, wanted);
    cJSON_Delete(s.report);
}

#define ROW "{\"method\": \"a,b\", \"tokens\": 8, \"select_seconds\": 1, \"call_seconds\": 3, \"speedup\": null}"

static void rows(void **state)
{
    (void)state;
    check("{\"results\": []}", "");
    check("{\"results\": [" ROW ", " ROW "]}", "method,tokens,select_seconds,call_seconds,speedup\n"
                                               "\"a,b\",8,1,3,\n\"a,b\",8,1,3,\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
