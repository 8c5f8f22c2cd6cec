/* prism bench from outside: what it prints and writes adds up, and misuse ends in the right exit code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cjson/cJSON.h>

static char folder[64] = "/tmp/prism-bench-test-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* Runs `prism bench ...` with $T for the folder; keeps stdout, and stderr where redirect says so. Returns the exit
 * code. */
static int run_to(const char *arguments, const char *redirect, char *output, size_t n)
{
    char command[2048];
    snprintf(command, sizeof command, "T='%s'; '%s' bench %s %s", folder, BENCH_TEST_PRISM, arguments, redirect);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    const size_t used = fread(output, 1, n - 1, f);
    output[used] = '\0';
    while (fgetc(f) != EOF)
        ;
    return WEXITSTATUS(pclose(f));
}

static int run(const char *arguments, char *output, size_t n)
{
    return run_to(arguments, "2>&1", output, n);
}

static cJSON *run_json(const char *arguments)
{
    char *output = malloc(1 << 16);
    const int code = run_to(arguments, "--json 2>/dev/null", output, 1 << 16);
    if (code)
        fail_msg("%s: exit code %d", arguments, code);
    cJSON *json = cJSON_Parse(output);
    if (!json)
        fail_msg("%s: not JSON: %s", arguments, output);
    free(output);
    return json;
}

static double number(const cJSON *row, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(row, name);
    if (!cJSON_IsNumber(value))
        fail_msg("no number '%s'", name);
    return value->valuedouble;
}

static const char *text(const cJSON *row, const char *name)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, name));
    if (!value)
        fail_msg("no text '%s'", name);
    return value;
}

static const cJSON *results(const cJSON *json, const char *bench, int n)
{
    assert_string_equal(text(json, "bench"), bench);
    const cJSON *machine = cJSON_GetObjectItemCaseSensitive(json, "machine");
    assert_true(strlen(text(machine, "kernels")) > 0 && number(machine, "threads") >= 1);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "results");
    assert_int_equal(cJSON_GetArraySize(rows), n);
    return rows;
}

#define SMALL "--heads 4 --kv-heads 2 --d 64 --reps 1 --seconds 5 --threads 2 "

/* ------------------------------------------------------------------------------------------- subcommands ---- */

static void attention(void **state)
{
    (void)state;
    cJSON *json = run_json("attention " SMALL "--lengths 1K,1280 --density 0.5 --methods dense,prism:min_tokens=0");
    const cJSON *rows = results(json, "attention", 4), *row;
    assert_true(number(json, "density_imposed") == 0.5);
    cJSON_ArrayForEach(row, rows)
    {
        const double blocks = number(row, "tokens") / 128, causal = blocks * (blocks + 1) / 2;
        const bool dense = !strcmp(text(row, "method"), "dense");
        assert_true(number(row, "dense_flop") == 4.0 * 64 * 4 * 128 * 128 * causal);
        assert_true(fabs(number(row, "density") - (dense ? 1 : 0.5)) <= 1 / causal);
        assert_true(fabs(number(row, "attend_flop") - number(row, "density") * number(row, "dense_flop")) < 1);
        assert_true(fabs(number(row, "work") * number(row, "dense_flop") - number(row, "attend_flop") -
                         number(row, "select_flop") - number(row, "correct_flop")) < 1);
        assert_true(fabs(number(row, "select_seconds") + number(row, "attend_seconds") - number(row, "call_seconds")) <
                    1e-9);
        assert_true(
            fabs(number(row, "attend_gflops") * number(row, "attend_seconds") * 1e9 / number(row, "attend_flop") - 1) <
            1e-9);
        assert_true(number(row, "repetitions") == 1 && number(row, "select_workspace_bytes") >= 0);
        assert_true((number(row, "select_flop") > 0) == !dense);
    }
    assert_true(number(rows->child, "speedup") == 1);
    cJSON_Delete(json);
}

static void captured(void **state)
{
    (void)state;
    cJSON *json = run_json("attention -m '" BENCH_TEST_MODEL "' -f '" BENCH_TEST_TEXT
                           "' --layer 1 --lengths 256,512 --reps 1 -o min_tokens=0 --methods prism,dense");
    const cJSON *rows = results(json, "attention", 4), *row;
    const cJSON *source = cJSON_GetObjectItemCaseSensitive(json, "source");
    assert_true(number(source, "layer") == 1 && !strcmp(text(source, "kind"), "model"));
    assert_true(number(source, "prompt_tokens") > 512);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "density_imposed")));
    cJSON_ArrayForEach(row, rows) assert_true(number(row, "density") == number(row, "density_of_method"));
    cJSON_Delete(json);
}

