/* prism bench: length after length. */
#include "bench_command.h"

#include <stdlib.h>
#include <unistd.h>

/* A line redrawn on a terminal; elsewhere a line for each method and length. */
static void show_progress(void *user, const char *what, int32_t n_token, int32_t done, int32_t total)
{
    bench_state *s = user;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, CLI_REDRAW "%d tokens  %s  %s %d of %d" CLI_REDRAWN, n_token, what,
                done ? "run" : "warm-up, run", done ? done : 1, done ? total - 1 : 1);
    else if (done == 0 && (s->shown_tokens != n_token || s->shown != what))
        fprintf(stderr, "%d tokens  %s\n", n_token, what);
    fflush(stderr);
    s->shown_tokens = n_token;
    s->shown = what;
}

static void report(bench_state *s, const void *results, const bench_peaks *peaks)
{
    switch (s->args->what) {
    case BENCH_ATTENTION: bench_report_attention(s, results); break;
    case BENCH_STAGES: bench_report_stages(s, results, peaks); break;
    default: bench_report_prefill(s, results); break;
    }
}

static bool run(bench_state *s, int32_t n_token, const bench_peaks *peaks, lm_error *err)
{
    const bench_args *a = s->args;
    const bool prefill = a->what == BENCH_PREFILL;
    const bench_spec spec = {
        .methods = s->methods,
        .n_method = s->parsed.n,
        .n_token = n_token,
        .limits = a->limits,
        .progress = show_progress,
        .user = s,
        .density = s->density,
        .seed = (uint64_t)a->seed,
        .measures_memory = a->what == BENCH_ATTENTION,
        .tokens = s->tokens.ids,
        .chunk = a->chunk,
    };
    void *results =
        calloc((size_t)s->parsed.n, prefill ? sizeof(bench_prefill_result) : sizeof(bench_attention_result));
    const bool ok = !results  ? lm_fail(err, LM_ERROR_MEMORY, "out of memory for the results")
                    : prefill ? bench_prefill(s->model, s->ctx, &spec, results, err)
                              : bench_attention(s->ctx, &s->tensors, &spec, results, err);
    if (isatty(STDERR_FILENO)) /* the progress line goes */
        fputs("\r\033[K", stderr);
    if (ok)
        report(s, results, peaks);
    free(results);
    return ok;
}

static int run_lengths(bench_state *s)
{
    lm_error err;
    bench_peaks peaks = {0};
    if (s->args->what == BENCH_STAGES) {
        fprintf(stderr, "peaks of this machine\n");
        if (!bench_measure_peaks(s->ctx, s->args->dtype, 0.3, &peaks, &err))
            return cli_fail_lm(&err);
        bench_report_peaks(s, &peaks);
    }
    for (int32_t i = 0; i < s->n_length; i++) {
        if (!run(s, s->length[i], &peaks, &err))
            return cli_fail_lm(&err);
        const int code = bench_write_files(s);
        if (code)
            return code;
    }
    return EXIT_DONE;
}

int cli_bench(int argc, char **argv)
{
    bench_args args;
    bool help;
    int code = bench_parse(argc, argv, &args, &help);
    if (code || help)
        return code;
    bench_state s = {.args = &args};
    bench_return_freed_memory();
    code = bench_load(&s);
    if (!code && !(s.report = bench_report_create(&s)))
        code = cli_fail(EXIT_RUN, "out of memory for the report");
    if (!code) {
        s.rows = cJSON_GetObjectItemCaseSensitive(s.report, "results");
        code = bench_write_files(&s); /* empty still: a folder that is not there is told now, not in an hour */
    }
    if (!code)
        code = run_lengths(&s);
    if (!code && args.base.json) {
        code = cli_print_json(s.report);
        s.report = NULL;
    }
    if (!code)
        code = bench_draw(&args);
    bench_unload(&s);
    return code;
}
