/*
 * eval/recall.h - what a plan keeps of full attention, per layer and head, on a real prompt.
 *
 *   prompt -> prefill by full attention; before each layer's attention its q, k, v -> plan of each method
 *          -> mass kept, output error, density, the oracle's density
 *
 * A model on a GPU gives its float16 q, k and v; plans and measures are the CPU's all the same.
 *
 * All methods see the same q, k and v: those of full attention. Exact masses take time quadratic in the prompt, so that
 * only some query blocks are examined, evenly spaced, the last one among them.
 */
#ifndef EVAL_RECALL_H
#define EVAL_RECALL_H

#include "eval/run.h"

/* Of one head, over the examined query blocks. */
typedef struct eval_recall_head {
    double mass;    /* attention mass on what the plan lists, mean over queries */
    double error;   /* of the method's output o: |o - o_exact| / |o_exact|, Frobenius */
    double density; /* blocks listed (keys count as 1 / block size) per causal block */
    double oracle;  /* the same for the fewest blocks of each row that hold at least the plan's mass of that row */
} eval_recall_head;

/* Measures the plans of methods for one call (sequence 0, v present). n_row: query blocks per head, 0: all. Options
 * without bands must not be of method prism. out [n_method][n_head]. ctx must not be in use. */
bool eval_recall_measure(prism_ctx *ctx, const prism_call *call, const eval_methods *methods, int32_t n_row,
                         eval_recall_head *out, lm_error *err);

typedef struct eval_recall_options {
    const char *task; /* names the prompt in the records */
    int32_t n_row;
    prism_dtype kv_type; /* as lm_session_options.kv_type */
} eval_recall_options;

/* Prefills tokens and adds a record for each method and layer (ctx: tokens, sample: layer) with lists over heads: mass,
 * error, density, oracle. ctx is the session's, plans are built with one of their own of as many threads. */
bool eval_recall_run(const lm_model *model, prism_ctx *ctx, const int32_t *tokens, int32_t n_token,
                     const eval_methods *methods, const eval_recall_options *options, eval_results *results,
                     const eval_watch *watch, lm_error *err);

/* Mean of a list of a record; NAN if it has none. */
double eval_record_mean(const cJSON *record, const char *name);

#endif
