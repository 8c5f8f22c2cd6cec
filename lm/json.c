#include "json.h"
#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

cJSON *lm_json_parse(const char *text, size_t n, const char *where, lm_error *err)
{
    const char *end = NULL;
    cJSON *value = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!value) {
        const size_t at = end && end >= text && (size_t)(end - text) <= n ? (size_t)(end - text) : 0;
        lm_fail(err, LM_ERROR_INPUT, "%s: invalid JSON near byte %zu of %zu", where, at, n);
        return NULL;
    }
    for (const char *p = end; p < text + n; p++)
        if (!memchr(" \t\r\n", *p, 4)) {
            lm_fail(err, LM_ERROR_INPUT, "%s: byte %zu: more follows after the end of the JSON value", where,
                    (size_t)(p - text));
            cJSON_Delete(value);
            return NULL;
        }
    return value;
}

cJSON *lm_json_read(const char *path, size_t max_bytes, lm_error *err)
{
    char *text;
    size_t n;
    if (!lm_read_file(path, max_bytes, &text, &n, err))
        return NULL;
    cJSON *value = lm_json_parse(text, n, path, err);
    free(text);
    return value;
}

const cJSON *lm_json_get(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return value && !cJSON_IsNull(value) ? value : NULL;
}

bool lm_json_u53(const cJSON *value, uint64_t *out)
{
    const double x = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (!(x >= 0 && x <= 0x1p53) || x != floor(x))
        return false;
    *out = (uint64_t)x;
    return true;
}

/* The value of the key; NULL: the fallback is wanted. */
static const cJSON *value_of(const lm_json_reader *r, const char *key)
{
    return r->failed ? NULL : lm_json_get(r->object, key);
}

int64_t lm_json_int(lm_json_reader *r, const char *key, int64_t min, int64_t max, int64_t fallback)
{
    const cJSON *value = value_of(r, key);
    if (!value)
        return fallback;
    const double x = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (x >= (double)min && x <= (double)max && x == floor(x))
        return (int64_t)x;
    r->failed = true;
    lm_error_set(r->err, LM_ERROR_INPUT, "%s: \"%s\" must be a whole number from %lld to %lld", r->where, key,
                 (long long)min, (long long)max);
    return fallback;
}

/* Fails unless right; true: there is a value to take. */
static bool check(lm_json_reader *r, const cJSON *value, bool right, const char *key, const char *kind)
{
    if (!value || right)
        return value;
    r->failed = true;
    return lm_fail(r->err, LM_ERROR_INPUT, "%s: \"%s\" must be %s", r->where, key, kind);
}

double lm_json_number(lm_json_reader *r, const char *key, double fallback)
{
    const cJSON *v = value_of(r, key);
    const bool right = cJSON_IsNumber(v) && isfinite(v->valuedouble);
    return check(r, v, right, key, "a finite number") ? v->valuedouble : fallback;
}

bool lm_json_bool(lm_json_reader *r, const char *key, bool fallback)
{
    const cJSON *v = value_of(r, key);
    return check(r, v, cJSON_IsBool(v), key, "true or false") ? cJSON_IsTrue(v) : fallback;
}

const char *lm_json_text(lm_json_reader *r, const char *key, const char *fallback)
{
    const cJSON *v = value_of(r, key);
    return check(r, v, cJSON_IsString(v), key, "a string") ? v->valuestring : fallback;
}
