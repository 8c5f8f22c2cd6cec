/* One attention call, method by method, in turns. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "device.h"

/* A method while it is measured. */
typedef struct runner {
    const bench_method *method;
    prism_options options; /* with bands */
    prism_bands bands;
    prism_plan *plan; /* the method's own */
    const prism_plan *attended;
    double *pool, *select, *attend, *call; /* [reps] */
    int32_t n;
    double spent;
    bool warmed, warm, done;
} runner;

/* What all methods share. */
typedef struct setting {
    prism_ctx *ctx;
    const bench_attention_spec *spec;
    lm_backend *device; /* memory and time where ctx computes */
    prism_call call;
    prism_plan *imposed; /* NULL: every method attends over its own plan */
    void *workspace;
    size_t workspace_bytes;
    double *samples;
    runner *runners;
} setting;

static bool fail(prism_ctx *ctx, const runner *r, prism_status status, lm_error *err)
{
    const lm_error_kind kind = status == PRISM_ERROR_MEMORY                                         ? LM_ERROR_MEMORY
                               : status == PRISM_ERROR_INVALID || status == PRISM_ERROR_UNSUPPORTED ? LM_ERROR_USAGE
                                                                                                    : LM_ERROR_RUN;
    const char *text = prism_last_error(ctx);
    return lm_fail(err, kind, "%s: %s", r->method->label, text[0] ? text : prism_status_name(status));
}

/* ----------------------------------------------------------------------------------------------- set-up ---- */

static bool start_runner(setting *s, const bench_tensors *t, int32_t i, lm_error *err)
{
    runner *r = &s->runners[i];
    const size_t reps = (size_t)s->spec->limits.reps;
    r->method = &s->spec->methods[i];
    r->options = r->method->options;
    if (!r->options.bands) {
        if (!bench_tensors_bands(t, r->options.block_size, &r->bands, err))
            return false;
        r->options.bands = &r->bands;
    }
    double *samples = s->samples + (size_t)i * 4 * reps;
    r->pool = samples;
    r->select = samples + reps;
    r->attend = samples + 2 * reps;
    r->call = samples + 3 * reps;
    size_t bytes;
    prism_status status = prism_workspace_bytes(s->ctx, &r->options, &s->call, &bytes);
    if (!status)
        status = prism_plan_create(s->ctx, &s->call, r->options.block_size, 0, &r->plan);
    if (status)
        return fail(s->ctx, r, status, err);
    s->workspace_bytes = bytes > s->workspace_bytes ? bytes : s->workspace_bytes;
    const bool own = !s->spec->density || r->options.method == PRISM_METHOD_DENSE;
    r->attended = own ? r->plan : s->imposed;
    return true;
}

static bool impose(setting *s, lm_error *err)
{
    const bench_attention_spec *spec = s->spec;
    const int32_t block_size = spec->methods[0].options.block_size;
    if (!spec->density)
        return true;
    for (int32_t i = 1; i < spec->n_method; i++)
        if (spec->methods[i].options.block_size != block_size)
            return lm_fail(err, LM_ERROR_USAGE, "an imposed density wants one block size for all methods");
    if (prism_plan_create(s->ctx, &s->call, block_size, 0, &s->imposed))
        return lm_fail(err, LM_ERROR_MEMORY, "%s", prism_last_error(s->ctx));
    return bench_impose_density(s->ctx, &s->call, block_size, spec->density, spec->seed, s->imposed, err);
}

static bool start(setting *s, const bench_tensors *t, lm_error *err)
{
    const bench_attention_spec *spec = s->spec;
    if (spec->n_method < 1 || spec->limits.reps < 1 || spec->n_token < 1 || spec->n_token > t->n_token)
        return lm_fail(err, LM_ERROR_USAGE, "no methods, no repetitions, or %d tokens where there are %d",
                       spec->n_token, t->n_token);
    s->runners = calloc((size_t)spec->n_method, sizeof *s->runners);
    s->samples = malloc((size_t)spec->n_method * 4 * (size_t)spec->limits.reps * sizeof *s->samples);
    if (!s->runners || !s->samples)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for the samples");
    if (!bench_device_open(s->ctx, t->dtype, &s->device, err) || !s->device->ops->reserve_marks(s->device, 3, err) ||
        !bench_device_call(s->device, t, spec->n_token, &s->call, err) || !impose(s, err))
        return false;
    for (int32_t i = 0; i < spec->n_method; i++)
        if (!start_runner(s, t, i, err))
            return false;
    s->workspace = s->device->ops->allocate(s->device, s->workspace_bytes + 64);
    return s->workspace || lm_fail(err, LM_ERROR_MEMORY, "no memory for %zu bytes of workspace", s->workspace_bytes);
}

static void finish(setting *s)
{
    for (int32_t i = 0; s->runners && i < s->spec->n_method; i++)
        prism_plan_destroy(s->runners[i].plan);
    prism_plan_destroy(s->imposed);
    free(s->runners);
    free(s->samples);
    if (s->device)
        s->device->ops->release(s->device, s->workspace);
    bench_device_close(s->device, s->ctx);
}

/* ------------------------------------------------------------------------------------------ measurement ---- */

static bool read_view(const prism_plan *plan, prism_plan_view *view)
{
    *view = (prism_plan_view){.struct_size = sizeof *view};
    return !prism_plan_read(plan, view);
}

/* Of the last selection. A GPU is asked by a call of its own: there the clock would stand between the stages. */
static prism_status pool_seconds(const setting *s, const runner *r, double *out)
{
    prism_plan_view view;
    prism_stats stats = {.struct_size = sizeof stats};
    if (s->device->on_host) {
        const bool ok = read_view(r->plan, &view);
        *out = view.pool_seconds;
        return ok ? PRISM_OK : PRISM_ERROR_INVALID;
    }
    const prism_status status =
        prism_attention(s->ctx, &r->options, &s->call, r->plan, s->workspace, s->workspace_bytes, &stats);
    *out = stats.pool_seconds;
    return status;
}

