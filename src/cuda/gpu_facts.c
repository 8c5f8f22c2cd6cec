#include "cuda/gpu_facts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MAX_GPU = 64 };

static cudaError_t look(int ordinal, prism_cu_gpu *gpu)
{
    static const enum cudaDeviceAttr which[] = {cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor,
                                                cudaDevAttrMultiProcessorCount,
                                                cudaDevAttrMaxSharedMemoryPerBlockOptin};
    int value[4];
    for (int i = 0; i < 4; i++) {
        const cudaError_t error = cudaDeviceGetAttribute(&value[i], which[i], ordinal);
        if (error != cudaSuccess)
            return error;
    }
    *gpu = (prism_cu_gpu){.capability = 10 * value[0] + value[1], .n_sm = value[2], .shared_bytes = value[3]};
    if (gpu->capability < 90)
        return cudaSuccess;
    enum cudaDriverEntryPointQueryResult found;
    return cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &gpu->encode_tiled, 12000, cudaEnableDefault,
                                            &found);
}

cudaError_t prism_cu_gpu_at(int ordinal, const prism_cu_gpu **gpu)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static prism_cu_gpu known[MAX_GPU];
    static atomic_bool is_known[MAX_GPU];
    cudaError_t error = cudaSuccess;
    if (ordinal < 0 || ordinal >= MAX_GPU)
        return cudaErrorInvalidDevice;
    *gpu = &known[ordinal];
    if (atomic_load_explicit(&is_known[ordinal], memory_order_acquire))
        return cudaSuccess;
    pthread_mutex_lock(&lock);
    if (!is_known[ordinal]) {
        error = look(ordinal, &known[ordinal]);
        is_known[ordinal] = error == cudaSuccess;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

cudaError_t prism_cu_gpu_here(const prism_cu_gpu **gpu)
{
    int ordinal;
    const cudaError_t error = cudaGetDevice(&ordinal);
    return error == cudaSuccess ? prism_cu_gpu_at(ordinal, gpu) : error;
}
