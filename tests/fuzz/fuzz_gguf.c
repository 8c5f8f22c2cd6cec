/* Any bytes as a GGUF file: opening, and everything a reader may then ask. */
#include "lm/config.h"
#include "lm/gguf.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_value(const lm_gguf_value *v, volatile uint64_t *sink)
{
    const uint8_t *at = v->data;
    for (uint64_t i = 0; i < v->n; i++) {
        if (v->type == LM_GGUF_STRING) {
            size_t bytes;
            const char *text = lm_gguf_value_string(&at, &bytes);
            *sink += bytes ? (uint8_t)text[bytes - 1] : 0;
        } else if (v->type != LM_GGUF_F32 && v->type != LM_GGUF_F64) {
            *sink += (uint64_t)lm_gguf_value_int(v, i);
        }
    }
}

static void read_tensor(const lm_tensor *t, volatile uint64_t *sink)
{
    const uint8_t *data = t->data;
    if (t->bytes)
        *sink += data[0] + data[t->bytes - 1];
    float out[256]; /* the largest block of any type */
    if (t->bytes)
        lm_to_float(t->dtype, t->data, out, lm_dtypes[t->dtype].block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    /* Aligned as a map is, and exactly as long, so that the sanitizer sees the first byte too many. */
    uint8_t *copy = n ? malloc(n) : NULL;
    lm_gguf *g = NULL;
    lm_error err;
    volatile uint64_t sink = 0;
    if (n)
        memcpy(copy, data, n);
    static const uint8_t nothing[8];
    if (lm_gguf_open_memory(n ? copy : nothing, n, "fuzz", &g, &err)) {
        lm_config config;
        for (size_t i = 0; i < lm_gguf_value_count(g); i++)
            read_value(lm_gguf_value_at(g, i), &sink);
        for (size_t i = 0; i < lm_gguf_tensor_count(g); i++)
            read_tensor(lm_gguf_tensor_at(g, i), &sink);
        lm_config_from_gguf(g, "fuzz", &config, &err);
        lm_gguf_close(g);
    }
    free(copy);
    return 0;
}
