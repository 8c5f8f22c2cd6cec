/*
 * Needles in a haystack: eight tasks that differ in what hides them, what they are made of and how many are asked for.
 *
 * Sizes are words of the corpus (essay) or lines (repeat, needle). Differences from the original generator: a corpus
 * that runs out starts again, so that long contexts are filled; a distractor never shares key or value with a needle;
 * the needles' order follows the sample's seed instead of one shuffle for all samples.
 */
#include "ruler_internal.h"

#include "payload.h"

#include <math.h>
#include <string.h>

enum { MAX_NEEDLE = 4, N_DEPTH = 40 };

typedef enum haystack { REPEAT, ESSAY, NEEDLE } haystack;

typedef struct form {
    haystack haystack;
    eval_payload key, value;
    int32_t n_key, n_value, n_query; /* values of each key */
} form;

static const form forms[] = {
    [NIAH_SINGLE_1] = {REPEAT, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 1, 1, 1},
    [NIAH_SINGLE_2] = {ESSAY, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 1, 1, 1},
    [NIAH_SINGLE_3] = {ESSAY, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_UUID, 1, 1, 1},
    [NIAH_MULTIKEY_1] = {ESSAY, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 4, 1, 1},
    [NIAH_MULTIKEY_2] = {NEEDLE, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 1, 1, 1},
    [NIAH_MULTIKEY_3] = {NEEDLE, EVAL_PAYLOAD_UUID, EVAL_PAYLOAD_UUID, 1, 1, 1},
    [NIAH_MULTIVALUE] = {ESSAY, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 1, 4, 1},
    [NIAH_MULTIQUERY] = {ESSAY, EVAL_PAYLOAD_WORD, EVAL_PAYLOAD_NUMBER, 4, 1, 4},
};

/* One sample's needles and where they go: before unit at[i] of the haystack, needle order[i]. */
typedef struct weave {
    const form *form;
    eval_pair pairs[MAX_NEEDLE]; /* the values of a key stand together */
    int32_t n_needle;
    int32_t order[MAX_NEEDLE], at[MAX_NEEDLE];
} weave;

bool ruler_niah_prepare(ruler_task *task, lm_error *err)
{
    (void)err;
    const form *f = &forms[task->kind->variant];
    const bool is_short = task->shared->n_ctx < 4096; /* a full step would leave much of the context empty */
    task->step = f->haystack == ESSAY ? (is_short ? 50 : 500) : (is_short ? 5 : 25);
    task->start = task->step;
    task->least = f->haystack == ESSAY ? 1 : f->n_key * f->n_value;
    task->most = INT32_MAX / 2;
    return true;
}

static eval_pair with_key(const eval_pair *p, const eval_pair *owner)
{
    eval_pair renamed = *owner;
    memcpy(renamed.value, p->value, sizeof renamed.value);
    return renamed;
}

static void draw_needles(weave *w, eval_rng *rng)
{
    const form *f = w->form;
    for (int32_t k = 0; k < f->n_key; k++)
        for (int32_t v = 0; v < f->n_value; v++) {
            eval_pair *p = &w->pairs[w->n_needle];
            *p = eval_pair_draw(f->key, f->value, w->pairs, w->n_needle, rng);
            if (v > 0)
                *p = with_key(p, &w->pairs[k * f->n_value]);
            w->order[w->n_needle] = w->n_needle;
            w->n_needle++;
        }
    ruler_shuffle(w->order, w->n_needle, rng);
}

/* ------------------------------------------------------------------------------------------------- essays ---- */

/* Bytes of words first .. end-1 of the corpus read as a ring, with a space before them where text stands. */
static bool put_words(lm_text *out, const eval_corpus *c, int32_t first, int32_t end, lm_error *err)
{
    while (first < end) {
        const size_t at = (size_t)first % c->n_word;
        size_t n = (size_t)(end - first);
        if (n > c->n_word - at)
            n = c->n_word - at;
        if ((out->n > 0 && !eval_is_blank(out->data[out->n - 1]) && !eval_put(out, " ", err)) ||
            !lm_text_append(out, c->text + c->word_at[at], c->word_at[at + n] - 1 - c->word_at[at], err))
            return false;
        first += (int32_t)n;
    }
    return true;
}

/* How many of the first n words end a sentence. */
static int64_t count_ends(const eval_corpus *c, int32_t n)
{
    int64_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += c->ends[(size_t)i % c->n_word];
    return count;
}

