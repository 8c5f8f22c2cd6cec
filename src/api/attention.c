/* Chooses and attends: checks, cuts the workspace, runs the stages. */
#include <string.h>

#include "api/request.h"
#include "core/arena.h"
#include "core/work.h"

void prism_call_init(prism_call *call)
{
    if (!call)
        return;
    memset(call, 0, sizeof *call);
    call->struct_size = sizeof *call;
    call->n_seq = 1;
    call->q_start = -1;
}

/* --------------------------------------------------------------------------------------------- workspace ---- */

static void layout_plan_job(prism_arena *a, prism_plan_job *job)
{
    const prism_backend *k = job->ctx->backend;
    const prism_problem *p = job->problem;
    const prism_method_impl *m = prism_method_get(job->options->method);
    if (prism_options_need_moments(job->options, job->attends)) /* first in the workspace: attend finds them there */
        job->moments = prism_arena_take(a, k->moments_bytes(p), 1);
    if (m->needs_means) {
        job->k_mean = prism_arena_take(a, k->means_bytes(p, true), 1);
        job->q_mean = prism_arena_take(a, k->means_bytes(p, false), 1);
    }
    if (m->list) {
        job->n_block = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_block);
        job->n_key = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_key);
    } else {
        job->bits = prism_arena_take(a, k->bits_bytes(p), 1);
    }
    job->scratch = prism_arena_take(a, m->scratch_bytes(job), 1);
}

static prism_plan_job plan_job(prism_ctx *ctx, const prism_request *r, bool attends, bool timed, prism_arena *a)
{
    prism_plan_job job = {.ctx = ctx,
                          .problem = &r->problem,
                          .options = r->options,
                          .min_tokens = r->min_tokens,
                          .attends = attends,
                          .timed = timed};
    layout_plan_job(a, &job);
    return job;
}

