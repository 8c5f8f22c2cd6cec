/* Contexts. */
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/cuda.h"
#include "cpu/cpu.h"

enum { max_thread = 1024 };

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
const char *prism_version(void)
{
    return TEXT(PRISM_VERSION_MAJOR) "." TEXT(PRISM_VERSION_MINOR) "." TEXT(PRISM_VERSION_PATCH);
}

const char *prism_last_error(const prism_ctx *ctx)
{
    return ctx ? ctx->error : "";
}

void prism_config_init(prism_config *config)
{
    if (config)
        *config = (prism_config){.struct_size = sizeof *config};
}

/* Returns the best tier that `asked` and PRISM_ISA allow; PRISM_ISA_AUTO if this machine lacks the tier `asked`. An
 * unknown or impossible PRISM_ISA caps nothing. */
static prism_isa choose_isa(prism_isa asked)
{
    const char *name = getenv("PRISM_ISA");
    const prism_isa isa = prism_tier_best(asked), cap = name ? prism_tier_find(name) : PRISM_ISA_AUTO;
    return cap != PRISM_ISA_AUTO && cap < isa ? cap : isa;
}

prism_status prism_create(const prism_config *config, prism_ctx **out)
{
    prism_config c;
    prism_config_init(&c);
    if (!out)
        return PRISM_ERROR_INVALID;
    *out = NULL;
    if (config) {
        if (config->struct_size < sizeof c)
            return PRISM_ERROR_INVALID;
        c = *config;
    }
    if (c.n_thread < 0 || c.n_thread > max_thread || (unsigned)c.isa >= PRISM_N_ISA || c.ordinal < 0)
        return PRISM_ERROR_INVALID;
    const prism_isa isa = choose_isa(c.isa);
    const prism_backend *backend = c.device == PRISM_DEVICE_CPU    ? &prism_backend_cpu
                                   : c.device == PRISM_DEVICE_CUDA ? prism_cuda_plugin(NULL)
                                                                   : NULL;
    if (isa == PRISM_ISA_AUTO || !backend)
        return PRISM_ERROR_DEVICE;

    prism_ctx *ctx = calloc(1, sizeof *ctx);
    prism_tier *cpu = calloc(1, sizeof *cpu);
    double *marks = calloc(PRISM_N_MARK, sizeof *marks);
    if (!ctx || !cpu || !marks) {
        free(ctx);
        free(cpu);
        free(marks);
        return PRISM_ERROR_MEMORY;
    }
    prism_tier_get(isa, cpu);
    prism_tier_describe(ctx->cpu_features, sizeof ctx->cpu_features);
    ctx->cpu = cpu;
    ctx->marks = marks;
    ctx->backend = backend;
    ctx->ordinal = c.ordinal;
    ctx->process = getpid();
    ctx->n_thread = c.n_thread ? c.n_thread : omp_get_max_threads();
    const prism_status status = backend->open(ctx, c.ordinal);
    if (status) {
        prism_destroy(ctx);
        return status;
    }
    *out = ctx;
    return PRISM_OK;
}

void prism_destroy(prism_ctx *ctx)
{
    if (!ctx)
        return;
    if (ctx->device)
        ctx->backend->close(ctx);
    free((void *)ctx->cpu);
    free(ctx->marks);
    free(ctx);
}

prism_status prism_get_info(const prism_ctx *ctx, prism_info *info)
{
    if (!ctx || !info || info->struct_size < sizeof *info)
        return PRISM_ERROR_INVALID;
    *info = (prism_info){
        .struct_size = info->struct_size,
        .device = ctx->backend->device,
        .isa = ctx->cpu->isa,
        .n_thread = ctx->n_thread,
        .isa_name = ctx->cpu->name,
        .cpu_features = ctx->cpu_features,
        .ordinal = ctx->ordinal,
        .min_tokens = ctx->backend->min_tokens,
        .fast_type = ctx->backend->device == PRISM_DEVICE_CUDA ? PRISM_F16
                     : ctx->cpu->gemm_bf16                     ? PRISM_BF16
                                                               : PRISM_F32,
    };
    return PRISM_OK;
}
