/*
 * lm/tokenizer_internal.h - the rooms of the tokenizer, for its own files only.
 *
 *   tokenizer_json.c  tokenizer.json -> lm_tokenizer_desc
 *   tokenizer_gguf.c  metadata of a GGUF file -> lm_tokenizer_desc
 *   tokenizer_spell.c  tokens as files spell them -> bytes
 *   tokenizer_vocab.c  lm_tokenizer_desc -> vocabulary, special tokens
 *   tokenizer_merges.c lm_tokenizer_desc -> merges
 *   tokenizer_pre.c   the pre-tokenizers that GGUF files name
 *   tokenizer_regex.c a pattern as such files spell it -> PCRE2
 *   tokenizer_normal.c text -> text (NFC, spaces)
 *   tokenizer_split.c text -> pieces (patterns, UTF-8)
 *   tokenizer_bpe.c   piece -> ids
 *   tokenizer.c       encode, decode, queries
 */
#ifndef LM_TOKENIZER_INTERNAL_H
#define LM_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "tokenizer.h"

#define LM_NO_TOKEN UINT32_MAX

/* Ids a file may use. Holes cost memory, so a file with few tokens may not use large ids. */
#define LM_MAX_TOKEN (1u << 24)

/* ------------------------------------------------------------------------------------------- vocabulary ---- */

/* Open addressing, linear probing, size a power of two at most half full. */
typedef struct lm_vocab_slot {
    uint32_t hash;
    uint32_t id; /* LM_NO_TOKEN: empty */
} lm_vocab_slot;

typedef struct lm_merge_slot {
    uint32_t left, right; /* left == LM_NO_TOKEN: empty */
    uint32_t rank, id;
} lm_merge_slot;

enum {
    LM_TOKEN_ENCODABLE = 1, /* BPE may produce it: it is in the table of bytes */
    LM_TOKEN_WHOLE = 2      /* BPE of its bytes gives the token itself: a piece equal to it needs no merging */
};

typedef struct lm_token {
    const char *bytes; /* terminated; NULL: the id is not in use */
    uint32_t length;
    uint8_t type;   /* lm_token_type */
    uint8_t traits; /* LM_TOKEN_ENCODABLE... */
} lm_token;

/* A step of the pre-tokenizer, compiled. */
typedef struct lm_split_code {
    pcre2_code *pattern;
    bool jit, invert;
    lm_split_behavior behavior;
} lm_split_code;

/* In place of what has no token (lm_tokenizer_desc.missing): in no merge, and left out at the end. */
#define LM_HOLE (UINT32_MAX - 1)

struct lm_tokenizer {
    uint32_t n_token;
    char *bytes;      /* all tokens, one after the other, each with a terminating NUL */
    lm_token *tokens; /* [n_token] */

    lm_vocab_slot *vocab; /* encodable tokens by their bytes */
    uint32_t vocab_mask;
    lm_merge_slot *merges;
    uint32_t merge_mask;
    uint32_t byte_id[256];  /* tokens that stand for one byte; LM_NO_TOKEN: there is none */
    uint32_t ascii_id[128]; /* sentencepiece: tokens that are one character */
    uint32_t missing_id;    /* for what has no token: unk_id; LM_HOLE: leaves a gap; LM_NO_TOKEN: is left out */
    bool fuse_unk;
    bool sentencepiece;
    bool parts_at_spaces; /* sentencepiece: no token has a space behind another character, so no merge crosses it */
    bool nfc;
    lm_prefix prefix;
    bool prefix_keeps_space;

    uint32_t *special;           /* control and user-defined tokens by first byte, longest first */
    uint32_t special_start[257]; /* those that start with byte b: special[special_start[b] .. special_start[b+1]-1] */

    lm_split_code *splits; /* [n_split] */
    size_t n_split;
    const char *pre; /* a name in a row of tokenizer_pre.c, NULL: none has these splits */
    int32_t bos_id;
    bool add_bos, ignore_merges;
};

/* How a file spells tokens. */
typedef struct lm_spelling {
    bool sentencepiece;
    int16_t byte[0x144]; /* the byte alphabet, by code point; -1: no byte */
} lm_spelling;

void lm_spelling_init(lm_spelling *spelling, bool sentencepiece);
/* Writes the bytes that text stands for (at most text.n) and returns how many; SIZE_MAX: no token is spelt so. */
size_t lm_spelling_bytes(const lm_spelling *spelling, lm_string text, char *out);
/* The byte that "<0x0A>" stands for; -1: text is not of this form. */
int lm_spelling_byte(lm_string text);

