/* The CUDA backend: its table of stages. */
#include "cuda/host/host.h"

static const char *refuses(const prism_ctx *ctx, const prism_problem *p, prism_stage stage)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_cu_ask ask = prism_cuda_ask(ctx, p);
    return prism_cu_refuses(stage, &ask, device->sentence, sizeof device->sentence);
}

static const prism_cuda_functions functions = {
    .describe = prism_cuda_look,
    .set_stream = prism_cuda_use_stream,
    .attend_name = prism_cuda_attend_name,
    .plan_counts = prism_cuda_plan_count,
};

static const prism_backend cuda_backend = {
    .name = "cuda",
    .device = PRISM_DEVICE_CUDA,
    .min_tokens = 4096,
    .own_memory = true,
    .refuses = refuses,
    .means_bytes = prism_cuda_means_bytes,
    .moments_bytes = prism_cuda_moments_bytes,
    .bits_bytes = prism_cuda_bits_bytes,
    .pool = prism_cuda_pool,
    .select = {prism_cuda_select_bytes, prism_cuda_select},
    .select_moments = {prism_cuda_select_moments_bytes, prism_cuda_select_moments},
    .fill = prism_cuda_fill,
    .attend = {prism_cuda_attend_bytes, prism_cuda_attend},
    .mark = prism_cuda_mark,
    .seconds = prism_cuda_seconds,
    .open = prism_cuda_open,
    .close = prism_cuda_close,
    .is_readable = prism_cuda_is_readable,
    .status = prism_cuda_status,
    .plan_create = prism_cuda_plan_create,
    .plan_destroy = prism_cuda_plan_destroy,
    .plan_begin = prism_cuda_plan_begin,
    .plan_fetch = prism_cuda_plan_fetch,
    .plan_push = prism_cuda_plan_push,
    .cuda = &functions,
};

PRISM_API prism_cuda_plugin_entry prism_cuda_plugin_backend;
const prism_backend *prism_cuda_plugin_backend(uint32_t version)
{
    return version == PRISM_CUDA_PLUGIN_VERSION ? &cuda_backend : NULL;
}
