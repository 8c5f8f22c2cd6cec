#include "error.h"

#include <stdarg.h>
#include <stdio.h>

void lm_error_set(lm_error *err, lm_error_kind kind, const char *fmt, ...)
{
    if (!err)
        return;
    err->kind = kind;
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(err->text, sizeof err->text, fmt, args) < 0)
        err->text[0] = '\0';
    va_end(args);
}

bool lm_error_in(lm_error *err, const char *where)
{
    if (err) {
        const lm_error inner = *err;
        lm_error_set(err, inner.kind, "%s: %s", where, inner.text);
    }
    return false;
}

const char *lm_list_text(const char *const *names, size_t count, const char *word, char *text, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < count && at < n; i++) {
        const bool last = i + 1 == count && i > 0;
        at += (size_t)snprintf(text + at, n - at, "%s%s%s%s",
                               last ? " "
                               : i  ? ", "
                                    : "",
                               last ? word : "", last ? " " : "", names[i]);
    }
    return text;
}
