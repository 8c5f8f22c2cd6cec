/* Any bytes as a safetensors file: opening, and touching both ends of every tensor. */
#include "lm/safetensors.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *copy = n ? malloc(n) : NULL;
    lm_safetensors *st = NULL;
    lm_error err;
    volatile uint64_t sink = 0;
    if (n)
        memcpy(copy, data, n);
    if (lm_safetensors_open_memory(copy, n, "fuzz", &st, &err)) {
        for (size_t i = 0; i < lm_safetensors_count(st); i++) {
            const lm_tensor *t = lm_safetensors_at(st, i);
            const uint8_t *bytes = t->data;
            if (t->bytes)
                sink += bytes[0] + bytes[t->bytes - 1];
            if (lm_safetensors_find(st, t->name) != t || (uintptr_t)t->data % (uintptr_t)lm_dtypes[t->dtype].alignment)
                abort();
        }
        lm_safetensors_close(st);
    }
    (void)sink;
    free(copy);
    return 0;
}
