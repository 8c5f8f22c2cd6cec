/*
 * lm/family.h - the families of models that the runner computes, one row each. Readers, the converter and messages take
 * a family's facts from its row; forward.c computes one block for all of them.
 *
 * Not in a row, because the files say it: sizes, RoPE base and scaling, tied embeddings. Keys of GGUF metadata that no
 * reader knows are refused for every family (config_gguf.c), and so are tensors (weights.c).
 */
#ifndef LM_FAMILY_H
#define LM_FAMILY_H

#include <prism_attn/prism.h>

#include <stdbool.h>

/* Which layers of a config.json attend to a window. One that covers the whole trained context is none. */
typedef enum lm_window {
    LM_WINDOW_NEVER, /* whatever the file says: transformers ignores it, too */
    LM_WINDOW_EVERY, /* all, by sliding_window; 4096 where the key is absent, none where it is null */
    LM_WINDOW_UPPER  /* from max_window_layers (28) up, or by layer_types, if use_sliding_window is set */
} lm_window;

typedef struct lm_family {
    const char *gguf;    /* general.architecture of a GGUF file, and the prefix of its keys */
    const char *hf;      /* model_type of a config.json */
    bool qk_norm;        /* RMS norm of each head of q and k, before RoPE */
    bool qkv_bias;       /* q, k and v always have biases */
    bool bias_key;       /* attention_bias of config.json gives q, k, v and o biases */
    int32_t d_head;      /* where config.json has no head_dim; 0: hidden_size / num_attention_heads */
    lm_window hf_window; /* of config.json */
    bool gguf_factors;   /* GGUF has llama3 scaling for it: the tensor rope_freqs.weight */
    prism_rope_layout gguf_layout; /* of the rows of q and k in GGUF files; with config.json they are half-split */
    /* Keys of config.json that change the mathematics, so that a file in which one is not 0 (false, null, absent) is
     * refused; NULL, or a list that ends with NULL. */
    const char *const *refused_hf;
} lm_family;

/* Finds a family by its name in the format: *name is NULL for the other one. NULL: there is none. Families that
 * share a name in GGUF stand in neighbouring rows; their files are alike, and the first row stands for them. */
const lm_family *lm_family_find(const char *gguf, const char *hf);
/* Writes "qwen3 and llama" into text, for messages, and returns text: names in GGUF, or in config.json. */
const char *lm_family_names(bool gguf, char *text, size_t n);

#endif
