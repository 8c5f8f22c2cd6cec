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
