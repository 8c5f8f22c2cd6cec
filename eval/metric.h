/*
 * eval/metric.h - how an answer is scored against references, 0 .. 1.
 *
 * Each takes the answer as the model gave it. The value is NaN only where memory ran out. Texts are UTF-8; bytes that
 * are not count as characters of their own.
 */
#ifndef EVAL_METRIC_H
#define EVAL_METRIC_H

#include <stdbool.h>
#include <stddef.h>

/* ------------------------------------------------------------------------------------------------- RULER ---- */

/* The share of references that the answer contains, whatever their case. */
double eval_match_all(const char *answer, char *const *gold, size_t n_gold);
/* 1 if it contains any of them. */
double eval_match_any(const char *answer, char *const *gold, size_t n_gold);

/* --------------------------------------------------------------------------------------------- LongBench ---- */

typedef enum eval_language {
    EVAL_ENGLISH = 0,
    EVAL_CHINESE = 1 /* a Chinese character is a token, and so is a run of other letters and digits */
} eval_language;

/* Harmonic mean of token precision and recall, tokens as multisets. Case, punctuation and (English) articles do not
 * count. */
double eval_f1(const char *answer, const char *gold, eval_language language);

/* ROUGE-L F of whole texts as the Python package rouge 1.0.1 has it: sentences end at full stops; the words of a
 * reference sentence that are in a longest common subsequence with some sentence of the answer are found; precision and
 * recall count different words. */
double eval_rouge_l(const char *answer, const char *gold, eval_language language);

/* 1 / number of labels in the answer if the right one is among them, else 0. A label that is part of the right one's
 * name does not count. */
double eval_classification(const char *answer, const char *gold, char *const *classes, size_t n_class);

/* The share of the whole numbers in the answer that are the right one: that of the reference (count), or that after
 * "Paragraph " or its Chinese counterpart in the reference (retrieval). */
double eval_count(const char *answer, const char *gold);
double eval_retrieval(const char *answer, const char *gold, eval_language language);

/* Of the answer's first line that is neither comment nor fence, to the reference: the percentage that fuzzywuzzy's
 * ratio gives without python-Levenshtein, as LongBench runs it; which is Python's difflib, rounded to whole percents.
 */
double eval_edit_similarity(const char *answer, const char *gold);

/* difflib.SequenceMatcher(None, a, b).ratio() over characters. */
double eval_difflib_ratio(const char *a, const char *b);

#endif
