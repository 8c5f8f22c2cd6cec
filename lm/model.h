/* lm/model.h - an open model, for the runner's own files. */
#ifndef LM_MODEL_H
#define LM_MODEL_H

#include "lm.h"
#include "weights.h"

struct lm_model {
    lm_config config;
    lm_weights weights;
    prism_rope rope;
    lm_tokenizer *tokenizer;
    lm_safetensors *st; /* one of the two holds the maps */
    lm_gguf *gguf;
};

#endif
