/*
 * Aggregation: the common words of a numbered list (cwe), the frequent words of a coded text (fwe).
 *
 * cwe: sizes are different words. A solved example comes first, as in RULER itself; the copy in lm-eval counts it but
 * does not show it. Words come from eval_words, and a prompt stops growing when they run out.
 * fwe: sizes are words of text. What is kept free for the answer is the generation limit; the original keeps nothing.
 */
#include "ruler_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_COMMON = 10, N_EXAMPLE = 20, CODED_LETTER = 6, LEAST_CODED = 64 };

/* ---------------------------------------------------------------------------------------------- common words ---- */

bool ruler_cwe_prepare(ruler_task *task, lm_error *err)
{
    const size_t n_word = task->shared->words.n;
    if (n_word < 4 * N_EXAMPLE)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %zu different words are too few", task->kind->name, n_word);
    task->step = 10;
    task->start = N_COMMON + task->step;
    task->least = N_COMMON + 1;
    task->most = n_word - N_EXAMPLE < INT32_MAX / 64 ? (int32_t)(n_word - N_EXAMPLE) : INT32_MAX / 64;
    return true;
}

/* The list of n words, the first N_COMMON often and the others rarely, in random order, and the question. */
static bool put_list(lm_text *out, char *const *words, const int32_t *picked, int32_t n, int32_t often, int32_t rarely,
                     eval_rng *rng, lm_error *err)
{
    const int32_t n_item = N_COMMON * often + (n - N_COMMON) * rarely;
    int32_t *items = malloc((size_t)n_item * sizeof *items), filled = 0;
    if (!items)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d words", (int)n_item);
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < (i < N_COMMON ? often : rarely); j++)
            items[filled++] = picked[i];
    ruler_shuffle(items, n_item, rng);
    bool ok =
        eval_put(out,
                 "Below is a numbered list of words. In these words, some appear more often than others. Memorize "
                 "the ones that appear most often.\n",
                 err);
    for (int32_t i = 0; ok && i < n_item; i++)
        ok = eval_putf(out, err, "%s%d. %s", i ? " " : "", (int)i + 1, words[items[i]]);
    free(items);
    return ok && eval_put(out, "\nQuestion: What are the 10 most common words in the above list?", err);
}

static const char cwe_prefix[] = "Answer: The top 10 words that appear most often in the list are:";

bool ruler_cwe_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err)
{
    (void)i;
    char *const *words = task->shared->words.words;
    const bool is_short = task->shared->n_ctx < 4096;
    const int32_t n = size + N_EXAMPLE;
    int32_t *picked = malloc((size_t)n * sizeof *picked);
    if (!picked)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d words", (int)n);
    const int32_t *example = picked, *list = picked + N_EXAMPLE; /* so that both stay as they are when size changes */
    bool ok = ruler_pick(picked, n, (int32_t)task->shared->words.n, &rng, err) &&
              put_list(&out->prompt, words, example, N_EXAMPLE, 3, 1, &rng, err) &&
              eval_putf(&out->prompt, err, " %s", cwe_prefix);
    for (int32_t j = 0; ok && j < N_COMMON; j++)
        ok = eval_putf(&out->prompt, err, " %d. %s", (int)j + 1, words[example[j]]);
    ok = ok && eval_put(&out->prompt, "\n\n", err) &&
         put_list(&out->prompt, words, list, size, is_short ? 6 : 30, is_short ? 1 : 3, &rng, err) &&
         eval_put(&out->prefix, cwe_prefix, err);
    for (int32_t j = 0; ok && j < N_COMMON; j++)
        ok = eval_list_add(&out->gold, &out->n_gold, words[list[j]], strlen(words[list[j]]), err);
    free(picked);
    return ok;
}

/* -------------------------------------------------------------------------------------------- frequent words ---- */

bool ruler_fwe_prepare(ruler_task *task, lm_error *err)
{
    (void)err;
    const int32_t n_ctx = task->shared->n_ctx;
    task->start = n_ctx / 6 > LEAST_CODED ? n_ctx / 6 : LEAST_CODED;
    task->step = n_ctx / 32 > 1 ? n_ctx / 32 : 1;
    task->least = LEAST_CODED; /* below it the fourth word is no longer more frequent than the fifth */
    task->most = INT32_MAX / 2;
    return true;
}

typedef char coded_word[CODED_LETTER + 1];

static void draw_words(coded_word *words, int32_t n, eval_rng *rng)
{
    for (int32_t i = 0; i < n;) {
        for (int32_t j = 0; j < CODED_LETTER; j++)
            words[i][j] = (char)('a' + eval_rng_below(rng, 26));
        words[i][CODED_LETTER] = 0;
        bool taken = false;
        for (int32_t j = 0; j < i && !taken; j++)
            taken = strcmp(words[i], words[j]) == 0;
        i += !taken;
    }
}

/* How often the word of a rank, counted from 0, stands in n words: Zipf's law with exponent 2. */
static int32_t frequency(int32_t rank, int32_t n)
{
    const double zeta2 = 1.6449340668482264, r = rank + 1;
    return (int32_t)floor(n / (r * r * zeta2));
}

static bool put_coded(lm_text *out, const coded_word *words, int32_t n_word, int32_t n, eval_rng *rng, lm_error *err)
{
    int32_t *items = malloc((size_t)n * sizeof *items), n_item = 0; /* the frequencies add up to less than n */
    if (!items)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d words", (int)n);
    for (int32_t rank = 0; rank < n_word; rank++)
        for (int32_t j = frequency(rank, n); j > 0; j--)
            items[n_item++] = rank;
    ruler_shuffle(items, n_item, rng);
    bool ok = eval_put(out,
                       "Read the following coded text and track the frequency of each coded word. Find the three most "
                       "frequently appeared coded words. ",
                       err);
    for (int32_t i = 0; ok && i < n_item; i++)
        ok = (i == 0 || eval_put(out, " ", err)) && eval_put(out, items[i] == 0 ? "..." : words[items[i]], err);
    free(items);
    return ok &&
           eval_put(out,
                    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
                    "most frequently appeared words in the above coded text?",
                    err);
}

bool ruler_fwe_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err)
{
    (void)i;
    const int32_t most = task->shared->n_ctx / 50 > 10 ? task->shared->n_ctx / 50 : 10;
    int32_t n_word = 0;
    while (n_word < most && frequency(n_word, size) > 0)
        n_word++;
    coded_word *words = malloc((size_t)n_word * sizeof *words);
    if (!words)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d words", (int)n_word);
    draw_words(words, n_word, &rng);
    bool ok = put_coded(&out->prompt, words, n_word, size, &rng, err) &&
              eval_put(&out->prefix,
                       "Answer: According to the coded text above, the three most frequently appeared words are:", err);
    for (int32_t rank = 1; ok && rank < 4; rank++)
        ok = eval_list_add(&out->gold, &out->n_gold, words[rank], CODED_LETTER, err);
    free(words);
    return ok;
}
