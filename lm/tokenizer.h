/*
 * lm/tokenizer.h - BPE, text to token ids and back.
 *
 *   text -> special tokens cut out verbatim -> NFC, spaces -> pre-tokenizer (patterns) -> BPE of each piece -> ids
 *
 * Two kinds of vocabulary. Byte-level: BPE over bytes, which files write in GPT-2's alphabet (each byte is one printable
 * character, space is U+0120). SentencePiece: BPE over characters, a space is written U+2581, and a character without a
 * token becomes the tokens of its bytes. Here tokens are kept as the bytes they stand for.
 *
 * Invalid UTF-8 is text like any other: a run of bytes that belong to no character is a piece of its own, encoded by
 * BPE over these bytes, and the text before and after it is split as if it ended or started there. So decode(encode(x))
 * is x for every string of bytes, if every byte has a token, the tokenizer does not bring text to NFC, and x has no
 * U+2581 where that is a space.
 *
 * NFC is applied where a tokenizer.json asks for it. GGUF files cannot ask, and llama.cpp does not apply it.
 *
 * Threads: an lm_tokenizer is immutable after creation; any number of threads may encode and decode with it at once.
 */
#ifndef LM_TOKENIZER_H
#define LM_TOKENIZER_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lm_tokenizer lm_tokenizer;

/* The values are those of GGUF's tokenizer.ggml.token_type. */
typedef enum lm_token_type {
    LM_TOKEN_NORMAL = 1,
    LM_TOKEN_UNKNOWN = 2,
    LM_TOKEN_CONTROL = 3,      /* special: matched verbatim in text only with LM_ENCODE_SPECIAL */
    LM_TOKEN_USER_DEFINED = 4, /* added, not special: always matched verbatim */
    LM_TOKEN_UNUSED = 5,
    LM_TOKEN_BYTE = 6
} lm_token_type;

/* A string that need not be terminated; data may be NULL when n is 0. */
typedef struct lm_string {
    const char *data;
    size_t n;
} lm_string;

/* A growing string, terminated by a NUL that n does not count once something was appended. Start from {0}. */
typedef struct lm_text {
    char *data;
    size_t n, capacity;
} lm_text;
void lm_text_free(lm_text *text);
bool lm_text_append(lm_text *text, const char *bytes, size_t n_bytes, lm_error *err);

/* What becomes of the parts that a pattern matches, and of those between: Hugging Face's Split. */
typedef enum lm_split_behavior {
    LM_SPLIT_ISOLATED = 0, /* each is a piece */
    LM_SPLIT_REMOVED,      /* matches are left out */
    LM_SPLIT_MERGED_WITH_PREVIOUS,
    LM_SPLIT_MERGED_WITH_NEXT,
    LM_SPLIT_CONTIGUOUS /* matches side by side are one piece */
} lm_split_behavior;

/* A step of the pre-tokenizer: it splits the pieces of the step before. */
typedef struct lm_split {
    const char *pattern; /* as Oniguruma with Ruby's syntax reads it */
    lm_split_behavior behavior;
    bool literal; /* the pattern is the text that is looked for */
    bool invert;  /* what the pattern does not match counts as matched */
} lm_split;

/* Which stretches of text between special tokens get a space in front. */
typedef enum lm_prefix { LM_PREFIX_NONE = 0, LM_PREFIX_FIRST, LM_PREFIX_ALL } lm_prefix;

/* What becomes of a byte without a token; with sentencepiece, of a character that has neither a token nor bytes. */
typedef enum lm_missing {
    LM_MISSING_GAP = 0, /* nothing; its neighbours do not merge (llama.cpp) */
    LM_MISSING_DROPPED, /* nothing; its neighbours may merge (a tokenizer.json without unk_token) */
    LM_MISSING_UNKNOWN  /* unk_id */
} lm_missing;

/* A tokenizer as plain arrays, the form in which GGUF metadata has it. Everything is copied: the arrays may go after
 * lm_tokenizer_create() returns. Start from lm_tokenizer_desc_init(). */
typedef struct lm_tokenizer_desc {
    bool sentencepiece;      /* tokens are text with U+2581 for a space, "<0x0A>" is a byte; false: the byte alphabet */
    const lm_string *tokens; /* [n_token], index = id; control, unknown and user-defined are verbatim */
    const int32_t *types;    /* [n_token] lm_token_type, or NULL: all normal */
    size_t n_token;
    const lm_string *merges; /* [n_merge] "left right" in the spelling of tokens, best first */
    size_t n_merge;
    const float *scores; /* [n_token], in place of merges: two tokens merge if the whole is one, highest score first */
    const char *pre; /* tokenizer.ggml.pre: a name in a row of tokenizer_pre.c; NULL: `splits` are the pre-tokenizer */
    const lm_split *splits; /* [n_split] */
    size_t n_split;
    lm_missing missing;
    int32_t unk_id; /* -1: none */
    bool fuse_unk;  /* what is unknown, side by side, is one token */
    bool nfc;       /* text is brought to NFC first */
    lm_prefix prefix;
    bool prefix_keeps_space; /* no space is put before a space */
    int32_t bos_id;          /* -1: none */
    bool add_bos;            /* LM_ENCODE_BOS puts bos_id first */
    int32_t ignore_merges; /* a piece that is itself a token needs no merges: 0 no, 1 yes, -1 as `pre` is known to do */
} lm_tokenizer_desc;

