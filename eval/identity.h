/* eval/identity.h - fingerprints: is this the same model, the same text? */
#ifndef EVAL_IDENTITY_H
#define EVAL_IDENTITY_H

#include "lm/error.h"

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, going on from seed; EVAL_HASH_START to begin. */
#define EVAL_HASH_START 0xCBF29CE484222325u
uint64_t eval_hash(uint64_t seed, const void *data, size_t n);

/* Of names, types, shapes and a sample of the values of all tensors: reads a few megabytes of a file of any size. */
bool eval_model_fingerprint(const char *path, uint64_t *out, lm_error *err);

#endif
