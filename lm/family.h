/*
 * lm/family.h - the families of models that the runner computes, one row each. Readers, the converter and messages take
 * a family's facts from its row; forward.c computes one block for all of them.
 *
 * Not in a row, because the files say it: sizes, RoPE base and scaling, tied embeddings, biases of q, k, v and o (those
 * that a file has are added).
 */
#ifndef LM_FAMILY_H
#define LM_FAMILY_H

#include <prism_attn/prism.h>

#include <stdbool.h>

typedef struct lm_family {
    const char *gguf;    /* general.architecture of a GGUF file, and the prefix of its keys */
    const char *hf;      /* model_type of a config.json */
    bool qk_norm;        /* RMS norm of each head of q and k, before RoPE */
    int32_t d_head;      /* where config.json has no head_dim; 0: hidden_size / num_attention_heads */
    bool gguf_factors;   /* GGUF has llama3 scaling for it: the tensor rope_freqs.weight */
    prism_rope_layout gguf_layout; /* of the rows of q and k in GGUF files; with config.json they are half-split */
    /* Keys that change the mathematics, so that a file in which one is not 0 (false, null, absent) is refused; lists
     * end with NULL. */
    const char *const *refused_hf;   /* of config.json */
    const char *const *refused_gguf; /* of GGUF metadata, without the prefix */
} lm_family;

/* Finds a family by its name in the format: *name is NULL for the other one. NULL: there is none. */
const lm_family *lm_family_find(const char *gguf, const char *hf);
/* Writes "qwen3 and llama" into text, for messages, and returns text: names in GGUF, or in config.json. */
const char *lm_family_names(bool gguf, char *text, size_t n);

#endif
