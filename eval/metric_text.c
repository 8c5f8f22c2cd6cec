/* Tokens and their overlap. */
#include "metric_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ tokens ---- */

static bool is_letter(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c >= 0xC0 && c < 0x2000 && !eval_is_space(c) && c != 0xD7 && c != 0xF7);
}

void metric_split(const char *s, size_t n, eval_language language, metric_tokens *out)
{
    for (size_t i = 0, length; i < n;) {
        const uint32_t first = eval_utf8_next(s + i, n - i, &length);
        const size_t start = i;
        i += length;
        if (eval_is_space(first))
            continue;
        while (i < n && (language == EVAL_ENGLISH || is_letter(first))) {
            const uint32_t c = eval_utf8_next(s + i, n - i, &length);
            if (language == EVAL_ENGLISH ? eval_is_space(c) : !is_letter(c))
                break;
            i += length;
        }
        out->items[out->n++] = (lm_string){s + start, i - start};
    }
}

bool metric_same(const lm_string *a, const lm_string *b)
{
    return a->n == b->n && memcmp(a->data, b->data, a->n) == 0;
}

int metric_compare(const void *a, const void *b)
{
    const lm_string *x = a, *y = b;
    const int order = memcmp(x->data, y->data, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* -------------------------------------------------------------------------------------------- normal form ---- */

static bool is_ascii_punctuation(uint32_t c)
{
    return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) || (c > 0x7A && c < 0x7F);
}

static bool is_chinese_punctuation(uint32_t c)
{
    return c == 0x3001 || c == 0x3002 ||
           (c >= 0x3003 && c <= 0x301F && c != 0x3004 && c != 0x3005 && c != 0x3006 && c != 0x3007 && c != 0x3012 &&
            c != 0x3013) ||
           c == 0x3030 || c == 0x303E || c == 0x303F || (c >= 0xFF01 && c <= 0xFF0F) || (c >= 0xFF1A && c <= 0xFF20) ||
           (c >= 0xFF3B && c <= 0xFF40) || (c >= 0xFF5B && c <= 0xFF64) || (c >= 0x2010 && c <= 0x2027) || c == 0xFE4F;
}

/* In place: small letters, no punctuation. */
static size_t strip(char *s, size_t n, eval_language language)
{
    size_t out = 0;
    eval_lower(s, n);
    for (size_t i = 0, length; i < n; i += length) {
        const uint32_t c = eval_utf8_next(s + i, n - i, &length);
        if (is_ascii_punctuation(c) || (language == EVAL_CHINESE && is_chinese_punctuation(c)))
            continue;
        memmove(s + out, s + i, length);
        out += length;
    }
    return out;
}

/* In place: an article that stands between characters of no word becomes a space. What is left of the text is not
 * longer than before. */
static void blank_articles(char *s, size_t n)
{
    static const char *const articles[] = {"an", "a", "the"};
    bool inside = false; /* a letter came before */
    for (size_t i = 0, length; i < n; i += length) {
        for (int k = 0; !inside && k < 3; k++) {
            const size_t m = strlen(articles[k]);
            size_t ignored;
            if (m <= n - i && memcmp(s + i, articles[k], m) == 0 &&
                (m == n - i || !(is_letter(eval_utf8_next(s + i + m, n - i - m, &ignored)) ||
                                 eval_is_cjk(eval_utf8_next(s + i + m, n - i - m, &ignored))))) {
                memset(s + i, ' ', m);
                break;
            }
        }
        const uint32_t c = eval_utf8_next(s + i, n - i, &length);
        inside = is_letter(c) || eval_is_cjk(c);
    }
}

/* ------------------------------------------------------------------------------------------------- F1 ---- */

/* Sorted tokens of a text's normal form; *copy holds their bytes. */
static bool normal_tokens(const char *text, eval_language language, char **copy, metric_tokens *out)
{
    size_t n = strlen(text);
    *copy = eval_copy(text, n, NULL);
    out->items = malloc((n + 1) * sizeof *out->items);
    if (!*copy || !out->items)
        return false;
    n = strip(*copy, n, language);
    if (language == EVAL_ENGLISH)
        blank_articles(*copy, n);
    metric_split(*copy, n, language, out);
    qsort(out->items, out->n, sizeof *out->items, metric_compare);
    return true;
}

static size_t count_common(const metric_tokens *a, const metric_tokens *b)
{
    size_t n = 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        const int order = metric_compare(&a->items[i], &b->items[j]);
        n += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    return n;
}

double eval_f1(const char *answer, const char *gold, eval_language language)
{
    char *copy_a = NULL, *copy_g = NULL;
    metric_tokens a = {0}, g = {0};
    double f1 = NAN;
    if (normal_tokens(answer, language, &copy_a, &a) && normal_tokens(gold, language, &copy_g, &g)) {
        const size_t common = count_common(&a, &g);
        f1 = common ? 2.0 * (double)common / (double)(a.n + g.n) : 0;
    }
    free(copy_a);
    free(copy_g);
    free(a.items);
    free(g.items);
    return f1;
}
