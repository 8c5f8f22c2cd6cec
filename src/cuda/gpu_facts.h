/* What launches need to know of a GPU. */
#ifndef PRISM_CUDA_GPU_FACTS_H
#define PRISM_CUDA_GPU_FACTS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prism_cu_gpu {
    int32_t capability;   /* 90: compute capability 9.0 */
    int32_t n_sm;         /* multiprocessors */
    int32_t shared_bytes; /* shared memory that a CTA may have */
    void *encode_tiled;   /* the driver's cuTensorMapEncodeTiled; NULL: the driver has none */
} prism_cu_gpu;

/* Facts about GPU `ordinal`. The driver is asked once in a process; *gpu stays valid. Any thread may call. */
cudaError_t prism_cu_gpu_at(int ordinal, const prism_cu_gpu **gpu);

/* Facts about the current GPU of the thread. */
cudaError_t prism_cu_gpu_here(const prism_cu_gpu **gpu);

#ifdef __cplusplus
}
#endif
#endif
