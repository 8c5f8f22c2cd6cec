#include "eval/chat.h"

#include "eval/text.h"
#include "lm/file.h"
#include "lm/gguf.h"
#include "lm/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEMPLATE_BYTES (1u << 24)

/* ------------------------------------------------------------------------------------------------ forms ---- */

static void chatml(const char *text, eval_chat *out)
{
    static const char qwen[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
    out->form = EVAL_CHAT_CHATML;
    snprintf(out->head, sizeof out->head, "%s%s%s<|im_start|>user\n", strstr(text, qwen) ? "<|im_start|>system\n" : "",
             strstr(text, qwen) ? qwen : "", strstr(text, qwen) ? "<|im_end|>\n" : "");
    /* Models that can think aloud are asked to answer at once, as their template does for an answer that has begun. */
    snprintf(out->tail, sizeof out->tail, "<|im_end|>\n<|im_start|>assistant\n%s",
             strstr(text, "enable_thinking") ? "<think>\n\n</think>\n\n" : "");
}

static void llama3(const char *text, eval_chat *out)
{
    out->form = EVAL_CHAT_LLAMA3;
    const char *system = strstr(text, "Cutting Knowledge Date")
                             ? "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
                               "Today Date: 26 Jul 2024\n\n<|eot_id|>"
                             : "";
    snprintf(out->head, sizeof out->head, "%s<|start_header_id|>user<|end_header_id|>\n\n", system);
    snprintf(out->tail, sizeof out->tail, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

void eval_chat_from_template(const char *text, eval_chat *out)
{
    *out = (eval_chat){.form = EVAL_CHAT_NONE};
    if (!text || !text[0])
        return;
    out->form = EVAL_CHAT_UNKNOWN;
    if (strstr(text, "<|im_start|>"))
        chatml(text, out);
    else if (strstr(text, "<|start_header_id|>"))
        llama3(text, out);
}

const char *eval_chat_form_name(eval_chat_form form)
{
    static const char *const names[] = {"none", "ChatML", "Llama 3", "unknown"};
    return names[form];
}

/* ------------------------------------------------------------------------------------------------ files ---- */

static bool from_gguf(const char *path, eval_chat *out, lm_error *err)
{
    lm_gguf *gguf;
    if (!lm_gguf_open(path, &gguf, err))
        return false;
    const lm_gguf_value *v = lm_gguf_value_find(gguf, "tokenizer.chat_template");
    char *text = NULL;
    if (v && !v->is_array && v->type == LM_GGUF_STRING) {
        const uint8_t *at = v->data;
        size_t n;
        const char *string = lm_gguf_value_string(&at, &n);
        text = strndup(string, n);
    }
    eval_chat_from_template(text, out);
    free(text);
    lm_gguf_close(gguf);
    return true;
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

static bool from_directory(const char *dir, eval_chat *out, lm_error *err)
{
    char *jinja = lm_path_join(dir, "chat_template.jinja"), *config = lm_path_join(dir, "tokenizer_config.json");
    bool ok = (jinja && config) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the chat template");
    *out = (eval_chat){.form = EVAL_CHAT_NONE};
    if (ok && lm_path_exists(jinja)) {
        char *text = NULL;
        size_t n;
        ok = lm_read_file(jinja, MAX_TEMPLATE_BYTES, &text, &n, err);
        if (ok)
            eval_chat_from_template(text, out);
        free(text);
    } else if (ok && lm_path_exists(config)) {
        cJSON *json = lm_json_read(config, MAX_TEMPLATE_BYTES, err);
        ok = json != NULL;
        if (ok)
            eval_chat_from_template(template_in(json), out);
        cJSON_Delete(json);
    }
    free(jinja);
    free(config);
    return ok;
}

bool eval_chat_open(const char *model_path, eval_chat *out, lm_error *err)
{
    return lm_path_is_directory(model_path) ? from_directory(model_path, out, err) : from_gguf(model_path, out, err);
}

/* ------------------------------------------------------------------------------------------------- tokens ---- */

bool eval_chat_reserve(const eval_chat *chat, const lm_model *model, int32_t *n_token, lm_error *err)
{
    lm_tokens tokens = {0};
    const bool ok = lm_model_encode(model, chat->head, strlen(chat->head), true, &tokens, err) &&
                    lm_model_encode(model, chat->tail, strlen(chat->tail), false, &tokens, err);
    *n_token = (int32_t)tokens.n;
    lm_tokens_free(&tokens);
    return ok;
}

/* One text, tokenised as one: tokens may span the seam of prompt and prefix. */
static bool compose(const eval_chat *chat, const char *prompt, const char *prefix, lm_text *text, lm_error *err)
{
    size_t n = strlen(prompt), skip = 0;
    if (chat->form == EVAL_CHAT_LLAMA3) { /* its template trims */
        skip = strspn(prompt, " \t\r\n");
        while (n > skip && isspace((unsigned char)prompt[n - 1]))
            n--;
    }
    const bool plain =
        !chat->tail[0] && prefix && n && !isspace((unsigned char)prefix[0]) && !isspace((unsigned char)prompt[n - 1]);
    return eval_put(text, chat->head, err) && lm_text_append(text, prompt + skip, n - skip, err) &&
           eval_put(text, chat->tail, err) && eval_put(text, plain ? " " : "", err) &&
           eval_put(text, prefix ? prefix : "", err);
}

bool eval_chat_encode(const eval_chat *chat, const lm_model *model, const char *prompt, const char *answer_prefix,
                      int32_t n_max, lm_tokens *out, int32_t *n_dropped, lm_error *err)
{
    static const eval_chat none = {.form = EVAL_CHAT_NONE};
    lm_text text = {0};
    lm_tokens head = {0};
    chat = chat ? chat : &none;
    const size_t first = out->n;
    bool ok = compose(chat, prompt, answer_prefix, &text, err) &&
              lm_model_encode(model, text.data, text.n, true, out, err) &&
              lm_model_encode(model, chat->head, strlen(chat->head), true, &head, err);
    const size_t n = out->n - first, kept = head.n;
    *n_dropped = 0;
    if (ok && n > (size_t)n_max) {
        const size_t drop = n - (size_t)n_max;
        if (kept + drop >= n) {
            ok = lm_fail(err, LM_ERROR_USAGE, "a context of %d tokens has no room for a prompt", n_max);
        } else {
            memmove(out->ids + first + kept, out->ids + first + kept + drop, (n - kept - drop) * sizeof *out->ids);
            out->n -= drop;
            *n_dropped = (int32_t)drop;
        }
    }
    lm_text_free(&text);
    lm_tokens_free(&head);
    return ok;
}
