/*
 * eval/chat.h - a prompt as a chat model wants it: a user turn, and the beginning of the answer.
 *
 * The template in a model's metadata is a program (Jinja). It is not run: the two forms that Qwen and Llama 3 use are
 * recognised from its text, with their fixed system turns. Models without a template, and templates of other forms, get
 * prompt and answer prefix as plain text, joined by one space.
 */
#ifndef EVAL_CHAT_H
#define EVAL_CHAT_H

#include "lm/lm.h"

typedef enum eval_chat_form {
    EVAL_CHAT_NONE = 0,   /* the model has no template */
    EVAL_CHAT_CHATML = 1, /* <|im_start|>user ... <|im_end|> */
    EVAL_CHAT_LLAMA3 = 2, /* <|start_header_id|>user<|end_header_id|> ... <|eot_id|> */
    EVAL_CHAT_UNKNOWN = 3 /* it has one of another form: used as plain text */
} eval_chat_form;

typedef struct eval_chat {
    eval_chat_form form;
    char head[512]; /* what stands before the prompt */
    char tail[128]; /* between prompt and answer prefix */
} eval_chat;

/* From the text of a template; NULL or "": none. */
void eval_chat_from_template(const char *text, eval_chat *out);

/* From a GGUF file's tokenizer.chat_template, or a directory's tokenizer_config.json or chat_template.jinja. */
bool eval_chat_open(const char *model_path, eval_chat *out, lm_error *err);

/* "none", "ChatML", "Llama 3", "unknown" */
const char *eval_chat_form_name(eval_chat_form form);

/* Tokens that the template adds to a prompt, BOS included: what generators keep free. */
bool eval_chat_reserve(const eval_chat *chat, const lm_model *model, int32_t *n_token, lm_error *err);

/* Appends the tokens of a prompt, of at most n_max; from a longer prompt the first tokens are dropped, but never what
 * the template puts before it. answer_prefix may be NULL. *n_dropped: tokens that went. */
bool eval_chat_encode(const eval_chat *chat, const lm_model *model, const char *prompt, const char *answer_prefix,
                      int32_t n_max, lm_tokens *out, int32_t *n_dropped, lm_error *err);

#endif
