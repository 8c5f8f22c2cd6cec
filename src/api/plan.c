/* Plans as objects: made, read, taken from a mask, destroyed. */
#include <stdlib.h>
#include <string.h>

#include "api/check.h"
#include "core/plan.h"
#include "stages.h"

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
    plan->backend = ctx->backend;
    if (!ctx->backend->other) {
        reserve_keys(plan, block_size);
    } else {
        const prism_status made = ctx->backend->other->plan_create(ctx, plan);
        if (made) {
            prism_plan_destroy(plan);
            return made;
        }
    }
    *out = plan;
    return PRISM_OK;
}

prism_status prism_plan_no_room(prism_ctx *ctx, const prism_plan *plan, const prism_problem *p, int64_t n_index)
{
    return prism_fail(ctx, PRISM_ERROR_CAPACITY,
                      "the plan has room for %d sequences, %lld rows, %lld blocks; this call needs %d, %lld, %lld",
                      plan->n_seq_max, (long long)plan->n_row_max, (long long)plan->n_index_max, p->call->n_seq,
                      (long long)p->n_row, (long long)n_index);
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
    if (p.device_lengths)
        return prism_fail(ctx, PRISM_ERROR_UNSUPPORTED, "a mask needs lengths that the host knows");
    int64_t bad_row, n_selected;
    if (prism_plan_set_mask(plan, &p, mask, &bad_row, &n_selected)) {
        plan->stale = false;
        if (ctx->backend->other)
            ctx->backend->other->plan_push(ctx, &p, plan);
        return prism_device_status(ctx);
    }
    if (bad_row < 0)
        return prism_plan_no_room(ctx, plan, &p, n_selected);
    return prism_fail(ctx, PRISM_ERROR_INVALID, "mask: row %lld has a block above the causal limit",
                      (long long)bad_row);
}

void prism_plan_destroy(prism_plan *plan)
{
    if (!plan)
        return;
    if (plan->device)
        plan->backend->other->plan_destroy(plan);
    free(plan->seq);
    free(plan->row_ptr);
    free(plan->index);
    free(plan->key_ptr);
    free(plan->key_index);
    free(plan);
}

/* Brings the mirror of a device's plan up to date. */
static prism_status fetch(const prism_plan *plan)
{
    if (!plan->stale)
        return PRISM_OK;
    prism_plan *own = (prism_plan *)plan; /* what a reader sees was promised by the last build */
    const prism_status status = plan->backend->other->plan_fetch(own);
    if (!status && own->full)
        prism_plan_fill_full(own);
    own->stale = status != PRISM_OK;
    return status;
}

prism_status prism_plan_read(const prism_plan *plan, prism_plan_view *view)
{
    if (!plan || !view || view->struct_size < sizeof *view)
        return PRISM_ERROR_INVALID;
    const prism_status status = fetch(plan);
    if (status)
        return status;
    const int64_t n_selected = plan->row_ptr[plan->n_row];
    *view = (prism_plan_view){
        .struct_size = view->struct_size,
        .n_seq = plan->n_seq,
        .n_head = plan->n_head,
        .n_qblk = plan->n_qblk,
        .n_kblk = plan->n_kblk,
        .block_size = plan->block_size,
        .n_row = plan->n_row,
        .row_ptr = plan->row_ptr,
        .index = plan->full ? NULL : plan->index,
        .n_selected = n_selected,
        .n_causal = plan->n_causal,
        .density = prism_plan_density(plan),
        .path = plan->path,
        .key_ptr = plan->has_keys ? plan->key_ptr : NULL,
        .key_index = plan->has_keys ? plan->key_index : NULL,
        .n_key_selected = prism_plan_n_key(plan),
        .select_flop = plan->select_flop,
        .correct_flop = plan->correct_flop,
        .correct = plan->correct,
        .pool_seconds = plan->pool_seconds,
    };
    return PRISM_OK;
}

prism_status prism_plan_mask(const prism_plan *plan, uint8_t *mask, size_t bytes)
{
    size_t need;
    if (!plan || !mask || __builtin_mul_overflow((size_t)plan->n_row, (size_t)plan->n_kblk, &need) || bytes < need)
        return PRISM_ERROR_INVALID;
    const prism_status status = fetch(plan);
    if (status)
        return status;
    memset(mask, 0, need);
    for (int64_t row = 0; row < plan->n_row; row++) {
        const prism_plan_row r = prism_plan_get_row(plan, row);
        for (int64_t t = 0; t < r.n; t++)
            mask[row * plan->n_kblk + (r.index ? r.index[t] : t)] = 1;
    }
    return PRISM_OK;
}
