/*
 * eval/corpus.h - the text that hides needles: words and sentences of a file, or of a folder of essays.
 *
 *   file or folder -> white space collapsed -> words, and which of them end a sentence
 *
 * Immutable once open.
 */
#ifndef EVAL_CORPUS_H
#define EVAL_CORPUS_H

#include "lm/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

typedef struct eval_corpus {
    char *text; /* words with one space between, terminated */
    size_t n_bytes;
    uint32_t *word_at; /* [n_word + 1] where word i starts; the last is n_bytes + 1, as if a word followed */
    bool *ends;        /* [n_word] word i is the last of a sentence */
    size_t n_word;
} eval_corpus;

/* Exactly one of file and folder (.txt files in the order of their names) is not NULL.
 * INPUT: unreadable, no words, NUL bytes (not a text), more than 1 GiB; MEMORY. Free with eval_corpus_close(). */
bool eval_corpus_open(const char *file, const char *folder, eval_corpus *out, lm_error *err);
void eval_corpus_close(eval_corpus *corpus); /* {0} is allowed */

/* Returns the path, in fresh memory, of a file that comes with the program, e.g. "nostromo.txt"; NULL: it is nowhere.
 * Looks beside the executable (installed, or in its build folder), then under the working directory. */
char *eval_bundled_file(const char *name);

/* Different English words, sorted: the lists of words.h, and the words of the corpus (may be NULL) of 4 .. 12 letters
 * that stand there in small letters. Free with eval_words_free(). */
typedef struct eval_words {
    char **words;
    size_t n;
} eval_words;
bool eval_words_open(const eval_corpus *corpus, eval_words *out, lm_error *err);
void eval_words_free(eval_words *words);

#endif
