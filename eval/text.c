#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool eval_put(lm_text *out, const char *s, lm_error *err)
{
    return lm_text_append(out, s, strlen(s), err);
}

bool eval_putf(lm_text *out, lm_error *err, const char *format, ...)
{
    char small[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n < 0)
        return lm_fail(err, LM_ERROR_RUN, "a text could not be formatted");
    if ((size_t)n < sizeof small)
        return lm_text_append(out, small, (size_t)n, err);
    char *large = malloc((size_t)n + 1);
    if (!large)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a text of %d bytes", n);
    va_start(args, format);
    vsnprintf(large, (size_t)n + 1, format, args);
    va_end(args);
    const bool ok = lm_text_append(out, large, (size_t)n, err);
    free(large);
    return ok;
}

char *eval_copy(const char *s, size_t n, lm_error *err)
{
    char *copy = malloc(n + 1);
    if (!copy) {
        lm_error_set(err, LM_ERROR_MEMORY, "out of memory for a text of %zu bytes", n);
        return NULL;
    }
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

bool eval_list_add(char ***list, size_t *n, const char *s, size_t n_bytes, lm_error *err)
{
    if ((*n & (*n - 1)) == 0) { /* full: the capacity is the power of two at or above n */
        char **grown = realloc(*list, (*n ? 2 * *n : 1) * sizeof *grown);
        if (!grown)
            return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a list of %zu texts", *n + 1);
        *list = grown;
    }
    (*list)[*n] = eval_copy(s, n_bytes, err);
    if (!(*list)[*n])
        return false;
    ++*n;
    return true;
}

void eval_list_free(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

/* Insertions, deletions and replacements that turn a into b; both are cut at 31 bytes. */
static size_t distance(const char *a, const char *b)
{
    size_t row[32], n = strnlen(b, 31);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; i < 31 && a[i]; i++) {
        size_t diagonal = row[0]++;
        for (size_t j = 1; j <= n; j++) {
            const size_t replaced = diagonal + (a[i] != b[j - 1]);
            const size_t shifted = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = replaced < shifted ? replaced : shifted;
        }
    }
    return row[n];
}

const char *eval_nearest(const char *word, const char *const *names, size_t n_name)
{
    const char *nearest = NULL;
    size_t least = strlen(word) < 6 ? 2 : 3; /* as many letters are another word */
    for (size_t i = 0; i < n_name; i++) {
        const size_t d = distance(word, names[i]);
        if (d < least) {
            least = d;
            nearest = names[i];
        }
    }
    return nearest;
}

bool eval_in_comma_list(const char *list, const char *name)
{
    const size_t n = strlen(name);
    while (*list) {
        const size_t part = strcspn(list, ",");
        if (part == n && memcmp(list, name, n) == 0)
            return true;
        list += part + (list[part] == ',');
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------ UTF-8 ---- */

static bool is_tail(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

uint32_t eval_utf8_next(const char *s, size_t n, size_t *n_bytes)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char c = (unsigned char)s[0];
    const size_t length = c < 0x80                ? 1
                          : c >= 0xC2 && c < 0xE0 ? 2
                          : c >= 0xE0 && c < 0xF0 ? 3
                          : c >= 0xF0 && c < 0xF5 ? 4
                                                  : 0;
    *n_bytes = 1;
    if (length == 1)
        return c;
    if (length == 0 || length > n)
        return 0xFFFD;
    uint32_t code = c & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (!is_tail(s[i]))
            return 0xFFFD;
        code = code << 6 | ((unsigned char)s[i] & 0x3F);
    }
    if (code < least[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return 0xFFFD;
    *n_bytes = length;
    return code;
}

static uint32_t lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if ((c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3AB && c != 0x3A2) || (c >= 0x410 && c <= 0x42F))
        return c + 32;
    if (c >= 0x400 && c <= 0x40F)
        return c + 80;
    if ((c >= 0x100 && c <= 0x137 && c != 0x130) || (c >= 0x14A && c <= 0x177) || (c >= 0x460 && c <= 0x481) ||
        (c >= 0x48A && c <= 0x4BF) || (c >= 0x4D0 && c <= 0x52F))
        return c | 1; /* capital and small letter take turns */
    if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E))
        return c + (c & 1);
    return c;
}

void eval_lower(char *s, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        const uint32_t c = lower(eval_utf8_next(s + i, n - i, &length));
        if (length == 1 && c < 0x80) {
            s[i] = (char)c;
        } else if (length == 2) { /* lower() never leaves the two-byte range */
            s[i] = (char)(0xC0 | c >> 6);
            s[i + 1] = (char)(0x80 | (c & 0x3F));
        }
    }
}

bool eval_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
