/*
 * lm/lm.h - the embedded model runner: a model file and token ids in, logits out.
 *
 *   lm_model_open()            config, tokenizer, weights (mapped)
 *   lm_session_create()        KV cache and scratch for one sequence
 *   lm_session_prefill()       embedding -> layers (attention by libprismattn) -> logits of the last token
 *   lm_session_decode()        one more token, by full attention
 *
 * A session runs where its prism_ctx does. On the CPU it computes in float32, but for products and attention, which are
 * bfloat16 where the processor has it (lm_types). On an NVIDIA GPU these two are float16 (bfloat16 where the KV cache is
 * asked for so). Sums and everything between are float32. The GPU's part is a plug-in, libprismlm_cuda.so beside the program, and wants cuBLAS (libcublas.so.13 or .12).
 *
 * Families: the rows of family.c. Files: a Hugging Face directory, or GGUF; types of weights: the rows of tensor.h.
 *
 * Every function that can fail returns false and fills lm_error (see error.h). Nothing here prints or exits.
 * Threads: a model is immutable and may serve several sessions at once; a session belongs to one thread at a time, and
 * works with the threads, or the GPU, of its prism_ctx. Without oneDNN, creating a session on the CPU sets OpenBLAS,
 * process-wide, to one thread per call.
 */
#ifndef LM_LM_H
#define LM_LM_H

#include "config.h"
#include "error.h"
#include "tokenizer.h"

#include <prism_attn/prism.h>

/* ------------------------------------------------------------------------------------------------ models ---- */

typedef struct lm_model lm_model;

/* path: a Hugging Face directory (config.json, safetensors, tokenizer.json) or a .gguf file.
 * INPUT: unreadable or malformed; UNSUPPORTED: another family, type or scaling; MEMORY. */
bool lm_model_open(const char *path, lm_model **out, lm_error *err);
void lm_model_close(lm_model *model); /* after its sessions; NULL is allowed */

const lm_config *lm_model_config(const lm_model *model);
const lm_tokenizer *lm_model_tokenizer(const lm_model *model); /* NULL where the model came without tokenizer.json */
const prism_rope *lm_model_rope(const lm_model *model);        /* after scaling: what prism_bands_*() want */
size_t lm_model_bytes(const lm_model *model);                  /* of the weights as they stand in the file */
bool lm_model_is_eos(const lm_model *model, int32_t token);

/* Fills *out with what prism_bands_auto() gives for this model: the bands of a session whose options have none. */
bool lm_model_bands(const lm_model *model, int32_t block_size, prism_bands *out, lm_error *err);

/* Text to ids, appended. bos: start with BOS if this model's prompts do (lm_config.add_bos). Control tokens that stand
 * in the text become their ids. */
bool lm_model_encode(const lm_model *model, const char *text, size_t n_bytes, bool bos, lm_tokens *out, lm_error *err);

/* Reads the chat template (Jinja) that comes with a model: a GGUF file's tokenizer.chat_template, a directory's
 * chat_template.jinja or tokenizer_config.json. *text: in fresh memory; NULL where there is none. */
bool lm_chat_template(const char *model_path, char **text, lm_error *err);

/* ---------------------------------------------------------------------------------------------- sessions ---- */

typedef struct lm_session lm_session;

/* done tokens of total, counting a token as done layer by layer; on a GPU, of the work that was handed to it. */
typedef void lm_progress(void *user, int64_t done, int64_t total);
/* After the attention of a layer. q_start: position of the chunk's first query. The plan is valid during the call. */
typedef void lm_on_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan);
/* Before the attention of a layer: post-RoPE q, k, v as the library gets them. Valid during the call. On a GPU the data
 * lie on the device and may not be written yet when the hook is called: set calls_on_host to get copies, without o and
 * pooled keys. */
typedef void lm_on_call(void *user, int32_t layer, const prism_call *call);
/* Logits of n consecutive positions, [n][n_vocab]. False stops the prefill (LM_ERROR_RUN). */
typedef bool lm_on_logits(void *user, int32_t first_position, int32_t n, const float *logits);

/* What projections and MLP multiply on the CPU. Sums are of float32 always. */
typedef enum lm_product_type {
    LM_PRODUCT_AUTO = 0, /* bfloat16 where the processor multiplies it faster and PRISM_PRODUCTS=f32 is not in the
                            environment; else float32 */
    LM_PRODUCT_F32 = 1,
    LM_PRODUCT_BF16 = 2 /* weights and activations rounded; UNSUPPORTED where the processor or the build cannot */
} lm_product_type;

/* For kv_type below: the cache is of the type that attention is fastest in, see lm_types. */
#define LM_KV_AUTO ((prism_dtype)-1)

/* Writes "oneDNN 2.6.3, bfloat16" into text, what LM_PRODUCT_AUTO comes to here, and returns text. */
const char *lm_products_text(char *text, size_t n);

