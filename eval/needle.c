#include "needle.h"

#include "text.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEY 4096

/* What stays the same while the length of the haystack is searched for. */
typedef struct maker {
    const eval_needle_spec *spec;
    const char *book; /* book or noise; read as a ring */
    size_t n_book, start;
    eval_pair *pairs; /* [n_key], the queried one first */
    eval_rng rng;     /* as it stands after the pairs were drawn */
    lm_text text;
    size_t queried_at; /* where the queried needle starts in text */
    size_t n_context;
} maker;

const char *const eval_haystack_names[3] = {"book", "needle", "noise"};

void eval_needle_spec_init(eval_needle_spec *spec)
{
    *spec = (eval_needle_spec){.haystack = EVAL_HAYSTACK_BOOK,
                               .key = EVAL_PAYLOAD_WORD,
                               .value = EVAL_PAYLOAD_NUMBER,
                               .n_key = 4,
                               .depth = 0.5,
                               .n_token = 8192,
                               .seed = 1,
                               .book_offset = EVAL_BOOK_ANYWHERE};
}

/* Draws a pair that shares neither key nor value with the first n. */
static eval_pair draw_pair(const maker *m, int32_t n, eval_rng *rng)
{
    return eval_pair_draw(m->spec->key, m->spec->value, m->pairs, n, rng);
}

static bool append_needle(lm_text *text, const eval_needle_spec *spec, const eval_pair *p, lm_error *err)
{
    return lm_text_append(text, " ", 1, err) && eval_pair_append(text, spec->value, p, err);
}

/* ------------------------------------------------------------------------------------------------ weaving ---- */

static bool ends_word(const char *text, size_t i)
{
    return i > 0 && eval_is_blank(text[i]) && !eval_is_blank(text[i - 1]);
}

/* The place for a needle nearest to `at` within reach: the end of a sentence, else of a word, else the text's end. */
static size_t find_site(const char *text, size_t n, size_t at)
{
    const size_t reach = 4096;
    for (int words = 0; words < 2; words++)
        for (size_t d = 0; d <= reach; d++) {
            if (at + d < n && (words ? ends_word(text, at + d) : eval_ends_sentence(text, at + d)))
                return at + d;
            if (at >= d && at - d < n && (words ? ends_word(text, at - d) : eval_ends_sentence(text, at - d)))
                return at - d;
        }
    return n;
}

typedef struct site {
    size_t at;
    int32_t pair;
} site;

static int compare_site(const void *a, const void *b)
{
    const site *x = a, *y = b;
    return x->at != y->at ? (x->at < y->at ? -1 : 1) : x->pair < y->pair ? -1 : x->pair > y->pair;
}

/* n bytes of the ring from the start, shortened to whole words. */
static bool take_excerpt(const maker *m, size_t n, lm_text *out, lm_error *err)
{
    size_t at = m->start;
    while (n > 0) {
        size_t part = m->n_book - at < n ? m->n_book - at : n;
        if (!lm_text_append(out, m->book + at, part, err))
            return false;
        n -= part;
        at = 0;
        if (n > 0 && !lm_text_append(out, "\n", 1, err))
            return false;
    }
    while (out->n > 0 && !eval_is_blank(out->data[out->n - 1]))
        out->n--;
    while (out->n > 0 && eval_is_blank(out->data[out->n - 1]))
        out->n--;
    return true;
}

static bool weave_text(maker *m, const lm_text *excerpt, site *sites, lm_error *err)
{
    const eval_needle_spec *spec = m->spec;
    eval_rng rng = m->rng;
    for (int32_t i = 0; i < spec->n_key; i++) {
        size_t at =
            i == 0 ? (size_t)llround(spec->depth * (double)excerpt->n) : (size_t)eval_rng_below(&rng, excerpt->n + 1);
        sites[i] = (site){find_site(excerpt->data, excerpt->n, at), i};
    }
    qsort(sites, (size_t)spec->n_key, sizeof *sites, compare_site);
    size_t done = 0;
    for (int32_t i = 0; i < spec->n_key; i++) {
        if (!lm_text_append(&m->text, excerpt->data + done, sites[i].at - done, err))
            return false;
        done = sites[i].at;
        if (sites[i].pair == 0)
            m->queried_at = m->text.n;
        if (!append_needle(&m->text, spec, &m->pairs[sites[i].pair], err))
            return false;
    }
    return lm_text_append(&m->text, excerpt->data + done, excerpt->n - done, err);
}

static bool context_of_text(maker *m, size_t n, lm_error *err)
{
    lm_text excerpt = {0};
    site *sites = malloc((size_t)m->spec->n_key * sizeof *sites);
    bool ok = sites ? lm_text_append(&excerpt, NULL, 0, err) && take_excerpt(m, n, &excerpt, err) &&
                          weave_text(m, &excerpt, sites, err)
                    : lm_fail(err, LM_ERROR_MEMORY, "needle: out of memory");
    free(sites);
    lm_text_free(&excerpt);
    return ok;
}

