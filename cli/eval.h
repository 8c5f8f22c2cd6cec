/* prism eval: what was asked, and the parts that answer it. */
#ifndef CLI_EVAL_H
#define CLI_EVAL_H

#include "cli.h"

#include "eval/needle_task.h"
#include "eval/ppl.h"
#include "eval/recall.h"
#include "eval/ruler.h"

enum { EVAL_MAX_CTX = 16, EVAL_MAX_TEXT = 64, EVAL_MAX_DEPTH = 64 };

typedef enum eval_family { EVAL_PPL, EVAL_NEEDLE, EVAL_RULER, EVAL_RECALL, EVAL_N_FAMILY } eval_family;

typedef struct eval_args {
    eval_family family;
    const char *model, *methods, *results, *plot, *tasks;
    const char *texts[EVAL_MAX_TEXT]; /* ppl: texts; needle and ruler: the haystack; recall: the prompt */
    const char *ruler_json;           /* recall: a prompt */
    int32_t n_text, ctx[EVAL_MAX_CTX], n_ctx, n_sample, n_thread, chunk, kv, max_tokens, n_row, seed;
    cli_device device;
    bool json, by_position, no_chat, plan_on_cpu;
    eval_haystack haystacks[3];
    double depths[EVAL_MAX_DEPTH];
    int32_t n_haystack, n_depth, n_key;
    eval_payload key, value;
    const char *folder, *squad, *hotpot; /* ruler: essays; QA files */
} eval_args;

extern const char *const eval_family_names[EVAL_N_FAMILY];

/* Everything that is open during an evaluation. */
typedef struct eval_bench {
    const eval_args *args;
    lm_model *model;
    prism_ctx *ctx;
    eval_chat chat;
    int32_t n_reserve;
    eval_methods methods;
    eval_results *results;
    eval_watch watch;
    eval_ppl_text *texts; /* ppl */
    int32_t n_prompt;     /* recall: tokens */
    char *book;           /* needle */
    size_t n_book;
} eval_bench;

/* eval_family.c: settings of the results file (what decides the samples), then the run at one length. */
cJSON *eval_settings(eval_bench *b, lm_error *err);
bool eval_family_run(eval_bench *b, int32_t n_ctx, lm_error *err);
void eval_bench_free_family(eval_bench *b);

/* eval_report.c */
typedef struct eval_bar {
    bool visible;
    double start, last;
    char what[128];
    int64_t done, total, first, tenth;
} eval_bar;
eval_watch eval_bar_watch(eval_bar *bar);
void eval_bar_end(eval_bar *bar);
int eval_print_tables(const eval_bench *b); /* an exit code */
cJSON *eval_to_json(const eval_bench *b);

/* eval_plot.c: before long work, whether there is what draws; then draws what eval_to_json() says with
 * tools/plot_eval.py. Both return an exit code, after a message. */
int eval_plot_check(void);
int eval_plot(const cJSON *json, const char *file);

#endif
