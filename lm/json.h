/* lm/json.h - reading JSON files with messages that say which key is wrong. */
#ifndef LM_JSON_H
#define LM_JSON_H

#include "error.h"

#include <cjson/cJSON.h>
#include <stdint.h>

/* Parses a whole text: anything but white space after the value is an error. Free with cJSON_Delete(). */
cJSON *lm_json_parse(const char *text, size_t n, const char *where, lm_error *err);
cJSON *lm_json_read(const char *path, size_t max_bytes, lm_error *err);

/* Reads the members of an object and remembers its first failure, so that thirty keys do not need thirty ifs. A missing
 * key (or null) gives the fallback; a value of the wrong kind fails. After a failure every call gives the fallback. */
typedef struct lm_json_reader {
    const cJSON *object; /* NULL: no key is there */
    const char *where;   /* where messages say the object stands, e.g. "config.json" */
    lm_error *err;
    bool failed;
} lm_json_reader;

int64_t lm_json_int(lm_json_reader *r, const char *key, int64_t min, int64_t max, int64_t fallback);
double lm_json_number(lm_json_reader *r, const char *key, double fallback);
bool lm_json_bool(lm_json_reader *r, const char *key, bool fallback);
const char *lm_json_text(lm_json_reader *r, const char *key, const char *fallback); /* borrowed from the object */

/* The member called key (case-sensitive); NULL if there is none or it is null. */
const cJSON *lm_json_get(const cJSON *object, const char *key);

/* True if the value is a whole number in 0 .. 2^53, beyond which a double cannot tell neighbours apart. */
bool lm_json_u53(const cJSON *value, uint64_t *out);

#endif
