/* The three doors: check, cut the workspace, run the stages. */
#include <stdlib.h>
#include <string.h>

#include "api/check.h"
#include "core/arena.h"
#include "core/options.h"
#include "core/work.h"
#include "methods/methods.h"

/* ---------------------------------------------------------------------------------------------- the call ---- */

void prism_call_init(prism_call *call)
{
    if (!call)
        return;
    memset(call, 0, sizeof *call);
    call->struct_size = sizeof *call;
    call->n_seq = 1;
    call->q_start = -1;
}

/* The state's arrays, one after the other. */
static prism_status cut_pooled(int32_t n_kv_head, int32_t d_head, int32_t block_size, int32_t n_token_max, bool moments,
                               prism_arena *a, prism_pooled *out)
{
    if (n_kv_head < 1 || d_head < 1 || d_head > PRISM_MAX_D_HEAD || (block_size != 64 && block_size != 128) ||
        n_token_max < 1)
        return PRISM_ERROR_INVALID;
    const int64_t n_block = ((int64_t)n_token_max + block_size - 1) / block_size;
    *out = (prism_pooled){.struct_size = sizeof *out,
                          .n_kv_head = n_kv_head,
                          .d_head = d_head,
                          .block_size = block_size,
                          .n_token_max = n_token_max};
    out->key_sum = prism_arena_take(a, prism_arena_count(a, n_block, n_kv_head, d_head, 1), sizeof(float));
    if (moments)
        out->moments = prism_block_moments_cut(a, n_block, n_kv_head, d_head);
    return a->overflow ? PRISM_ERROR_INVALID : PRISM_OK;
}

static prism_status pooled_bytes(int32_t n_kv_head, int32_t d_head, int32_t block_size, int32_t n_token_max,
                                 bool moments, size_t *bytes)
{
    prism_arena a = {0};
    prism_pooled x;
    const prism_status status = cut_pooled(n_kv_head, d_head, block_size, n_token_max, moments, &a, &x);
    if (status || !bytes)
        return PRISM_ERROR_INVALID;
    *bytes = a.used;
    return PRISM_OK;
}

static prism_status pooled_init(prism_pooled *pooled, int32_t n_kv_head, int32_t d_head, int32_t block_size,
                                int32_t n_token_max, bool moments, void *memory, size_t bytes)
{
    size_t need;
    prism_arena a = {.base = memory};
    const prism_status status = pooled_bytes(n_kv_head, d_head, block_size, n_token_max, moments, &need);
    if (status || !pooled || !memory || (uintptr_t)memory % PRISM_ALIGN)
        return PRISM_ERROR_INVALID;
    if (bytes < need)
        return PRISM_ERROR_CAPACITY;
    return cut_pooled(n_kv_head, d_head, block_size, n_token_max, moments, &a, pooled);
}

prism_status prism_pooled_bytes(int32_t n_kv_head, int32_t d_head, int32_t block_size, int32_t n_token_max,
                                size_t *bytes)
{
    return pooled_bytes(n_kv_head, d_head, block_size, n_token_max, false, bytes);
}

prism_status prism_pooled_moments_bytes(int32_t n_kv_head, int32_t d_head, int32_t block_size, int32_t n_token_max,
                                        size_t *bytes)
{
    return pooled_bytes(n_kv_head, d_head, block_size, n_token_max, true, bytes);
}

prism_status prism_pooled_init(prism_pooled *pooled, int32_t n_kv_head, int32_t d_head, int32_t block_size,
                               int32_t n_token_max, void *memory, size_t bytes)
{
    return pooled_init(pooled, n_kv_head, d_head, block_size, n_token_max, false, memory, bytes);
}

prism_status prism_pooled_moments_init(prism_pooled *pooled, int32_t n_kv_head, int32_t d_head, int32_t block_size,
                                       int32_t n_token_max, void *memory, size_t bytes)
{
    return pooled_init(pooled, n_kv_head, d_head, block_size, n_token_max, true, memory, bytes);
}

/* --------------------------------------------------------------------------------------------- workspace ---- */

static bool corrects(const prism_options *o)
{
    return prism_options_correction(o) != PRISM_CORRECTION_NONE;
}

/* attends: the plan is attended in the same call, which needs what pruned blocks contribute. */
static bool needs_moments(const prism_options *o, bool attends)
{
    return prism_method_get(o->method)->needs_moments || (attends && corrects(o));
}

