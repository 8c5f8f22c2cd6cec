/* eval/text.h - strings: building prompts and samples, and UTF-8 as far as scoring answers needs it. */
#ifndef EVAL_TEXT_H
#define EVAL_TEXT_H

#include "lm/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------------------------------------ building ---- */

bool eval_put(lm_text *out, const char *s, lm_error *err); /* appends a terminated string */

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
bool eval_putf(lm_text *out, lm_error *err, const char *format, ...);

/* n bytes as a terminated string in fresh memory. */
char *eval_copy(const char *s, size_t n, lm_error *err);

/* Appends a copy to a list that only this function has filled, from {NULL, 0} on. */
bool eval_list_add(char ***list, size_t *n, const char *s, size_t n_bytes, lm_error *err);
void eval_list_free(char **list, size_t n);

/* Returns the name that word was most likely meant to be, NULL if none is near: for "did you mean". */
const char *eval_nearest(const char *word, const char *const *names, size_t n_name);

/* True if name is in the comma list. */
bool eval_in_comma_list(const char *list, const char *name);

/* ------------------------------------------------------------------------------------------------ UTF-8 ---- */

/* The code point at s[0 .. n-1], n > 0, and its length. A byte that starts no valid character is U+FFFD of length 1. */
uint32_t eval_utf8_next(const char *s, size_t n, size_t *n_bytes);

/* In place: ASCII, Latin, Greek and Cyrillic letters whose small form is as long; the rest of Unicode stays. */
void eval_lower(char *s, size_t n);

/* White space as Python's str.split() sees it. */
bool eval_is_space(uint32_t c);

#endif
