/* What launches need to know of the device. */
#ifndef PRISM_CUDA_DEVICE_CUH
#define PRISM_CUDA_DEVICE_CUH

#include <cuda_runtime_api.h>

namespace prism
{

struct Device {
    int n_sm;    /* multiprocessors */
    int dynamic; /* bytes of shared memory that a launch may ask for beside 1 KB of the kernel's own */
    bool hopper; /* runs the code of sm_90a */
};
static inline cudaError_t device_of(Device *out)
{
    int device, major = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (!e)
        e = cudaDeviceGetAttribute(&out->n_sm, cudaDevAttrMultiProcessorCount, device);
    if (!e)
        e = cudaDeviceGetAttribute(&out->dynamic, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (!e)
        e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    out->hopper = major == 9, out->dynamic -= 1024;
    return e;
}

/* Launches a kernel that may begin while the one before it in the stream still runs, once that has said so
 * (let_next_begin()); it reads nothing that one writes before wait_for_launch_before(). */
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
    bool waits = code.ptxVersion >= 90; /* what was compiled for less does not wait for the launch before */
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
