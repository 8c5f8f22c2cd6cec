#include "corpus.h"
#include "payload.h"
#include "text.h"
#include "words.h"

#include "lm/file.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CORPUS ((size_t)1 << 30)

/* ------------------------------------------------------------------------------------------------ reading ---- */

static bool read_into(lm_text *all, const char *path, lm_error *err)
{
    char *text;
    size_t n;
    if (!lm_read_file(path, MAX_CORPUS - all->n, &text, &n, err))
        return false;
    bool ok = !memchr(text, 0, n) || lm_fail(err, LM_ERROR_INPUT, "'%s' holds NUL bytes: it is not a text", path);
    ok = ok && lm_text_append(all, text, n, err) && lm_text_append(all, "\n", 1, err);
    free(text);
    return ok;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool list_folder(const char *folder, char ***names, size_t *n, lm_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return lm_fail(err, LM_ERROR_INPUT, "cannot open the folder of essays '%s': %s", folder, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        const size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".txt") == 0)
            ok = eval_list_add(names, n, entry->d_name, length, err);
    }
    closedir(dir);
    if (ok && *n == 0)
        return lm_fail(err, LM_ERROR_INPUT, "'%s' holds no .txt files", folder);
    if (ok)
        qsort(*names, *n, sizeof **names, compare_text); /* readdir()'s order is the file system's */
    return ok;
}

static bool read_folder(lm_text *all, const char *folder, lm_error *err)
{
    char **names = NULL;
    size_t n = 0;
    bool ok = list_folder(folder, &names, &n, err);
    for (size_t i = 0; ok && i < n; i++) {
        char *path = lm_path_join(folder, names[i]);
        ok = path ? read_into(all, path, err) : lm_fail(err, LM_ERROR_MEMORY, "out of memory for a path");
        free(path);
    }
    eval_list_free(names, n);
    return ok;
}

char *eval_bundled_file(const char *name)
{
    static const char *const places[] = {"../share/prism_attn", "eval/data", "../eval/data", "../../eval/data"};
    char self[4096], path[4096 + 256];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    const char *const folders[] = {dirname(self), "."};
    for (int f = 0; f < 2; f++)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            const int length = snprintf(path, sizeof path, "%s/%s/%s", folders[f], places[i], name);
            if (length > 0 && (size_t)length < sizeof path && lm_path_exists(path))
                return eval_copy(path, (size_t)length, NULL);
        }
    return NULL;
}

/* ---------------------------------------------------------------------------------------- words, sentences ---- */

/* "Mr. Gould": a title's full stop ends no sentence, nor does that of an initial. */
static bool is_abbreviation(const char *word, size_t n)
{
    static const char *const titles[] = {"Mr.",  "Mrs.", "Ms.", "Dr.",  "St.",  "Prof.", "Capt.",
                                         "Gen.", "Col.", "vs.", "e.g.", "i.e.", "No.",   "etc."};
    if (n == 2 && word[1] == '.' && word[0] >= 'A' && word[0] <= 'Z' && word[0] != 'I')
        return true;
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strlen(titles[i]) == n && memcmp(titles[i], word, n) == 0)
            return true;
    return false;
}

static size_t collapse(char *text, size_t n)
{
    size_t out = 0, n_word = 0;
    for (size_t i = 0; i < n;) {
        while (i < n && eval_is_blank(text[i]))
            i++;
        if (i == n)
            break;
        if (n_word++ > 0)
            text[out++] = ' ';
        while (i < n && !eval_is_blank(text[i]))
            text[out++] = text[i++];
    }
    text[out] = 0;
    return n_word;
}

