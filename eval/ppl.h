/*
 * eval/ppl.h - rolling perplexity: how well a model foretells long texts, each token once.
 *
 *   text -> tokens -> windows of n_ctx predicted tokens -> prefill by the method -> log-probabilities -> sums
 *
 * Windows as lm-eval's rolling log-likelihood has them: the first starts with the prefix token (BOS where the model
 * defines one, else EOS) and predicts n_ctx tokens; each further one predicts the next n_ctx tokens from one token of
 * left context; the last, shorter one is filled up with context on its left. Natural logs, by lm_session_score().
 */
#ifndef EVAL_PPL_H
#define EVAL_PPL_H

#include "eval/run.h"

/* One text. Start from {0}. */
typedef struct eval_ppl_text {
    char *name;             /* task name of its records */
    lm_tokens tokens;       /* no prefix token */
    int64_t n_word, n_byte; /* of what the tokens spell */
    uint64_t hash;          /* of the same */
} eval_ppl_text;

/* max_tokens 0: the whole text. INPUT: no tokenizer, or an empty text. */
bool eval_ppl_text_make(const lm_model *model, const char *name, const char *text, size_t n, int64_t max_tokens,
                        eval_ppl_text *out, lm_error *err);
void eval_ppl_text_free(eval_ppl_text *text);

/* Pieces of a split on runs of (Unicode) white space; empty pieces at the edges count, as in Python's re.split. */
int64_t eval_count_words(const char *text, size_t n);

/* A window: input tokens first .. first + n_input - 1 (-1: the prefix token), of which the last n_predicted positions
 * each predict their successor. */
typedef struct eval_ppl_window {
    int64_t first;
    int32_t n_input, n_predicted;
} eval_ppl_window;
int64_t eval_ppl_window_count(int64_t n_token, int32_t n_ctx);
eval_ppl_window eval_ppl_window_at(int64_t n_token, int32_t n_ctx, int64_t i);

/* Positions in a window by doubling width: 0 .. 127, 128 .. 255, 256 .. 511, ... */
#define EVAL_PPL_N_BUCKET 20
int32_t eval_ppl_bucket(int64_t position);

/* One record a window. options: n_ctx (predicted tokens) and chunk count; the others do not. */
bool eval_ppl_run(const lm_model *model, prism_ctx *ctx, const eval_ppl_text *texts, int32_t n_text,
                  const eval_methods *methods, const eval_run_options *options, eval_results *results,
                  const eval_watch *watch, lm_error *err);

typedef struct eval_ppl_score {
    int64_t n_token, n_word, n_byte, n_window;
    double nll, word, byte, token, bits_per_byte;
    double density, work_flop, seconds; /* density: mean over windows; the others: sums */
    double bucket_nll[EVAL_PPL_N_BUCKET];
    int64_t bucket_n[EVAL_PPL_N_BUCKET];
} eval_ppl_score;

/* Over texts 0 .. n_text - 1 together; false if a window is missing. */
bool eval_ppl_sum(const eval_results *results, const char *method, int32_t n_ctx, const eval_ppl_text *texts,
                  int32_t n_text, eval_ppl_score *out);

#endif