static bool run_once(const setting *s, runner *r, lm_error *err)
{
    const bench_limits *limits = &s->spec->limits;
    const lm_backend_ops *device = s->device->ops;
    if (!device->reserve_marks(s->device, 3, err))
        return false;
    const int32_t begin = device->mark(s->device);
    prism_status status = prism_plan_build(s->ctx, &r->options, &s->call, r->plan, s->workspace, s->workspace_bytes);
    const int32_t planned = device->mark(s->device);
    if (!status)
        status = prism_attend(s->ctx, &s->call, r->attended, s->workspace, s->workspace_bytes);
    const int32_t end = device->mark(s->device);
    if (!device->finish(s->device, err))
        return false;
    if (!status)
        status = pool_seconds(s, r, &r->pool[r->n]);
    if (status)
        return fail(s->ctx, r, status, err);
    const double select = device->seconds(s->device, begin, planned), call = device->seconds(s->device, begin, end);
    const bool warms_up = !r->warmed;
    r->warmed = true;
    if (warms_up && call <= limits->seconds)
        return true;
    r->warm = !warms_up;
    r->select[r->n] = select;
    r->attend[r->n] = call - select;
    r->call[r->n++] = call;
    r->spent += call;
    r->done = warms_up || r->n == limits->reps || r->spent >= limits->seconds;
    return true;
}

static bool run_rounds(const setting *s, lm_error *err)
{
    const bench_attention_spec *spec = s->spec;
    const int32_t n_round = spec->limits.reps + 1;
    for (int32_t round = 0; round < n_round; round++)
        for (int32_t i = 0; i < spec->n_method; i++) {
            runner *r = &s->runners[i];
            if (r->done)
                continue;
            if (spec->progress)
                spec->progress(spec->user, r->method->label, spec->n_token, round, n_round);
            if (!run_once(s, r, err))
                return false;
        }
    return true;
}

/* Resident memory that one selection adds, on a workspace and a plan that nobody has touched. The library allocates
 * nothing in a call, so what was added is still there afterwards. -1: the system does not tell. */
static int64_t select_peak(const setting *s, const runner *r)
{
    prism_plan *plan;
    if (!s->device->on_host)
        return -1;
    void *fresh = mmap(NULL, s->workspace_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return -1;
    int64_t added = -1;
    bench_return_freed_memory();
    if (!prism_plan_create(s->ctx, &s->call, r->options.block_size, 0, &plan)) {
        const bool resets = bench_reset_peak();
        const int64_t before = bench_resident_bytes();
        if (!prism_plan_build(s->ctx, &r->options, &s->call, plan, fresh, s->workspace_bytes) && before >= 0) {
            const int64_t after = bench_resident_bytes(), peak = resets ? bench_peak_bytes() : after;
            added = (peak > after ? peak : after) - before;
        }
        prism_plan_destroy(plan);
    }
    munmap(fresh, s->workspace_bytes);
    return added;
}

/* ---------------------------------------------------------------------------------------------- results ---- */

static bool summarize(const setting *s, const runner *r, bench_attention_result *out, lm_error *err)
{
    prism_plan_view own, attended;
    if (!read_view(r->plan, &own) || !read_view(r->attended, &attended))
        return lm_fail(err, LM_ERROR_RUN, "%s: its plan cannot be read", r->method->label);
    const int32_t block_size = r->options.block_size;
    *out = (bench_attention_result){
        .label = r->method->label,
        .n_token = s->spec->n_token,
        .path = attended.path,
        .pool = bench_summarize(r->pool, r->n, r->warm),
        .select = bench_summarize(r->select, r->n, r->warm),
        .attend = bench_summarize(r->attend, r->n, r->warm),
        .call = bench_summarize(r->call, r->n, r->warm),
        .density = attended.density,
        .density_of_method = own.density,
        .n_listed = attended.n_selected + attended.n_key_selected,
        .select_flop = own.select_flop,
        .attend_flop = bench_attend_flop(&s->call, block_size, &attended),
        .dense_flop = bench_attend_flop(&s->call, block_size, NULL),
        .select_peak_bytes = s->spec->measures_memory ? select_peak(s, r) : -1,
    };
    prism_options dense = r->options; /* plans without a workspace: what is left is attention's */
    dense.method = PRISM_METHOD_DENSE;
    const prism_status status = prism_workspace_bytes(s->ctx, &r->options, &s->call, &out->workspace_bytes);
    return (!status && !prism_workspace_bytes(s->ctx, &dense, &s->call, &out->attend_workspace_bytes)) ||
           fail(s->ctx, r, status, err);
}

static void compare(const setting *s, bench_attention_result *results)
{
    const bench_attention_result *dense = NULL;
    for (int32_t i = 0; i < s->spec->n_method; i++)
        if (!dense && s->runners[i].options.method == PRISM_METHOD_DENSE)
            dense = &results[i];
    for (int32_t i = 0; dense && i < s->spec->n_method; i++)
        results[i].speedup = dense->call.median / results[i].call.median;
}

bool bench_attention(prism_ctx *ctx, const bench_tensors *t, const bench_attention_spec *spec,
                     bench_attention_result *results, lm_error *err)
{
    setting s = {.ctx = ctx, .spec = spec};
    bool ok = start(&s, t, err) && run_rounds(&s, err);
    for (int32_t i = 0; ok && i < spec->n_method; i++)
        ok = summarize(&s, &s.runners[i], &results[i], err);
    if (ok)
        compare(&s, results);
    finish(&s);
    return ok;
}