static void layout_plan_job(const prism_ctx *ctx, const prism_problem *p, const prism_options *o, bool attends,
                            prism_arena *a, prism_plan_job *job)
{
    const prism_backend *k = ctx->backend;
    const prism_method_impl *m = prism_method_get(o->method);
    if (needs_moments(o, attends)) /* first, for attend finds them there */
        job->moments = prism_arena_take(a, k->moments_bytes(p), 1);
    if (m->pools) {
        job->k_mean = prism_arena_take(a, k->means_bytes(p, true), 1);
        job->q_mean = prism_arena_take(a, k->means_bytes(p, false), 1);
    }
    if (m->list) {
        job->n_block = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_block);
        job->n_key = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_key);
    } else {
        job->bits = prism_arena_take(a, k->bits_bytes(p), 1);
    }
    job->scratch = prism_arena_take(a, m->scratch_bytes(ctx, p, o), 1);
}

/* Of a method with top_p. One band that keeps everything is enough. */
static bool keeps_all_mass(const prism_options *o)
{
    if (!prism_method_get(o->method)->needs_bands)
        return o->top_p >= 1;
    return prism_options_top_p(o, o->top_p_high) >= 1 || prism_options_top_p(o, o->top_p_low) >= 1;
}

static bool is_full(const prism_options *o)
{
    const prism_method_impl *m = prism_method_get(o->method);
    return !m->select || (o->method == PRISM_METHOD_MOMENTS && o->moments_error == 0) ||
           (prism_method_uses(o->method, "top_p") && keeps_all_mass(o));
}

static size_t plan_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o, bool attends)
{
    prism_arena a = {0};
    prism_plan_job job;
    if (!is_full(o))
        layout_plan_job(ctx, p, o, attends, &a, &job);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Scratch of attending, and before it the moments that a correction reads. */
static void *layout_attend(const prism_ctx *ctx, const prism_problem *p, bool is_corrected, prism_arena *a,
                           prism_plan_job *job)
{
    const prism_backend *k = ctx->backend;
    if (!is_corrected)
        return prism_arena_take(a, k->attend_bytes(ctx, p), 1);
    job->moments = prism_arena_take(a, k->moments_bytes(p), 1);
    return prism_arena_take(a, k->attend_corrected_bytes(ctx, p), 1);
}

static size_t attend_bytes(const prism_ctx *ctx, const prism_problem *p, bool is_corrected)
{
    prism_arena a = {0};
    prism_plan_job job;
    layout_attend(ctx, p, is_corrected, &a, &job);
    return a.overflow ? SIZE_MAX : a.used;
}

/* The call, and what of the options its problem carries. */
static prism_status check_call(prism_ctx *ctx, const prism_options *options, const prism_call *call, unsigned which,
                               prism_problem *p)
{
    const prism_status status = prism_check_call(ctx, call, options->block_size, which, p);
    p->precision = options->precision;
    return status;
}

prism_status prism_workspace_bytes(prism_ctx *ctx, const prism_options *options, const prism_call *call, size_t *bytes)
{
    prism_problem p;
    if (!ctx || !bytes)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "bytes is NULL");
    prism_status status = prism_check_options_struct(ctx, options);
    if (!status)
        status = check_call(ctx, options, call, PRISM_CHECK_SHAPE, &p);
    if (!status)
        status = prism_check_options(ctx, options, call->d_head);
    if (!status)
        status = prism_check_backend(ctx, &p, options);
    if (status)
        return status;
    const size_t plan = plan_bytes(ctx, &p, options, true), attend = attend_bytes(ctx, &p, corrects(options));
    const size_t need = plan > attend ? plan : attend;
    if (need == SIZE_MAX)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "this shape's workspace overflows");
    *bytes = need > PRISM_ALIGN ? need : PRISM_ALIGN;
    return PRISM_OK;
}

/* ------------------------------------------------------------------------------------------------- build ---- */

static bool every_sequence_is_short(const prism_problem *p, int32_t min_tokens)
{
    for (int32_t s = 0; s < p->call->n_seq; s++)
        if (prism_problem_seq(p, s).n_kv >= min_tokens)
            return false;
    return true;
}

static prism_status no_room_for_keys(prism_ctx *ctx, const prism_plan *plan, int64_t n_key)
{
    return prism_fail(ctx, PRISM_ERROR_CAPACITY, "the plan has room for %lld single keys; this call lists %lld",
                      (long long)plan->n_key_max, (long long)n_key);
}

/* From what the method selected. */
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
    return n_key > plan->n_key_max ? no_room_for_keys(ctx, plan, n_key)
                                   : prism_plan_no_room(ctx, plan, job->problem, n_selected);
}

/* What choosing takes, and a correction. */
static void count_flop(const prism_method_impl *m, const prism_plan_job *job, double *select, double *correct)
{
    const prism_problem *p = job->problem;
    const prism_correction by = prism_options_correction(job->options);
    *select = *correct = 0;
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        const int32_t n_pooled = p->call->pooled ? p->call->pooled[s].n_token : 0;
        if (q.n_q == 0 || q.n_kv < job->min_tokens)
            continue;
        *select += m->flop(p, job->options, &q, n_pooled);
        if (by == PRISM_CORRECTION_NONE)
            continue;
        *correct += prism_work_correct(p, &q, by == PRISM_CORRECTION_MOMENTS) +
                    (m->needs_moments ? 0 : prism_work_pool_moments(p, &q, n_pooled));
    }
}

