#include "api/request.h"

#include <float.h>
#include <stdio.h>
#include <unistd.h>

#include "core/arena.h"

/* -------------------------------------------------------------------------------------------- options ---- */

static bool band_fits(const int16_t *dim, int32_t n, int32_t d_head)
{
    if (n < 0 || n > d_head)
        return false;
    for (int32_t j = 0; j < n; j++)
        if (dim[j] <= (j ? dim[j - 1] : -1) || dim[j] >= d_head)
            return false;
    return true;
}

/* Checks that the struct can be read, before anything reads it. */
static prism_status check_options_struct(prism_ctx *ctx, const prism_options *options)
{
    if (!options)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "options is NULL");
    if (options->struct_size < sizeof *options)
        return prism_fail(ctx, PRISM_ERROR_INVALID,
                          "options.struct_size is %zu, expected %zu: use prism_options_init()", options->struct_size,
                          sizeof *options);
    return PRISM_OK;
}

static prism_status check_options(prism_ctx *ctx, const prism_options *options, int32_t d_head)
{
    const char *name = prism_method_name(options->method);
    prism_option_problem problem;
    if (!prism_options_fit(options, &problem))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "options.%s is %g: %s", problem.name, problem.value, problem.wanted);
    if (!prism_method_get(options->method)->needs_bands)
        return PRISM_OK;
    const prism_bands *b = options->bands;
    if (!b)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "options.bands is NULL: method %s needs them (prism_bands_auto())",
                          name);
    if (b->d_head != d_head || !band_fits(b->high, b->n_high, d_head) || !band_fits(b->low, b->n_low, d_head) ||
        b->n_high + b->n_low == 0)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "options.bands do not describe a head of %d dimensions, in ascending order", d_head);
    return PRISM_OK;
}

/* ------------------------------------------------------------------------------- what the backend refuses ---- */

static prism_status check_stage(prism_ctx *ctx, const prism_problem *p, prism_stage stage)
{
    const char *sentence = ctx->backend->refuses(ctx, p, stage);
    return sentence ? prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "%s: %s", ctx->backend->name, sentence) : PRISM_OK;
}

static prism_status check_backend(prism_ctx *ctx, const prism_request *r)
{
    const bool chooses = r->method && r->method->select;
    prism_status status = check_stage(ctx, &r->problem, PRISM_STAGE_ATTEND);
    if (!status && r->correct != PRISM_CORRECTION_NONE && (chooses || !r->method))
        status = check_stage(ctx, &r->problem, PRISM_STAGE_CORRECT);
    if (!status && chooses)
        status = check_stage(ctx, &r->problem, r->method->stage);
    return status;
}

/* --------------------------------------------------------------------------------------------- pooled ---- */

/* Whether all arrays are there, or none. */
static bool has_whole_moments(const prism_block_moments *m)
{
    const void *const all[] = {m->key, m->variance, m->value, m->log_count, m->query_sum, m->n_query, m->covariance};
    int32_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        n += all[i] != NULL;
    return n == 0 || n == sizeof all / sizeof *all;
}

static prism_status check_pooled_state(prism_ctx *ctx, const prism_problem *p, int32_t s, bool needs_moments)
{
    const prism_call *c = p->call;
    const prism_pooled *x = &c->pooled[s];
    const int32_t n_kv = prism_problem_seq(p, s).n_kv;
    if (x->struct_size < sizeof *x || !x->key_sum || x->n_kv_head != c->n_kv_head || x->d_head != c->d_head ||
        x->block_size != p->block_size)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "pooled[%d] was not initialised for this shape", s);
    if (!has_whole_moments(&x->moments) || !x->moments.key != !c->pooled[0].moments.key)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "pooled[%d] keeps a part of the moments, or not what others do", s);
    if (needs_moments && !x->moments.key)
        return prism_fail(ctx, PRISM_ERROR_INVALID,
                          "pooled[%d] keeps no moments, which the method or the correction needs: give "
                          "prism_pooled_init() the same options",
                          s);
    if (x->n_token < 0 || x->n_token > n_kv)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "pooled[%d] holds %d keys, past the last query's %d", s, x->n_token,
                          n_kv);
    if (x->n_token_max < n_kv)
        return prism_fail(ctx, PRISM_ERROR_CAPACITY, "pooled[%d] has room for %d keys of %d", s, x->n_token_max, n_kv);
    return PRISM_OK;
}