static bool index_words(eval_corpus *c, lm_error *err)
{
    c->n_word = collapse(c->text, c->n_bytes);
    c->n_bytes = strlen(c->text);
    if (c->n_word == 0)
        return lm_fail(err, LM_ERROR_INPUT, "the haystack text has no words");
    c->word_at = malloc((c->n_word + 1) * sizeof *c->word_at);
    c->ends = malloc(c->n_word * sizeof *c->ends);
    if (!c->word_at || !c->ends)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu words", c->n_word);
    size_t at = 0;
    for (size_t i = 0; i < c->n_word; i++) {
        const char *space = memchr(c->text + at, ' ', c->n_bytes - at);
        const size_t end = space ? (size_t)(space - c->text) : c->n_bytes;
        c->word_at[i] = (uint32_t)at;
        /* The last word counts as an end: where the text starts again, a sentence does. */
        c->ends[i] = !space || (eval_ends_sentence(c->text, end) && !is_abbreviation(c->text + at, end - at));
        at = end + 1;
    }
    c->word_at[c->n_word] = (uint32_t)at;
    return true;
}

bool eval_corpus_open(const char *file, const char *folder, eval_corpus *out, lm_error *err)
{
    lm_text all = {0};
    if (!(folder ? read_folder(&all, folder, err) : read_into(&all, file, err))) {
        lm_text_free(&all);
        return false;
    }
    eval_corpus c = {.text = all.data, .n_bytes = all.n};
    if (!index_words(&c, err)) {
        eval_corpus_close(&c);
        return false;
    }
    *out = c;
    return true;
}

void eval_corpus_close(eval_corpus *corpus)
{
    free(corpus->text);
    free(corpus->word_at);
    free(corpus->ends);
    *corpus = (eval_corpus){0};
}

/* --------------------------------------------------------------------------------------------- vocabulary ---- */

/* The letters of a word without the punctuation around it, if they are a word of its own and no name. */
static bool plain_word(const char *word, size_t n, size_t *start, size_t *length)
{
    size_t a = 0, b = n;
    while (a < b && strchr("\"'([_-", word[a]))
        a++;
    while (b > a && strchr("\"')]_-.,;:!?", word[b - 1]))
        b--;
    for (size_t i = a; i < b; i++)
        if (word[i] < 'a' || word[i] > 'z')
            return false;
    *start = a;
    *length = b - a;
    return b - a >= 4 && b - a <= 12;
}

typedef struct slices {
    lm_string *items;
    size_t n;
} slices;

static int compare_slice(const void *a, const void *b)
{
    const lm_string *x = a, *y = b;
    const int order = memcmp(x->data, y->data, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static void collect(const eval_corpus *corpus, slices *all)
{
    for (size_t i = 0; i < EVAL_N_ADJECTIVE; i++)
        all->items[all->n++] = (lm_string){eval_adjectives[i], strlen(eval_adjectives[i])};
    for (size_t i = 0; i < EVAL_N_NOUN; i++)
        all->items[all->n++] = (lm_string){eval_nouns[i], strlen(eval_nouns[i])};
    for (size_t i = 0; corpus && i < corpus->n_word; i++) {
        const char *word = corpus->text + corpus->word_at[i];
        size_t start, length;
        if (plain_word(word, corpus->word_at[i + 1] - corpus->word_at[i] - 1, &start, &length))
            all->items[all->n++] = (lm_string){word + start, length};
    }
    qsort(all->items, all->n, sizeof *all->items, compare_slice);
}

bool eval_words_open(const eval_corpus *corpus, eval_words *out, lm_error *err)
{
    const size_t most = EVAL_N_ADJECTIVE + EVAL_N_NOUN + (corpus ? corpus->n_word : 0);
    slices all = {malloc(most * sizeof *all.items), 0};
    eval_words words = {malloc(most * sizeof *words.words), 0};
    bool ok = (all.items && words.words) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu words", most);
    if (ok)
        collect(corpus, &all);
    for (size_t i = 0; ok && i < all.n; i++) {
        if (i > 0 && compare_slice(&all.items[i - 1], &all.items[i]) == 0)
            continue;
        words.words[words.n] = eval_copy(all.items[i].data, all.items[i].n, err);
        ok = words.words[words.n] != NULL;
        words.n += ok;
    }
    free(all.items);
    if (ok)
        *out = words;
    else
        eval_words_free(&words);
    return ok;
}

void eval_words_free(eval_words *words)
{
    eval_list_free(words->words, words->n);
    *words = (eval_words){0};
}
