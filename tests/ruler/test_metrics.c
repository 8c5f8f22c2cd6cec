/* Metrics against values counted by hand. */
#include "../lm/lm_test.h"

#include "eval/metric.h"

#include <math.h>

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

/* Bytes that are no UTF-8: any value will do, but no crash. */
static void hostile(void **state)
{
    (void)state;
    static const char bad[] = "\xFF\xFE\xC3 \xE5\x8C. \x80\x80 \xF0\x9F\x98 the\xC0";
    char *list[] = {(char *)bad, ""};
    close_to(eval_match_all(bad, list, 2), 1);
    close_to(eval_match_any("", list, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(match), cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
