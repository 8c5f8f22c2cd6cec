/* bench/bench_device.h - where a context computes: its memory and its clock, for bench/'s own files. */
#ifndef BENCH_DEVICE_H
#define BENCH_DEVICE_H

#include <prism_attn/prism_cuda.h>

#include "bench.h"
#include "lm/backend.h"

/* Opens the device of ctx. dtype: of the tensors that are measured on. */
bool bench_device_open(prism_ctx *ctx, prism_dtype dtype, lm_backend **out, lm_error *err);
void bench_device_close(lm_backend *b, prism_ctx *ctx); /* NULL is allowed; frees what was allocated on a GPU */

/* Makes the call of the first n_token tokens: over copies on a GPU, over the tensors themselves on the CPU. */
bool bench_device_call(lm_backend *b, const bench_tensors *t, int32_t n_token, prism_call *out, lm_error *err);

/* Measures the peaks of a GPU: products by cuBLAS, memory by copies. */
bool bench_device_peaks(prism_ctx *ctx, prism_dtype dtype, bench_peaks *out, lm_error *err);

#endif
