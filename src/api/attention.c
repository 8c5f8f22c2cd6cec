/* The three doors: check, cut the workspace, run the stages. */
#include <stdlib.h>
#include <string.h>

#include "api/check.h"
#include "core/arena.h"
#include "core/clock.h"
#include "core/options.h"
#include "core/work.h"
#include "methods/methods.h"

/* Below this many keys the full plan is at least as fast on the CPU (docs/architecture.md, "short prompts"). */
enum { default_min_tokens = 1024 };

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

prism_status prism_pooled_bytes(int32_t n_kv_head, int32_t d_head, int32_t block_size, int32_t n_token_max,
                                size_t *bytes)
{
    if (n_kv_head < 1 || d_head < 1 || d_head > PRISM_MAX_D_HEAD || (block_size != 64 && block_size != 128) ||
        n_token_max < 1 || !bytes)
        return PRISM_ERROR_INVALID;
    const size_t n_block = ((size_t)n_token_max + (size_t)block_size - 1) / (size_t)block_size;
    if (__builtin_mul_overflow(n_block, (size_t)n_kv_head * (size_t)d_head * sizeof(float), bytes))
        return PRISM_ERROR_INVALID;
    return PRISM_OK;
}

prism_status prism_pooled_init(prism_pooled *pooled, int32_t n_kv_head, int32_t d_head, int32_t block_size,
                               int32_t n_token_max, void *memory, size_t bytes)
{
    size_t need;
    const prism_status status = prism_pooled_bytes(n_kv_head, d_head, block_size, n_token_max, &need);
    if (status || !pooled || !memory || (uintptr_t)memory % PRISM_ALIGN)
        return PRISM_ERROR_INVALID;
    if (bytes < need)
        return PRISM_ERROR_CAPACITY;
    *pooled = (prism_pooled){.struct_size = sizeof *pooled,
                             .n_kv_head = n_kv_head,
                             .d_head = d_head,
                             .block_size = block_size,
                             .n_token_max = n_token_max,
                             .key_sum = memory};
    return PRISM_OK;
}

/* --------------------------------------------------------------------------------------------- workspace ---- */

static void pool_temporarily(const prism_problem *p, prism_arena *a, prism_plan_job *job)
{
    const prism_call *c = p->call;
    job->pooled = prism_arena_take(a, (size_t)c->n_seq, sizeof *job->pooled);
    for (int32_t s = 0; s < c->n_seq; s++) {
        const size_t n = prism_arena_count(a, p->n_kblk, c->n_kv_head, c->d_head, 1);
        float *key_sum = prism_arena_take(a, n, sizeof(float));
        if (job->pooled)
            job->pooled[s] = (prism_pooled){.struct_size = sizeof(prism_pooled),
                                            .n_kv_head = c->n_kv_head,
                                            .d_head = c->d_head,
                                            .block_size = p->block_size,
                                            .key_sum = key_sum};
    }
}

static void layout_plan_job(const prism_ctx *ctx, const prism_problem *p, const prism_options *o, prism_arena *a,
                            prism_plan_job *job)
{
    const prism_call *c = p->call;
    const prism_method_impl *m = prism_method_get(o->method);
    job->pooled = c->pooled;
    if (m->pools) {
        if (!c->pooled)
            pool_temporarily(p, a, job);
        job->q_mean = prism_arena_take(a, prism_arena_count(a, p->n_row, c->d_head, 1, 1), sizeof(float));
        job->k_mean =
            prism_arena_take(a, prism_arena_count(a, c->n_seq, c->n_kv_head, p->n_kblk, c->d_head), sizeof(float));
        job->factor = prism_arena_take(a, prism_arena_count(a, p->n_row, PRISM_MAX_BAND, 1, 1), sizeof(float));
    }
    if (m->list) {
        job->n_block = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_block);
        job->n_key = prism_arena_take(a, (size_t)p->n_row, sizeof *job->n_key);
    } else {
        job->bits = prism_arena_take(a, prism_arena_count(a, p->n_row, p->n_word, 1, 1), sizeof *job->bits);
    }
    job->scratch = prism_arena_take(a, m->scratch_bytes(ctx, p, o), 1);
}