static prism_status check_pooled(prism_ctx *ctx, const prism_problem *p, bool needs_moments)
{
    const prism_call *c = p->call;
    if (c->pooled && p->device_lengths)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "pooled keys need lengths that the host knows");
    for (int32_t s = 0; c->pooled && s < c->n_seq; s++) {
        const prism_status status = check_pooled_state(ctx, p, s, needs_moments);
        if (status)
            return status;
    }
    return PRISM_OK;
}

/* Returns what pooling reads beside keys: a state with moments needs values, and queries if there are any. */
static unsigned pooling_reads(const prism_call *call)
{
    if (!call || call->struct_size < sizeof *call || !call->pooled || !call->pooled[0].moments.key)
        return 0;
    return PRISM_CHECK_V | (call->q.data ? PRISM_CHECK_Q : 0);
}

/* ------------------------------------------------------------------------------------------- requests ---- */

/* A child of fork() has none of its parent's threads, and OpenMP would wait for them. */
static void leave_parents_threads(prism_ctx *ctx)
{
    if (ctx && ctx->process != getpid())
        ctx->n_thread = 1;
}

prism_status prism_request_make(prism_ctx *ctx, const prism_options *options, const prism_call *call, unsigned which,
                                prism_request *out)
{
    leave_parents_threads(ctx);
    prism_status status = check_options_struct(ctx, options);
    if (!status)
        status = prism_check_call(ctx, call, options->block_size, which ? which | pooling_reads(call) : which,
                                  &out->problem);
    if (!status)
        status = check_options(ctx, options, call->d_head);
    if (status)
        return status;
    out->problem.precision = options->precision;
    out->options = options;
    out->method = prism_method_get(options->method);
    out->correct = prism_options_correction(options);
    out->min_tokens = options->min_tokens >= 0 ? options->min_tokens : ctx->backend->min_tokens;
    out->full = prism_options_are_full(options);
    status = check_backend(ctx, out);
    if (!status && which)
        status = check_pooled(ctx, &out->problem, prism_options_need_moments(options, true));
    return status;
}

prism_status prism_request_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, prism_request *out)
{
    leave_parents_threads(ctx);
    *out = (prism_request){.correct = plan->correct};
    prism_status status = prism_check_call(ctx, call, plan->block_size, PRISM_CHECK_ALL, &out->problem);
    out->problem.precision = plan->precision;
    if (!status)
        status = check_backend(ctx, out);
    if (!status && !prism_plan_matches(plan, &out->problem))
        status = prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was built for another shape");
    if (!status && out->correct != PRISM_CORRECTION_NONE)
        status = check_pooled(ctx, &out->problem, true);
    return status;
}

prism_status prism_request_pool(prism_ctx *ctx, const prism_call *call, prism_request *out)
{
    if (!ctx || !call || call->struct_size < sizeof *call || !call->pooled)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "call or call.pooled is NULL, or call.struct_size is not set");
    leave_parents_threads(ctx);
    *out = (prism_request){.correct = PRISM_CORRECTION_NONE};
    prism_status status = prism_check_call(ctx, call, call->pooled[0].block_size, PRISM_CHECK_K | pooling_reads(call),
                                           &out->problem);
    if (!status)
        status = check_backend(ctx, out);
    if (!status) /* who can choose from pooled keys can pool them */
        status = check_stage(ctx, &out->problem,
                             call->pooled[0].moments.key ? PRISM_STAGE_SELECT_MOMENTS : PRISM_STAGE_SELECT);
    return status ? status : check_pooled(ctx, &out->problem, false);
}

prism_status prism_check_plan(prism_ctx *ctx, const prism_plan *plan)
{
    if (!ctx || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL");
    if (plan->backend != ctx->backend)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was created for another device");
    return PRISM_OK;
}

prism_status prism_check_workspace(prism_ctx *ctx, const void *workspace, size_t have, size_t need)
{
    if (need == SIZE_MAX)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "this shape's workspace overflows");
    if (!workspace || (uintptr_t)workspace % PRISM_ALIGN)
        return prism_fail(ctx, PRISM_ERROR_WORKSPACE, "workspace is %s", workspace ? "not aligned to 64" : "NULL");
    if (have < need)
        return prism_fail(ctx, PRISM_ERROR_WORKSPACE, "workspace of %zu bytes, %zu needed", have, need);
    if (!ctx->backend->is_readable(ctx, workspace))
        return prism_fail(ctx, PRISM_ERROR_WORKSPACE, "workspace is not in memory that the device can read");
    return PRISM_OK;
}
