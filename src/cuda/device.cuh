/* What launches need to know of the device. */
#ifndef PRISM_CUDA_DEVICE_CUH
#define PRISM_CUDA_DEVICE_CUH

#include <cuda_runtime_api.h>

namespace prism
{

struct Device {
    int n_sm;    /* multiprocessors */
    bool hopper; /* runs the code of sm_90a */
};
static inline cudaError_t device_of(Device *out)
{
    int device, major = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (!e)
        e = cudaDeviceGetAttribute(&out->n_sm, cudaDevAttrMultiProcessorCount, device);
    if (!e)
        e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    out->hopper = major == 9;
    return e;
}

} // namespace prism
#endif
