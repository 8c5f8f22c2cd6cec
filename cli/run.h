/* prism run: what was asked, what came out. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "eval/chat.h"
#include "plan_file.h"
#include "prompt.h"

typedef struct run_args {
    cli_method_args method;
    const char *model, *file, *text, *ruler, *key, *plan_file;
    const char *system, *template; /* either also asks for chat */
    int32_t n_answer, chunk, max_tokens_in, kv;
    bool compares, chat, quiet;
    prism_method compared;
} run_args;

/* What all runs of a command share. */
typedef struct run_job {
    const run_args *args;
    const lm_model *model;
    prism_ctx *ctx;
    const lm_tokens *tokens;
    const eval_chat *chat; /* NULL: the prompt is plain text */
    plan_file *plans;
} run_job;

/* One prefill and its answer. */
typedef struct run_result {
    prism_method method;
    lm_session_stats stats; /* layers: own copy */
    lm_text answer;
    int32_t n_answer;
    bool interrupted; /* ctrl-C ended the answer */
    int64_t peak_bytes;
    double prefill_seconds, tokens_per_second;
    float *logits; /* of the last prompt position, [n_vocab] */
    int32_t n_vocab;
    int gold_found;
    const char *kernel; /* that attended to the end of the prompt on a GPU; "" on the CPU */
} run_result;

/* Prefills and answers. The answer goes to stdout token by token; to stderr where is_compared. */
bool run_once(const run_job *job, prism_method method, bool is_compared, run_result *r, lm_error *err);
void run_result_free(run_result *r);

/* The table, on stderr. n_result 1, or 2: the second is what the first is compared with. */
void run_print_table(const run_result *results, int n_result, int32_t n_prompt, const cli_prompt *prompt);
cJSON *run_to_json(const run_job *job, const run_result *results, int n_result, const cli_prompt *prompt);

#endif