/* Needle j goes after sentence floor(n * depth / 100), its depth one of 40 between 0 and 100. */
static bool place_in_essay(weave *w, const eval_corpus *c, int32_t n_word, eval_rng *rng, lm_error *err)
{
    int32_t depths[MAX_NEEDLE];
    if (!ruler_pick(depths, w->n_needle, N_DEPTH, rng, err))
        return false;
    ruler_sort(depths, w->n_needle);
    const bool is_cut = !c->ends[(size_t)(n_word - 1) % c->n_word]; /* what is left of a sentence counts as one */
    const int64_t n_sentence = count_ends(c, n_word) + is_cut;
    int64_t passed = 0;
    int32_t word = 0;
    for (int32_t j = 0; j < w->n_needle; j++) {
        const double depth = rint(100.0 * depths[j] / (N_DEPTH - 1));
        const int64_t wanted = (int64_t)floor((double)n_sentence * depth / 100);
        while (passed < wanted && word < n_word)
            passed += c->ends[(size_t)word++ % c->n_word];
        w->at[j] = word;
    }
    return true;
}

static bool put_essay(weave *w, const eval_corpus *c, int32_t n_word, eval_rng *rng, lm_text *out, lm_error *err)
{
    int32_t done = 0;
    if (!place_in_essay(w, c, n_word, rng, err))
        return false;
    for (int32_t j = 0; j < w->n_needle; j++) {
        if (!put_words(out, c, done, w->at[j], err) ||
            (!eval_is_blank(out->data[out->n - 1]) && !eval_put(out, " ", err)) ||
            !eval_pair_append(out, w->form->value, &w->pairs[w->order[j]], err))
            return false;
        done = w->at[j];
    }
    return put_words(out, c, done, n_word, err);
}

/* -------------------------------------------------------------------------------------------------- lines ---- */

static bool put_lines(weave *w, int32_t n_line, eval_rng *rng, lm_text *out, lm_error *err)
{
    const form *f = w->form;
    if (!ruler_pick(w->at, w->n_needle, n_line, rng, err))
        return false;
    ruler_sort(w->at, w->n_needle);
    for (int32_t i = 0, j = 0; i < n_line; i++) {
        for (; j < w->n_needle && w->at[j] == i; j++)
            if (!eval_pair_append(out, f->value, &w->pairs[w->order[j]], err) || !eval_put(out, "\n", err))
                return false;
        const eval_pair other =
            f->haystack == NEEDLE ? eval_pair_draw(f->key, f->value, w->pairs, w->n_needle, rng) : (eval_pair){0};
        if (!(f->haystack == NEEDLE ? eval_pair_append(out, f->value, &other, err) : eval_put(out, eval_noise, err)) ||
            (i + 1 < n_line && !eval_put(out, "\n", err)))
            return false;
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------- prompt ---- */

/* "a", or "a, b, c, and d", and what is to be answered. */
static bool put_query(const weave *w, eval_rng *rng, lm_text *query, ruler_draft *out, lm_error *err)
{
    const form *f = w->form;
    int32_t keys[MAX_NEEDLE];
    if (!ruler_pick(keys, f->n_query, f->n_key, rng, err))
        return false;
    for (int32_t q = 0; q < f->n_query; q++) {
        const eval_pair *values = &w->pairs[keys[q] * f->n_value];
        if ((q > 0 && !eval_put(query, q + 1 == f->n_query ? ", and " : ", ", err)) ||
            !eval_put(query, values->key, err))
            return false;
        for (int32_t v = 0; v < f->n_value; v++)
            if (!eval_list_add(&out->gold, &out->n_gold, values[v].value, strlen(values[v].value), err))
                return false;
    }
    return true;
}

bool ruler_niah_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err)
{
    (void)i;
    weave w = {.form = &forms[task->kind->variant]};
    const form *f = w.form;
    const bool one = f->n_query * f->n_value == 1;
    const char *type = eval_payload_names[f->value], *s = one ? "" : "s";
    lm_text query = {0}, *prompt = &out->prompt;
    draw_needles(&w, &rng);
    const bool ok =
        put_query(&w, &rng, &query, out, err) &&
        eval_putf(
            prompt, err,
            "%s special magic %s%s %s hidden within the following text. Make sure to memorize it. I will quiz you "
            "about the %s%s afterwards.\n",
            one ? "A" : "Some", type, s, one ? "is" : "are", type, s) &&
        (f->haystack == ESSAY ? put_essay(&w, &task->shared->corpus, size, &rng, prompt, err)
                              : put_lines(&w, size, &rng, prompt, err)) &&
        eval_putf(prompt, err, "\nWhat %s the special magic %s%s for %s mentioned in the provided text?",
                  one ? "is" : "are all", type, s, query.data) &&
        eval_putf(&out->prefix, err, "The special magic %s%s for %s mentioned in the provided text %s", type, s,
                  query.data, one ? "is" : "are");
    lm_text_free(&query);
    return ok;
}
