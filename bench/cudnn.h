/*
 * bench/cudnn.h - full causal attention by NVIDIA's cuDNN, the peer of `prism bench attention` on a GPU.
 *
 * cuDNN is not linked but loaded when it is asked for: libcudnn.so.9, from 9.10.2 on. Nothing here needs CUDA's
 * headers.
 */
#ifndef BENCH_CUDNN_H
#define BENCH_CUDNN_H

#include "bench.h"
#include "lm/backend.h"

typedef struct bench_cudnn bench_cudnn;

/* Plans the attention of `call`, whose tensors are in the device's memory, and takes the plan's workspace from the
 * device. One sequence, n_q = n_kv, float16 or bfloat16, any strides but stride_dim 1. The caller owns *out; device and
 * tensors must outlive it. RUN: cuDNN is not installed or failed; UNSUPPORTED: it has no plan for such a call; MEMORY.
 */
bool bench_cudnn_create(lm_backend *device, const prism_call *call, bench_cudnn **out, lm_error *err);
void bench_cudnn_destroy(bench_cudnn *c); /* NULL is allowed */

/* Starts the attention on the device's stream. */
bool bench_cudnn_run(bench_cudnn *c, lm_error *err);
size_t bench_cudnn_workspace_bytes(const bench_cudnn *c);

#endif