/* The host's side of a sparse plan that the device is about to make. */
static bool begin_on_device(prism_ctx *ctx, const prism_problem *p, prism_plan *plan)
{
    if (!prism_plan_set_shape(plan, p))
        return false;
    plan->full = false;
    plan->path = PRISM_PATH_SPARSE;
    plan->stale = true;
    ctx->backend->other->plan_begin(ctx, p, plan);
    return true;
}

static prism_status set_full(prism_ctx *ctx, const prism_problem *p, prism_plan *plan, prism_path path)
{
    if (!prism_plan_set_shape(plan, p))
        return prism_plan_no_room(ctx, plan, p, 0);
    plan->full = true;
    plan->path = path;
    plan->stale = ctx->backend->other != NULL;
    if (plan->stale)
        ctx->backend->other->plan_begin(ctx, p, plan);
    else
        prism_plan_fill_full(plan);
    return PRISM_OK;
}

static void append_keys(prism_ctx *ctx, const prism_problem *p)
{
    if (p->call->pooled)
        ctx->backend->pool(ctx, &(prism_pool_job){.problem = p, .pooled = p->call->pooled, .reads_values = true});
}

static double pool_seconds(const prism_ctx *ctx)
{
    return ctx->backend->seconds(ctx, PRISM_MARK_POOL, PRISM_MARK_POOLED);
}

/* What the method has not pooled: a correction's moments, the keys that the caller's state lacks. */
static void pool_rest(const prism_plan_job *job, bool pools)
{
    if (!pools && job->moments)
        prism_pool(job, false, NULL);
    else if (!pools)
        append_keys(job->ctx, job->problem);
}

/* Values are read where the caller's state keeps moments, and queries where there are any. */
static prism_status check_pooled_values(prism_ctx *ctx, const prism_call *call, int32_t block_size)
{
    prism_problem p;
    if (!call->pooled || !call->pooled[0].moments.key)
        return PRISM_OK;
    return prism_check_call(ctx, call, block_size, call->q.data ? PRISM_CHECK_V | PRISM_CHECK_Q : PRISM_CHECK_V, &p);
}

static prism_status plan_build(prism_ctx *ctx, const prism_options *options, const prism_call *call, prism_plan *plan,
                               bool attends, void *workspace, size_t workspace_bytes)
{
    prism_problem p;
    if (!ctx || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL");
    if (plan->backend != ctx->backend)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was created for another device");
    prism_status status = prism_check_options_struct(ctx, options);
    if (!status)
        status = check_call(ctx, options, call, PRISM_CHECK_Q | PRISM_CHECK_K, &p);
    if (!status)
        status = prism_check_options(ctx, options, call->d_head);
    if (!status)
        status = prism_check_backend(ctx, &p, options);
    if (!status)
        status = prism_check_pooled(ctx, &p, needs_moments(options, true));
    if (!status)
        status = check_pooled_values(ctx, call, options->block_size);
    if (!status && !is_full(options))
        status = prism_check_workspace(ctx, workspace, workspace_bytes, plan_bytes(ctx, &p, options, attends));
    if (status)
        return status;

    const int32_t min_tokens = options->min_tokens >= 0 ? options->min_tokens : ctx->backend->min_tokens;
    const bool full = is_full(options);
    if (full || every_sequence_is_short(&p, min_tokens)) {
        status = set_full(ctx, &p, plan, full ? PRISM_PATH_DENSE : PRISM_PATH_DENSE_SHORT);
        if (!status) /* later chunks of this prompt may be sparse */
            append_keys(ctx, &p);
        return status ? status : prism_device_status(ctx);
    }
    const prism_method_impl *m = prism_method_get(options->method);
    prism_arena arena = {.base = workspace};
    prism_plan_job job = {.ctx = ctx, .problem = &p, .options = options, .min_tokens = min_tokens, .attends = attends};
    layout_plan_job(ctx, &p, options, attends, &arena, &job);
    double choosing, correcting;
    count_flop(m, &job, &choosing, &correcting);
    if (ctx->backend->other && !begin_on_device(ctx, &p, plan))
        return prism_plan_no_room(ctx, plan, &p, 0);
    m->select(&job);
    status = fill_plan(ctx, m, &job, plan);
    if (!status) {
        plan->select_flop = choosing + correcting;
        plan->correct_flop = correcting;
        plan->pools = (m->pools || m->needs_moments) && ctx->timed;
        plan->pool_seconds = plan->pools && !ctx->backend->other ? pool_seconds(ctx) : 0;
        plan->correct = prism_options_correction(options);
        pool_rest(&job, m->pools || m->needs_moments);
    }
    return status ? status : prism_device_status(ctx);
}

prism_status prism_plan_build(prism_ctx *ctx, const prism_options *options, const prism_call *call, prism_plan *plan,
                              void *workspace, size_t workspace_bytes)
{
    if (ctx)
        ctx->timed = !ctx->backend->other; /* on the CPU the clock costs nothing, and prism_plan_view reports it */
    return plan_build(ctx, options, call, plan, false, workspace, workspace_bytes);
}

/* ------------------------------------------------------------------------------------------------ attend ---- */

prism_status prism_pool_append(prism_ctx *ctx, const prism_call *call)
{
    prism_problem p;
    if (!ctx || !call || call->struct_size < sizeof *call || !call->pooled)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "call or call.pooled is NULL, or call.struct_size is not set");
    prism_status status = prism_check_call(ctx, call, call->pooled[0].block_size, PRISM_CHECK_K, &p);
    if (!status)
        status = prism_check_backend(ctx, &p, NULL);
    if (!status)
        status = prism_check_pooled(ctx, &p, false);
    if (!status)
        status = check_pooled_values(ctx, call, p.block_size);
    if (status)
        return status;
    append_keys(ctx, &p);
    return prism_device_status(ctx);
}

