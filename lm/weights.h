/*
 * lm/weights.h - the tensors of a model under one set of names, whatever file they come from.
 *
 * Matrices stay where they are mapped; norms and biases, a few kilobytes, become floats of their own.
 */
#ifndef LM_WEIGHTS_H
#define LM_WEIGHTS_H

#include "config.h"
#include "gguf.h"
#include "safetensors.h"

/* y = W x: rows outputs, cols inputs, one row after the other. */
typedef struct lm_matrix {
    const void *data;
    lm_dtype dtype; /* a type of weights */
    int64_t rows, cols;
} lm_matrix;

typedef struct lm_layer {
    lm_matrix q, k, v, o;
    lm_matrix gate, up, down;
    float *attn_norm, *ffn_norm;              /* [d_model] */
    float *q_norm, *k_norm;                   /* [d_head], NULL if the family has none */
    float *q_bias, *k_bias, *v_bias, *o_bias; /* [rows of the matrix] or NULL */
} lm_layer;

typedef struct lm_weights {
    lm_matrix embedding; /* [n_vocab][d_model] */
    lm_matrix output;    /* the embedding again where they are tied */
    float *output_norm;  /* [d_model] */
    float *rope_factors; /* [rope.n_dim / 2] with LM_ROPE_FACTORS, else NULL */
    lm_layer *layers;
    int32_t n_layer;
    size_t bytes; /* of all matrices and vectors */
} lm_weights;

/* Exactly one of st and gguf is given and must outlive *out. Every tensor is checked against the config. */
bool lm_weights_open(const lm_config *config, const lm_safetensors *st, const lm_gguf *gguf, const char *where,
                     lm_weights *out, lm_error *err);
void lm_weights_close(lm_weights *weights); /* a zeroed struct is allowed */

/* The names of every tensor a model can have, in both formats, for the converter. "%d" in one stands for the layer. */
typedef struct lm_weight_name {
    const char *hf, *gguf;
} lm_weight_name;
const lm_weight_name *lm_weight_names(size_t *n);
void lm_weight_name_text(const char *pattern, int32_t layer, char *text, size_t n);

#endif
