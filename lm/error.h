/*
 * lm/error.h - how the runner reports failure: a kind that maps to an exit code, and a sentence for a person.
 *
 * Functions that can fail return bool and take an lm_error (NULL is allowed: the caller does not want the text).
 * On false the error is filled and every output is untouched unless the function says otherwise.
 */
#ifndef LM_ERROR_H
#define LM_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* The first four are also the exit codes of the command. */
typedef enum lm_error_kind {
    LM_OK = 0,
    LM_ERROR_RUN = 1,        /* something failed while running */
    LM_ERROR_USAGE = 2,      /* the caller asked for something that makes no sense */
    LM_ERROR_INPUT = 3,      /* a file or text is unreadable or malformed */
    LM_ERROR_MEMORY = 4,     /* an allocation failed */
    LM_ERROR_UNSUPPORTED = 5 /* well formed, but not something this runner does */
} lm_error_kind;

typedef struct lm_error {
    lm_error_kind kind;
    char text[512]; /* what was wrong, where, and what to do; truncated to fit, always terminated */
} lm_error;

/* lm_fail(err, kind, format, ...) fills err (which may be NULL) and is false, so that a failing function can end with
 * `return lm_fail(...);`. A macro, so that the compiler sees the false and knows which paths go on. */
#define lm_fail(...) (lm_error_set(__VA_ARGS__), lm_false())

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void lm_error_set(lm_error *err, lm_error_kind kind, const char *fmt, ...);

/* Puts "where: " before the text of err (which may be NULL) and is false: for a caller that knows the file. */
bool lm_error_in(lm_error *err, const char *where);

/* Writes "a, b or c" into text, for messages, and returns text. word: what stands before the last name, "or" here. */
const char *lm_list_text(const char *const *names, size_t count, const char *word, char *text, size_t n);

static inline bool lm_false(void)
{
    return false;
}

#endif
