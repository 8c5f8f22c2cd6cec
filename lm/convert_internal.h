/* lm/convert_internal.h - what the converters from a Hugging Face directory and from GGUF share. */
#ifndef LM_CONVERT_INTERNAL_H
#define LM_CONVERT_INTERNAL_H

#include "convert.h"
#include "gguf.h"

/* The first n_dim rows of every d_head, pairs (j, j + n_dim/2), become pairs (2j, 2j + 1). Zeros: rows stay. */
typedef struct lm_interleave {
    int64_t d_head, n_dim;
} lm_interleave;

/* The type that t gets in the file. */
lm_dtype lm_convert_type(const lm_convert_options *options, const lm_tensor *t);
/* Writes t as this type. where: the model, for messages. INPUT: values that are not finite. */
bool lm_convert_tensor(lm_gguf_writer *w, const lm_tensor *t, lm_dtype type, const lm_interleave *order,
                       const char *where, lm_error *err);
bool lm_convert_gguf(const char *from, const char *path, const lm_convert_options *options, lm_error *err);

#endif
