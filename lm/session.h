/* lm/session.h - the state of one sequence, for the runner's own files. */
#ifndef LM_SESSION_H
#define LM_SESSION_H

#include "linear.h"
#include "model.h"
#include "rope.h"

/* Tokens that go through the projections and the MLP together: enough to pay for widening each weight, few enough that
 * the MLP's activations stay a few megabytes. */
#define LM_TILE 512
/* Positions whose logits are handed to on_logits together. */
#define LM_LOGIT_TILE 64

struct lm_session {
    const lm_model *model;
    prism_ctx *ctx;
    int32_t n_thread;
    int32_t n_ctx, step;   /* step: most tokens per prefill step */
    prism_options options; /* of the prefill; options.bands points at bands */
    prism_options dense;   /* of the decoding */
    prism_bands bands;
    lm_on_plan *on_plan;
    lm_on_call *on_call;
    lm_on_logits *on_logits;
    void *user;

    prism_dtype kv_type;
    uint8_t *k_cache, *v_cache; /* [n_layer][n_ctx][n_kv_head][d_head] */
    size_t layer_bytes;         /* of one layer of one of them */
    prism_pooled *pooled;       /* [n_layer] */
    uint8_t *pooled_memory;
    prism_plan *plan;
    void *workspace;
    size_t workspace_bytes;

    lm_linear linear;
    lm_rope_table rope;
    float *hidden;     /* [step][d_model] */
    float *q, *o;      /* [step][n_head][d_head] */
    float *x;          /* [tile][d_model] normed */
    float *k, *v;      /* [tile][n_kv_head][d_head] on their way into the cache */
    float *gate, *up;  /* [tile][d_ff] */
    float *logits;     /* [n_vocab] */
    float *logit_tile; /* [LM_LOGIT_TILE][n_vocab], with on_logits only */

    int32_t n_token;
    bool has_logits;
    lm_layer_stats *layer_stats;
    lm_session_stats stats;
};

double lm_seconds(void); /* monotonic */

/* Runs n tokens (n <= step) that follow the session's n_token. Fills logits if last. progress may be NULL. */
typedef struct lm_step {
    const int32_t *tokens;
    int32_t n;
    bool last;   /* of its prefill: logits are wanted */
    bool decode; /* full attention, no hooks, other statistics */
    const prism_options *options;
    lm_progress *progress;
    void *progress_user;
    int64_t done, total; /* tokens of the prefill before this step, and in all */
} lm_step;
bool lm_forward(lm_session *s, const lm_step *step, lm_error *err);

#endif