static bool is_full(const prism_options *o)
{
    const prism_method_impl *m = prism_method_get(o->method);
    return !m->select ||
           (m->uses_top_p && (prism_options_top_p(o, o->top_p_high) >= 1 || prism_options_top_p(o, o->top_p_low) >= 1));
}

static size_t plan_bytes(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    prism_arena a = {0};
    prism_plan_job job;
    if (!is_full(o))
        layout_plan_job(ctx, p, o, &a, &job);
    return a.overflow ? SIZE_MAX : a.used;
}

prism_status prism_workspace_bytes(prism_ctx *ctx, const prism_options *options, const prism_call *call, size_t *bytes)
{
    prism_problem p;
    if (!ctx || !bytes)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "bytes is NULL");
    prism_status status = prism_check_options_struct(ctx, options);
    if (!status)
        status = prism_check_call(ctx, call, options->block_size, PRISM_CHECK_SHAPE, &p);
    if (!status)
        status = prism_check_options(ctx, options, call->d_head);
    if (status)
        return status;
    const size_t plan = plan_bytes(ctx, &p, options), attend = ctx->kernels->attend_bytes(ctx, &p);
    const size_t need = plan > attend ? plan : attend;
    if (need == SIZE_MAX)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "this shape's workspace overflows");
    *bytes = need > PRISM_ALIGN ? need : PRISM_ALIGN;
    return PRISM_OK;
}

/* -------------------------------------------------------------------------------------------------- plan ---- */

/* Upper bounds over all calls with at most these lengths, whatever q_start. */
static bool plan_capacity(const prism_call *c, int32_t block_size, double density, int64_t *n_row, int64_t *n_index)
{
    const int64_t n_kblk = ((int64_t)c->n_kv + block_size - 1) / block_size;
    const int64_t spread = (int64_t)c->n_q / block_size + 2, n_qblk = spread < n_kblk ? spread : n_kblk;
    int64_t n_head, n_block;
    if (__builtin_mul_overflow((int64_t)c->n_seq, (int64_t)c->n_head, &n_head) ||
        __builtin_mul_overflow(n_head, n_qblk, n_row) ||
        __builtin_mul_overflow(*n_row, 2 * n_kblk - n_qblk + 1, &n_block) || n_block > INT64_MAX / 16)
        return false;
    const double wanted = density * (double)n_block / 2 + 2.0 * (double)*n_row; /* sink and own block of every row */
    *n_index = wanted < (double)n_block / 2 ? (int64_t)wanted : (n_block + 1) / 2;
    return true;
}

/* Address space for the most single keys that a plan can list: all but one of each block's. What is not written costs
 * nothing, so the most is asked for; a system that refuses gets asked for less. */
static void reserve_keys(prism_plan *plan, int32_t block_size)
{
    int64_t n;
    if (__builtin_mul_overflow(plan->n_index_max, (int64_t)block_size - 1, &n) || n > INT64_MAX / 16)
        n = INT64_MAX / 16;
    for (plan->key_index = NULL; n > 0 && !plan->key_index; n = plan->key_index ? n : n / 2)
        plan->key_index = (uint64_t)n <= SIZE_MAX / 8 ? malloc((size_t)n * sizeof *plan->key_index) : NULL;
    plan->n_key_max = n;
}

