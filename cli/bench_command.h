/* prism bench: what its files share. The measurements are in bench/. */
#ifndef CLI_BENCH_COMMAND_H
#define CLI_BENCH_COMMAND_H

#include "cli.h"

#include "bench/bench.h"
#include "eval/methods.h"

enum { bench_max_length = 32 };

typedef enum bench_what { BENCH_ATTENTION, BENCH_STAGES, BENCH_PREFILL, BENCH_N_WHAT } bench_what;
extern const char *const bench_names[BENCH_N_WHAT];
extern const char *const bench_dtype_names[]; /* by prism_dtype */

typedef struct bench_args {
    bench_what what;
    cli_method_args base; /* what every item of methods starts from; threads, json */
    const char *model, *file, *ruler, *key;
    const char *methods; /* NULL: dense and the library's default method */
    const char *csv, *plot, *tools;
    int32_t length[bench_max_length];
    int32_t n_length;                  /* 0: not given */
    int32_t layer;                     /* -1: the middle one */
    int32_t n_head, n_kv_head, d_head; /* of noise */
    prism_dtype dtype;
    double density; /* imposed; 0: every method's own; below 0: not given */
    int32_t seed, chunk;
    bench_limits limits;
} bench_args;

/* A bench while it runs. */
typedef struct bench_state {
    const bench_args *args;
    prism_ctx *ctx;
    lm_model *model; /* NULL: synthetic */
    lm_tokens tokens;
    bench_tensors tensors;
    eval_methods parsed;
    bench_method *methods; /* [parsed.n] */
    int32_t length[bench_max_length], n_length;
    int32_t layer;
    double density;       /* imposed; 0: every method's own */
    cJSON *report, *rows; /* rows is the report's "results" */
    int32_t shown_tokens; /* what the progress line last told */
    const char *shown;
} bench_state;

/* bench_args.c: getopt; EXIT_DONE and *out, or an exit code; *help: the text was printed, nothing is to be done. */
int bench_parse(int argc, char **argv, bench_args *out, bool *help);

/* bench_source.c: model, tokens and tensors as the arguments say. EXIT_DONE, or the exit code after a message. */
int bench_load(bench_state *s);
void bench_unload(bench_state *s);

/* bench_report.c: one length's results as a table on stdout (unless --json) and as rows of the report. */
cJSON *bench_report_create(const bench_state *s);
void bench_report_attention(bench_state *s, const bench_attention_result *results);
void bench_report_stages(bench_state *s, const bench_attention_result *results, const bench_peaks *peaks);
void bench_report_prefill(bench_state *s, const bench_prefill_result *results);
void bench_report_peaks(bench_state *s, const bench_peaks *peaks);

/* bench_files.c: --csv and the data of --plot, written anew after every length; then the picture. */
int bench_write_files(const bench_state *s);
int bench_draw(const bench_args *args);
/* Where the data of --plot FILE go: FILE with .json for its ending. False: FILE is too long or ends in .json itself. */
bool bench_data_path(const char *picture, char *path, size_t n);

#endif
