/*
 * eval/needle.h - prompts that hide sentences in a long text and ask for one of them.
 *
 *   haystack -> needle sentences woven between its sentences -> question
 *
 * The wording is that of RULER's NIAH family (NVIDIA, Apache-2.0) as the bundled model was trained on it:
 *   needle    ` One of the special magic {types} for {key} is: {value}.`
 *   question  `\nWhat is the special magic {type} for {key} mentioned in the provided text? The special magic {type}
 *             for {key} mentioned in the provided text is`          (one line; the answer is ` {value}.`)
 * with type one of word, number, uuid. A prompt depends on its spec, the book and the tokenizer only.
 */
#ifndef EVAL_NEEDLE_H
#define EVAL_NEEDLE_H

#include "payload.h"

typedef enum eval_haystack {
    EVAL_HAYSTACK_BOOK = 0,   /* the caller's text, from a place that the seed picks; starts again where it ends */
    EVAL_HAYSTACK_NEEDLE = 1, /* nothing but needles with other keys */
    EVAL_HAYSTACK_NOISE = 2   /* RULER's five sentences, again and again */
} eval_haystack;

extern const char *const eval_haystack_names[3]; /* "book", "needle", "noise" */

#define EVAL_BOOK_ANYWHERE UINT64_MAX

typedef struct eval_needle_spec {
    eval_haystack haystack;
    eval_payload key, value;
    int32_t n_key;   /* needles that are woven in, the queried one among them; for EVAL_HAYSTACK_NEEDLE all others
                        are distractors anyway */
    double depth;    /* where the queried needle stands: 0 start, 1 end of the haystack */
    int32_t n_token; /* the prompt has as many tokens as fit here, BOS not counted */
    uint64_t seed;
    uint64_t book_offset; /* first byte of the book that is used, or EVAL_BOOK_ANYWHERE */
} eval_needle_spec;

/* A book haystack with word keys and number values, 4 keys, depth 0.5, 8192 tokens, seed 1, anywhere in the book. */
void eval_needle_spec_init(eval_needle_spec *spec);

typedef struct eval_needle {
    char *prompt; /* context and question, terminated */
    size_t n_bytes;
    char **gold; /* [n_gold] the answers that count */
    size_t n_gold;
    int32_t n_token;
    double depth;       /* where the queried needle really starts, as a share of the context's bytes */
    size_t book_offset; /* where the excerpt starts */
} eval_needle;

/* Makes one prompt. book is needed (and must be UTF-8 or ASCII with white space) for EVAL_HAYSTACK_BOOK only.
 * Errors: LM_ERROR_USAGE for a spec that makes no sense or needles that do not fit in n_token, LM_ERROR_INPUT for a
 * book without words, LM_ERROR_MEMORY. The caller owns *out: eval_needle_free(). */
bool eval_needle_make(const eval_needle_spec *spec, const lm_tokenizer *tok, const char *book, size_t n_book,
                      eval_needle *out, lm_error *err);

/* An eval_needle of {0} is allowed. */
void eval_needle_free(eval_needle *needle);

/* Appends the prompts as JSON: {"0": {"origin_prompt": [{"role": "HUMAN", "prompt": "..."}], "gold": ["..."]}, ...} */
bool eval_needle_json(const eval_needle *needles, size_t n_needle, lm_text *out, lm_error *err);

#endif