prism_status prism_plan_create(prism_ctx *ctx, const prism_call *call, int32_t block_size, float max_density,
                               prism_plan **out)
{
    prism_problem p;
    if (!ctx || !out)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "out is NULL");
    *out = NULL;
    const prism_status status = prism_check_call(ctx, call, block_size, PRISM_CHECK_SHAPE, &p);
    if (status)
        return status;
    if (!(max_density >= 0 && max_density <= 1))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "max_density %g: 0 to 1", (double)max_density);
    prism_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return prism_fail(ctx, PRISM_ERROR_MEMORY, "out of memory for a plan");
    plan->n_seq_max = call->n_seq;
    if (plan_capacity(call, block_size, max_density > 0 ? (double)max_density : 1.0, &plan->n_row_max,
                      &plan->n_index_max)) {
        plan->seq = malloc((size_t)call->n_seq * sizeof *plan->seq);
        plan->row_ptr = calloc((size_t)plan->n_row_max + 1, sizeof *plan->row_ptr);
        plan->index = malloc((size_t)plan->n_index_max * sizeof *plan->index);
        plan->key_ptr = malloc(((size_t)plan->n_row_max + 1) * sizeof *plan->key_ptr);
    }
    if (!plan->seq || !plan->row_ptr || !plan->index || !plan->key_ptr) {
        const long long n_row = plan->n_row_max, n_index = plan->n_index_max;
        prism_plan_destroy(plan);
        return prism_fail(ctx, PRISM_ERROR_MEMORY, "out of memory for a plan of %lld rows and %lld blocks", n_row,
                          n_index);
    }
    reserve_keys(plan, block_size);
    *out = plan;
    return PRISM_OK;
}

static prism_status no_room(prism_ctx *ctx, const prism_plan *plan, const prism_problem *p, int64_t n_index)
{
    return prism_fail(ctx, PRISM_ERROR_CAPACITY,
                      "the plan has room for %d sequences, %lld rows, %lld blocks; this call needs %d, %lld, %lld",
                      plan->n_seq_max, (long long)plan->n_row_max, (long long)plan->n_index_max, p->call->n_seq,
                      (long long)p->n_row, (long long)n_index);
}

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
        return prism_plan_set_bits(plan, job->problem, job->bits, &n_selected)
                   ? PRISM_OK
                   : no_room(ctx, plan, job->problem, n_selected);
    if (prism_plan_open(plan, job->problem, job->n_block, job->n_key, &n_selected, &n_key)) {
        m->list(job, plan);
        return PRISM_OK;
    }
    return n_key > plan->n_key_max ? no_room_for_keys(ctx, plan, n_key) : no_room(ctx, plan, job->problem, n_selected);
}

static double select_flop(const prism_method_impl *m, const prism_plan_job *job)
{
    const prism_problem *p = job->problem;
    double flop = 0;
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        if (q.n_q > 0 && q.n_kv >= job->min_tokens)
            flop += m->flop(p, job->options, &q, p->call->pooled ? p->call->pooled[s].n_token : 0);
    }
    return flop;
}

prism_status prism_plan_build(prism_ctx *ctx, const prism_options *options, const prism_call *call, prism_plan *plan,
                              void *workspace, size_t workspace_bytes)
{
    prism_problem p;
    if (!ctx || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL");
    prism_status status = prism_check_options_struct(ctx, options);
    if (!status)
        status = prism_check_call(ctx, call, options->block_size, PRISM_CHECK_Q | PRISM_CHECK_K, &p);
    if (!status)
        status = prism_check_options(ctx, options, call->d_head);
    if (!status)
        status = prism_check_pooled(ctx, &p);
    if (!status && !is_full(options))
        status = prism_check_workspace(ctx, workspace, workspace_bytes, plan_bytes(ctx, &p, options));
    if (status)
        return status;

    const int32_t min_tokens = options->min_tokens >= 0 ? options->min_tokens : default_min_tokens;
    const bool full = is_full(options);
    if (full || every_sequence_is_short(&p, min_tokens)) {
        if (!prism_plan_set_full(plan, &p, full ? PRISM_PATH_DENSE : PRISM_PATH_DENSE_SHORT))
            return no_room(ctx, plan, &p, 0);
        if (call->pooled) /* later chunks of this prompt may be sparse */
            ctx->kernels->pool_keys(ctx, &p, call->pooled, NULL);
        return PRISM_OK;
    }
    const prism_method_impl *m = prism_method_get(options->method);
    prism_arena arena = {.base = workspace};
    prism_plan_job job = {.ctx = ctx, .problem = &p, .options = options, .min_tokens = min_tokens};
    layout_plan_job(ctx, &p, options, &arena, &job);
    double pool_seconds = 0;
    job.pool_seconds = &pool_seconds;
    const double flop = select_flop(m, &job);
    m->select(&job);
    status = fill_plan(ctx, m, &job, plan);
    if (!status) {
        plan->select_flop = flop;
        plan->pool_seconds = pool_seconds;
    }
    if (!status && call->pooled && !m->pools) /* as promised: what is missing is appended */
        ctx->kernels->pool_keys(ctx, &p, call->pooled, NULL);
    return status;
}

prism_status prism_plan_from_mask(prism_ctx *ctx, const prism_call *call, int32_t block_size, const uint8_t *mask,
                                  size_t mask_bytes, prism_plan *plan)
{
    prism_problem p;
    if (!ctx || !mask || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "mask or plan is NULL");
    const prism_status status = prism_check_call(ctx, call, block_size, PRISM_CHECK_SHAPE, &p);
    if (status)
        return status;
    size_t need;
    if (__builtin_mul_overflow((size_t)p.n_row, (size_t)p.n_kblk, &need) || mask_bytes < need)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "mask of %zu bytes, %zu needed", mask_bytes, need);
    int64_t bad_row, n_selected;
    if (prism_plan_set_mask(plan, &p, mask, &bad_row, &n_selected))
        return PRISM_OK;
    if (bad_row < 0)
        return no_room(ctx, plan, &p, n_selected);
    return prism_fail(ctx, PRISM_ERROR_INVALID, "mask: row %lld has a block above the causal limit",
                      (long long)bad_row);
}

