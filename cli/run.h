/* prism run: what was asked, what came out. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "prompt.h"

typedef struct run_args {
    cli_method_args method;
    const char *model, *file, *text, *ruler, *key, *plan_file;
    int32_t n_answer, chunk, max_tokens_in;
    bool compares;
    prism_method compared;
} run_args;

/* One prefill and its answer. */
typedef struct run_result {
    prism_method method;
    lm_session_stats stats; /* layers: own copy */
    lm_text answer;
    int32_t n_answer;
    int64_t peak_bytes;
    double prefill_seconds, tokens_per_second;
    float *logits; /* of the last prompt position, [n_vocab] */
    int32_t n_vocab;
    int gold_found;
    const char *kernel; /* that attended to the end of the prompt on a GPU; "" on the CPU */
} run_result;

void run_result_free(run_result *r);

/* n_result 1, or 2: the second is what the first is compared with. */
void run_print_table(const run_result *results, int n_result, int32_t n_prompt, const cli_prompt *prompt);
cJSON *run_to_json(const run_args *args, const run_result *results, int n_result, int32_t n_prompt,
                   const cli_prompt *prompt);

#endif
