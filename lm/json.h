/*
 * lm/json.h - reading JSON files with messages that say which key is wrong.
 *
 * Getters: a missing key (or null) leaves *out as it is and is no error; a value of the wrong kind is.
 */
#ifndef LM_JSON_H
#define LM_JSON_H

#include "error.h"

#include <cjson/cJSON.h>
#include <stdint.h>

/* Parses a whole text: anything but white space after the value is an error. Free with cJSON_Delete(). */
cJSON *lm_json_parse(const char *text, size_t n, const char *where, lm_error *err);
cJSON *lm_json_read(const char *path, size_t max_bytes, lm_error *err);

/* Where messages say the value stands, e.g. "config.json"; borrowed. */
bool lm_json_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out, const char *where,
                 lm_error *err);
bool lm_json_number(const cJSON *object, const char *key, double *out, const char *where, lm_error *err);
bool lm_json_bool(const cJSON *object, const char *key, bool *out, const char *where, lm_error *err);
/* *out is borrowed from the object. */
bool lm_json_string(const cJSON *object, const char *key, const char **out, const char *where, lm_error *err);

/* The member called key (case-sensitive); NULL if there is none or it is null. */
const cJSON *lm_json_get(const cJSON *object, const char *key);

/* True if the value is a whole number in 0 .. 2^53, beyond which a double cannot tell neighbours apart. */
bool lm_json_u53(const cJSON *value, uint64_t *out);

#endif
