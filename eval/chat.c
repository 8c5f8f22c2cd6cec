#include "eval/chat.h"

#include "eval/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ forms ---- */

enum { MAX_MARK = 3 };

struct eval_chat_form {
    const char *name;
    const char *marks[MAX_MARK]; /* a template that holds all of them, and those of no row above, is of this form */
    const char *head;            /* before the prompt, without a system turn. NULL: known by name only */
    const char *before_system, *after_system; /* the same with one */
    const char *tail;                         /* between prompt and answer */
    const char *end;                          /* the token that ends a turn */
    bool trims;                               /* white space around system turn and prompt goes */
};

#define LLAMA3_USER "<|start_header_id|>user<|end_header_id|>\n\n"
#define LLAMA3_SYSTEM "<|start_header_id|>system<|end_header_id|>\n\n"
#define LLAMA3_ANSWER "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"

static const eval_chat_form forms[] = {
    {.name = "phi4", .marks = {"<|im_sep|>"}},
    {"chatml", {"<|im_start|>"}, "<|im_start|>user\n", "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n",
     "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", false},
    {"llama3", {"<|start_header_id|>", "<|end_header_id|>"}, LLAMA3_USER, LLAMA3_SYSTEM, "<|eot_id|>" LLAMA3_USER,
     LLAMA3_ANSWER, "<|eot_id|>", true},
    {"llama2", {"[INST]", "<<SYS>>"}, "[INST] ", "[INST] <<SYS>>\n", "\n<</SYS>>\n\n", " [/INST]", "</s>", true},
    /* Mistral's, by the versions of its tokenizers; the last as it was published for 0.1 and 0.2. */
    {"mistral-v7", {"[SYSTEM_PROMPT] "}, "[INST] ", "[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT][INST] ", "[/INST]", "</s>",
     false},
    {"mistral-v7-tekken", {"[SYSTEM_PROMPT]"}, "[INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT][INST]", "[/INST]",
     "</s>", false},
    {"mistral-v1", {"' [INST] '"}, " [INST] ", " [INST] ", "\n\n", " [/INST]", "</s>", false},
    {"mistral-v3-tekken", {"[AVAILABLE_TOOLS]", "\"[INST]\""}, "[INST]", "[INST]", "\n\n", "[/INST]", "</s>", false},
    {"mistral-v3", {"[AVAILABLE_TOOLS]", "[INST]"}, "[INST] ", "[INST] ", "\n\n", "[/INST]", "</s>", false},
    {"mistral", {"[INST]"}, "[INST] ", "[INST] ", "\n\n", " [/INST]", "</s>", false},
    {.name = "phi3", .marks = {"<|assistant|>", "<|end|>"}},
    {"zephyr", {"<|user|>", "<|assistant|>", "eos_token"}, "<|user|>\n", "<|system|>\n", "</s>\n<|user|>\n",
     "</s>\n<|assistant|>\n", "</s>", false},
    {.name = "gemma", .marks = {"<start_of_turn>"}},
    {.name = "granite", .marks = {"<|start_of_role|>"}},
    {.name = "command-r", .marks = {"<|START_OF_TURN_TOKEN|>"}},
    {.name = "deepseek", .marks = {"<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"}},
    {.name = "llama4", .marks = {"<|header_start|>"}},
    {.name = "gpt-oss", .marks = {"<|channel|>"}},
};
enum { n_form = sizeof forms / sizeof *forms };

static bool has_marks(const eval_chat_form *form, const char *text)
{
    for (int i = 0; i < MAX_MARK && form->marks[i]; i++)
        if (!strstr(text, form->marks[i]))
            return false;
    return true;
}

static const eval_chat_form *recognise(const char *text)
{
    for (int i = 0; i < n_form; i++)
        if (has_marks(&forms[i], text))
            return &forms[i];
    return NULL;
}

static const eval_chat_form *find_form(const char *name)
{
    for (int i = 0; i < n_form; i++)
        if (!strcmp(forms[i].name, name) && forms[i].head)
            return &forms[i];
    return NULL;
}

