/* The CPU backend: its stages. */
#include "core/clock.h"
#include "cpu/cpu.h"

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

const prism_backend prism_backend_cpu = {
    .name = "cpu",
    .device = PRISM_DEVICE_CPU,
    .min_tokens = 1024,
    .means_bytes = prism_means_bytes_cpu,
    .pool = prism_pool_cpu,
    .bits_bytes = prism_bits_bytes_cpu,
    .select_bytes = prism_select_bytes_cpu,
    .select = prism_select_cpu,
    .fill = fill_plan,
    .attend_bytes = prism_attend_bytes_cpu,
    .attend = prism_attend_cpu,
    .probe_bytes = prism_probe_bytes_cpu,
    .probe = prism_probe_cpu,
    .pick_lines = prism_pick_lines_cpu,
    .list_lines_bytes = prism_list_lines_bytes_cpu,
    .list_lines = prism_list_lines_cpu,
    .select_lines_bytes = prism_select_lines_bytes_cpu,
    .select_lines = prism_select_lines_cpu,
    .select_strided_bytes = prism_select_strided_bytes_cpu,
    .select_strided = prism_select_strided_cpu,
    .select_tokens_bytes = prism_select_tokens_bytes_cpu,
    .select_tokens = prism_select_tokens_cpu,
    .select_moments_bytes = prism_select_moments_bytes_cpu,
    .select_moments = prism_select_moments_cpu,
    .moments_bytes = prism_moments_bytes_cpu,
    .attend_corrected_bytes = prism_attend_corrected_bytes_cpu,
    .attend_corrected = prism_attend_corrected_cpu,
    .mark = note,
    .seconds = seconds,
};
