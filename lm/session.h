/* lm/session.h - the state of one sequence, for the runner's own files. */
#ifndef LM_SESSION_H
#define LM_SESSION_H

#include "backend.h"

/* What prism_cuda_plan_counts() writes of one plan, later. */
typedef struct lm_plan_count {
    int64_t n_selected, n_causal, overflowed, zero;
} lm_plan_count;

/* Moments of a layer in a prefill step, in their order. Each has its own mark of the backend, so their count follows
 * from this list. Making logits counts as one layer more, of which only the first two are set. */
enum {
    LM_MARK_START,
    LM_MARK_PROJECTED,
    LM_MARK_CALL, /* after hooks */
    LM_MARK_PLANNED,
    LM_MARK_ATTENDED,
    LM_MARK_REST, /* after hooks */
    LM_MARK_END,
    LM_MARKS
};

enum { LM_SESSION_BUFFERS = 24 };

/* Buffers are the backend's memory; "x" stands for the type that it multiplies (lm_backend.type). */
struct lm_session {
    const lm_model *model;
    prism_ctx *ctx;
    lm_backend *backend;
    int32_t n_ctx, step;   /* step: most tokens per prefill step */
    prism_options options; /* of the prefill; options.bands points at bands */
    prism_options dense;   /* of the decoding */
    prism_bands bands;
    lm_session_options asked; /* hooks and choices as the caller gave them */

    uint8_t *k_cache, *v_cache; /* [n_layer][n_ctx][n_kv_head][d_head] */
    size_t layer_bytes;         /* of one layer of one of them */
    prism_pooled *pooled;       /* [n_layer], the host's; their sums are the backend's */
    uint8_t *pooled_memory;
    prism_plan *plan;
    struct lm_host_planner *host_planner; /* NULL: the session's device plans by itself */
    void *owned[LM_SESSION_BUFFERS]; /* what session_memory.c took from the backend */
    int32_t n_owned;
    void *workspace;
    size_t workspace_bytes;

    int32_t *tokens;        /* [step] */
    float *hidden;          /* [step][d_model] */
    uint8_t *q, *o;         /* x [step][n_head][d_head] */
    void *x;                /* x [tile][d_model] normed */
    float *q_tile;          /* [tile][n_head][d_head] before rounding; NULL where x is float32: in q itself */
    float *k, *v;           /* [tile][n_kv_head][d_head] on their way into the cache */
    float *gate, *up;       /* [tile][d_ff] */
    void *act;              /* x [tile][d_ff]; where x is float32, gate itself */
    float *logits;          /* [n_vocab] */
    float *logit_tile;      /* [logit_tile][n_vocab], with on_logits or after lm_session_score() only */
    int32_t *targets;       /* [step], after lm_session_score() only */
    double *nll;            /* [step], likewise */
    float *host_logits;     /* [n_vocab], the host's: of the last token; where the backend is on the host, logits */
    float *host_logit_tile; /* likewise */

    int32_t n_token;
    bool is_short; /* the prompt is below min_tokens */
    int32_t best;  /* the argmax of logits; -1: there are none */
    int32_t n_kept, most_kept; /* prefill steps since the last collection; room for their marks and counts */
    lm_plan_count *counts, *host_counts; /* [most_kept][n_layer]; NULL where the backend is on the host */
    lm_layer_stats *layer_stats;
    lm_session_stats stats;
};

/* Runs n tokens (n <= step) that follow the session's n_token. Fills logits if last. */
typedef struct lm_step {
    const int32_t *tokens;
    const int32_t *targets; /* [n], with nll [n] to fill; or both NULL */
    double *nll;
    int32_t n;
    bool last;   /* of its prefill: logits are wanted */
    bool decode; /* full attention, no hooks, no statistics */
    const prism_options *options;
    lm_progress *progress; /* may be NULL */
    void *progress_user;
    int64_t done, total; /* tokens of the prefill before this step, and in all */
} lm_step;
bool lm_forward(lm_session *s, const lm_step *step, lm_error *err);

/* Returns the library's call for queries q_start .. q_start + n_q - 1 of a layer, over all keys up to them. */
prism_call lm_session_call(const lm_session *s, int32_t layer, int32_t q_start, int32_t n_q);
/* Returns the mark of a moment in the step that runs, or in kept step number step. */
static inline int32_t lm_session_mark(const lm_session *s, int32_t step, int32_t layer, int32_t moment)
{
    return (step * (s->model->config.n_layer + 1) + layer) * LM_MARKS + moment;
}

/* session_memory.c: everything a session allocates by size. */
bool lm_session_allocate(lm_session *s, size_t pooled_bytes, lm_error *err);
bool lm_session_allocate_scores(lm_session *s, lm_error *err); /* what lm_session_score() wants */
void lm_session_release(lm_session *s);

/* host_call.c: on_call with copies of q, k, v that the host can read; and plans made on the CPU for a device. */
bool lm_session_call_hook(lm_session *s, int32_t layer, const prism_call *call, lm_error *err);
typedef struct lm_host_planner lm_host_planner;
bool lm_host_planner_create(const prism_call *largest, int32_t block_size, lm_host_planner **out, lm_error *err);
void lm_host_planner_destroy(lm_host_planner *planner); /* NULL is allowed */
/* The plan of the last layer where the host made it, with what choosing cost; else the session's own. */
const prism_plan *lm_host_plan(const lm_session *s);
/* Into s->plan; waits for the device. */
bool lm_host_planner_build(lm_session *s, const prism_options *options, const prism_call *call, lm_error *err);

#endif
