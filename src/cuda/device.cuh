/* How kernels are launched. */
#ifndef PRISM_CUDA_DEVICE_CUH
#define PRISM_CUDA_DEVICE_CUH

#include "cuda/gpu_facts.h"

namespace prism
{

/* Bytes of shared memory that a launch may ask for beside 1 KB of the kernel's own. */
static inline int dynamic_bytes(const prism_cu_gpu *gpu)
{
    return gpu->shared_bytes - 1024;
}

/* Launches a kernel with `shared` bytes of dynamic shared memory. */
template <class... P, class... A>
static cudaError_t launch_kernel(void (*kernel)(P...), dim3 grid, int threads, int shared, cudaStream_t stream,
                                 const A &...args)
{
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (e)
        return e;
    kernel<<<grid, threads, shared, stream>>>(args...);
    return cudaGetLastError();
}

/* Launches a kernel whose CTAs share n_item work items: at most per_sm CTAs a multiprocessor. */
template <class... P, class... A>
static cudaError_t launch_items(void (*kernel)(P...), int n_item, int per_sm, int threads, int shared,
                                cudaStream_t stream, const A &...args)
{
    const prism_cu_gpu *gpu;
    cudaError_t e = prism_cu_gpu_here(&gpu);
    if (e)
        return e;
    int most = per_sm * gpu->n_sm;
    return launch_kernel(kernel, n_item < most ? n_item : most, threads, shared, stream, args...);
}

/* Launches a kernel that may begin before the previous kernel of the stream has ended: as soon as that kernel has
 * called let_next_begin(). The new kernel reads what the previous one writes only after wait_for_launch_before(). */
template <class... P, class... A>
static cudaError_t launch_early(void (*kernel)(P...), dim3 grid, int threads, size_t shared, cudaStream_t stream,
                                const A &...args)
{
    cudaFuncAttributes code;
    cudaError_t e = cudaFuncGetAttributes(&code, kernel);
    if (e)
        return e;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    bool waits = code.ptxVersion >= 90; /* code for older GPUs does not call griddepcontrol */
    cudaLaunchConfig_t c = {grid, dim3(threads), shared, stream, &early, waits ? 1u : 0u};
    return cudaLaunchKernelEx(&c, kernel, args...);
}
__device__ __forceinline__ void let_next_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_launch_before()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

} // namespace prism
#endif
