/*
 * eval/chat.h - a prompt as a chat model wants it: a system turn, a user turn, and the beginning of the answer.
 *
 * The template in a model's metadata is a program (Jinja). It is not run: its form is recognised by strings that stand
 * in it, and the rows of chat.c say how each form writes the turns. A system turn that the template itself puts first
 * is kept where it is plain text. Models without a template, and templates of other forms, get plain text: prompt and
 * answer prefix, joined by one space.
 */
#ifndef EVAL_CHAT_H
#define EVAL_CHAT_H

#include "lm/lm.h"

typedef struct eval_chat_form eval_chat_form; /* a row of chat.c */

/* Start from {0}: plain text. */
typedef struct eval_chat {
    bool has_template;          /* the model comes with one */
    const eval_chat_form *form; /* NULL: none, or none that is known here */
    lm_text head;               /* what stands before the prompt */
    lm_text tail;               /* between prompt and answer prefix */
} eval_chat;
void eval_chat_free(eval_chat *chat);

/* From the text of a template; NULL or "": none. name: the form to use instead of the recognised one, or NULL.
 * system: the system turn, or NULL for the template's own. USAGE: no form of that name. */
bool eval_chat_from_template(const char *text, const char *name, const char *system, eval_chat *out, lm_error *err);

/* The same from lm_chat_template(). */
bool eval_chat_open(const char *model_path, const char *name, const char *system, eval_chat *out, lm_error *err);

/* Whether prompts are written in a form; if not, they are plain text. */
bool eval_chat_is_formed(const eval_chat *chat);

/* "none", "unknown", or the form's name: "chatml"; also of forms that are recognised and not written here: "gemma". */
const char *eval_chat_name(const eval_chat *chat);

/* Writes "chatml, llama2 or llama3" into text, all forms that can be asked for by name, and returns text. */
const char *eval_chat_names(char *text, size_t n);

/* The id of the token that ends a turn of this form, -1 if this tokenizer has none. It need not be among the model's
 * EOS ids. */
int32_t eval_chat_end(const eval_chat *chat, const lm_model *model);

/* Tokens that the template adds to a prompt, BOS included: what generators keep free. */
bool eval_chat_reserve(const eval_chat *chat, const lm_model *model, int32_t *n_token, lm_error *err);

/* Appends the tokens of a prompt of n bytes, of at most n_max; from a longer prompt the first tokens are dropped, but
 * never what the template puts before it. chat NULL: plain text. answer_prefix may be NULL. *n_dropped: tokens that
 * went. USAGE: no room for a prompt. */
bool eval_chat_encode(const eval_chat *chat, const lm_model *model, const char *prompt, size_t n,
                      const char *answer_prefix, int32_t n_max, lm_tokens *out, int32_t *n_dropped, lm_error *err);

#endif
