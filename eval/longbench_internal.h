/*
 * eval/longbench_internal.h - what a LongBench task is made of.
 *
 *   file -> lines -> fields -> prompt -> cut to the context -> sample
 */
#ifndef EVAL_LONGBENCH_INTERNAL_H
#define EVAL_LONGBENCH_INTERNAL_H

#include "longbench.h"
#include "metric.h"
#include "text.h"

#include "lm/file.h"
#include "lm/json.h"

typedef enum longbench_metric {
    LONGBENCH_F1,
    LONGBENCH_ROUGE,
    LONGBENCH_CLASSIFICATION,
    LONGBENCH_COUNT,
    LONGBENCH_RETRIEVAL,
    LONGBENCH_EDIT
} longbench_metric;

typedef enum longbench_category {
    LONGBENCH_SINGLE_DOC,
    LONGBENCH_MULTI_DOC,
    LONGBENCH_SUMMARY,
    LONGBENCH_FEW_SHOT, /* the answer is one line */
    LONGBENCH_SYNTHETIC,
    LONGBENCH_CODE
} longbench_category;

typedef struct longbench_kind {
    const char *name;
    longbench_category category;
    longbench_metric metric;
    eval_language language;
    int32_t n_answer;
    const char *prompt; /* with {context} and {input} */
} longbench_kind;

extern const longbench_kind longbench_kinds[EVAL_LONGBENCH_N_TASK];

/* The lines of a file that are in use. */
typedef struct longbench_file {
    char *path;
    lm_map map;
    size_t *at;     /* [n] where a line starts */
    size_t *number; /* [n] counted from 1, as in the file */
    size_t n;
} longbench_file;

/* One line; text is borrowed from root. */
typedef struct longbench_line {
    cJSON *root;
    const char *input, *context;
    const cJSON *answers; /* array of at least one string */
    const cJSON *classes; /* array of strings, or NULL */
} longbench_line;

/* The first n_most lines (0: all) that are not blank, each checked. */
bool longbench_file_open(const char *folder, const longbench_kind *kind, int32_t n_most, longbench_file *out,
                         lm_error *err);
void longbench_file_close(longbench_file *file); /* {0} is allowed */

/* Line i, to be freed with cJSON_Delete(root). */
bool longbench_line_read(const longbench_file *file, const longbench_kind *kind, size_t i, longbench_line *out,
                         lm_error *err);

/* In place: at most n_max tokens of the text stay. */
bool longbench_cut(const lm_model *model, lm_text *text, int32_t n_max, eval_truncation truncation, lm_error *err);

#endif