/* n distractors, the needles among them. */
static bool context_of_needles(maker *m, size_t n, lm_error *err)
{
    const eval_needle_spec *spec = m->spec;
    eval_rng rng = m->rng;
    size_t total = n + (size_t)spec->n_key, queried = (size_t)llround(spec->depth * (double)(total - 1));
    size_t others = (size_t)spec->n_key - 1; /* still to be placed, at random among what is left */
    for (size_t i = 0; i < total; i++) {
        size_t left = total - i - (i < queried); /* slots from here on, without the queried one */
        eval_pair distractor;
        const eval_pair *p = &distractor;
        if (i == queried) {
            p = &m->pairs[0];
            m->queried_at = m->text.n;
        } else if (others > 0 && eval_rng_below(&rng, left) < others) {
            p = &m->pairs[spec->n_key - (int32_t)others--];
        } else {
            distractor = draw_pair(m, spec->n_key, &rng);
        }
        if (!append_needle(&m->text, spec, p, err))
            return false;
    }
    return true;
}

/* Builds the whole prompt with a haystack of the given size (bytes or distractors) and counts its tokens. */
static bool build(maker *m, const lm_tokenizer *tok, size_t size, size_t *n_token, lm_error *err)
{
    const eval_needle_spec *spec = m->spec;
    const char *type = eval_payload_names[spec->value], *key = m->pairs[0].key;
    m->text.n = 0;
    bool ok =
        lm_text_append(&m->text, NULL, 0, err) &&
        (spec->haystack == EVAL_HAYSTACK_NEEDLE ? context_of_needles(m, size, err) : context_of_text(m, size, err));
    if (!ok)
        return false;
    m->n_context = m->text.n;
    char question[384];
    int n = snprintf(question, sizeof question,
                     "\nWhat is the special magic %s for %s mentioned in the provided text? The special magic %s for "
                     "%s mentioned in the provided text is",
                     type, key, type, key);
    lm_tokens ids = {0};
    ok = lm_text_append(&m->text, question, (size_t)n, err) &&
         lm_tokenizer_encode(tok, m->text.data, m->text.n, 0, &ids, err);
    *n_token = ids.n;
    lm_tokens_free(&ids);
    return ok;
}

/* The largest haystack that fits; leaves it built. */
static bool fit(maker *m, const lm_tokenizer *tok, size_t *n_token, lm_error *err)
{
    const size_t limit = (size_t)m->spec->n_token;
    size_t low = 0, high = limit;
    if (!build(m, tok, 0, n_token, err))
        return false;
    if (*n_token > limit)
        return lm_fail(err, LM_ERROR_USAGE,
                       "needle: %d needles and the question take %zu tokens, more than the %zu asked "
                       "for",
                       (int)m->spec->n_key, *n_token, limit);
    for (;; low = high, high *= 2) {
        if (!build(m, tok, high, n_token, err))
            return false;
        if (*n_token > limit)
            break;
        if (high > limit * 64) /* no text has tokens of 64 bytes on average: white space without end */
            return lm_fail(err, LM_ERROR_INPUT, "needle: the text has too few words");
    }
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (!build(m, tok, middle, n_token, err))
            return false;
        *(*n_token > limit ? &high : &low) = middle;
    }
    /* Sites move a little with the size, so the count is only nearly monotonic. */
    do {
        if (!build(m, tok, low, n_token, err))
            return false;
    } while (*n_token > limit && low-- > 0);
    return true;
}

/* -------------------------------------------------------------------------------------------------- doors ---- */

static bool check(const eval_needle_spec *spec, const lm_tokenizer *tok, const char *book, size_t n_book, lm_error *err)
{
    if (!spec || !tok)
        return lm_fail(err, LM_ERROR_USAGE, "needle: NULL argument");
    if ((unsigned)spec->haystack > EVAL_HAYSTACK_NOISE || (unsigned)spec->key > EVAL_PAYLOAD_UUID ||
        (unsigned)spec->value > EVAL_PAYLOAD_UUID)
        return lm_fail(err, LM_ERROR_USAGE, "needle: no such haystack or type");
    if (spec->n_key < 1 || spec->n_key > MAX_KEY)
        return lm_fail(err, LM_ERROR_USAGE, "needle: the number of keys must be 1 .. %d", MAX_KEY);
    if (!(spec->depth >= 0 && spec->depth <= 1))
        return lm_fail(err, LM_ERROR_USAGE, "needle: the depth must be 0 .. 1");
    if (spec->n_token < 1)
        return lm_fail(err, LM_ERROR_USAGE, "needle: the number of tokens must be positive");
    if (spec->haystack != EVAL_HAYSTACK_BOOK)
        return true;
    if (!book || n_book == 0)
        return lm_fail(err, LM_ERROR_INPUT, "needle: a book haystack needs a text");
    if (spec->book_offset != EVAL_BOOK_ANYWHERE && spec->book_offset >= n_book)
        return lm_fail(err, LM_ERROR_USAGE, "needle: the text has only %zu bytes", n_book);
    return true;
}

