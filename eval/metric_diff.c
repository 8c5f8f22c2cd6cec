/*
 * Edit similarity: the ratio of Python's difflib.SequenceMatcher (Ratcliff and Obershelp's, with its rule for popular
 * characters), which fuzzywuzzy falls back to where python-Levenshtein is not installed, as LongBench's requirements
 * leave it.
 *
 *   longest common block -> the same to its left and to its right -> 2 * matched / (both lengths)
 */
#include "metric.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct range {
    size_t alo, ahi, blo, bhi;
} range;

typedef struct matcher {
    uint32_t *a, *b; /* code points */
    size_t na, nb;
    size_t *next;  /* [nb] next place in b of the same character, nb: none, or the character is popular */
    size_t *first; /* [na] first place in b of a's character; nb: none, or popular */
    size_t *run, *new_run;
    range *todo;
} matcher;

static size_t decode(const char *s, size_t n, uint32_t *out)
{
    size_t count = 0;
    for (size_t i = 0, length; i < n; i += length) {
        out[count] = eval_utf8_next(s + i, n - i, &length);
        if (out[count] == 0xFFFD && length == 1)
            out[count] = 0x110000u + (unsigned char)s[i]; /* stray bytes are different characters */
        count++;
    }
    return count;
}

typedef struct place {
    uint32_t c;
    size_t at;
} place;

static int compare_place(const void *x, const void *y)
{
    const place *p = x, *q = y;
    return p->c != q->c ? (p->c < q->c ? -1 : 1) : (p->at > q->at) - (p->at < q->at);
}

/* Where b's characters stand. In a b of 200 characters or more, those that make up more than a hundredth of it (and one
 * more) are popular: no block starts from them. */
static bool index_b(matcher *m)
{
    place *places = malloc((m->nb + 1) * sizeof *places);
    if (!places)
        return false;
    for (size_t j = 0; j < m->nb; j++)
        places[j] = (place){m->b[j], j};
    qsort(places, m->nb, sizeof *places, compare_place);
    for (size_t i = 0, end; i < m->nb; i = end) {
        for (end = i; end < m->nb && places[end].c == places[i].c;)
            end++;
        const bool popular = m->nb >= 200 && end - i > m->nb / 100 + 1;
        for (size_t k = i; k < end; k++)
            m->next[places[k].at] = k + 1 < end ? places[k + 1].at : m->nb;
        for (size_t x = 0; x < m->na; x++)
            if (m->a[x] == places[i].c)
                m->first[x] = popular ? m->nb : places[i].at;
    }
    free(places);
    return true;
}

/* The longest block of equal characters within r; of several the one that starts first in a, then in b. It may take in
 * popular characters at its ends only. */
static void find_block(matcher *m, const range *r, size_t *at_a, size_t *at_b, size_t *length)
{
    size_t i0 = r->alo, j0 = r->blo, best = 0;
    const size_t clear = (r->bhi - r->blo + 1) * sizeof *m->run;
    memset(m->run + r->blo, 0, clear);
    for (size_t i = r->alo; i < r->ahi; i++) {
        memset(m->new_run + r->blo, 0, clear);
        for (size_t j = m->first[i]; j < r->bhi; j = m->next[j]) {
            if (j < r->blo)
                continue;
            const size_t k = m->new_run[j + 1] = m->run[j] + 1; /* shifted by one, so that blo has a neighbour */
            if (k > best) {
                i0 = i + 1 - k;
                j0 = j + 1 - k;
                best = k;
            }
        }
        size_t *swap = m->run;
        m->run = m->new_run;
        m->new_run = swap;
    }
    while (i0 > r->alo && j0 > r->blo && m->a[i0 - 1] == m->b[j0 - 1])
        i0--, j0--, best++;
    while (i0 + best < r->ahi && j0 + best < r->bhi && m->a[i0 + best] == m->b[j0 + best])
        best++;
    *at_a = i0;
    *at_b = j0;
    *length = best;
}

static size_t count_matched(matcher *m)
{
    size_t matched = 0, n_todo = 0;
    m->todo[n_todo++] = (range){0, m->na, 0, m->nb};
    while (n_todo > 0) {
        const range r = m->todo[--n_todo];
        size_t i, j, k;
        find_block(m, &r, &i, &j, &k);
        matched += k;
        if (k == 0)
            continue;
        if (r.alo < i && r.blo < j)
            m->todo[n_todo++] = (range){r.alo, i, r.blo, j};
        if (i + k < r.ahi && j + k < r.bhi)
            m->todo[n_todo++] = (range){i + k, r.ahi, j + k, r.bhi};
    }
    return matched;
}

double eval_difflib_ratio(const char *a, const char *b)
{
    const size_t room_a = strlen(a) + 1, room_b = strlen(b) + 1;
    matcher m = {.a = malloc(room_a * sizeof *m.a),
                 .b = malloc(room_b * sizeof *m.b),
                 .next = malloc(room_b * sizeof *m.next),
                 .first = malloc(room_a * sizeof *m.first),
                 .run = malloc((room_b + 1) * sizeof *m.run),
                 .new_run = malloc((room_b + 1) * sizeof *m.new_run),
                 .todo = malloc((room_a + 1) * sizeof *m.todo)}; /* ranges that wait are disjoint in a */
    double ratio = NAN;
    if (m.a && m.b && m.next && m.first && m.run && m.new_run && m.todo) {
        m.na = decode(a, room_a - 1, m.a);
        m.nb = decode(b, room_b - 1, m.b);
        for (size_t i = 0; i < m.na; i++)
            m.first[i] = m.nb;
        if (index_b(&m))
            ratio = m.na + m.nb ? 2.0 * (double)count_matched(&m) / (double)(m.na + m.nb) : 1;
    }
    free(m.a);
    free(m.b);
    free(m.next);
    free(m.first);
    free(m.run);
    free(m.new_run);
    free(m.todo);
    return ratio;
}

static bool is_remark(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (line[i] == '`' || line[i] == '#' || (line[i] == '/' && i + 1 < n && line[i + 1] == '/'))
            return true;
    return false;
}

double eval_edit_similarity(const char *answer, const char *gold)
{
    const char *line = answer + strspn(answer, "\n");
    size_t n = strcspn(line, "\n");
    while (is_remark(line, n) && line[n]) {
        line += n + 1;
        n = strcspn(line, "\n");
    }
    if (is_remark(line, n) || n == 0 || !*gold)
        return 0; /* fuzzywuzzy gives nothing for an empty text */
    char *copy = eval_copy(line, n, NULL);
    const double ratio = copy ? eval_difflib_ratio(copy, gold) : NAN;
    free(copy);
    return rint(100 * ratio) / 100;
}
