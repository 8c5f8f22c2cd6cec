/* The command's shared parts. Sees the public API and the runner, nothing inside the library. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>
#include <getopt.h>

#include "lm/lm.h"

enum { EXIT_DONE = 0, EXIT_RUN = 1, EXIT_USAGE = 2, EXIT_INPUT = 3, EXIT_INTERRUPTED = 130 };

/* ------------------------------------------------------------------------------------------------ errors ---- */

/* Prints "prism: ..." to stderr and returns the exit code, so that a command can end with return cli_fail(...). Names
 * from files may be in the text: it is escaped. */
__attribute__((format(printf, 2, 3))) int cli_fail(int exit_code, const char *format, ...);
/* Prints "note: ..." to stderr likewise. */
__attribute__((format(printf, 1, 2))) void cli_note(const char *format, ...);
void cli_silence_notes(void);
/* Copies text to out, with every byte of a control character and of invalid UTF-8 as \xNN, as far as n bytes hold it,
 * and returns out: a terminal would obey them. */
char *cli_escape(const char *text, char *out, size_t n);
/* Whether what eval_utf8_next() returned is a control character or an invalid byte. */
bool cli_is_hidden(uint32_t c, size_t length);
/* From here on a mapped file that another process makes shorter ends the command with a sentence and EXIT_INPUT. */
void cli_watch_mapped_files(void);
int cli_fail_lm(const lm_error *err);
/* Prints the sentence of a failed call of the library. exit_code: for invalid or unsupported arguments; any other
 * failure is EXIT_RUN. */
int cli_fail_prism(const prism_ctx *ctx, prism_status status, int exit_code);

/* --------------------------------------------------------------------------------------------- arguments ---- */

enum { CLI_MAX_NAMED = 32, CLI_MAX_NAME = 64 };

/* "cpu", "cuda", or "cuda:N" for GPU number N. */
typedef struct cli_device {
    prism_device kind;
    int32_t ordinal;
} cli_device;
/* Creates a context on that device; n_thread 0: all processors. Returns EXIT_DONE, or the exit code after a message. */
int cli_create_context(const cli_device *device, int32_t n_thread, prism_ctx **out);

