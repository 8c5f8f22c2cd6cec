/* A GPU as the device of a context: opened, described, timed, and its failures told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/host/host.h"

enum { least_capability = 80 };

bool prism_cuda_ok(prism_cuda_device *d, cudaError_t error, const char *where)
{
    if (error != cudaSuccess && d->error == cudaSuccess) {
        d->error = error;
        d->where = where;
    }
    return error == cudaSuccess;
}

int prism_cuda_enter(int ordinal)
{
    int before = ordinal;
    if (cudaGetDevice(&before) == cudaSuccess && before != ordinal)
        cudaSetDevice(ordinal);
    return before;
}

void prism_cuda_leave(int before, int ordinal)
{
    if (before != ordinal)
        cudaSetDevice(before);
}

prism_status prism_cuda_status(prism_ctx *ctx)
{
    prism_cuda_device *d = prism_cuda_of(ctx);
    if (d->error == cudaSuccess)
        return PRISM_OK;
    snprintf(ctx->error, sizeof ctx->error, "CUDA: %s: %s", d->where, cudaGetErrorString(d->error));
    const prism_status status = d->error == cudaErrorNotSupported ? PRISM_ERROR_UNSUPPORTED : PRISM_ERROR_DEVICE;
    d->error = cudaSuccess;
    return status;
}

/* why: a second part of the sentence, or NULL. */
static prism_status explain(prism_cuda_info *info, const char *what, const char *why)
{
    snprintf(info->problem, sizeof info->problem, "%s%s%s", what, why ? ": " : "", why ? why : "");
    return PRISM_ERROR_DEVICE;
}

prism_status prism_cuda_look(int32_t ordinal, prism_cuda_info *info)
{
    int n = 0;
    cudaRuntimeGetVersion(&info->runtime_version);
    cudaDriverGetVersion(&info->driver_version);
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return explain(info, "no NVIDIA GPU can be used", cudaGetErrorString(error));
    }
    info->n_device = n;
    if (ordinal >= n)
        return explain(info, "there is no GPU of that number", NULL);
    struct cudaDeviceProp prop;
    const cudaError_t asked = cudaGetDeviceProperties(&prop, ordinal);
    if (asked != cudaSuccess)
        return explain(info, "the GPU does not answer", cudaGetErrorString(asked));
    snprintf(info->name, sizeof info->name, "%.63s", prop.name);
    info->compute_major = prop.major;
    info->compute_minor = prop.minor;
    info->n_multiprocessor = prop.multiProcessorCount;
    info->memory_bytes = prop.totalGlobalMem;
    if (prop.major * 10 + prop.minor < least_capability)
        return explain(info, "the GPU is too old: compute capability 8.0 or later is needed", NULL);
    return PRISM_OK;
}

prism_status prism_cuda_open(prism_ctx *ctx, int32_t ordinal)
{
    prism_cuda_info info = {.struct_size = sizeof info};
    const prism_status status = prism_cuda_look(ordinal, &info);
    if (status)
        return status;
    prism_cuda_device *d = calloc(1, sizeof *d);
    if (!d)
        return PRISM_ERROR_MEMORY;
    ctx->device = d;
    d->ordinal = ordinal;
    d->attend_kernel = -1;
    const int before = prism_cuda_enter(ordinal);
    bool ok = prism_cu_gpu_at(ordinal, &d->gpu) == cudaSuccess;
    for (int i = 0; i < PRISM_N_MARK; i++)
        ok = cudaEventCreate(&d->event[i]) == cudaSuccess && ok;
    prism_cuda_leave(before, ordinal);
    return ok ? PRISM_OK : PRISM_ERROR_DEVICE; /* the caller closes */
}

void prism_cuda_close(prism_ctx *ctx)
{
    prism_cuda_device *d = prism_cuda_of(ctx);
    const int before = prism_cuda_enter(d->ordinal);
    for (int i = 0; i < PRISM_N_MARK; i++)
        if (d->event[i])
            cudaEventDestroy(d->event[i]);
    prism_cuda_leave(before, d->ordinal);
    free(d);
}

void prism_cuda_use_stream(prism_ctx *ctx, void *stream)
{
    prism_cuda_of(ctx)->stream = stream;
}

bool prism_cuda_is_readable(const prism_ctx *ctx, const void *data)
{
    prism_cuda_device *d = prism_cuda_of(ctx);
    struct cudaPointerAttributes a;
    const int before = prism_cuda_enter(d->ordinal);
    const cudaError_t error = cudaPointerGetAttributes(&a, data);
    prism_cuda_leave(before, d->ordinal);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    return a.type != cudaMemoryTypeUnregistered && a.devicePointer;
}

void prism_cuda_mark(const prism_ctx *ctx, prism_mark mark)
{
    prism_cuda_device *d = prism_cuda_of(ctx);
    prism_cuda_ok(d, cudaEventRecord(d->event[mark], d->stream), "cudaEventRecord");
}

double prism_cuda_seconds(const prism_ctx *ctx, prism_mark from, prism_mark to)
{
    prism_cuda_device *d = prism_cuda_of(ctx);
    float ms = 0;
    if (prism_cuda_ok(d, cudaEventSynchronize(d->event[to]), "waiting for the GPU"))
        prism_cuda_ok(d, cudaEventElapsedTime(&ms, d->event[from], d->event[to]), "cudaEventElapsedTime");
    return ms * 1e-3;
}
