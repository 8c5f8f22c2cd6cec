/* Creates, reads and destroys plans; makes plans from masks. */
#include <stdlib.h>
#include <string.h>

#include "api/request.h"

/* Computes upper bounds over all calls with at most these lengths and any q_start. */
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
    plan->block_size = block_size;
    const prism_status made = ctx->backend->plan_create(ctx, plan);
    if (made) {
        prism_plan_destroy(plan);
        return made;
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
        ctx->backend->plan_push(ctx, &p, plan);
        return ctx->backend->status(ctx);
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
        plan->backend->plan_destroy(plan);
    free(plan->seq);
    free(plan->row_ptr);
    free(plan->index);
    free(plan->key_ptr);
    free(plan->key_index);
    free(plan);
}

prism_status prism_plan_fetch(prism_ctx *ctx, prism_plan *plan)
{
    const prism_status checked = prism_check_plan(ctx, plan);
    if (checked || !plan->stale)
        return checked;
    const prism_status status = plan->backend->plan_fetch(plan);
    if (status)
        return prism_fail(ctx, status, "the plan cannot be copied from the device");
    if (plan->full)
        prism_plan_fill_full(plan);
    plan->stale = false;
    return PRISM_OK;
}

prism_status prism_plan_read(const prism_plan *plan, prism_plan_view *view)
{
    if (!plan || plan->stale || !view || view->struct_size < sizeof *view)
        return PRISM_ERROR_INVALID;
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
    if (!plan || plan->stale || !mask || __builtin_mul_overflow((size_t)plan->n_row, (size_t)plan->n_kblk, &need) || bytes < need)
        return PRISM_ERROR_INVALID;
    memset(mask, 0, need);
    for (int64_t row = 0; row < plan->n_row; row++) {
        const prism_plan_row r = prism_plan_get_row(plan, row);
        for (int64_t t = 0; t < r.n; t++)
            mask[row * plan->n_kblk + (r.index ? r.index[t] : t)] = 1;
    }
    return PRISM_OK;
}