static size_t plan_bytes(prism_ctx *ctx, const prism_request *r, bool attends)
{
    prism_arena a = {0};
    if (!r->full)
        plan_job(ctx, r, attends, false, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Cuts the moments of a correction, then the stage's scratch. */
static prism_attend_job attend_job(const prism_ctx *ctx, const prism_request *r, const prism_plan *plan, prism_arena *a)
{
    prism_attend_job job = {.problem = &r->problem,
                            .plan = plan,
                            .corrects = r->correct != PRISM_CORRECTION_NONE,
                            .variances = r->correct == PRISM_CORRECTION_MOMENTS};
    if (job.corrects)
        job.moments = prism_arena_take(a, ctx->backend->moments_bytes(&r->problem), 1);
    job.scratch = prism_arena_take(a, ctx->backend->attend.bytes(ctx, &job), 1);
    return job;
}

static size_t attend_bytes(const prism_ctx *ctx, const prism_request *r)
{
    prism_arena a = {0};
    attend_job(ctx, r, NULL, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static size_t call_bytes(prism_ctx *ctx, const prism_request *r)
{
    return prism_max_bytes(plan_bytes(ctx, r, true), attend_bytes(ctx, r));
}

prism_status prism_workspace_bytes(prism_ctx *ctx, const prism_options *options, const prism_call *call, size_t *bytes)
{
    prism_request r;
    if (!ctx || !bytes)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "bytes is NULL");
    const prism_status status = prism_request_make(ctx, options, call, PRISM_CHECK_SHAPE, &r);
    if (status)
        return status;
    const size_t need = call_bytes(ctx, &r);
    if (need == SIZE_MAX)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "this shape's workspace overflows");
    *bytes = prism_max_bytes(need, PRISM_ALIGN);
    return PRISM_OK;
}

/* ------------------------------------------------------------------------------------------------- build ---- */

static bool every_sequence_is_short(const prism_request *r)
{
    for (int32_t s = 0; s < r->problem.call->n_seq; s++)
        if (prism_problem_seq(&r->problem, s).n_kv >= r->min_tokens)
            return false;
    return true;
}

/* Makes the plan from what the method selected. */
static prism_status fill_plan(prism_ctx *ctx, const prism_method_impl *m, const prism_plan_job *job, prism_plan *plan)
{
    int64_t n_selected, n_key = 0;
    if (!m->list)
        return ctx->backend->fill(ctx, job->problem, job->bits, plan, &n_selected)
                   ? PRISM_OK
                   : prism_plan_no_room(ctx, plan, job->problem, n_selected);
    if (prism_plan_open(plan, job->problem, job->n_block, job->n_key, &n_selected, &n_key)) {
        m->list(job, plan);
        return PRISM_OK;
    }
    if (n_key > plan->n_key_max)
        return prism_fail(ctx, PRISM_ERROR_CAPACITY, "the plan has room for %lld single keys; this call lists %lld",
                          (long long)plan->n_key_max, (long long)n_key);
    return prism_plan_no_room(ctx, plan, job->problem, n_selected);
}

typedef struct plan_flop {
    double choosing, correcting;
} plan_flop;

static plan_flop count_flop(const prism_request *r)
{
    const prism_problem *p = &r->problem;
    plan_flop f = {0, 0};
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        const int32_t n_pooled = p->call->pooled ? p->call->pooled[s].n_token : 0;
        if (q.n_q == 0 || q.n_kv < r->min_tokens)
            continue;
        f.choosing += r->method->flop(p, r->options, &q, n_pooled);
        if (r->correct == PRISM_CORRECTION_NONE)
            continue;
        f.correcting += prism_work_correct(p, &q, r->correct == PRISM_CORRECTION_MOMENTS) +
                        (r->method->needs_moments ? 0 : prism_work_pool_moments(p, &q, n_pooled));
    }
    return f;
}

/* Sets the host's side of a sparse plan that the device will make. */
static bool begin_on_device(prism_ctx *ctx, const prism_problem *p, prism_plan *plan)
{
    if (!prism_plan_set_shape(plan, p))
        return false;
    plan->full = false;
    plan->path = PRISM_PATH_SPARSE;
    plan->stale = true;
    ctx->backend->plan_begin(ctx, p, plan);
    return true;
}

static prism_status set_full(prism_ctx *ctx, const prism_request *r, prism_plan *plan)
{
    if (!prism_plan_set_shape(plan, &r->problem))
        return prism_plan_no_room(ctx, plan, &r->problem, 0);
    plan->full = true;
    plan->path = r->full ? PRISM_PATH_DENSE : PRISM_PATH_DENSE_SHORT;
    plan->stale = true;
    ctx->backend->plan_begin(ctx, &r->problem, plan);
    if (!plan->stale)
        prism_plan_fill_full(plan);
    return PRISM_OK;
}

static double pool_seconds(const prism_ctx *ctx)
{
    return ctx->backend->seconds(ctx, PRISM_MARK_POOL, PRISM_MARK_POOLED);
}

static void append_keys(prism_ctx *ctx, const prism_problem *p)
{
    if (p->call->pooled)
        ctx->backend->pool(ctx, &(prism_pool_job){.problem = p, .pooled = p->call->pooled, .reads_values = true});
}

/* Pools what the method has not pooled: the moments of a correction, or the keys that the caller's state lacks. */
static void pool_rest(const prism_plan_job *job)
{
    if (job->moments)
        prism_pool(job, false, NULL);
    else
        append_keys(job->ctx, job->problem);
}

static prism_status build_sparse(prism_ctx *ctx, const prism_request *r, prism_plan *plan, bool attends, bool timed,
                                 void *workspace)
{
    const prism_method_impl *m = r->method;
    const bool pools = m->needs_means || m->needs_moments;
    prism_arena arena = {.base = workspace};
    const prism_plan_job job = plan_job(ctx, r, attends, timed, &arena);
    const plan_flop flop = count_flop(r); /* counted before keys are appended */
    if (ctx->backend->own_memory && !begin_on_device(ctx, &r->problem, plan))
        return prism_plan_no_room(ctx, plan, &r->problem, 0);
    m->select(&job);
    const prism_status status = fill_plan(ctx, m, &job, plan);
    if (status)
        return status;
    plan->select_flop = flop.choosing + flop.correcting;
    plan->correct_flop = flop.correcting;
    plan->pools = pools && timed;
    plan->pool_seconds = plan->pools && !ctx->backend->own_memory ? pool_seconds(ctx) : 0;
    plan->correct = r->correct;
    if (!pools)
        pool_rest(&job);
    return PRISM_OK;
}

/* attends: the plan is attended in the same call. */
static prism_status build(prism_ctx *ctx, const prism_request *r, prism_plan *plan, bool attends, bool timed,
                          void *workspace)
{
    prism_status status;
    if (r->full || every_sequence_is_short(r)) {
        status = set_full(ctx, r, plan);
        if (!status) /* later chunks of this prompt may be sparse */
            append_keys(ctx, &r->problem);
    } else {
        status = build_sparse(ctx, r, plan, attends, timed, workspace);
    }
    return status ? status : ctx->backend->status(ctx);
}

prism_status prism_plan_build(prism_ctx *ctx, const prism_options *options, const prism_call *call, prism_plan *plan,
                              void *workspace, size_t workspace_bytes)
{
    prism_request r;
    prism_status status = prism_check_plan(ctx, plan);
    if (!status)
        status = prism_request_make(ctx, options, call, PRISM_CHECK_Q | PRISM_CHECK_K, &r);
    if (!status && !r.full)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, plan_bytes(ctx, &r, false));
    if (status)
        return status;
    /* Reading the host's clock is cheap, and prism_plan_view reports the time. */
    return build(ctx, &r, plan, false, !ctx->backend->own_memory, workspace);
}

