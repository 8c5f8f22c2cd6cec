/* Answers that must contain something: references, labels, numbers. */
#include "metric.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- RULER ---- */

/* In small letters, control characters as newlines, no white space at either end. */
static char *normalise(const char *s)
{
    const size_t n = strlen(s);
    char *copy = eval_copy(s, n, NULL);
    if (!copy)
        return NULL;
    eval_lower(copy, n);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)copy[i] < 0x20)
            copy[i] = '\n';
    size_t start = strspn(copy, " \n"), end = n;
    while (end > start && strchr(" \n", copy[end - 1]))
        end--;
    memmove(copy, copy + start, end - start);
    copy[end - start] = 0;
    return copy;
}

/* References found; -1 when out of memory. */
static int count_found(const char *answer, char *const *gold, size_t n_gold)
{
    char *text = normalise(answer);
    int found = text ? 0 : -1;
    for (size_t i = 0; found >= 0 && i < n_gold; i++) {
        char *part = eval_copy(gold[i], strlen(gold[i]), NULL);
        if (part) {
            eval_lower(part, strlen(part));
            found += strstr(text, part) != NULL;
            free(part);
        } else {
            found = -1;
        }
    }
    free(text);
    return found;
}

double eval_match_all(const char *answer, char *const *gold, size_t n_gold)
{
    const int found = count_found(answer, gold, n_gold);
    return found < 0 ? NAN : n_gold ? (double)found / (double)n_gold : 0;
}

double eval_match_any(const char *answer, char *const *gold, size_t n_gold)
{
    const int found = count_found(answer, gold, n_gold);
    return found < 0 ? NAN : found > 0;
}

/* ---------------------------------------------------------------------------------------- classification ---- */

double eval_classification(const char *answer, const char *gold, char *const *classes, size_t n_class)
{
    size_t n_found = 0;
    bool right = false;
    for (size_t i = 0; i < n_class; i++) {
        if (!strstr(answer, classes[i]))
            continue;
        const bool is_gold = strcmp(classes[i], gold) == 0;
        /* The original removes these while it walks the list, and so misses every second of neighbours. */
        if (!is_gold && strstr(gold, classes[i]))
            continue;
        right = right || is_gold;
        n_found++;
    }
    return right ? 1.0 / (double)n_found : 0;
}

/* ----------------------------------------------------------------------------------------------- numbers ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Numbers are compared as they are written, as the original does: "03" is not "3". */
static double share_of_numbers(const char *answer, const char *number, size_t n_number)
{
    size_t n_all = 0, n_right = 0;
    for (const char *s = answer; *s;) {
        size_t n = 0;
        while (is_digit(s[n]))
            n++;
        if (n > 0) {
            n_all++;
            n_right += n == n_number && memcmp(s, number, n) == 0;
        }
        s += n ? n : 1;
    }
    return n_all ? (double)n_right / (double)n_all : 0;
}

double eval_count(const char *answer, const char *gold)
{
    return share_of_numbers(answer, gold, strlen(gold));
}

double eval_retrieval(const char *answer, const char *gold, eval_language language)
{
    const char *mark = language == EVAL_CHINESE ? "\xE6\xAE\xB5\xE8\x90\xBD" : "Paragraph ";
    for (const char *at = gold; (at = strstr(at, mark)) != NULL;) {
        at += strlen(mark);
        if (is_digit(*at)) {
            size_t n = 0;
            while (is_digit(at[n]))
                n++;
            return share_of_numbers(answer, at, n);
        }
    }
    return 0;
}
