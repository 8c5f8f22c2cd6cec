/*
 * lm/convert.h - a Hugging Face directory, or a GGUF file of any types, into one GGUF file that llama.cpp opens too.
 *
 * Norms and biases become F32, matrices the type asked for; one that has it already stays as it is. A matrix whose rows
 * are no whole number of that type's blocks becomes F16. The keys of a GGUF file travel as they are.
 * From a directory the tokenizer travels along: tokens, types, merges, pre-tokenizer, special ids, and whether prompts start with BOS
 * (lm_config_decide_bos). The rows of q and k are permuted to interleaved RoPE pairs if the family's GGUF files
 * have them so, and llama3 scaling becomes the tensor rope_freqs.weight.
 */
#ifndef LM_CONVERT_H
#define LM_CONVERT_H

#include "tensor.h"

typedef struct lm_convert_options {
    lm_dtype type;                     /* of the matrices: one that lm_from_float() writes */
    const char *name;                  /* general.name; NULL: the directory's */
    const char *license, *description; /* general.license, general.description; NULL: none */
} lm_convert_options;

/* Writes path: complete, or not at all. INPUT for weights that are not finite (with the tensor's name). */
bool lm_convert(const char *from, const char *path, const lm_convert_options *options, lm_error *err);

#endif
