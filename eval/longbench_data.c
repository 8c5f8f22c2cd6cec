/* Lines of JSON, and prompts cut to the context. */
#include "longbench_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE ((size_t)1 << 26)

/* -------------------------------------------------------------------------------------------------- lines ---- */

static bool is_strings(const cJSON *array)
{
    const cJSON *item;
    if (!cJSON_IsArray(array))
        return false;
    cJSON_ArrayForEach(item, array)
    {
        if (!cJSON_IsString(item))
            return false;
    }
    return true;
}

static bool read_fields(longbench_line *line, const longbench_kind *kind, const char *where, lm_error *err)
{
    const cJSON *root = line->root;
    if (!cJSON_IsObject(root))
        return lm_fail(err, LM_ERROR_INPUT, "%s: not a JSON object", where);
    if (!lm_json_string(root, "input", &line->input, where, err) ||
        !lm_json_string(root, "context", &line->context, where, err))
        return false;
    line->answers = lm_json_get(root, "answers");
    line->classes = lm_json_get(root, "all_classes");
    if (!line->input || !line->context)
        return lm_fail(err, LM_ERROR_INPUT, "%s: no \"%s\"", where, line->input ? "context" : "input");
    if (!is_strings(line->answers) || !line->answers->child)
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"answers\" must be an array of one string or more", where);
    if (line->classes && !is_strings(line->classes))
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"all_classes\" must be null or an array of strings", where);
    if (kind->metric == LONGBENCH_CLASSIFICATION && !line->classes)
        return lm_fail(err, LM_ERROR_INPUT, "%s: \"all_classes\" is missing, which this task is scored with", where);
    return true;
}

static size_t line_length(const longbench_file *file, size_t at)
{
    const void *end = memchr(file->map.data + at, '\n', file->map.bytes - at);
    return end ? (size_t)((const uint8_t *)end - file->map.data) - at : file->map.bytes - at;
}

bool longbench_line_read(const longbench_file *file, const longbench_kind *kind, size_t i, longbench_line *out,
                         lm_error *err)
{
    char where[300];
    const size_t n = line_length(file, file->at[i]);
    snprintf(where, sizeof where, "'%.240s' line %zu", file->path, file->number[i]);
    if (n > MAX_LINE)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %zu bytes, more than a line may have", where, n);
    longbench_line line = {.root = lm_json_parse((const char *)file->map.data + file->at[i], n, where, err)};
    if (!line.root)
        return false;
    if (!read_fields(&line, kind, where, err)) {
        cJSON_Delete(line.root);
        return false;
    }
    *out = line;
    return true;
}

static bool is_blank_line(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!eval_is_space(s[i]))
            return false;
    return true;
}

static bool index_lines(longbench_file *file, size_t n_most, lm_error *err)
{
    size_t room = 0, number = 0;
    for (size_t at = 0, n; at < file->map.bytes && file->n < n_most; at += n + 1) {
        n = line_length(file, at);
        number++;
        if (is_blank_line(file->map.data + at, n))
            continue;
        if (file->n == room) {
            room = room ? 2 * room : 256;
            size_t *grown_at = realloc(file->at, room * sizeof *grown_at);
            file->at = grown_at ? grown_at : file->at;
            size_t *grown_number = realloc(file->number, room * sizeof *grown_number);
            file->number = grown_number ? grown_number : file->number;
            if (!grown_at || !grown_number)
                return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu lines", room);
        }
        file->at[file->n] = at;
        file->number[file->n++] = number;
    }
    return file->n > 0 || lm_fail(err, LM_ERROR_INPUT, "'%s' has no lines", file->path);
}

static bool check_lines(const longbench_file *file, const longbench_kind *kind, lm_error *err)
{
    for (size_t i = 0; i < file->n; i++) {
        longbench_line line;
        if (!longbench_line_read(file, kind, i, &line, err))
            return false;
        cJSON_Delete(line.root);
    }
    return true;
}

bool longbench_file_open(const char *folder, const longbench_kind *kind, int32_t n_most, longbench_file *out,
                         lm_error *err)
{
    char name[80];
    snprintf(name, sizeof name, "%s.jsonl", kind->name);
    longbench_file file = {.path = lm_path_join(folder, name)};
    bool ok = file.path || lm_fail(err, LM_ERROR_MEMORY, "out of memory for a path");
    if (ok && !lm_path_exists(file.path))
        ok = lm_fail(err, LM_ERROR_INPUT,
                     "there is no '%s': LongBench's files are wanted there, one <task>.jsonl each (data.zip from "
                     "https://huggingface.co/datasets/THUDM/LongBench)",
                     file.path);
    ok = ok && lm_map_open(file.path, &file.map, err) &&
         index_lines(&file, n_most > 0 ? (size_t)n_most : SIZE_MAX, err) && check_lines(&file, kind, err);
    if (ok)
        *out = file;
    else
        longbench_file_close(&file);
    return ok;
}

void longbench_file_close(longbench_file *file)
{
    free(file->path);
    free(file->at);
    free(file->number);
    lm_map_close(&file->map);
    *file = (longbench_file){0};
}

/* ----------------------------------------------------------------------------------------------- cutting ---- */

/* Bytes of the first n tokens. */
static size_t bytes_of(const lm_tokenizer *tok, const int32_t *ids, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes = 0;
        lm_tokenizer_bytes(tok, ids[i], &n_bytes);
        total += n_bytes;
    }
    return total;
}

/* Keeps about n_keep of the tokens, whole characters only. */
static void cut_once(const lm_tokenizer *tok, const lm_tokens *ids, lm_text *text, size_t n_keep,
                     eval_truncation truncation)
{
    const size_t n_head = truncation == EVAL_TRUNCATE_MIDDLE ? n_keep / 2 : 0, n_tail = n_keep - n_head;
    const size_t head = eval_utf8_floor(text->data, bytes_of(tok, ids->ids, n_head));
    const size_t tail = eval_utf8_ceil(text->data, text->n, bytes_of(tok, ids->ids, ids->n - n_tail));
    memmove(text->data + head, text->data + tail, text->n - tail + 1);
    text->n -= tail - head;
}

/* Encoded again, the text around the cut may have a few tokens more than it had: then those go too. */
bool longbench_cut(const lm_model *model, lm_text *text, int32_t n_max, eval_truncation truncation, lm_error *err)
{
    const size_t limit = (size_t)n_max;
    for (size_t slack = 0;; slack = slack ? 2 * slack : 1) {
        lm_tokens ids = {0};
        if (!lm_model_encode(model, text->data, text->n, false, &ids, err))
            return false;
        const size_t n = ids.n;
        if (n > limit)
            cut_once(lm_model_tokenizer(model), &ids, text, slack < limit ? limit - slack : 0, truncation);
        lm_tokens_free(&ids);
        if (n <= limit)
            return true;
    }
}
