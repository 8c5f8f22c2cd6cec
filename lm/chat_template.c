/* The chat template that comes with a model, from either form of file. */
#include "file.h"
#include "gguf.h"
#include "json.h"
#include "lm.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEMPLATE_BYTES (1u << 24)

static bool copy(const char *string, size_t n, char **text, lm_error *err)
{
    *text = string ? strndup(string, n) : NULL;
    return !string || *text || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the chat template");
}

static bool from_gguf(const char *path, char **text, lm_error *err)
{
    lm_gguf *gguf;
    if (!lm_gguf_open(path, &gguf, err))
        return false;
    const lm_gguf_value *v = lm_gguf_value_find(gguf, LM_GGUF_CHAT_TEMPLATE);
    const bool is_text = v && !v->is_array && v->type == LM_GGUF_STRING;
    const uint8_t *at = is_text ? v->data : NULL;
    size_t n = 0;
    const char *string = is_text ? lm_gguf_value_string(&at, &n) : NULL;
    const bool ok = copy(string, n, text, err);
    lm_gguf_close(gguf);
    return ok;
}

/* A string, or a list of {"name", "template"} of which the one called default counts. */
static const char *template_in(const cJSON *config)
{
    const cJSON *value = lm_json_get(config, "chat_template"), *item;
    if (cJSON_IsArray(value))
        cJSON_ArrayForEach(item, value)
        {
            const char *name = cJSON_GetStringValue(lm_json_get(item, "name"));
            if (name && !strcmp(name, "default"))
                return cJSON_GetStringValue(lm_json_get(item, "template"));
        }
    return cJSON_GetStringValue(value);
}

static bool from_config(const char *path, char **text, lm_error *err)
{
    cJSON *json = lm_json_read(path, MAX_TEMPLATE_BYTES, err);
    const char *string = template_in(json);
    const bool ok = json && copy(string, string ? strlen(string) : 0, text, err);
    cJSON_Delete(json);
    return ok;
}

static bool from_directory(const char *dir, char **text, lm_error *err)
{
    char *jinja = lm_path_join(dir, "chat_template.jinja"), *config = lm_path_join(dir, "tokenizer_config.json");
    size_t n;
    bool ok = (jinja && config) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the chat template");
    if (ok && lm_path_exists(jinja))
        ok = lm_read_file(jinja, MAX_TEMPLATE_BYTES, text, &n, err);
    else if (ok && lm_path_exists(config))
        ok = from_config(config, text, err);
    free(jinja);
    free(config);
    return ok;
}

bool lm_chat_template(const char *model_path, char **text, lm_error *err)
{
    *text = NULL;
    return lm_path_is_directory(model_path) ? from_directory(model_path, text, err) : from_gguf(model_path, text, err);
}