/* All zero, but bos_id = unk_id = ignore_merges = -1. */
void lm_tokenizer_desc_init(lm_tokenizer_desc *desc);

/* Checks the description and builds the tokenizer. Errors: LM_ERROR_UNSUPPORTED for another pre-tokenizer,
 * LM_ERROR_INPUT for a vocabulary that is not BPE (no byte has a token, a merge of or to an unknown token, two
 * tokens of equal text, ids out of range), LM_ERROR_MEMORY. The caller owns *out: lm_tokenizer_free(). */
bool lm_tokenizer_create(const lm_tokenizer_desc *desc, lm_tokenizer **out, lm_error *err);

/* From the metadata of a GGUF file; where: its path, for messages. */
struct lm_gguf;
bool lm_tokenizer_from_gguf(const struct lm_gguf *gguf, const char *where, int32_t bos_id, bool add_bos,
                            lm_tokenizer **out, lm_error *err);

/* From the text of a Hugging Face tokenizer.json; where: its path, for messages. add_bos and bos come from its
 * post_processor; call lm_tokenizer_set_bos() afterwards if config.json names BOS. */
bool lm_tokenizer_from_json(const char *json, size_t n_bytes, const char *where, lm_tokenizer **out, lm_error *err);

/* Appends merge i of a tokenizer.json to *out as "left right", which is one of the two spellings in such files. */
struct cJSON;
bool lm_tokenizer_json_merge(const struct cJSON *merge, lm_text *out, size_t i, lm_error *err);

/* Sets BOS; -1 leaves it as it is. Only before the tokenizer is shared. LM_ERROR_INPUT: no such id. */
bool lm_tokenizer_set_bos(lm_tokenizer *tok, int32_t bos_id, lm_error *err);

/* NULL is allowed. */
void lm_tokenizer_free(lm_tokenizer *tok);

/* ------------------------------------------------------------------------------------------------ queries ---- */

int32_t lm_tokenizer_n_token(const lm_tokenizer *tok); /* largest id + 1; a model may have more rows than that */
int32_t lm_tokenizer_bos(const lm_tokenizer *tok);     /* -1: none */
bool lm_tokenizer_adds_bos(const lm_tokenizer *tok);
const char *lm_tokenizer_pre(const lm_tokenizer *tok); /* as tokenizer.ggml.pre has it; NULL: no name there */
/* Returns whether texts start with BOS in GGUF files with this tokenizer.ggml.pre that do not say so themselves. */
bool lm_tokenizer_pre_adds_bos(const char *pre);

/* The bytes of a token, terminated by a NUL that *n_bytes does not count; NULL for an id that is not in use. */
const char *lm_tokenizer_bytes(const lm_tokenizer *tok, int32_t id, size_t *n_bytes);

/* Appends bytes to *out in the byte alphabet, as files spell a token that has them. */
bool lm_tokenizer_spell(const char *bytes, size_t n_bytes, lm_text *out, lm_error *err);

/* The token's type; LM_TOKEN_UNUSED for an id that is not in use. */
lm_token_type lm_tokenizer_type(const lm_tokenizer *tok, int32_t id);

/* The id of the token whose bytes are exactly these (special tokens included), -1 if there is none. */
int32_t lm_tokenizer_find(const lm_tokenizer *tok, const char *bytes, size_t n_bytes);

/* --------------------------------------------------------------------------------------- encode and decode ---- */

/* A growing list of ids. Start from {0}; lm_tokens_free() takes one that was never used. */
typedef struct lm_tokens {
    int32_t *ids;
    size_t n, capacity;
} lm_tokens;
void lm_tokens_free(lm_tokens *tokens);

enum {
    LM_ENCODE_SPECIAL = 1, /* control tokens that stand in the text become their ids */
    LM_ENCODE_BOS = 2      /* start with BOS if this tokenizer is one that adds it */
};

/* Appends the ids of text to *out. Time is O(n log n) for any text. On failure *out is as it was before the call. */
bool lm_tokenizer_encode(const lm_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags, lm_tokens *out,
                         lm_error *err);

enum {
    LM_DECODE_SKIP_SPECIAL = 1, /* control tokens give nothing */
    LM_DECODE_CONTINUES = 2     /* the ids go on from a text: keep a space in front that encode() may have put there */
};

/* Appends the bytes of the ids to *out. Ids that are not in use give nothing: models have padding rows. Spaces that
 * encode() puts in front are taken away. */
bool lm_tokenizer_decode(const lm_tokenizer *tok, const int32_t *ids, size_t n_id, unsigned flags, lm_text *out,
                         lm_error *err);

/* Decoding token by token for display: a character whose bytes come with several tokens is held back until it is
 * whole. Start from {0}. Bytes that cannot become a character are passed on as they are. The ids go on from a text, as
 * with LM_DECODE_CONTINUES. */
typedef struct lm_stream {
    char held[4];
    uint32_t n_held;
} lm_stream;
bool lm_stream_push(lm_stream *stream, const lm_tokenizer *tok, int32_t id, unsigned flags, lm_text *out,
                    lm_error *err);
/* Passes on what is still held: the end of the text. */
bool lm_stream_flush(lm_stream *stream, lm_text *out, lm_error *err);

#endif
