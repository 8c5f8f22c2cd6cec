#include "metric.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Returns a copy in small letters, with newlines for control characters and no white space at either end. */
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