/* ------------------------------------------------------------------------------------------------ attend ---- */

prism_status prism_pool_append(prism_ctx *ctx, const prism_call *call)
{
    prism_problem p;
    if (!ctx || !call || call->struct_size < sizeof *call || !call->pooled)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "call or call.pooled is NULL, or call.struct_size is not set");
    prism_status status = prism_check_call(ctx, call, call->pooled[0].block_size, PRISM_CHECK_K, &p);
    if (!status)
        status = prism_check_pooled(ctx, &p);
    if (!status)
        ctx->kernels->pool_keys(ctx, &p, call->pooled, NULL);
    return status;
}

prism_status prism_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, void *workspace,
                          size_t workspace_bytes)
{
    prism_problem p;
    if (!ctx || !plan)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "plan is NULL");
    if (plan->n_seq == 0)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan has not been built");
    prism_status status = prism_check_call(ctx, call, plan->block_size,
                                           PRISM_CHECK_Q | PRISM_CHECK_K | PRISM_CHECK_V | PRISM_CHECK_O, &p);
    if (status)
        return status;
    if (!prism_plan_matches(plan, &p))
        return prism_fail(ctx, PRISM_ERROR_INVALID, "the plan was built for another shape");
    status = prism_check_workspace(ctx, workspace, workspace_bytes, ctx->kernels->attend_bytes(ctx, &p));
    if (!status)
        ctx->kernels->attend(ctx, &p, plan, workspace);
    return status;
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
        status = prism_check_call(ctx, call, options->block_size,
                                  PRISM_CHECK_Q | PRISM_CHECK_K | PRISM_CHECK_V | PRISM_CHECK_O, &p);
    if (!status)
        status = prism_check_workspace(ctx, workspace, workspace_bytes, ctx->kernels->attend_bytes(ctx, &p));
    const double start = prism_seconds();
    if (!status)
        status = prism_plan_build(ctx, options, call, plan, workspace, workspace_bytes);
    if (status)
        return status;
    const double planned = prism_seconds();
    ctx->kernels->attend(ctx, &p, plan, workspace);
    if (stats) {
        const double density = prism_plan_density(plan);
        *stats = (prism_stats){.struct_size = stats->struct_size,
                               .select_seconds = planned - start,
                               .attend_seconds = prism_seconds() - planned,
                               .n_selected = (int64_t)(density * (double)plan->n_causal + 0.5),
                               .n_causal = plan->n_causal,
                               .density = density,
                               .path = plan->path,
                               .work_flop = plan->select_flop + prism_work_attend(&p, plan),
                               .dense_flop = prism_work_attend(&p, NULL),
                               .pool_seconds = plan->pool_seconds};
    }
    return PRISM_OK;
}
