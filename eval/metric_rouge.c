/* ROUGE-L over sentences, as LongBench's scores are computed with it. */
#include "metric_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * texts -> sentences (at full stops) -> words -> numbers, equal words having equal numbers
 *
 * A sentence of white space only has one empty word: that is how the original counts, and it shows in the scores of
 * answers that end in ". ".
 */
typedef struct sentences {
    int32_t *words; /* [n_word], all sentences one after the other */
    size_t n_word;
    size_t *at; /* [n + 1] first word of each sentence */
    size_t n;
} sentences;

typedef struct rouge {
    metric_tokens tokens;  /* of both texts; freed with them */
    lm_string *vocabulary; /* [n_type] sorted */
    size_t n_type;
    sentences answer, gold;
    bool *found;     /* [n_type] words of a common subsequence so far */
    uint32_t *table; /* lengths of common subsequences of two sentences' beginnings */
} rouge;

static const lm_string empty_word = {"", 0};

/* Tokens of the text go to the end of r->tokens; s->at gets where each sentence starts there. */
static void split_sentences(rouge *r, const char *text, eval_language language, sentences *s)
{
    const size_t first = r->tokens.n;
    for (const char *part = text; *part;) {
        const size_t n = strcspn(part, ".");
        if (n > 0) {
            const size_t before = r->tokens.n;
            s->at[s->n++] = before - first;
            metric_split(part, n, language, &r->tokens);
            if (r->tokens.n == before)
                r->tokens.items[r->tokens.n++] = empty_word;
        }
        part += n + (part[n] == '.');
    }
    s->n_word = r->tokens.n - first;
    s->at[s->n] = s->n_word;
}

static bool allocate(rouge *r, size_t n_answer, size_t n_gold)
{
    const size_t n = n_answer + n_gold + 2;
    r->tokens.items = malloc(n * sizeof *r->tokens.items);
    r->vocabulary = malloc(n * sizeof *r->vocabulary);
    r->found = calloc(n, sizeof *r->found);
    r->answer.words = malloc(n * sizeof *r->answer.words);
    r->gold.words = malloc(n * sizeof *r->gold.words);
    r->answer.at = malloc(n * sizeof *r->answer.at);
    r->gold.at = malloc(n * sizeof *r->gold.at);
    return r->tokens.items && r->vocabulary && r->found && r->answer.words && r->gold.words && r->answer.at &&
           r->gold.at;
}

static void release(rouge *r)
{
    free(r->tokens.items);
    free(r->vocabulary);
    free(r->found);
    free(r->answer.words);
    free(r->gold.words);
    free(r->answer.at);
    free(r->gold.at);
    free(r->table);
}

static void number_words(rouge *r)
{
    const metric_tokens *t = &r->tokens;
    memcpy(r->vocabulary, t->items, t->n * sizeof *t->items);
    qsort(r->vocabulary, t->n, sizeof *t->items, metric_compare);
    for (size_t i = 0; i < t->n; i++)
        if (i == 0 || !metric_same(&r->vocabulary[r->n_type - 1], &r->vocabulary[i]))
            r->vocabulary[r->n_type++] = r->vocabulary[i];
    for (size_t i = 0; i < t->n; i++) {
        const lm_string *type = bsearch(&t->items[i], r->vocabulary, r->n_type, sizeof *type, metric_compare);
        int32_t *to = i < r->answer.n_word ? &r->answer.words[i] : &r->gold.words[i - r->answer.n_word];
        *to = (int32_t)(type - r->vocabulary);
    }
}

static size_t longest(const sentences *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i + 1] - s->at[i] > n)
            n = s->at[i + 1] - s->at[i];
    return n;
}

/* Different words; r->found is left clear. */
static size_t count_types(rouge *r, const sentences *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_word; i++) {
        n += !r->found[s->words[i]];
        r->found[s->words[i]] = true;
    }
    memset(r->found, 0, r->n_type * sizeof *r->found);
    return n;
}

/* Marks the words of a longest common subsequence of x and y. There may be several: which one it is (that of the
 * original's way back through the table) decides how many different words it has. */
static void mark_common(rouge *r, const int32_t *x, size_t n, const int32_t *y, size_t m)
{
    const size_t row = m + 1;
    uint32_t *table = r->table;
    memset(table, 0, row * sizeof *table);
    for (size_t i = 1; i <= n; i++) {
        uint32_t *now = table + i * row;
        const uint32_t *above = now - row;
        now[0] = 0;
        for (size_t j = 1; j <= m; j++)
            now[j] = x[i - 1] == y[j - 1] ? above[j - 1] + 1 : above[j] > now[j - 1] ? above[j] : now[j - 1];
    }
    for (size_t i = n, j = m; i > 0 && j > 0;) {
        if (x[i - 1] == y[j - 1]) {
            r->found[x[i - 1]] = true;
            i--;
            j--;
        } else if (table[(i - 1) * row + j] > table[i * row + j - 1]) {
            i--;
        } else {
            j--;
        }
    }
}

static double f_score(rouge *r)
{
    const size_t n_answer = count_types(r, &r->answer), n_gold = count_types(r, &r->gold);
    for (size_t g = 0; g < r->gold.n; g++)
        for (size_t a = 0; a < r->answer.n; a++)
            mark_common(r, r->gold.words + r->gold.at[g], r->gold.at[g + 1] - r->gold.at[g],
                        r->answer.words + r->answer.at[a], r->answer.at[a + 1] - r->answer.at[a]);
    size_t n_found = 0;
    for (size_t i = 0; i < r->n_type; i++)
        n_found += r->found[i];
    const double precision = (double)n_found / (double)n_answer, recall = (double)n_found / (double)n_gold;
    return 2 * precision * recall / (precision + recall + 1e-8);
}

double eval_rouge_l(const char *answer, const char *gold, eval_language language)
{
    rouge r = {0};
    double f = NAN;
    if (allocate(&r, strlen(answer), strlen(gold))) {
        split_sentences(&r, answer, language, &r.answer);
        split_sentences(&r, gold, language, &r.gold);
        number_words(&r);
        if (r.answer.n == 0 || r.gold.n == 0)
            f = 0;
        else if ((r.table = malloc((longest(&r.answer) + 1) * (longest(&r.gold) + 1) * sizeof *r.table)) != NULL)
            f = f_score(&r);
    }
    release(&r);
    return f;
}
