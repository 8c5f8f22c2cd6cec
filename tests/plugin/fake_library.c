/* A CUDA backend of version VERSION, without any stage. */
#include "stages.h"

__attribute__((visibility("default"))) prism_cuda_plugin_entry prism_cuda_plugin_backend;

const prism_backend *prism_cuda_plugin_backend(uint32_t version)
{
    static const prism_backend empty;
    return version == VERSION ? &empty : NULL;
}