/* Fills everything but the splits, BOS, what lm_normalize() reads and LM_TOKEN_WHOLE. */
bool lm_vocab_build(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err);
/* Fills the merges; the vocabulary is there. */
bool lm_merges_build(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const lm_spelling *spelling, lm_error *err);
/* The smallest power of two that keeps n entries at most half of it. */
size_t lm_table_size(size_t n);
uint32_t lm_vocab_find(const lm_tokenizer *tok, const char *bytes, size_t n_bytes);

static inline uint32_t lm_pair_hash(uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(key >> 32);
}

/* The merge of two tokens, NULL if there is none. */
static inline const lm_merge_slot *lm_merge_find(const lm_tokenizer *tok, uint32_t left, uint32_t right)
{
    for (uint32_t i = lm_pair_hash(left, right);; i++) {
        const lm_merge_slot *slot = &tok->merges[i & tok->merge_mask];
        if (slot->left == left && slot->right == right)
            return slot;
        if (slot->left == LM_NO_TOKEN)
            return NULL;
    }
}

/* How SentencePiece spells a space: U+2581. Here it is a space, in tokens and in texts. */
#define LM_SPACE_MARK "\xE2\x96\x81"
/* Writes spaces for the marks in text, in place; returns the new length. */
size_t lm_mark_to_space(char *text, size_t n);

/* Makes of *text, the stretch after a special token or, if first, at the start, what is split. buffer keeps it. */
bool lm_normalize(const lm_tokenizer *tok, lm_string *text, bool first, lm_text *buffer, lm_error *err);

/* ------------------------------------------------------------------------------------------------ pieces ---- */

enum { LM_PRE_NAMES = 6 };

/* The step that ByteLevel does where a tokenizer.json has use_regex. */
#define LM_GPT2_SPLIT "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Where desc->pre names a row: the row's first name, splits and, where not said, ignore_merges. */
bool lm_pre_apply(lm_tokenizer_desc *desc, lm_error *err);
/* Compiles the splits of the description, sets tok->pre. */
bool lm_pre_compile(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err);
/* Returns the first name of the pre-tokenizer that has these splits; NULL: there is none. */
const char *lm_pre_recognise(const lm_split *splits, size_t n_split);

/* Rewrites a pattern for PCRE2 and compiles it into out->pattern, out->jit. UNSUPPORTED: says what it has. */
bool lm_regex_compile(const char *pattern, bool literal, lm_split_code *out, lm_error *err);

/* Bytes of s, from its start, that are valid UTF-8; that belong to no character. */
size_t lm_utf8_valid(const char *s, size_t n);
size_t lm_utf8_invalid(const char *s, size_t n);

/* Length of the character at s; 0 if none stands there; n + 1 or more if s ends within what may be one. */
size_t lm_utf8_length(const char *s, size_t n);

/* Walks over the pieces of one stretch of text between special tokens. */
typedef struct lm_splitter {
    const lm_tokenizer *tok;
    pcre2_match_data *match;
    pcre2_match_context *context;
    struct lm_split_level *levels; /* [n_split], one for every step */
    size_t depth;                  /* levels in use: the last is where pieces come from */
    const char *text;
    size_t n, position;
    size_t valid_end; /* text[position .. valid_end) is valid UTF-8 */
} lm_splitter;

bool lm_splitter_init(lm_splitter *split, const lm_tokenizer *tok, lm_error *err);
void lm_splitter_start(lm_splitter *split, const char *text, size_t n);
/* True with the next piece, or with an empty one at the end. */
bool lm_splitter_next(lm_splitter *split, lm_string *piece, lm_error *err);
void lm_splitter_free(lm_splitter *split);

/* --------------------------------------------------------------------------------------------------- bpe ---- */

/* Working memory of one encode call, grown as needed. Start from {0}. */
typedef struct lm_bpe {
    struct lm_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap;
    size_t heap_n, heap_capacity;
} lm_bpe;

/* Appends the ids of one piece. */
bool lm_bpe_encode(lm_bpe *bpe, const lm_tokenizer *tok, lm_string piece, lm_tokens *out, lm_error *err);
void lm_bpe_free(lm_bpe *bpe);

/* Room for n more ids. */
bool lm_tokens_reserve(lm_tokens *tokens, size_t n, lm_error *err);

#endif
