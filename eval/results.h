/*
 * eval/results.h - what a run has found out so far, kept so that a killed run goes on where it was.
 *
 * A results file is JSON Lines: first a header that says which model and which settings, then one record for each
 * finished (method, task, ctx, sample). Lines are only ever appended, and each is on the disk before the next sample
 * starts; a last line that was cut short by a kill is dropped when the file is opened again. A file of another model or
 * other settings is refused. Records may be added for more methods, tasks, lengths and samples at any time.
 */
#ifndef EVAL_RESULTS_H
#define EVAL_RESULTS_H

#include "lm/lm.h"

#include <cjson/cJSON.h>

typedef struct eval_results eval_results;

/* A header for this model. settings: an object with all that decides what samples look like; taken over, also on
 * failure. NULL: no memory, or the file of the model cannot be read (err says which). */
cJSON *eval_header_create(const char *family, const char *model_path, const lm_model *model, cJSON *settings,
                          lm_error *err);

/* path NULL: results are kept in memory only. header is taken over, also on failure.
 * INPUT: the file is of another model or other settings, is no results file, or is being written by another run. */
bool eval_results_open(const char *path, cJSON *header, eval_results **out, lm_error *err);
void eval_results_close(eval_results *results); /* NULL is allowed */

/* The record of a finished sample; NULL: not done yet. Valid until the close. */
const cJSON *eval_results_find(const eval_results *results, const char *method, const char *task, int32_t n_ctx,
                               int32_t sample);

/* A record with its key. Fields are the caller's to add before eval_results_add(). NULL: no memory. */
cJSON *eval_record_create(const char *method, const char *task, int32_t n_ctx, int32_t sample);
/* Density, work and seconds of a session's prefill. */
void eval_record_stats(cJSON *record, const lm_session_stats *stats, double work_flop);
/* A number of a record; NAN where it has none. */
double eval_record_number(const cJSON *record, const char *name);

/* Takes the record over (also on failure) and appends it to the file. */
bool eval_results_add(eval_results *results, cJSON *record, lm_error *err);

/* All records, oldest first, and the header. */
int32_t eval_results_count(const eval_results *results);
const cJSON *eval_results_at(const eval_results *results, int32_t i);
const cJSON *eval_results_header(const eval_results *results);

#endif
