/* The command's shared parts. Sees the public API and the runner, nothing inside the library. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>
#include <getopt.h>

#include "lm/lm.h"

enum { EXIT_DONE = 0, EXIT_RUN = 1, EXIT_USAGE = 2, EXIT_INPUT = 3 };

/* What a reader is shown of a name from prism_cuda_attend_kernel(). */
const char *cli_kernel_text(const char *kernel);

/* ------------------------------------------------------------------------------------------------ errors ---- */

/* Prints "prism: ..." to stderr and returns the exit code, so that a command can end with return cli_fail(...). */
__attribute__((format(printf, 2, 3))) int cli_fail(int exit_code, const char *format, ...);
int cli_fail_lm(const lm_error *err);
/* A failed call of the library; what: whose fault it is otherwise, e.g. EXIT_INPUT for shapes read from a file. */
int cli_fail_prism(const prism_ctx *ctx, prism_status status, int what);
/* After getopt_long() returned '?' or ':'. */
int cli_bad_option(char *const *argv, const char *command);

/* --------------------------------------------------------------------------------------------- arguments ---- */

enum { CLI_MAX_NAMED = 32, CLI_MAX_NAME = 64 };

/* "cpu", "cuda", or "cuda:N" for GPU number N. */
typedef struct cli_device {
    prism_device kind;
    int32_t ordinal;
} cli_device;
bool cli_parse_device(const char *text, cli_device *out); /* prints a message and returns false for anything else */
/* A context on that device; n_thread 0: all processors. EXIT_DONE, or the exit code after a message. */
int cli_create_context(const cli_device *device, int32_t n_thread, prism_ctx **out);

/* Options that every command with a method takes. */
typedef struct cli_method_args {
    prism_options options;
    bool names_method;                       /* it was given */
    char named[CLI_MAX_NAMED][CLI_MAX_NAME]; /* other options of the library that were */
    int n_named;
    int32_t n_thread;
    cli_device device;
    bool json;
} cli_method_args;

enum {
    OPT_METHOD = 1000,
    OPT_TOP_P,
    OPT_BLOCK_SIZE,
    OPT_CALIBRATION,
    OPT_CORRECT,
    OPT_THREADS,
    OPT_DEVICE,
    OPT_JSON,
    OPT_OWN /* a command's first */
};

#define CLI_METHOD_OPTIONS                                                                                             \
    {"method", required_argument, NULL, OPT_METHOD}, {"top-p", required_argument, NULL, OPT_TOP_P},                    \
        {"block-size", required_argument, NULL, OPT_BLOCK_SIZE},                                                       \
        {"calibration", required_argument, NULL, OPT_CALIBRATION}, {"correct", required_argument, NULL, OPT_CORRECT},  \
        {"option", required_argument, NULL, 'o'}, {"threads", required_argument, NULL, OPT_THREADS},                   \
        {"device", required_argument, NULL, OPT_DEVICE}, {"json", no_argument, NULL, OPT_JSON},                        \
        {"help", no_argument, NULL, 'h'},                                                                              \
    {                                                                                                                  \
        NULL, 0, NULL, 0                                                                                               \
    }

#define CLI_DEVICE_HELP                                                                                                \
    "  --device D             cpu (default), cuda, or cuda:N for GPU number N; 'prism info' says whether there is "    \
    "one\n"                                                                                                            \
    "  --threads T            threads of the CPU (all processors)\n"

#define CLI_METHOD_HELP                                                                                                \
    "  --method M             moments (default of prism run), prism (of prism attend), dense = full attention,\n"      \
    "                         meanpool, minference, flexprefill, xattention, flashprefill\n"                           \
    "  --top-p P              prism, meanpool: keep blocks that hold this mass, in either band (0.95); 1 is dense\n"   \
    "  --block-size B         64 or 128 (128)\n"                                                                       \
    "  --calibration C        causal (plans do not depend on chunks) or global (the paper)\n"                          \
    "  --correct C            what pruned blocks contribute: none, mean, moments (moments with that method, else "     \
    "none)\n"                                                                                                          \
    "  -o, --option NAME=V    any other option of the library: top_p_high, top_p_low, keep_sink, keep_own, "           \
    "min_tokens,\n"                                                                                                    \
    "                         and a method's own (docs/methods.md), e.g. moments_error=0.03\n" CLI_DEVICE_HELP         \
    "  --json                 one JSON object on stdout, for machines\n"                                               \
    "  -h, --help             this text\n"

void cli_method_args_init(cli_method_args *args);
/* Handles one of CLI_METHOD_OPTIONS. Returns EXIT_DONE, or the exit code after a message; -1: not one of them. */
int cli_method_arg(cli_method_args *args, int option, const char *value);
/* Once all arguments are read: EXIT_USAGE with a message if an option was given that none of the methods goes by.
 * methods: bit m for method m. */
int cli_check_named(const cli_method_args *args, unsigned methods);
/* A whole number in [min, max]; prints a message and returns false otherwise. */
bool cli_parse_int(const char *name, const char *text, int32_t min, int32_t max, int32_t *out);

/* -------------------------------------------------------------------------------------- files and output ---- */

/* Reads a whole file; "-" is stdin. Free *data. */
bool cli_read_file(const char *path, char **data, size_t *n, lm_error *err);

/* Before long work: whether path can be written, and is none of the inputs (NULL-terminated). EXIT_USAGE with a message
 * if it cannot. path NULL: fine. */
int cli_check_output(const char *path, const char *const *inputs);
/* Whether path ends in one of the NULL-terminated endings. */
bool cli_has_ending(const char *path, const char *const *endings);

/* A progress bar on stderr: a line redrawn on a terminal, a line every tenth elsewhere; nothing if !visible. */
typedef struct cli_progress {
    const char *label;
    bool visible;
    double start, last;
    int tenth;
} cli_progress;
void cli_progress_start(cli_progress *p, const char *label, bool visible);
void cli_progress_update(void *progress, int64_t done, int64_t total); /* an lm_progress */
void cli_progress_end(cli_progress *p);

/* Two or more aligned columns. */
void cli_table_row(const char *name, const char *const *cells, int n_cell);
/* A bar of `width` characters, value in 0 .. 1, into text. */
const char *cli_bar(double value, int width, char *text, size_t n);

double cli_now(void);
/* Peak resident memory since the last reset, bytes; 0 if unknown. Where the system cannot reset, since the start. */
void cli_reset_peak(void);
int64_t cli_peak_bytes(void);

/* Prints and frees the object; EXIT_RUN if it could not be built. */
int cli_print_json(cJSON *object);

/* ---------------------------------------------------------------------------------------------- commands ---- */

int cli_run(int argc, char **argv);
int cli_attend(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_needle(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_eval(int argc, char **argv);

#endif
