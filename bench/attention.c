/* One attention call, method by method, in turns. */
#include <stdlib.h>
#include <sys/mman.h>

#include "bench_device.h"
#include "turns.h"

#include <prism_attn/prism_cuda.h>

enum { CALL, SELECT, POOL, ATTEND };
enum { BEGIN, PLANNED, END, N_MARK };

/* A method while it is measured. */
typedef struct runner {
    const bench_method *method;
    prism_options options; /* with bands */
    prism_bands bands;
    const char *kernel; /* of the last attention */
    prism_plan *plan;   /* the method's own */
    prism_plan *attended;
} runner;

/* What all methods share. */
typedef struct setting {
    prism_ctx *ctx;
    const bench_spec *spec;
    lm_backend *device; /* memory and time where ctx computes */
    prism_call call;
    prism_plan *imposed; /* NULL: every method attends over its own plan */
    void *workspace;
    size_t workspace_bytes;
    runner *runners;
    bench_times *times;
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
    r->method = &s->spec->methods[i];
    r->options = r->method->options;
    prism_status status = prism_bands_auto(&r->bands, &t->rope, r->options.block_size);
    if (status)
        return lm_fail(err, LM_ERROR_USAGE, "heads of %d dimensions cannot be split into bands: %s", t->d_head,
                       prism_status_name(status));
    r->options.bands = &r->bands;
    size_t bytes;
    status = prism_workspace_bytes(s->ctx, &r->options, &s->call, &bytes);
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
    const bench_spec *spec = s->spec;
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
    const bench_spec *spec = s->spec;
    if (spec->n_method < 1 || spec->n_token > t->n_token)
        return lm_fail(err, LM_ERROR_USAGE, "no methods, or %d tokens where there are %d", spec->n_token, t->n_token);
    s->runners = calloc((size_t)spec->n_method, sizeof *s->runners);
    s->times = calloc((size_t)spec->n_method, sizeof *s->times);
    if (!s->runners || !s->times)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for the times");
    if (!bench_device_open(s->ctx, t->dtype, &s->device, err) ||
        !s->device->ops->reserve_marks(s->device, N_MARK, err) ||
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
    free(s->times);
    if (s->device)
        s->device->ops->release(s->device, s->workspace);
    bench_device_close(s->device, s->ctx);
}

/* ------------------------------------------------------------------------------------------ measurement ---- */

static bool read_view(prism_ctx *ctx, prism_plan *plan, prism_plan_view *view)
{
    *view = (prism_plan_view){.struct_size = sizeof *view};
    return !prism_plan_fetch(ctx, plan) && !prism_plan_read(plan, view);
}

/* Seconds that pooling took in the last selection. A GPU is asked by a call of its own, for a clock would stand between
 * the stages. */
static prism_status pool_seconds(const setting *s, const runner *r, double *out)
{
    prism_plan_view view;
    prism_stats stats = {.struct_size = sizeof stats};
    if (s->device->on_host) {
        const bool ok = read_view(s->ctx, r->plan, &view);
        *out = view.pool_seconds;
        return ok ? PRISM_OK : PRISM_ERROR_INVALID;
    }
    const prism_status status =
        prism_attention(s->ctx, &r->options, &s->call, r->plan, s->workspace, s->workspace_bytes, &stats);
    *out = stats.pool_seconds;
    return status;
}

static bool run_once(void *user, int32_t i, double seconds[BENCH_N_PART], lm_error *err)
{
    const setting *s = user;
    runner *r = &s->runners[i];
    const lm_backend_ops *device = s->device->ops;
    device->mark(s->device, BEGIN);
    prism_status status = prism_plan_build(s->ctx, &r->options, &s->call, r->plan, s->workspace, s->workspace_bytes);
    device->mark(s->device, PLANNED);
    if (!status)
        status = prism_attend(s->ctx, &s->call, r->attended, s->workspace, s->workspace_bytes);
    device->mark(s->device, END);
    if (!device->finish(s->device, err))
        return false;
    r->kernel = prism_cuda_attend_kernel(s->ctx);
    if (!status)
        status = pool_seconds(s, r, &seconds[POOL]);
    seconds[SELECT] = device->seconds(s->device, BEGIN, PLANNED);
    seconds[CALL] = device->seconds(s->device, BEGIN, END);
    seconds[ATTEND] = seconds[CALL] - seconds[SELECT];
    return !status || fail(s->ctx, r, status, err);
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

static bool summarize(const setting *s, int32_t i, bench_attention_result *out, lm_error *err)
{
    const runner *r = &s->runners[i];
    const bench_time *time = s->times[i].part;
    prism_plan_view own, attended;
    if (!read_view(s->ctx, r->plan, &own) || !read_view(s->ctx, r->attended, &attended))
        return lm_fail(err, LM_ERROR_RUN, "%s: its plan cannot be read", r->method->label);
    const int32_t block_size = r->options.block_size;
    *out = (bench_attention_result){
        .label = r->method->label,
        .kernel = r->kernel,
        .n_token = s->spec->n_token,
        .path = attended.path,
        .pool = time[POOL],
        .select = time[SELECT],
        .attend = time[ATTEND],
        .call = time[CALL],
        .density = attended.density,
        .density_of_method = own.density,
        .n_listed = attended.n_selected + attended.n_key_selected,
        .select_flop = own.select_flop - own.correct_flop,
        .correct_flop = attended.correct_flop, /* an imposed plan has no correction */
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

bool bench_attention(prism_ctx *ctx, const bench_tensors *t, const bench_spec *spec, bench_attention_result *results,
                     lm_error *err)
{
    setting s = {.ctx = ctx, .spec = spec};
    bool ok = start(&s, t, err) && bench_take_turns(spec, run_once, &s, s.times, err);
    for (int32_t i = 0; ok && i < spec->n_method; i++)
        ok = summarize(&s, i, &results[i], err);
    const int32_t dense = bench_first_dense(spec);
    for (int32_t i = 0; ok && dense >= 0 && i < spec->n_method; i++)
        results[i].speedup = results[dense].call.median / results[i].call.median;
    finish(&s);
    return ok;
}