/* ---------------------------------------------------------------------------------------------- turns ---- */

/* Appends text with the escapes of a Jinja string resolved: \n, and a backslash before any other character. */
static bool put_literal(lm_text *out, const char *text, size_t n, lm_error *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        const bool escaped = text[i] == '\\' && i + 1 < n;
        i += escaped;
        ok = lm_text_append(out, escaped && text[i] == 'n' ? "\n" : text + i, 1, err);
    }
    return ok;
}

/* The system turn that a ChatML template puts first itself. What it puts together from variables is none. */
static bool put_own_system(const char *text, lm_text *out, lm_error *err)
{
    static const char start[] = "<|im_start|>system", end[] = "<|im_end|>";
    for (const char *at = text; (at = strstr(at, start));) {
        at += sizeof start - 1;
        const size_t newline = *at == '\n' ? 1 : !strncmp(at, "\\n", 2) ? 2 : 0;
        const char *stop = strstr(at, end);
        const size_t n = stop ? (size_t)(stop - at) : 0;
        if (n > newline && newline && strcspn(at, "{}+~") >= n)
            return put_literal(out, at + newline, n - newline, err);
    }
    return true;
}

static bool put_trimmed(lm_text *out, const char *text, size_t n, bool trims, lm_error *err)
{
    while (trims && n && isspace((unsigned char)text[n - 1]))
        n--;
    for (; trims && n && isspace((unsigned char)*text); n--)
        text++;
    return lm_text_append(out, text, n, err);
}

