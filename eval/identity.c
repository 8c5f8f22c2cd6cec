#include "eval/identity.h"

#include "lm/gguf.h"
#include "lm/safetensors.h"

#include <string.h>

/* Values are read at this many places of a tensor. */
#define N_PLACE 8
#define PLACE_BYTES 64

uint64_t eval_hash(uint64_t seed, const void *data, size_t n)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++)
        seed = (seed ^ bytes[i]) * 0x100000001B3u;
    return seed;
}

static uint64_t hash_tensor(uint64_t h, const lm_tensor *t)
{
    const int32_t type = (int32_t)t->dtype;
    h = eval_hash(h, t->name, strlen(t->name));
    h = eval_hash(h, &type, sizeof type);
    h = eval_hash(h, t->dim, (size_t)t->n_dim * sizeof t->dim[0]);
    if (t->bytes <= N_PLACE * PLACE_BYTES)
        return eval_hash(h, t->data, t->bytes);
    for (size_t i = 0; i < N_PLACE; i++)
        h = eval_hash(h, (const uint8_t *)t->data + (t->bytes - PLACE_BYTES) / (N_PLACE - 1) * i, PLACE_BYTES);
    return h;
}

bool eval_model_fingerprint(const char *path, uint64_t *out, lm_error *err)
{
    uint64_t h = EVAL_HASH_START;
    if (lm_gguf_probe(path)) {
        lm_gguf *gguf;
        if (!lm_gguf_open(path, &gguf, err))
            return false;
        for (size_t i = 0; i < lm_gguf_tensor_count(gguf); i++)
            h = hash_tensor(h, lm_gguf_tensor_at(gguf, i));
        lm_gguf_close(gguf);
    } else {
        lm_safetensors *st;
        if (!lm_safetensors_open(path, &st, err))
            return false;
        for (size_t i = 0; i < lm_safetensors_count(st); i++)
            h = hash_tensor(h, lm_safetensors_at(st, i));
        lm_safetensors_close(st);
    }
    *out = h;
    return true;
}
