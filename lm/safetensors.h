/*
 * lm/safetensors.h - reads safetensors, one file or a sharded directory, and writes single files.
 *
 * Everything that a header claims is checked against the file before a tensor is handed out: its length, types, shapes,
 * offsets, that tensors lie inside the file and do not overlap, and that no name comes twice.
 * Threads: immutable once open.
 */
#ifndef LM_SAFETENSORS_H
#define LM_SAFETENSORS_H

#include "tensor.h"

typedef struct lm_safetensors lm_safetensors;

/* path: a file; or a directory with model.safetensors.index.json and its shards, or with model.safetensors.
 * Files are mapped, not read; a tensor that stands misaligned in its file (a header that is not padded) is copied. */
bool lm_safetensors_open(const char *path, lm_safetensors **out, lm_error *err);
/* One file's bytes from memory, which must stay until the close. name: for messages. */
bool lm_safetensors_open_memory(const void *data, size_t bytes, const char *name, lm_safetensors **out, lm_error *err);
void lm_safetensors_close(lm_safetensors *st); /* NULL is allowed */

size_t lm_safetensors_count(const lm_safetensors *st);
const lm_tensor *lm_safetensors_at(const lm_safetensors *st, size_t i);           /* in one array, ordered by name */
const lm_tensor *lm_safetensors_find(const lm_safetensors *st, const char *name); /* NULL: none */

/* The names of an index file's shards, each once. Exposed for tests. Free with lm_safetensors_free_names(). */
bool lm_safetensors_index(const char *text, size_t n, const char *where, char ***names, size_t *n_name, lm_error *err);
void lm_safetensors_free_names(char **names, size_t n_name);

/* Writes path with these tensors: complete, or not at all. metadata: n_metadata pairs key, value; may be NULL. */
bool lm_safetensors_write(const char *path, const lm_tensor *tensors, size_t n_tensor, const char *const *metadata,
                          size_t n_metadata, lm_error *err);

#endif
