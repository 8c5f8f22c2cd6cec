/* Any bytes as a GGUF file: opening, and everything a reader may then ask. */
#include "lm/config.h"
#include "lm/gguf.h"
#include "lm/tokenizer.h"

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

static void read_all(const lm_gguf *g)
{
    volatile uint64_t sink = 0;
    lm_config config;
    lm_error err;
    for (size_t i = 0; i < lm_gguf_value_count(g); i++)
        read_value(lm_gguf_value_at(g, i), &sink);
    for (size_t i = 0; i < lm_gguf_tensor_count(g); i++)
        read_tensor(lm_gguf_tensor_at(g, i), &sink);
    lm_config_from_gguf(g, "fuzz", &config, &err);
    lm_tokenizer *tok = NULL;
    if (lm_tokenizer_from_gguf(g, "fuzz", -1, false, &tok, &err))
        lm_tokenizer_free(tok);
}

/* A file is what stands from one "GGUF" to the next: several are the parts of a model. Each is aligned as a map is, and
 * exactly as long, so that the sanitizer sees the first byte too many. */
enum { MAX_PARTS = 3 };

static size_t split(const uint8_t *data, size_t n, size_t ends[MAX_PARTS])
{
    size_t count = 0;
    for (size_t at = 1; at + 4 <= n && count < MAX_PARTS - 1; at++)
        if (memcmp(data + at, "GGUF", 4) == 0)
            ends[count++] = at;
    ends[count++] = n;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t nothing[8];
    size_t ends[MAX_PARTS], opened = 0;
    uint8_t *copies[MAX_PARTS] = {NULL};
    lm_gguf *parts[MAX_PARTS] = {NULL};
    lm_error err;
    const size_t count = split(data, n, ends);
    for (size_t i = 0; i < count; i++) {
        const size_t start = i ? ends[i - 1] : 0, bytes = ends[i] - start;
        copies[i] = bytes ? malloc(bytes) : NULL;
        if (bytes)
            memcpy(copies[i], data + start, bytes);
        opened += lm_gguf_open_memory(bytes ? copies[i] : nothing, bytes, "fuzz", &parts[i], &err);
    }
    if (opened == count && (count == 1 || lm_gguf_join(parts, count, "fuzz", &err)))
        read_all(parts[0]);
    for (size_t i = 0; i < count; i++) {
        lm_gguf_close(parts[i]);
        free(copies[i]);
    }
    return 0;
}