static void stages(void **state)
{
    (void)state;
    cJSON *json = run_json("stages " SMALL "--lengths 1K --density 0.5 --dtype f32 --methods dense,prism:min_tokens=0");
    const cJSON *rows = results(json, "stages", 4), *row; /* attend; pool, score+select, attend */
    const cJSON *peaks = cJSON_GetObjectItemCaseSensitive(json, "peaks");
    const double compute = number(peaks, "fma_gflops"), memory = number(peaks, "read_gbytes_s");
    assert_true(compute > 0 && memory > 0 && number(peaks, "copy_gbytes_s") > 0);
    cJSON_ArrayForEach(row, rows)
    {
        const double seconds = number(row, "seconds"), flop = number(row, "flop"), bytes = number(row, "bytes");
        const double least = fmax(flop / compute, bytes / memory) * 1e-9;
        assert_true(fabs(number(row, "share_of_roofline") * seconds / least - 1) < 1e-6);
        assert_true(fabs(number(row, "gflops") * seconds * 1e9 / flop - 1) < 1e-6);
        if (!strcmp(text(row, "stage"), "pool")) {
            assert_true(flop == 1024.0 * 6 * 64);
            assert_true(bytes == 1024.0 * 6 * 64 * 4 + 8 * 6 * 64 * 4);
        }
    }
    cJSON_Delete(json);
}

static void prefill(void **state)
{
    (void)state;
    cJSON *json = run_json("prefill -m '" BENCH_TEST_MODEL "' -f '" BENCH_TEST_TEXT
                           "' --lengths 200,384 --reps 1 --seconds 60 -o min_tokens=0 --methods dense,prism");
    const cJSON *rows = results(json, "prefill", 4), *row;
    cJSON_ArrayForEach(row, rows)
    {
        const bool dense = !strcmp(text(row, "method"), "dense");
        const double inside = number(row, "select_seconds") + number(row, "attend_seconds");
        assert_true(inside > 0 && inside < number(row, "prefill_seconds"));
        assert_true(
            fabs(number(row, "tokens_per_second") * number(row, "prefill_seconds") / number(row, "tokens") - 1) < 1e-9);
        assert_true(number(row, "density") > 0 && number(row, "density") <= 1 && number(row, "speedup") > 0);
        assert_true(!dense || (number(row, "work") == 1 && number(row, "speedup") == 1));
        assert_true(fabs(number(row, "work") * number(row, "dense_flop") / number(row, "work_flop") - 1) < 1e-9);
    }
    cJSON_Delete(json);
}

/* ------------------------------------------------------------------------------------------------- files ---- */