/* Appends the system turn's text: what the template of this form says itself, then what was asked for. */
static bool put_system(const eval_chat_form *form, const char *template, const char *asked, lm_text *out,
                       lm_error *err)
{
    const bool dated = strstr(template, "Cutting Knowledge Date") != NULL; /* Llama 3.1 and later; the default */
    if (dated && !eval_put(out, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", err))
        return false;
    if (asked)
        return put_trimmed(out, asked, strlen(asked), form->trims, err);
    return put_own_system(template, out, err);
}

static bool write_turns(const char *template, const char *asked, eval_chat *chat, lm_error *err)
{
    const eval_chat_form *form = chat->form;
    lm_text system = {0};
    bool ok = put_system(form, template, asked, &system, err);
    if (ok && (system.n || asked))
        ok = eval_put(&chat->head, form->before_system, err) &&
             lm_text_append(&chat->head, system.data, system.n, err) && eval_put(&chat->head, form->after_system, err);
    else
        ok = ok && eval_put(&chat->head, form->head, err);
    lm_text_free(&system);
    /* A model that can think aloud is asked to answer at once, as Qwen3's template does where thinking is off. */
    const bool thinks = strstr(template, "enable_thinking") && strstr(template, "<think>\\n\\n</think>\\n\\n");
    return ok && eval_put(&chat->tail, form->tail, err) &&
           (!thinks || eval_put(&chat->tail, "<think>\n\n</think>\n\n", err));
}

bool eval_chat_from_template(const char *text, const char *name, const char *system, eval_chat *out, lm_error *err)
{
    text = text ? text : "";
    const eval_chat_form *own = text[0] ? recognise(text) : NULL;
    eval_chat chat = {.has_template = text[0] != '\0', .form = name ? find_form(name) : own};
    char names[256];
    if (name && !chat.form)
        return lm_fail(err, LM_ERROR_USAGE, "no chat template is called '%s': %s", name,
                       eval_chat_names(names, sizeof names));
    if (eval_chat_is_formed(&chat) && !write_turns(chat.form == own ? text : "", system, &chat, err)) {
        eval_chat_free(&chat);
        return false;
    }
    *out = chat;
    return true;
}

void eval_chat_free(eval_chat *chat)
{
    lm_text_free(&chat->head);
    lm_text_free(&chat->tail);
    *chat = (eval_chat){0};
}

bool eval_chat_is_formed(const eval_chat *chat)
{
    return chat->form && chat->form->head;
}

const char *eval_chat_name(const eval_chat *chat)
{
    return chat->form ? chat->form->name : chat->has_template ? "unknown" : "none";
}

const char *eval_chat_names(char *text, size_t n)
{
    const char *names[n_form];
    size_t count = 0;
    for (int i = 0; i < n_form; i++)
        if (forms[i].head)
            names[count++] = forms[i].name;
    return lm_list_text(names, count, "or", text, n);
}

int32_t eval_chat_end(const eval_chat *chat, const lm_model *model)
{
    if (!eval_chat_is_formed(chat))
        return -1;
    return lm_tokenizer_find(lm_model_tokenizer(model), chat->form->end, strlen(chat->form->end));
}

bool eval_chat_open(const char *model_path, const char *name, const char *system, eval_chat *out, lm_error *err)
{
    char *text;
    if (!lm_chat_template(model_path, &text, err))
        return false;
    const bool ok = eval_chat_from_template(text, name, system, out, err);
    free(text);
    return ok;
}

/* ------------------------------------------------------------------------------------------------- tokens ---- */

static const eval_chat plain;

static bool encode(const lm_model *model, const lm_text *text, bool bos, lm_tokens *out, lm_error *err)
{
    return lm_model_encode(model, text->n ? text->data : "", text->n, bos, out, err);
}

bool eval_chat_reserve(const eval_chat *chat, const lm_model *model, int32_t *n_token, lm_error *err)
{
    lm_tokens tokens = {0};
    const bool ok = encode(model, &chat->head, true, &tokens, err) && encode(model, &chat->tail, false, &tokens, err);
    *n_token = (int32_t)tokens.n;
    lm_tokens_free(&tokens);
    return ok;
}

/* One text, tokenised as one: tokens may span the seam of prompt and prefix. */
static bool compose(const eval_chat *chat, const char *prompt, size_t n, const char *prefix, lm_text *text,
                    lm_error *err)
{
    const bool joined = !chat->tail.n && prefix && n && !isspace((unsigned char)prefix[0]) &&
                        !isspace((unsigned char)prompt[n - 1]);
    return lm_text_append(text, chat->head.data, chat->head.n, err) &&
           put_trimmed(text, prompt, n, chat->form && chat->form->trims, err) &&
           lm_text_append(text, chat->tail.data, chat->tail.n, err) && eval_put(text, joined ? " " : "", err) &&
           eval_put(text, prefix ? prefix : "", err);
}

/* Drops the tokens after the first n_head until n_max are left. */
static bool shorten(lm_tokens *tokens, size_t first, size_t n_head, size_t n_max, int32_t *n_dropped, lm_error *err)
{
    const size_t n = tokens->n - first, drop = n > n_max ? n - n_max : 0;
    if (drop && n_head + drop >= n)
        return lm_fail(err, LM_ERROR_USAGE, "a context of %zu tokens has no room for a prompt", n_max);
    int32_t *at = tokens->ids + first + n_head;
    if (drop)
        memmove(at, at + drop, (n - n_head - drop) * sizeof *at);
    tokens->n -= drop;
    *n_dropped = (int32_t)drop;
    return true;
}

bool eval_chat_encode(const eval_chat *chat, const lm_model *model, const char *prompt, size_t n,
                      const char *answer_prefix, int32_t n_max, lm_tokens *out, int32_t *n_dropped, lm_error *err)
{
    lm_text text = {0};
    lm_tokens head = {0};
    chat = chat ? chat : &plain;
    const size_t first = out->n;
    const bool ok = compose(chat, prompt, n, answer_prefix, &text, err) && encode(model, &text, true, out, err) &&
                    encode(model, &chat->head, true, &head, err) &&
                    shorten(out, first, head.n, (size_t)n_max, n_dropped, err);
    lm_text_free(&text);
    lm_tokens_free(&head);
    return ok;
}