/* The excerpt starts with a sentence where the seed picks one, and with a word in any case. */
static void pick_start(maker *m)
{
    const eval_needle_spec *spec = m->spec;
    if (spec->haystack == EVAL_HAYSTACK_NOISE) {
        m->book = eval_noise;
        m->n_book = strlen(eval_noise);
        return;
    }
    if (spec->haystack != EVAL_HAYSTACK_BOOK || spec->book_offset == 0)
        return;
    if (spec->book_offset == EVAL_BOOK_ANYWHERE)
        m->start = find_site(m->book, m->n_book, (size_t)eval_rng_below(&m->rng, m->n_book));
    else
        for (m->start = spec->book_offset; m->start < m->n_book && !eval_is_blank(m->book[m->start - 1]);)
            m->start++;
    while (m->start < m->n_book && eval_is_blank(m->book[m->start]))
        m->start++;
    if (m->start == m->n_book)
        m->start = 0;
}

static bool hand_over(maker *m, size_t n_token, eval_needle *out, lm_error *err)
{
    char **gold = malloc(sizeof *gold), *answer = malloc(EVAL_PAYLOAD_BYTES);
    if (!gold || !answer) {
        free(gold);
        free(answer);
        return lm_fail(err, LM_ERROR_MEMORY, "needle: out of memory");
    }
    memcpy(answer, m->pairs[0].value, EVAL_PAYLOAD_BYTES);
    gold[0] = answer;
    *out = (eval_needle){.prompt = m->text.data,
                         .n_bytes = m->text.n,
                         .gold = gold,
                         .n_gold = 1,
                         .n_token = (int32_t)n_token,
                         .depth = (double)m->queried_at / (double)m->n_context,
                         .book_offset = m->start};
    m->text = (lm_text){0};
    return true;
}

bool eval_needle_make(const eval_needle_spec *spec, const lm_tokenizer *tok, const char *book, size_t n_book,
                      eval_needle *out, lm_error *err)
{
    if (!out)
        return lm_fail(err, LM_ERROR_USAGE, "needle: NULL argument");
    if (!check(spec, tok, book, n_book, err))
        return false;
    maker m = {.spec = spec, .book = book, .n_book = n_book, .rng = {spec->seed}};
    m.pairs = malloc((size_t)spec->n_key * sizeof *m.pairs);
    if (!m.pairs)
        return lm_fail(err, LM_ERROR_MEMORY, "needle: out of memory for %d keys", (int)spec->n_key);
    for (int32_t i = 0; i < spec->n_key; i++)
        m.pairs[i] = draw_pair(&m, i, &m.rng);
    pick_start(&m);
    size_t n_token;
    bool ok = fit(&m, tok, &n_token, err) && hand_over(&m, n_token, out, err);
    lm_text_free(&m.text);
    free(m.pairs);
    return ok;
}

void eval_needle_free(eval_needle *needle)
{
    if (!needle)
        return;
    for (size_t i = 0; i < needle->n_gold; i++)
        free(needle->gold[i]);
    free(needle->gold);
    free(needle->prompt);
    *needle = (eval_needle){0};
}

/* --------------------------------------------------------------------------------------------------- JSON ---- */

static bool put_quoted(lm_text *out, const char *s, lm_error *err)
{
    cJSON *value = cJSON_CreateStringReference(s);
    char *text = value ? cJSON_PrintUnformatted(value) : NULL;
    const bool ok = text ? eval_put(out, text, err) : lm_fail(err, LM_ERROR_MEMORY, "needle: out of memory");
    cJSON_free(text);
    cJSON_Delete(value);
    return ok;
}

bool eval_needle_json(const eval_needle *needles, size_t n_needle, lm_text *out, lm_error *err)
{
    if (!out || (!needles && n_needle))
        return lm_fail(err, LM_ERROR_USAGE, "needle: NULL argument");
    bool ok = eval_put(out, "{", err);
    for (size_t i = 0; ok && i < n_needle; i++) {
        ok = eval_putf(out, err, "%s\n  \"%zu\": {\n    \"origin_prompt\": [{\"role\": \"HUMAN\", \"prompt\": ",
                       i ? "," : "", i) &&
             put_quoted(out, needles[i].prompt, err) && eval_put(out, "}],\n    \"gold\": [", err);
        for (size_t j = 0; ok && j < needles[i].n_gold; j++)
            ok = eval_put(out, j ? ", " : "", err) && put_quoted(out, needles[i].gold[j], err);
        ok = ok && eval_put(out, "]\n  }", err);
    }
    return ok && eval_put(out, "\n}\n", err);
}
