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

bool lm_json_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out, const char *where,
                 lm_error *err)
{
    const cJSON *value = lm_json_get(object, key);
    if (!value)
        return true;
    const double x = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (!(x >= (double)min && x <= (double)max) || x != floor(x))
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"%s\" must be a whole number from %lld to %lld", where, key,
                       (long long)min, (long long)max);
    *out = (int64_t)x;
    return true;
}

bool lm_json_number(const cJSON *object, const char *key, double *out, const char *where, lm_error *err)
{
    const cJSON *value = lm_json_get(object, key);
    if (!value)
        return true;
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"%s\" must be a finite number", where, key);
    *out = value->valuedouble;
    return true;
}

bool lm_json_bool(const cJSON *object, const char *key, bool *out, const char *where, lm_error *err)
{
    const cJSON *value = lm_json_get(object, key);
    if (!value)
        return true;
    if (!cJSON_IsBool(value))
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"%s\" must be true or false", where, key);
    *out = cJSON_IsTrue(value);
    return true;
}

bool lm_json_string(const cJSON *object, const char *key, const char **out, const char *where, lm_error *err)
{
    const cJSON *value = lm_json_get(object, key);
    if (!value)
        return true;
    if (!cJSON_IsString(value))
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"%s\" must be a string", where, key);
    *out = value->valuestring;
    return true;
}
