/* Methods that take turns, and medians. */
#include "turns.h"

#include <stdlib.h>

typedef struct turns {
    double *samples[BENCH_N_PART]; /* [reps] each */
    int32_t n;
    double spent;
    bool warmed, warm, done;
} turns;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_time bench_summarize(double *samples, int32_t n, bool warm)
{
    if (n < 1)
        return (bench_time){0};
    qsort(samples, (size_t)n, sizeof *samples, by_value);
    const double median = n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
    return (bench_time){.median = median, .min = samples[0], .max = samples[n - 1], .n = n, .warm = warm};
}

static void keep(turns *t, const bench_limits *limits, const double seconds[BENCH_N_PART])
{
    const bool warms_up = !t->warmed;
    t->warmed = true;
    if (warms_up && seconds[0] <= limits->seconds)
        return;
    t->warm = !warms_up;
    for (int k = 0; k < BENCH_N_PART; k++)
        t->samples[k][t->n] = seconds[k];
    t->n++;
    t->spent += seconds[0];
    t->done = warms_up || t->n == limits->reps || t->spent >= limits->seconds;
}

static bool run_rounds(const bench_spec *spec, bench_run *run, void *user, turns *methods, lm_error *err)
{
    const int32_t n_round = spec->limits.reps + 1;
    double seconds[BENCH_N_PART];
    for (int32_t round = 0; round < n_round; round++)
        for (int32_t i = 0; i < spec->n_method; i++) {
            if (methods[i].done)
                continue;
            if (spec->progress)
                spec->progress(spec->user, spec->methods[i].label, spec->n_token, round, n_round);
            if (!run(user, i, seconds, err))
                return false;
            keep(&methods[i], &spec->limits, seconds);
        }
    return true;
}

bool bench_take_turns(const bench_spec *spec, bench_run *run, void *user, bench_times *times, lm_error *err)
{
    if (spec->n_method < 1 || spec->limits.reps < 1 || spec->n_token < 1)
        return lm_fail(err, LM_ERROR_USAGE, "no methods, no repetitions or no tokens");
    const size_t n = (size_t)spec->n_method, reps = (size_t)spec->limits.reps;
    turns *methods = calloc(n, sizeof *methods);
    double *samples = malloc(n * BENCH_N_PART * reps * sizeof *samples);
    bool ok = (methods && samples) || lm_fail(err, LM_ERROR_MEMORY, "no memory for the samples");
    for (size_t i = 0; ok && i < n * BENCH_N_PART; i++)
        methods[i / BENCH_N_PART].samples[i % BENCH_N_PART] = samples + i * reps;
    ok = ok && run_rounds(spec, run, user, methods, err);
    for (size_t i = 0; ok && i < n; i++)
        for (size_t k = 0; k < BENCH_N_PART; k++)
            times[i].part[k] = bench_summarize(methods[i].samples[k], methods[i].n, methods[i].warm);
    free(samples);
    free(methods);
    return ok;
}

int32_t bench_first_dense(const bench_spec *spec)
{
    for (int32_t i = 0; i < spec->n_method; i++)
        if (spec->methods[i].options.method == PRISM_METHOD_DENSE)
            return i;
    return -1;
}
