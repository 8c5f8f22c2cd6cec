/* The CPU backend: its stages. */
#include "core/clock.h"
#include "cpu/cpu.h"

static const char *refuses(const prism_ctx *ctx, const prism_problem *p, prism_stage stage)
{
    (void)ctx;
    return stage == PRISM_STAGE_ATTEND && p->precision == PRISM_PRECISION_FP8 ? "precision fp8 needs an H100 or H200"
                                                                               : NULL;
}

static bool fill_plan(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan,
                      int64_t *n_selected)
{
    (void)ctx;
    return prism_plan_set_bits(plan, p, bits, n_selected);
}

static void note(const prism_ctx *ctx, prism_mark mark)
{
    ctx->marks[mark] = prism_seconds();
}

static double seconds(const prism_ctx *ctx, prism_mark from, prism_mark to)
{
    return ctx->marks[to] - ctx->marks[from];
}

/* ---- the device is the host: nothing to open, to copy or to wait for ---- */

static prism_status open_host(prism_ctx *ctx, int32_t ordinal)
{
    (void)ctx, (void)ordinal;
    return PRISM_OK;
}

static bool is_readable(const prism_ctx *ctx, const void *data)
{
    (void)ctx;
    return data != NULL;
}

static prism_status host_status(prism_ctx *ctx)
{
    (void)ctx;
    return PRISM_OK;
}

static prism_status plan_create(prism_ctx *ctx, prism_plan *plan)
{
    (void)ctx;
    prism_plan_reserve_keys(plan);
    return PRISM_OK;
}

static void plan_same(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan)
{
    (void)ctx, (void)p;
    plan->stale = false;
}

static prism_status plan_fetch(prism_plan *plan)
{
    (void)plan;
    return PRISM_OK;
}

#define ROW(stage, job) .stage = {prism_##stage##_bytes_cpu, prism_##stage##_cpu},
const prism_backend prism_backend_cpu = {
    .name = "cpu",
    .device = PRISM_DEVICE_CPU,
    .min_tokens = 1024,
    .refuses = refuses,
    .means_bytes = prism_means_bytes_cpu,
    .moments_bytes = prism_moments_bytes_cpu,
    .bits_bytes = prism_bits_bytes_cpu,
    .pool = prism_pool_cpu,
    .pick_lines = prism_pick_lines_cpu,
    PRISM_STAGES(ROW)
    .fill = fill_plan,
    .mark = note,
    .seconds = seconds,
    .open = open_host,
    .is_readable = is_readable,
    .status = host_status,
    .plan_create = plan_create,
    .plan_begin = plan_same,
    .plan_fetch = plan_fetch,
    .plan_push = plan_same,
};