/* pooled: the moments stand in the workspace already. */
static void attend(prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, bool pooled, void *workspace)
{
    prism_arena a = {.base = workspace};
    prism_plan_job job = {.ctx = ctx, .problem = p, .attends = true};
    if (plan->correct == PRISM_CORRECTION_NONE) {
        ctx->backend->attend(ctx, p, plan, workspace);
        return;
    }
    void *scratch = layout_attend(ctx, p, true, &a, &job);
    if (!pooled)
        prism_pool(&job, false, NULL);
    ctx->backend->attend_corrected(ctx, &(prism_correct_job){
                                            .problem = p,
                                            .plan = plan,
                                            .moments = job.moments,
                                            .variances = plan->correct == PRISM_CORRECTION_MOMENTS,
                                            .scratch = scratch,
                                        });
}

prism_status prism_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, void *workspace,
                          size_t workspace_bytes)
{
    prism_problem p;
    if (!ctx || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL");
    if (plan->n_seq == 0)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan has not been built");
    if (plan->backend != ctx->backend)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was created for another device");
    prism_status status = prism_check_call(ctx, call, plan->block_size,
                                           PRISM_CHECK_Q | PRISM_CHECK_K | PRISM_CHECK_V | PRISM_CHECK_O, &p);
    p.precision = plan->precision;
    if (!status)
        status = prism_check_backend(ctx, &p, NULL);
    if (status)
        return status;
    if (!prism_plan_matches(plan, &p))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was built for another shape");
    const bool is_corrected = plan->correct != PRISM_CORRECTION_NONE;
    if (is_corrected)
        status = prism_check_pooled(ctx, &p, true);
    if (!status)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, attend_bytes(ctx, &p, is_corrected));
    if (status)
        return status;
    ctx->timed = false;
    attend(ctx, &p, plan, false, workspace);
    return prism_device_status(ctx);
}

/* Of a call that was timed; waits for the device. */
static prism_status read_stats(prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, prism_stats *stats)
{
    const prism_backend *k = ctx->backend;
    prism_plan_view view = {.struct_size = sizeof view};
    k->mark(ctx, PRISM_MARK_END);
    const double select = k->seconds(ctx, PRISM_MARK_START, PRISM_MARK_PLANNED);
    const double attend = k->seconds(ctx, PRISM_MARK_PLANNED, PRISM_MARK_END);
    prism_status status = prism_device_status(ctx);
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
    prism_problem p;
    if (!ctx || !plan || (stats && stats->struct_size < sizeof *stats))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL, or stats.struct_size is not set");
    /* All of attend's checks first: an error must leave nothing half done. */
    prism_status status = prism_check_options_struct(ctx, options);
    if (!status)
        status = check_call(ctx, options, call, PRISM_CHECK_Q | PRISM_CHECK_K | PRISM_CHECK_V | PRISM_CHECK_O, &p);
    if (!status)
        status = prism_check_options(ctx, options, call->d_head);
    if (!status)
        status = prism_check_backend(ctx, &p, options);
    if (!status)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, attend_bytes(ctx, &p, corrects(options)));
    if (status)
        return status;
    ctx->timed = stats != NULL;
    if (stats)
        ctx->backend->mark(ctx, PRISM_MARK_START);
    status = plan_build(ctx, options, call, plan, true, workspace, workspace_bytes);
    if (status)
        return status;
    if (stats)
        ctx->backend->mark(ctx, PRISM_MARK_PLANNED);
    attend(ctx, &p, plan, true, workspace);
    return stats ? read_stats(ctx, &p, plan, stats) : prism_device_status(ctx);
}