/* Options that every command with a method takes. */
typedef struct cli_method_args {
    prism_options options;
    char named[CLI_MAX_NAMED][CLI_MAX_NAME]; /* the library's options that were given, method aside */
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

/* Sets the library's defaults, on the CPU. */
void cli_method_args_init(cli_method_args *args);
/* Handles one of CLI_METHOD_OPTIONS. Returns EXIT_DONE, or the exit code after a message; -1: not one of them. */
int cli_method_arg(cli_method_args *args, int option, const char *value);
/* Returns EXIT_USAGE, with a message, if an option was given that no method of the call uses. methods: bit m for method
 * m. Call it once all arguments are read. */
int cli_check_named(const cli_method_args *args, unsigned methods);
/* Reads a whole number in [min, max], 8192 or 8K; prints a message and returns false for anything else. */
bool cli_parse_int(const char *name, const char *text, int32_t min, int32_t max, int32_t *out);
bool cli_parse_whole(const char *name, const char *text, double min, double max, double *out); /* up to 2^53 */
/* Reads a number in [min, max] likewise: 12, 0.5, 1e6. */
bool cli_parse_number(const char *name, const char *text, double min, double max, double *out);
/* Reads at most n of either kind by comma. Returns how many there are; -1, without a message: something else. */
int32_t cli_parse_list(const char *text, bool whole, double min, double max, double *out, int32_t n);

/* One option of a command. getopt, parsing and the help text read the same row. */
typedef enum cli_kind {
    CLI_TEXT,   /* const char * */
    CLI_FLAG,   /* bool; takes no value */
    CLI_INT,    /* int32_t in [min, max] */
    CLI_LONG,   /* uint64_t in [min, max], max <= 2^53 */
    CLI_NUMBER, /* double in [min, max] */
    CLI_CHOICE, /* an enum: which of choices[0 .. max - 1] */
    CLI_OTHER   /* parse() sets what it likes */
} cli_kind;
typedef struct cli_option {
    const char *name, *value, *help; /* "text", "FILE"; help: lines by newline */
    cli_kind kind;
    char letter;   /* 0: it has none */
    size_t offset; /* of the field in the command's arguments */
    double min, max;
    const char *const *choices;
    int (*parse)(void *args, const char *value); /* returns EXIT_DONE, or the exit code after a message */
} cli_option;

typedef struct cli_command {
    const char *name;         /* "run", "eval ppl" */
    const char *intro, *end;  /* of the help text; end may be NULL */
    const cli_option *own;    /* [n_own] */
    const cli_option *shared; /* [n_shared] of several commands */
    int n_own, n_shared;
    int (*word)(void *args, const char *text); /* for an argument that is no option; NULL: none is allowed */
} cli_command;

/* Parses a command's arguments into args. method: takes CLI_METHOD_OPTIONS; NULL: the command has none of them. Returns
 * EXIT_DONE, or the exit code after a message. *helped: the help was asked for and printed. */
int cli_parse(const cli_command *command, int argc, char **argv, void *args, cli_method_args *method, bool *helped);

/* USAGE where prefill steps of chunk tokens, 0: not given, are shorter than a block. */
bool cli_check_chunk(int32_t chunk, int32_t block_size, lm_error *err);

/* Parses --device: an option's parse() for a cli_device. */
bool cli_parse_device(const char *text, cli_device *out);
extern const char cli_device_help[], cli_threads_help[];

/* --kv-type of the commands that run a model: a CLI_CHOICE among cli_kv_names, in the order of cli_kv_type(). */
enum { CLI_N_KV = 4 };
extern const char *const cli_kv_names[CLI_N_KV];
extern const char cli_kv_help[];
prism_dtype cli_kv_type(int32_t choice);
const char *cli_dtype_name(prism_dtype type); /* "f16"; LM_KV_AUTO: "auto" */

/* -------------------------------------------------------------------------------------- files and output ---- */

/* Reads a whole file; "-" is stdin. Free *data. */
bool cli_read_file(const char *path, char **data, size_t *n, lm_error *err);

/* Returns where the first byte stands that belongs to no UTF-8 character; n: there is none. */
size_t cli_not_utf8(const char *text, size_t n);
/* A note, if there is one: such bytes are read as they are. */
void cli_note_utf8(const char *path, const char *text, size_t n);

/* Before long work: whether path can be written, and is none of the inputs (NULL-terminated). EXIT_USAGE with a message
 * if it cannot. path NULL, or "-" for stdout: fine. */
int cli_check_output(const char *path, const char *const *inputs);
/* Whether a file that is written there is standard output: "-", /dev/stdout, ... NULL: no. */
bool cli_is_stdout(const char *path);
/* Whether path ends in one of the NULL-terminated endings. */
bool cli_has_ending(const char *path, const char *const *endings);

/* A progress bar on stderr: a line redrawn on a terminal, a line every tenth elsewhere; nothing if !visible. */
#define CLI_REDRAW "\r\033[?7l"       /* before a line that is redrawn on a terminal: where it is too long, it is cut */
#define CLI_REDRAWN "\033[K\033[?7h" /* after it */
typedef struct cli_progress {
    const char *label;
    bool visible;
    double start, last;
    int tenth;
} cli_progress;
void cli_progress_start(cli_progress *p, const char *label, bool visible);
void cli_progress_update(void *progress, int64_t done, int64_t total); /* an lm_progress */
void cli_progress_end(cli_progress *p);

/* A bar of `width` characters, value in 0 .. 1, into text. */
const char *cli_bar(double value, int width, char *text, size_t n);

/* Peak resident memory since the last reset, bytes; 0 if unknown. Where the system cannot reset, since the start. */
void cli_reset_peak(void);
int64_t cli_peak_bytes(void);

/* Returns what a reader is shown for a name from prism_cuda_attend_kernel(). */
const char *cli_kernel_text(const char *kernel);

/* Prints and frees the object; EXIT_RUN if it could not be built. */
int cli_print_json(cJSON *object);

/* Finds a script in folder, or, where that is NULL, beside an installed program or a build folder in the sources; never
 * in the working directory. */
bool cli_find_script(const char *name, const char *folder, char *path, size_t n);
/* Runs python3 with these arguments, at most six, NULL behind the last. No shell: the name of a file is an argument,
 * whatever is in it. Returns its exit code; -1: it did not end by itself. */
enum { CLI_NO_MATPLOTLIB = 4, CLI_NO_PYTHON = 127 };
int cli_run_python(const char *const *arguments);

/* ---------------------------------------------------------------------------------------------- commands ---- */

int cli_run(int argc, char **argv);
int cli_attend(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_needle(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_eval(int argc, char **argv);

#endif