typedef struct lm_session_options {
    int32_t n_ctx;       /* most tokens the session can hold, prompt and answer */
    int32_t chunk;       /* most tokens per prefill step, 0: the whole prompt. Every step but the last ends on a block
                            boundary (1000 with blocks of 128: steps of 896), so that with causal calibration the plan
                            does not depend on it; less than a block counts as a block */
    prism_dtype kv_type; /* of the KV cache; LM_KV_AUTO by default; on a GPU F16 or BF16 */
    lm_product_type product;
    const prism_options *options; /* method and thresholds of the prefill, copied; NULL: the library's defaults. bands
                                     NULL: those of lm_model_bands() */
    lm_on_plan *on_plan;          /* hooks; NULL: not wanted */
    lm_on_call *on_call;
    lm_on_logits *on_logits; /* logits at every position of a prefill, in tiles: for perplexity */
    void *user;
    bool plan_on_host;  /* on a GPU that has no kernels for the method, let the CPU make the plans: far slower, for
                           comparisons of accuracy. The GPU waits at every layer. Off: such a method is an error */
    bool calls_on_host; /* on_call gets data that the host can read; makes a GPU wait at every layer, as on_plan does */
} lm_session_options;

void lm_session_options_init(lm_session_options *options);

/* What a session computes in: its KV cache; what projections and MLP multiply; q and o of the attention. On a GPU all
 * three are one type: that of the cache, F16 unless BF16 was asked for. On the CPU attention is of BF16 where products
 * are, the cache is, and the library is fastest so (prism_info.fast_type); else of F32. LM_KV_AUTO: a cache of BF16 where
 * attention is then of BF16, else of F16. So LM_PRODUCT_F32 gives float32 throughout, over a cache of F16. */
typedef struct lm_types {
    prism_dtype kv, product, attention;
} lm_types;
/* Fills *out with the types of a session that has these options, on ctx. USAGE: ctx is NULL. */
bool lm_session_types(const prism_ctx *ctx, const lm_session_options *options, lm_types *out, lm_error *err);

/* ctx: borrowed until the session is destroyed; not to be used elsewhere while the session runs.
 * MEMORY: says how much was wanted; also where the machine has less than that left. */
bool lm_session_create(const lm_model *model, prism_ctx *ctx, const lm_session_options *options, lm_session **out,
                       lm_error *err);
void lm_session_destroy(lm_session *session); /* NULL is allowed */

/* Forgets all tokens and statistics; memory stays. */
void lm_session_reset(lm_session *session);

/* Appends n tokens. After a failure the session holds an unknown part of them: reset it.
 * USAGE: no tokens, more than n_ctx, or an id outside the vocabulary; RUN: logits that are not finite. */
bool lm_session_prefill(lm_session *session, const int32_t *tokens, int64_t n, lm_progress *progress, void *user,
                        lm_error *err);
/* The same, and says how well each token was predicted: nll[i] = -log p(targets[i]) after tokens 0 .. i, natural
 * logarithm; 0 where targets[i] is negative. targets, nll: [n]. On a GPU only these numbers are copied to the host. */
bool lm_session_score(lm_session *session, const int32_t *tokens, const int32_t *targets, int64_t n, double *nll,
                      lm_progress *progress, void *user, lm_error *err);
/* Appends one token, with full attention. */
bool lm_session_decode(lm_session *session, int32_t token, lm_error *err);

/* Of the last token, [n_vocab]; valid until the next call. NULL before the first. */
const float *lm_session_logits(const lm_session *session);
int32_t lm_session_argmax(const lm_session *session); /* greedy: the lowest id among equals; -1 before the first call */

typedef struct lm_layer_stats {
    int64_t n_selected, n_causal; /* blocks */
    double density;               /* n_selected / n_causal */
    double select_seconds, attend_seconds;
    prism_path path; /* of the last chunk */
} lm_layer_stats;

/* Since creation or reset. Blocks and the first four times are those of the prefill; linear: everything but attention,
 * that is projections and MLP with norms and rotation, and logits. */
typedef struct lm_session_stats {
    int32_t n_layer;
    const lm_layer_stats *layers; /* [n_layer], the session's */
    int64_t n_selected, n_causal;
    double density; /* mean over layers: n_selected / n_causal */
    double select_seconds, attend_seconds, linear_seconds, total_seconds;
    int64_t n_prefill, n_decode; /* tokens */
    double decode_seconds;
    size_t device_bytes; /* taken on the GPU: weights, cache, activations, workspace; not plans; 0 on the CPU */
    size_t kv_bytes, scratch_bytes; /* of memory reserved; what a short prompt leaves untouched is never committed */
} lm_session_stats;

void lm_session_read_stats(const lm_session *session, lm_session_stats *out);

/* --------------------------------------------------------------------------------------------------- GPUs ---- */

/* Whether sessions can run on a GPU: the plug-in and cuBLAS. text: "cuBLAS 13.1" for people; RUN: says what is missing.
 */
bool lm_cuda_probe(char *text, size_t n, lm_error *err);

#endif
