/* The runner's part for GPUs, of version VERSION. It only says that it was accepted. */
#include "lm/backend.h"

#include <stdio.h>

static bool probe(char *text, size_t n, lm_error *err)
{
    (void)err;
    snprintf(text, n, "of the same version");
    return true;
}

__attribute__((visibility("default"))) lm_cuda_plugin_entry lm_cuda_plugin_of;

const lm_cuda_plugin *lm_cuda_plugin_of(uint32_t version)
{
    static const lm_cuda_plugin plugin = {.probe = probe};
    return version == VERSION ? &plugin : NULL;
}