/* ------------------------------------------------------------------------------------------------ attend ---- */

/* pooled: the workspace already holds the moments. */
static void attend(prism_ctx *ctx, const prism_request *r, const prism_plan *plan, bool pooled, void *workspace)
{
    prism_arena a = {.base = workspace};
    const prism_attend_job job = attend_job(ctx, r, plan, &a);
    if (job.corrects && !pooled)
        prism_pool(
            &(prism_plan_job){.ctx = ctx, .problem = &r->problem, .attends = true, .moments = job.moments}, false,
            NULL);
    ctx->backend->attend.run(ctx, &job);
}

prism_status prism_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, void *workspace,
                          size_t workspace_bytes)
{
    prism_request r;
    prism_status status = prism_check_plan(ctx, plan);
    if (!status && plan->n_seq == 0)
        status = prism_fail(ctx, PRISM_ERROR_INVALID, "the plan has not been built");
    if (!status)
        status = prism_request_attend(ctx, call, plan, &r);
    if (!status)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, attend_bytes(ctx, &r));
    if (status)
        return status;
    attend(ctx, &r, plan, false, workspace);
    return ctx->backend->status(ctx);
}

/* Fills the statistics of a timed call. Waits for the device. */
static prism_status read_stats(prism_ctx *ctx, const prism_problem *p, prism_plan *plan, prism_stats *stats)
{
    const prism_backend *k = ctx->backend;
    prism_plan_view view = {.struct_size = sizeof view};
    k->mark(ctx, PRISM_MARK_END);
    const double select = k->seconds(ctx, PRISM_MARK_START, PRISM_MARK_PLANNED);
    const double attend = k->seconds(ctx, PRISM_MARK_PLANNED, PRISM_MARK_END);
    prism_status status = k->status(ctx);
    if (!status)
        status = prism_plan_fetch(ctx, plan);
    if (!status)
        status = prism_plan_read(plan, &view);
    if (status)
        return status;
    *stats = (prism_stats){.struct_size = stats->struct_size,
                           .select_seconds = select,
                           .attend_seconds = attend,
                           .n_selected = (int64_t)(view.density * (double)view.n_causal + 0.5),
                           .n_causal = view.n_causal,
                           .density = view.density,
                           .path = view.path,
                           .work_flop = view.select_flop + prism_work_attend(p, plan),
                           .dense_flop = prism_work_attend(p, NULL),
                           .pool_seconds = plan->pools ? pool_seconds(ctx) : 0};
    return PRISM_OK;
}

prism_status prism_attention(prism_ctx *ctx, const prism_options *options, const prism_call *call, prism_plan *plan,
                             void *workspace, size_t workspace_bytes, prism_stats *stats)
{
    prism_request r;
    prism_status status = prism_check_plan(ctx, plan);
    if (!status && stats && stats->struct_size < sizeof *stats)
        status = prism_fail(ctx, PRISM_ERROR_INVALID, "stats.struct_size is not set");
    if (!status) /* with attend's checks: an error must leave nothing half done */
        status = prism_request_make(ctx, options, call, PRISM_CHECK_ALL, &r);
    if (!status)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, call_bytes(ctx, &r));
    if (status)
        return status;
    if (stats)
        ctx->backend->mark(ctx, PRISM_MARK_START);
    status = build(ctx, &r, plan, true, stats != NULL, workspace);
    if (status)
        return status;
    if (stats)
        ctx->backend->mark(ctx, PRISM_MARK_PLANNED);
    r.correct = plan->correct; /* a full plan has nothing to correct */
    attend(ctx, &r, plan, true, workspace);
    return stats ? read_stats(ctx, &r.problem, plan, stats) : ctx->backend->status(ctx);
}
