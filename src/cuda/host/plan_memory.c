/* The device's side of a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "cuda/host/host.h"

/* Cuts one allocation, or with d->memory NULL only counts. */
static size_t layout(prism_cuda_plan *d, const prism_plan *plan)
{
    prism_arena a = {.base = d->memory};
    d->row_ptr = prism_arena_take(&a, (size_t)plan->n_row_max + 1, sizeof *d->row_ptr);
    d->ticket = prism_arena_take(&a, 2, sizeof *d->ticket);
    d->full = prism_arena_take(&a, 1, sizeof *d->full);
    d->lengths = prism_arena_take(&a, (size_t)plan->n_seq_max * 3, sizeof *d->lengths);
    d->order = prism_arena_take(&a, (size_t)plan->n_row_max, sizeof *d->order);
    d->index = prism_arena_take(&a, (size_t)plan->n_index_max, sizeof *d->index);
    return prism_cuda_counted(&a);
}

/*
 * Takes memory of which the first bytes_zero are zero. A caller that captures a graph may meet a new shape there, so
 * the allocation must not become part of the graph: capture is relaxed meanwhile. The memory is zeroed on a new stream,
 * which neither waits for the caller's streams nor holds them up.
 */
static cudaError_t take_zeroed(void **memory, size_t bytes, size_t bytes_zero)
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaStream_t stream = NULL;
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaError_t error = cudaMalloc(memory, bytes);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(*memory, 0, bytes_zero, stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(stream);
    if (stream)
        cudaStreamDestroy(stream);
    cudaThreadExchangeStreamCaptureMode(&mode);
    return error;
}

prism_status prism_cuda_plan_create(prism_ctx *ctx, prism_plan *plan)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_cuda_plan *d = calloc(1, sizeof *d + (size_t)plan->n_seq_max * 3 * sizeof *d->host_lengths);
    if (!d)
        return PRISM_ERROR_MEMORY;
    plan->device = d;
    d->ordinal = device->ordinal;
    const size_t bytes = layout(d, plan);
    const int before = prism_cuda_enter(d->ordinal);
    const size_t bytes_zero = bytes < 4096 ? bytes : bytes - (size_t)plan->n_index_max * sizeof *d->index;
    const cudaError_t error =
        bytes == SIZE_MAX ? cudaErrorMemoryAllocation : take_zeroed(&d->memory, bytes, bytes_zero);
    prism_cuda_leave(before, d->ordinal);
    if (error != cudaSuccess) {
        cudaGetLastError();
        snprintf(ctx->error, sizeof ctx->error, "no %.1f MiB of GPU memory for a plan: %s", (double)bytes / 0x1p20,
                 cudaGetErrorString(error));
        return error == cudaErrorMemoryAllocation ? PRISM_ERROR_MEMORY : PRISM_ERROR_DEVICE;
    }
    layout(d, plan);
    return PRISM_OK;
}

void prism_cuda_plan_destroy(prism_plan *plan)
{
    prism_cuda_plan *d = plan->device;
    const int before = prism_cuda_enter(d->ordinal);
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed; /* garbage collectors run at any time */
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaFree(d->memory);
    cudaThreadExchangeStreamCaptureMode(&mode);
    prism_cuda_leave(before, d->ordinal);
    free(d);
}

/* Copies one array of lengths: the plan keeps the lengths it was built with. */
static const int32_t *keep(prism_cuda_device *device, prism_cuda_plan *d, int which, int32_t n, const int32_t *lengths)
{
    if (!lengths)
        return NULL;
    int32_t *own = d->lengths + (int64_t)which * n;
    prism_cuda_ok(device,
                  cudaMemcpyAsync(own, lengths, (size_t)n * sizeof *own, cudaMemcpyDeviceToDevice, device->stream),
                  "copying lengths");
    return own;
}

