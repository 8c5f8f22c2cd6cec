/*
 * eval/payload.h - what needles are made of, for everything that hides needles (needle.h, ruler.h).
 *
 *   key and value -> pair -> sentence `One of the special magic {types} for {key} is: {value}.` -> a place between
 * sentences
 */
#ifndef EVAL_PAYLOAD_H
#define EVAL_PAYLOAD_H

#include "rng.h"

#include "lm/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

typedef enum eval_payload {
    EVAL_PAYLOAD_WORD = 0,   /* adjective-noun */
    EVAL_PAYLOAD_NUMBER = 1, /* seven digits */
    EVAL_PAYLOAD_UUID = 2    /* version 4 */
} eval_payload;

#define EVAL_PAYLOAD_BYTES 48 /* holds a uuid and the longest pair of words */

typedef struct eval_pair {
    char key[EVAL_PAYLOAD_BYTES], value[EVAL_PAYLOAD_BYTES];
} eval_pair;

/* "word", "number", "uuid" */
extern const char *const eval_payload_names[3];

/* RULER's five sentences without information. */
extern const char eval_noise[];

void eval_payload_draw(eval_payload type, eval_rng *rng, char out[EVAL_PAYLOAD_BYTES]);

/* A pair that shares neither key nor value with the first n of `others`. */
eval_pair eval_pair_draw(eval_payload key, eval_payload value, const eval_pair *others, int32_t n, eval_rng *rng);

/* Appends the sentence, without space before it. */
bool eval_pair_append(lm_text *text, eval_payload value, const eval_pair *pair, lm_error *err);

/* ' ', '\n', '\t' or '\r' */
bool eval_is_blank(char c);

/* A sentence ends just before text[i]: full stop, question or exclamation mark, then perhaps quotes or brackets, then
 * the white space at i; so no word and no UTF-8 character is cut there. */
bool eval_ends_sentence(const char *text, size_t i);

#endif
