/* A prompt through the whole model, method by method, in turns. */
#include <omp.h>
#include <stdlib.h>

#include "turns.h"

enum { PREFILL, SELECT, ATTEND, LINEAR };

/* Counts the work of every layer while a session runs. */
typedef struct counter {
    int32_t block_size;
    prism_call call; /* of the layer at work; its tensors are not looked at */
    double work_flop, dense_flop;
    bool failed;
} counter;

typedef struct setting {
    const lm_model *model;
    prism_ctx *ctx;
    const bench_spec *spec;
    bench_prefill_result *results;
} setting;

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
    if (prism_plan_read(plan, &view)) {
        c->failed = true;
        return;
    }
    c->work_flop += view.select_flop + bench_attend_flop(&c->call, c->block_size, &view);
    c->dense_flop += bench_attend_flop(&c->call, c->block_size, NULL);
}

static void read_stats(const lm_session *session, double seconds[BENCH_N_PART], bench_prefill_result *r)
{
    lm_session_stats stats;
    lm_session_read_stats(session, &stats);
    seconds[SELECT] = stats.select_seconds;
    seconds[ATTEND] = stats.attend_seconds;
    seconds[LINEAR] = stats.linear_seconds;
    r->density = stats.density;
    r->peak_bytes = stats.device_bytes ? (int64_t)stats.device_bytes : bench_peak_bytes();
}

/* One prefill. The session is created outside of the time, as an engine would have it ready. */
static bool run_once(void *user, int32_t i, double seconds[BENCH_N_PART], lm_error *err)
{
    const setting *s = user;
    const prism_options *method = &s->spec->methods[i].options;
    bench_prefill_result *r = &s->results[i];
    counter count = {.block_size = method->block_size};
    lm_session_options options;
    lm_session_options_init(&options);
    options.n_ctx = s->spec->n_token;
    options.chunk = s->spec->chunk;
    options.options = method;
    const bool counts = !r->work_flop; /* once: looking at every plan takes time on a GPU, and the count stays */
    if (counts) {
        options.on_call = note_call;
        options.on_plan = count_plan;
        options.user = &count;
    }
    bench_reset_peak();
    lm_session *session;
    if (!lm_session_create(s->model, s->ctx, &options, &session, err))
        return false;
    const double start = omp_get_wtime();
    const bool ok = lm_session_prefill(session, s->spec->tokens, s->spec->n_token, NULL, NULL, err);
    seconds[PREFILL] = omp_get_wtime() - start;
    read_stats(session, seconds, r);
    if (counts) {
        r->work_flop = count.work_flop;
        r->dense_flop = count.dense_flop;
    }
    lm_session_destroy(session);
    return ok && (!count.failed || lm_fail(err, LM_ERROR_RUN, "a plan of the model cannot be read"));
}

static void summarize(const setting *s, const bench_times *times)
{
    const int32_t n = s->spec->n_method, d = bench_first_dense(s->spec);
    for (int32_t i = 0; i < n; i++) {
        bench_prefill_result *r = &s->results[i];
        const bench_time *part = times[i].part;
        r->label = s->spec->methods[i].label;
        r->n_token = s->spec->n_token;
        r->prefill = part[PREFILL];
        r->select = part[SELECT];
        r->attend = part[ATTEND];
        r->linear = part[LINEAR];
        if (d < 0)
            continue;
        const bench_time *dense = times[d].part;
        r->speedup = dense[PREFILL].median / part[PREFILL].median;
        r->attention_speedup =
            (dense[SELECT].median + dense[ATTEND].median) / (part[SELECT].median + part[ATTEND].median);
    }
}

bool bench_prefill(const lm_model *model, prism_ctx *ctx, const bench_spec *spec, bench_prefill_result *results,
                   lm_error *err)
{
    setting s = {model, ctx, spec, results};
    bench_times *times = calloc((size_t)spec->n_method, sizeof *times);
    for (int32_t i = 0; i < spec->n_method; i++)
        results[i] = (bench_prefill_result){0};
    const bool ok = times ? bench_take_turns(spec, run_once, &s, times, err)
                          : lm_fail(err, LM_ERROR_MEMORY, "no memory for the times");
    if (ok)
        summarize(&s, times);
    free(times);
    return ok;
}