static char *read_file(const char *name)
{
    char path[128], *data = calloc(1, 1 << 16);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("no file %s", path);
    assert_true(fread(data, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    return data;
}

static int count(const char *line, size_t n, char c)
{
    int found = 0;
    for (size_t i = 0; i < n; i++)
        found += line[i] == c;
    return found;
}

static void tables_and_csv(void **state)
{
    (void)state;
    char output[1 << 14];
    assert_int_equal(run("attention " SMALL "--lengths 256,512 --csv $T/a.csv", output, sizeof output), 0);
    assert_non_null(strstr(output, "speed-up"));
    assert_non_null(strstr(output, "512 tokens"));
    char *csv = read_file("a.csv");
    const size_t head = strcspn(csv, "\n");
    int n_line = 0;
    for (const char *line = csv; *line; line += strcspn(line, "\n") + 1, n_line++)
        assert_int_equal(count(line, strcspn(line, "\n"), ','), count(csv, head, ','));
    assert_int_equal(n_line, 1 + 2 * 2);
    assert_int_equal(strncmp(csv, "method,tokens,select_seconds,", 29), 0);
    free(csv);
}

/* Without python3 or the script there is a message, and the data stay. */
static void no_picture(void **state)
{
    (void)state;
    char output[1 << 14];
    assert_int_equal(run("attention " SMALL "--lengths 256 --plot $T/no.png --tools $T", output, sizeof output), 1);
    assert_non_null(strstr(output, "no picture"));
    char command[1024];
    snprintf(command, sizeof command,
             "T='%s'; PATH=/nowhere '%s' bench attention " SMALL
             "--lengths 256 --plot $T/b.svg --tools '" BENCH_TEST_TOOLS "' >/dev/null 2>$T/errors",
             folder, BENCH_TEST_PRISM);
    assert_int_equal(WEXITSTATUS(system(command)), 1);
    char *errors = read_file("errors"), *data = read_file("b.json");
    assert_non_null(strstr(errors, "no python3"));
    cJSON *json = cJSON_Parse(data);
    results(json, "attention", 2);
    cJSON_Delete(json);
    free(errors);
    free(data);
}

static void picture(void **state)
{
    (void)state;
    if (system("python3 -c 'import matplotlib' 2>/dev/null"))
        skip();
    char output[1 << 14];
    assert_int_equal(run("attention " SMALL "--lengths 256,512 --plot $T/c.png --tools '" BENCH_TEST_TOOLS "'", output,
                         sizeof output),
                     0);
    char *png = read_file("c.png");
    assert_int_equal(memcmp(png, "\x89PNG", 4), 0);
    free(png);
}

/* ------------------------------------------------------------------------------------------------ misuse ---- */

static void misuse(void **state)
{
    (void)state;
    static const struct {
        const char *arguments;
        int code;
        const char *says;
    } cases[] = {
        {"", 2, "usage"},
        {"speed", 2, "attention, stages or prefill"},
        {"attention --lengths 4K,", 2, "--lengths"},
        {"attention --lengths 0", 2, "--lengths"},
        {"attention --lengths 99999999999999999999", 2, "--lengths"},
        {"attention --density 1.5", 2, "--density"},
        {"attention --density x", 2, "--density"},
        {"attention --seconds -1", 2, "--seconds"},
        {"attention --reps 0", 2, "--reps"},
        {"attention --dtype f64", 2, "--dtype"},
        {"attention --heads 3 --kv-heads 2 --lengths 64", 2, "multiple"},
        {"attention --d 63 --lengths 64", 2, "even"},
        {"attention --methods prism,nosuch --lengths 64", 2, "no such method"},
        {"attention --methods prism,prism --lengths 64", 2, "twice"},
        {"attention --methods dense,dense:block_size=64 --lengths 64 --density 0.5", 2, "one block size"},
        {"attention --nosuch", 2, "--nosuch"},
        {"attention extra", 2, "extra"},
        {"attention -m model.gguf", 2, "go together"},
        {"attention -f text", 2, "go together"},
        {"attention --layer 1", 2, "--layer"},
        {"attention -m x -f y --heads 4", 2, "of noise"},
        {"attention --chunk 100", 2, "--chunk"},
        {"attention --plot a.json", 2, ".png"},
        {"attention --plot noending", 2, ".png"},
        {"stages --plot a.png", 2, "--plot"},
        {"prefill", 2, "-m"},
        {"prefill -m x -f y --ruler-json z", 2, "one of"},
        {"prefill -m x -f y --density 0.5", 2, "--density"},
        {"prefill -m /nowhere/x.gguf -f y", 3, "/nowhere/x.gguf"},
        {"prefill -m '" BENCH_TEST_MODEL "' -f /nowhere/y", 3, "/nowhere/y"},
        {"attention -m '" BENCH_TEST_MODEL "' -f '" BENCH_TEST_TOOLS "/plot_bench.py' --lengths 32K", 3, "longer text"},
        {"attention -m '" BENCH_TEST_MODEL "' -f '" BENCH_TEST_TEXT "' --layer 99 --lengths 64", 2, "layers 0 to"},
        {"attention --lengths 64 --csv /nowhere/a.csv " SMALL, 1, "/nowhere"},
        {"--help", 0, "attention"},
        {"attention --help", 0, "--density"},
        {"stages --help", 0, "roofline"},
        {"prefill --help", 0, "--chunk"},
    };
    char output[1 << 14];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = run(cases[i].arguments, output, sizeof output);
        if (code != cases[i].code || !strstr(output, cases[i].says))
            fail_msg("bench %s: exit code %d, wanted %d with '%s':\n%s", cases[i].arguments, code, cases[i].code,
                     cases[i].says, output);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention), cmocka_unit_test(captured),       cmocka_unit_test(stages),
        cmocka_unit_test(prefill),   cmocka_unit_test(tables_and_csv), cmocka_unit_test(no_picture),
        cmocka_unit_test(picture),   cmocka_unit_test(misuse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
