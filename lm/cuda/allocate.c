/* Memory of the GPU, and what went wrong on it: every other file of the plug-in stands on this one. */
#include "device.h"

#include <stdio.h>

void lm_cuda_note_text(lm_cuda *c, const char *why, const char *what)
{
    if (!c->problem[0])
        snprintf(c->problem, sizeof c->problem, "%s: %s", what, why);
}

void lm_cuda_note(lm_cuda *c, cudaError_t status, const char *what)
{
    if (status != cudaSuccess)
        lm_cuda_note_text(c, cudaGetErrorString(status), what);
}

void *lm_cuda_allocate(lm_backend *b, size_t bytes)
{
    lm_cuda *const c = (lm_cuda *)b;
    for (int i = 0; i < LM_CUDA_MAX_BLOCKS; i++) {
        lm_cuda_block *const free_block = &c->blocks[i];
        if (free_block->data)
            continue;
        if (cudaMalloc(&free_block->data, bytes) != cudaSuccess) {
            (void)cudaGetLastError(); /* told by the NULL */
            free_block->data = NULL;
            return NULL;
        }
        free_block->bytes = bytes;
        b->device_bytes += bytes;
        return free_block->data;
    }
    return NULL;
}

void lm_cuda_release(lm_backend *b, void *memory)
{
    lm_cuda *const c = (lm_cuda *)b;
    for (int i = 0; memory && i < LM_CUDA_MAX_BLOCKS; i++)
        if (c->blocks[i].data == memory) {
            cudaFree(memory);
            b->device_bytes -= c->blocks[i].bytes;
            c->blocks[i].data = NULL;
        }
}
