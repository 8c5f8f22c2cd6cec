/* A context goes on working in a child of fork(), and OMP_NUM_THREADS counts. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "answers.h"

/* The parent's threads are not there in the child: whoever waits for them is ended by the alarm. */
static void test_child(void **state)
{
    (void)state;
    const shape s = plain(500, 4, 2, 64);
    test_case *c = case_new(&s, 31);
    prism_ctx *ctx = context_new(PRISM_ISA_AUTO, 2);
    const prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
    answer want = attention(ctx, c, &o, PRISM_PATH_SPARSE);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(30);
        case_poison_outputs(c);
        runner r = runner_new(ctx, &o, &c->call);
        const prism_status status =
            prism_attention(ctx, &o, &c->call, r.plan, r.workspace.data, r.workspace.bytes, NULL);
        const answer got = read_answer(c);
        _exit(status || memcmp(got.out, want.out, got.n_out * sizeof *got.out));
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    answer_free(&want);
    prism_destroy(ctx);
    case_free(c);
}

/* OpenMP reads its environment once, when the program starts: so this program starts itself again. */
static void test_environment(void **state)
{
    (void)state;
    prism_ctx *ctx = context_new(PRISM_ISA_AUTO, 0);
    prism_info info = {.struct_size = sizeof info};
    assert_ok(prism_get_info(ctx, &info));
    assert_int_equal(info.n_thread, 3);
    prism_destroy(ctx);
}

int main(int argc, char **argv)
{
    const char *n = getenv("OMP_NUM_THREADS");
    if (argc == 1 && (!n || strcmp(n, "3"))) {
        setenv("OMP_NUM_THREADS", "3", 1);
        execv("/proc/self/exe", argv);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_child), cmocka_unit_test(test_environment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
