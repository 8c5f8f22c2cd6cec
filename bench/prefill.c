/* A prompt through the whole model, method by method, in turns. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { PREFILL, SELECT, ATTEND, LINEAR, n_sample };

typedef struct runner {
    double *samples[n_sample]; /* [reps] */
    int32_t n;
    double spent;
    bool warmed, warm, done;
} runner;

/* Counts the work of every layer while a session runs. */
typedef struct counter {
    int32_t block_size;
    prism_call call; /* of the layer at work; its tensors are not looked at */
    double work_flop, dense_flop;
} counter;

static void note_call(void *user, int32_t layer, const prism_call *call)
{
    (void)layer;
    ((counter *)user)->call = *call;
}

static void count_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan)
{
    (void)layer;
    counter *c = user;
    prism_plan_view view = {.struct_size = sizeof view};
    c->call.q_start = q_start;
    if (prism_plan_read(plan, &view))
        return;
    c->work_flop += view.select_flop + bench_attend_flop(&c->call, c->block_size, &view);
    c->dense_flop += bench_attend_flop(&c->call, c->block_size, NULL);
}

/* One prefill. The session is created outside of the time, as an engine would have it ready. */
static bool run_session(const lm_model *model, prism_ctx *ctx, const bench_prefill_spec *spec,
                        const bench_method *method, double seconds[n_sample], bench_prefill_result *r, lm_error *err)
{
    counter count = {.block_size = method->options.block_size};
    lm_session_options options;
    lm_session_options_init(&options);
    options.n_ctx = spec->n_token;
    options.chunk = spec->chunk;
    options.options = &method->options;
    if (!r->work_flop) { /* once: on a GPU looking at every plan takes time, and the count is always the same */
        options.on_call = note_call;
        options.on_plan = count_plan;
        options.user = &count;
    }
    bench_reset_peak();
    lm_session *session;
    if (!lm_session_create(model, ctx, &options, &session, err))
        return false;
    const double start = bench_now();
    const bool ok = lm_session_prefill(session, spec->tokens, spec->n_token, NULL, NULL, err);
    seconds[PREFILL] = bench_now() - start;
    lm_session_stats stats;
    lm_session_read_stats(session, &stats);
    seconds[SELECT] = stats.select_seconds;
    seconds[ATTEND] = stats.attend_seconds;
    seconds[LINEAR] = stats.linear_seconds;
    r->density = stats.density;
    if (!r->work_flop) {
        r->work_flop = count.work_flop;
        r->dense_flop = count.dense_flop;
    }
    r->peak_bytes = stats.device_bytes ? (int64_t)stats.device_bytes : bench_peak_bytes();
    lm_session_destroy(session);
    return ok;
}

static bool run_once(const lm_model *model, prism_ctx *ctx, const bench_prefill_spec *spec, int32_t i, runner *r,
                     bench_prefill_result *result, lm_error *err)
{
    double seconds[n_sample];
    if (!run_session(model, ctx, spec, &spec->methods[i], seconds, result, err))
        return false;
    const bool warms_up = !r->warmed;
    r->warmed = true;
    if (warms_up && seconds[PREFILL] <= spec->limits.seconds)
        return true;
    r->warm = !warms_up;
    for (int k = 0; k < n_sample; k++)
        r->samples[k][r->n] = seconds[k];
    r->n++;
    r->spent += seconds[PREFILL];
    r->done = warms_up || r->n == spec->limits.reps || r->spent >= spec->limits.seconds;
    return true;
}

static bool run_rounds(const lm_model *model, prism_ctx *ctx, const bench_prefill_spec *spec, runner *runners,
                       bench_prefill_result *results, lm_error *err)
{
    const int32_t n_round = spec->limits.reps + 1;
    for (int32_t round = 0; round < n_round; round++)
        for (int32_t i = 0; i < spec->n_method; i++) {
            if (runners[i].done)
                continue;
            if (spec->progress)
                spec->progress(spec->user, spec->methods[i].label, spec->n_token, round, n_round);
            if (!run_once(model, ctx, spec, i, &runners[i], &results[i], err))
                return false;
        }
    return true;
}

static void summarize(const bench_prefill_spec *spec, const runner *runners, bench_prefill_result *results)
{
    const bench_prefill_result *dense = NULL;
    for (int32_t i = 0; i < spec->n_method; i++) {
        bench_prefill_result *r = &results[i];
        const runner *run = &runners[i];
        r->label = spec->methods[i].label;
        r->n_token = spec->n_token;
        r->prefill = bench_summarize(run->samples[PREFILL], run->n, run->warm);
        r->select = bench_summarize(run->samples[SELECT], run->n, run->warm);
        r->attend = bench_summarize(run->samples[ATTEND], run->n, run->warm);
        r->linear = bench_summarize(run->samples[LINEAR], run->n, run->warm);
        if (!dense && spec->methods[i].options.method == PRISM_METHOD_DENSE)
            dense = r;
    }
    for (int32_t i = 0; dense && i < spec->n_method; i++) {
        bench_prefill_result *r = &results[i];
        r->speedup = dense->prefill.median / r->prefill.median;
        r->attention_speedup = (dense->select.median + dense->attend.median) / (r->select.median + r->attend.median);
    }
}

bool bench_prefill(const lm_model *model, prism_ctx *ctx, const bench_prefill_spec *spec, bench_prefill_result *results,
                   lm_error *err)
{
    if (spec->n_method < 1 || spec->limits.reps < 1 || spec->n_token < 1)
        return lm_fail(err, LM_ERROR_USAGE, "no methods, no repetitions or no tokens");
    const size_t n = (size_t)spec->n_method, reps = (size_t)spec->limits.reps;
    runner *runners = calloc(n, sizeof *runners);
    double *samples = malloc(n * n_sample * reps * sizeof *samples);
    bool ok = runners && samples;
    if (!ok)
        lm_fail(err, LM_ERROR_MEMORY, "no memory for the samples");
    for (size_t i = 0; ok && i < n; i++)
        for (size_t k = 0; k < n_sample; k++)
            runners[i].samples[k] = samples + (i * n_sample + k) * reps;
    memset(results, 0, n * sizeof *results);
    ok = ok && run_rounds(model, ctx, spec, runners, results, err);
    if (ok)
        summarize(spec, runners, results);
    free(samples);
    free(runners);
    return ok;
}