void prism_cuda_plan_begin(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_cuda_plan *d = plan->device;
    const prism_call *c = p->call;
    d->stream = device->stream;
    d->shape = prism_cuda_shape(p);
    d->has_order = false;
    if (!p->device_lengths)
        return;
    d->shape.n_q_of = keep(device, d, 0, c->n_seq, c->n_q_of);
    d->shape.n_kv_of = keep(device, d, 1, c->n_seq, c->n_kv_of);
    d->shape.q_start_of = keep(device, d, 2, c->n_seq, c->q_start_of);
}

static prism_status copy_out(void *to, const void *from, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(stream);
    return error == cudaSuccess ? PRISM_OK : PRISM_ERROR_DEVICE;
}

/* Copies the lengths to the host, and sets plan->seq and plan->n_causal from them. */
static prism_status fetch_lengths(prism_plan *plan)
{
    prism_cuda_plan *d = plan->device;
    const prism_cu_shape *s = &d->shape;
    const int32_t n = plan->n_seq;
    int32_t *host = d->host_lengths;
    const prism_status status = copy_out(host, d->lengths, (size_t)n * 3 * sizeof *host, d->stream);
    plan->n_causal = 0;
    for (int32_t i = 0; !status && i < n; i++) {
        const int32_t n_q = s->n_q_of ? host[i] : s->n_q, n_kv = s->n_kv_of ? host[n + i] : s->n_kv;
        const int32_t q_start = s->q_start_of ? host[2 * n + i] : n_kv - n_q;
        plan->seq[i] = prism_make_seq(n_q, q_start, plan->block_size);
        plan->n_causal += plan->n_head * prism_seq_causal_blocks(&plan->seq[i]);
    }
    return status;
}

prism_status prism_cuda_plan_fetch(prism_plan *plan)
{
    prism_cuda_plan *d = plan->device;
    const int before = prism_cuda_enter(d->ordinal);
    int32_t overflowed = 0;
    prism_status status = plan->device_lengths ? fetch_lengths(plan) : PRISM_OK;
    if (!status && !plan->full)
        status = copy_out(&overflowed, d->full, sizeof overflowed, d->stream);
    if (overflowed) {
        plan->full = true;
        plan->path = PRISM_PATH_DENSE_OVERFLOW;
    }
    if (!status && !plan->full) {
        status = copy_out(plan->row_ptr, d->row_ptr, ((size_t)plan->n_row + 1) * sizeof *plan->row_ptr, d->stream);
        if (!status)
            status =
                copy_out(plan->index, d->index, (size_t)plan->row_ptr[plan->n_row] * sizeof *plan->index, d->stream);
    }
    prism_cuda_leave(before, d->ordinal);
    return status;
}

void prism_cuda_plan_push(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_cuda_plan *d = plan->device;
    const int before = prism_cuda_enter(d->ordinal);
    prism_cuda_plan_begin(ctx, p, plan);
    prism_cuda_ok(device,
                  cudaMemcpyAsync(d->row_ptr, plan->row_ptr, ((size_t)plan->n_row + 1) * sizeof *plan->row_ptr,
                                  cudaMemcpyHostToDevice, device->stream),
                  "copying a plan");
    prism_cuda_ok(device,
                  cudaMemcpyAsync(d->index, plan->index, (size_t)plan->row_ptr[plan->n_row] * sizeof *plan->index,
                                  cudaMemcpyHostToDevice, device->stream),
                  "copying a plan");
    prism_cuda_ok(device, cudaMemsetAsync(d->full, 0, sizeof *d->full, device->stream), "clearing a flag");
    prism_cuda_leave(before, d->ordinal);
}

void prism_cuda_plan_count(const prism_ctx *ctx, const prism_plan *plan, int64_t *counts)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_cuda_plan *d = plan->device;
    const int before = prism_cuda_enter(d->ordinal);
    prism_cuda_ok(device,
                  prism_plan_counts_cuda(&d->shape, plan->block_size, plan->full ? NULL : d->row_ptr, d->full, counts,
                                         device->stream),
                  "counting a plan");
    prism_cuda_leave(before, d->ordinal);
}
