/*
 * eval/run.h - tasks x methods on a model, sample by sample, into results.
 *
 *   sample -> chat template -> tokens -> prefill by the method -> greedy answer (full attention) -> score -> record
 *
 * A record has: score, answer, gold, density, prompt_tokens, answer_tokens, dropped_tokens (of a prompt too long for
 * the context), work_flop (work.h), seconds of the sample and of its parts.
 */
#ifndef EVAL_RUN_H
#define EVAL_RUN_H

#include "eval/chat.h"
#include "eval/methods.h"
#include "eval/results.h"
#include "eval/task.h"
#include "eval/work.h"

/* What a run tells whoever watches. Any member may be NULL. */
typedef struct eval_watch {
    /* Before a sample that is not in the results yet: done of total samples are. */
    void (*item)(void *user, const char *method, const char *task, int64_t done, int64_t total);
    lm_progress *tokens; /* within its prefill */
    void *user;
} eval_watch;

typedef struct eval_run_options {
    int32_t n_ctx;         /* prompt and answer */
    int32_t n_sample;      /* most samples of a task; 0: all */
    int32_t chunk;         /* prefill steps, as lm_session_options.chunk */
    bool plan_on_host;     /* as lm_session_options.plan_on_host */
    prism_dtype kv_type;   /* as lm_session_options.kv_type */
    const eval_chat *chat; /* NULL: plain text */
} eval_run_options;

/* A session of one method, whose work is summed in *work (the session points at it). */
bool eval_create_session(const lm_model *model, prism_ctx *ctx, const eval_method *method,
                         const eval_run_options *options, eval_work *work, lm_session **out, lm_error *err);

/* How an answer is generated, besides greedily. */
typedef struct eval_answer_rule {
    int32_t n_most;        /* tokens; an end-of-text token ends the answer earlier */
    bool stop_at_newline;  /* ends at the first newline that follows text, which is cut off */
    unsigned decode_flags; /* of lm_stream_push() */
    const eval_chat *chat; /* the end of its turns ends an answer, too; NULL: plain text */
    /* After every token: the n bytes that it adds, whole characters; often none. False ends the answer. May be NULL. */
    bool (*on_text)(void *user, const char *text, size_t n);
    void *user;
} eval_answer_rule;

/* Answers a prompt that the session has prefilled; appends the text, terminated. */
bool eval_answer(lm_session *session, const lm_model *model, const eval_answer_rule *rule, lm_text *answer,
                 int32_t *n_token, lm_error *err);

/* Runs what is not in results yet, and adds it there. Stops at the first error; what was finished stays. */
bool eval_run(const lm_model *model, prism_ctx *ctx, const eval_task *tasks, int32_t n_task,
              const eval_methods *methods, const eval_run_options *options, eval_results *results,
              const eval_watch *watch, lm_error *err);

/* Means over the records of a method, at one length, of one task (NULL: all, each record weighing the same). */
typedef struct eval_mean {
    int32_t n; /* records; the means are NAN where there is none */
    double score, density, work_flop, seconds, select_seconds, attend_seconds;
} eval_mean;
eval_mean eval_mean_of(const eval_results *results, const char *method, const char *task, int32_t n_ctx,
                       int32_t n_sample);

double eval_seconds(void); /* monotonic */

#endif
