#define _GNU_SOURCE /* strcasestr */
#include "prompt.h"

#include <stdlib.h>
#include <string.h>

static bool not_empty(cli_prompt *p, lm_error *err)
{
    if (p->n > 0)
        return true;
    cli_prompt_free(p);
    return lm_fail(err, LM_ERROR_INPUT, "the prompt is empty");
}

bool cli_prompt_from_text(const char *text, cli_prompt *out, lm_error *err)
{
    *out = (cli_prompt){.text = strdup(text), .n = strlen(text)};
    return out->text ? not_empty(out, err) : lm_fail(err, LM_ERROR_MEMORY, "out of memory for the prompt");
}

static bool append_question(cli_prompt *p, const char *question, lm_error *err)
{
    while (p->n && p->text[p->n - 1] == '\n')
        p->n--;
    const size_t n = p->n + 2 + strlen(question);
    char *more = realloc(p->text, n + 1);
    if (!more)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a prompt of %zu bytes", n);
    memcpy(more + p->n, "\n\n", 2);
    strcpy(more + p->n + 2, question);
    p->text = more;
    p->n = n;
    return true;
}

bool cli_prompt_from_file(const char *path, const char *question, cli_prompt *out, lm_error *err)
{
    *out = (cli_prompt){0};
    return cli_read_file(path, &out->text, &out->n, err) && not_empty(out, err) &&
           (!question || append_question(out, question, err));
}

/* The turns of a record, one after the other. */
static bool join_turns(const cJSON *turns, const char *path, cli_prompt *out, lm_error *err)
{
    const cJSON *turn;
    size_t n = 0;
    if (!cJSON_IsArray(turns) || cJSON_GetArraySize(turns) == 0)
        return lm_fail(err, LM_ERROR_INPUT, "'%s': the record has no origin_prompt list", path);
    cJSON_ArrayForEach(turn, turns)
    {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(turn, "prompt"));
        if (!text)
            return lm_fail(err, LM_ERROR_INPUT, "'%s': an entry of origin_prompt has no prompt", path);
        n += strlen(text);
    }
    out->text = malloc(n + 1);
    if (!out->text)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a prompt of %zu bytes", n);
    cJSON_ArrayForEach(turn, turns)
    {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(turn, "prompt"));
        memcpy(out->text + out->n, text, strlen(text));
        out->n += strlen(text);
    }
    out->text[n] = '\0';
    return true;
}

static bool read_record(const cJSON *root, const char *path, const char *key, cli_prompt *out, lm_error *err)
{
    const cJSON *record = key ? cJSON_GetObjectItemCaseSensitive(root, key) : root->child;
    if (!cJSON_IsObject(root) || !cJSON_IsObject(record))
        return lm_fail(err, LM_ERROR_INPUT, "'%s' has no record %s%s: the file must be an object of numbered records",
                       path, key ? "" : "at all", key ? key : "");
    if (!join_turns(cJSON_GetObjectItemCaseSensitive(record, "origin_prompt"), path, out, err))
        return false;
    const cJSON *gold = cJSON_GetObjectItemCaseSensitive(record, "gold"), *answer;
    if (!gold)
        return true;
    if (!cJSON_IsArray(gold))
        return lm_fail(err, LM_ERROR_INPUT, "'%s': gold is not a list", path);
    cJSON_ArrayForEach(answer, gold)
    {
        if (!cJSON_IsString(answer))
            return lm_fail(err, LM_ERROR_INPUT, "'%s': a gold answer is not a string", path);
    }
    out->gold = cJSON_Duplicate(gold, true);
    return out->gold || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the gold answers");
}

bool cli_prompt_from_ruler(const char *path, const char *key, cli_prompt *out, lm_error *err)
{
    char *json;
    size_t n;
    *out = (cli_prompt){0};
    if (!cli_read_file(path, &json, &n, err))
        return false;
    cJSON *root = cJSON_ParseWithLength(json, n);
    const char *stop = cJSON_GetErrorPtr();
    const bool ok = root ? read_record(root, path, key, out, err)
                         : lm_fail(err, LM_ERROR_INPUT, "'%s' is not JSON: stopped at byte %td of %zu", path,
                                   stop ? stop - json : 0, n);
    cJSON_Delete(root);
    free(json);
    return ok && not_empty(out, err);
}

void cli_prompt_free(cli_prompt *p)
{
    free(p->text);
    cJSON_Delete(p->gold);
    *p = (cli_prompt){0};
}

int cli_prompt_count_gold(const cli_prompt *p, const char *answer)
{
    int found = 0;
    const cJSON *gold;
    cJSON_ArrayForEach(gold, p->gold) found += strcasestr(answer, gold->valuestring) != NULL;
    return found;
}
