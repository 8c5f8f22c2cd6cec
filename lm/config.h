/*
 * lm/config.h - what a model is, from a Hugging Face config.json or from GGUF metadata.
 *
 * A file that asks for something which the runner does not compute is refused. GGUF: every key of the family that is
 * neither read nor known to leave the computation alone. config.json, of which transformers ignores what a family's
 * class does not know: another family (family.h), activation or RoPE scaling, a window in force, attention that is not
 * causal, a key that the family's row refuses, a quantised checkpoint.
 */
#ifndef LM_CONFIG_H
#define LM_CONFIG_H

#include "family.h"
#include "gguf.h"

#define LM_MAX_EOS 8
/* GGUF's names for the first of them: the end of a text, of a turn, of a message that is not the turn's last. */
enum { LM_N_EOS_KEY = 3 };
extern const char *const lm_eos_keys[LM_N_EOS_KEY];

typedef enum lm_rope_scaling {
    LM_ROPE_NONE,
    LM_ROPE_LINEAR,
    LM_ROPE_YARN,
    LM_ROPE_LLAMA3,
    LM_ROPE_FACTORS /* GGUF's rope_freqs.weight, which is how llama3 scaling travels in that format */
} lm_rope_scaling;

typedef struct lm_rope {
    lm_rope_scaling scaling;
    prism_rope_layout layout; /* of the rows of q and k in the file */
    int32_t n_dim;            /* rotated dimensions of a head, from the first */
    double base;
    double factor;                            /* linear, yarn, llama3 */
    double n_ctx_original;                    /* yarn, llama3 */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;                            /* yarn: the ramp's ends are rounded outwards */
    double attention_factor;                  /* yarn: multiplies cos and sin; 1 otherwise */
    double low_freq_factor, high_freq_factor; /* llama3 */
} lm_rope;

typedef enum lm_presence {
    LM_ABSENT,
    LM_OPTIONAL, /* used where a file has it */
    LM_REQUIRED
} lm_presence;

typedef struct lm_config {
    const lm_family *family;
    char name[128]; /* for people; may be empty */
    int32_t n_layer, d_model, d_ff, n_head, n_kv_head, d_head, n_vocab;
    int32_t n_ctx_train;
    float rms_eps;
    bool tied; /* the output matrix is the embedding, where the file has no other */
    lm_presence qkv_bias, o_bias;
    lm_rope rope;
    int32_t bos_id, pad_id; /* -1: none */
    int32_t eos_id[LM_MAX_EOS], n_eos;
    bool add_bos; /* prompts start with bos_id; see lm_config_decide_bos() */
} lm_config;

/* Reads a model's configuration. config: the parsed config.json. generation: the parsed generation_config.json, which
 * may have more EOS ids, or NULL. */
struct cJSON;
bool lm_config_from_json(const struct cJSON *config, const struct cJSON *generation, const char *where, lm_config *out,
                         lm_error *err);
bool lm_config_from_gguf(const lm_gguf *gguf, const char *where, lm_config *out, lm_error *err);

/* For the readers of both formats: sets what a file may leave out; adds an EOS id; checks the result. */
void lm_config_defaults(lm_config *config);
void lm_config_add_eos(lm_config *config, int64_t id);
bool lm_config_check(const lm_config *config, const char *where, lm_error *err);

/*
 * Decides whether prompts of a Hugging Face model start with BOS, and sets config->add_bos.
 *   tokenizer_config   the parsed tokenizer_config.json, or NULL; its add_bos_token decides
 *   adds_bos           whether the post-processor of tokenizer.json adds BOS; decides without add_bos_token
 * Without tokenizer_config.json, a bos_token_id in config.json decides too: its author says that sequences start with
 * it. The bundled model is such a model; its training sequences start with token 0.
 */
bool lm_config_decide_bos(lm_config *config, const struct cJSON *tokenizer_config, bool adds_bos, const char *where,
                          lm_error *err);

#endif
