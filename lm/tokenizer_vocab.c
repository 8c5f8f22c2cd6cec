/*
 * Description -> tables: bytes of every token, the vocabulary by bytes, special tokens by first byte.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- tables ---- */

static uint32_t bytes_hash(const char *bytes, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, bytes, n);
    h = (h ^ word) * 0xFF51AFD7ED558CCDu;
    h ^= h >> 29;
    h *= 0xC4CEB9FE1A85EC53u;
    return (uint32_t)(h >> 32);
}

uint32_t lm_vocab_find(const lm_tokenizer *tok, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0)
        return LM_NO_TOKEN;
    uint32_t hash = bytes_hash(bytes, n_bytes);
    for (uint32_t i = hash;; i++) {
        const lm_vocab_slot *slot = &tok->vocab[i & tok->vocab_mask];
        if (slot->id == LM_NO_TOKEN)
            return LM_NO_TOKEN;
        if (slot->hash == hash && tok->tokens[slot->id].length == n_bytes &&
            memcmp(tok->tokens[slot->id].bytes, bytes, n_bytes) == 0)
            return slot->id;
    }
}

static void vocab_insert(lm_tokenizer *tok, uint32_t id)
{
    uint32_t hash = bytes_hash(tok->tokens[id].bytes, tok->tokens[id].length), i = hash;
    while (tok->vocab[i & tok->vocab_mask].id != LM_NO_TOKEN)
        i++;
    tok->vocab[i & tok->vocab_mask] = (lm_vocab_slot){hash, id};
    tok->tokens[id].traits |= LM_TOKEN_ENCODABLE;
}

size_t lm_table_size(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

static bool is_special(uint8_t type)
{
    return type == LM_TOKEN_CONTROL || type == LM_TOKEN_USER_DEFINED || type == LM_TOKEN_UNKNOWN;
}

static bool allocate(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err)
{
    size_t n = desc->n_token, n_bytes = 0;
    if (n == 0)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: the vocabulary is empty");
    if (!desc->tokens || (desc->n_merge && !desc->merges))
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: tokens or merges are NULL");
    if (n > LM_MAX_TOKEN || desc->n_merge > 4 * (size_t)LM_MAX_TOKEN)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: %zu tokens and %zu merges are more than any model has", n,
                       desc->n_merge);
    for (size_t i = 0; i < n; i++) {
        if (desc->tokens[i].n >= INT32_MAX || desc->tokens[i].n >= SIZE_MAX - n_bytes - 1)
            return lm_fail(err, LM_ERROR_INPUT, "tokenizer: token %zu is too long", i);
        n_bytes += desc->tokens[i].n + 1;
    }
    size_t n_vocab = lm_table_size(n);
    tok->n_token = (uint32_t)n;
    tok->bytes = malloc(n_bytes);
    tok->tokens = calloc(n, sizeof *tok->tokens);
    tok->special = malloc(n * sizeof *tok->special);
    tok->vocab = malloc(n_vocab * sizeof *tok->vocab);
    tok->vocab_mask = (uint32_t)(n_vocab - 1);
    if (!tok->bytes || !tok->tokens || !tok->special || !tok->vocab)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu tokens", n);
    memset(tok->vocab, 0xFF, n_vocab * sizeof *tok->vocab); /* all LM_NO_TOKEN */
    return true;
}

/* Special tokens are matched before the split, so BPE needs only those whose text is the same in the byte alphabet:
 * vocabularies list them among the others. */
static bool is_graphic_ascii(lm_string text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.data[i] < 0x21 || text.data[i] > 0x7E)
            return false;
    return true;
}

/* Writes the bytes of token id to out and says whether BPE may produce it. */
static size_t token_bytes(lm_tokenizer *tok, const lm_spelling *spelling, uint32_t id, lm_string text, char *out,
                          bool *encodable)
{
    const uint8_t type = tok->tokens[id].type;
    const int byte = spelling->sentencepiece && !is_special(type) ? lm_spelling_byte(text) : -1;
    *encodable = false;
    if (byte >= 0) {
        tok->tokens[id].type = LM_TOKEN_BYTE;
        tok->byte_id[byte] = id;
        out[0] = (char)byte;
        return 1;
    }
    const size_t n = is_special(type) ? SIZE_MAX : lm_spelling_bytes(spelling, text, out);
    *encodable = n == SIZE_MAX ? is_special(type) && is_graphic_ascii(text) : type != LM_TOKEN_UNUSED;
    if (n != SIZE_MAX)
        return n;
    memcpy(out, text.data, text.n);
    return text.n;
}

static bool load_tokens(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const lm_spelling *spelling, lm_error *err)
{
    size_t used = 0;
    memset(tok->byte_id, 0xFF, sizeof tok->byte_id);
    for (uint32_t id = 0; id < tok->n_token; id++) {
        lm_string text = desc->tokens[id];
        int32_t type = desc->types ? desc->types[id] : LM_TOKEN_NORMAL;
        if (type < LM_TOKEN_NORMAL || type > LM_TOKEN_BYTE)
            return lm_fail(err, LM_ERROR_INPUT, "tokenizer: token %u has the unknown type %d", id, (int)type);
        tok->tokens[id].type = (uint8_t)type;
        if (text.n == 0)
            continue;
        char *bytes = tok->bytes + used;
        bool encodable;
        const size_t n = token_bytes(tok, spelling, id, text, bytes, &encodable);
        bytes[n] = '\0';
        tok->tokens[id].bytes = bytes;
        tok->tokens[id].length = (uint32_t)n;
        used += n + 1;
        if (!encodable)
            continue;
        uint32_t twin = lm_vocab_find(tok, bytes, n);
        if (twin != LM_NO_TOKEN)
            return lm_fail(err, LM_ERROR_INPUT, "tokenizer: tokens %u and %u have the same text", twin, id);
        vocab_insert(tok, id);
    }
    return true;
}

/* What merges start from: a token for each byte, or for each character. */
static bool load_bytes(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err)
{
    if (desc->missing == LM_MISSING_UNKNOWN && (desc->unk_id < 0 || (uint32_t)desc->unk_id >= tok->n_token))
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: the unknown token %d is not in the vocabulary of %u tokens",
                       (int)desc->unk_id, tok->n_token);
    tok->missing_id = desc->missing == LM_MISSING_UNKNOWN ? (uint32_t)desc->unk_id
                      : desc->missing == LM_MISSING_GAP   ? LM_HOLE
                                                          : LM_NO_TOKEN;
    tok->fuse_unk = desc->missing == LM_MISSING_UNKNOWN && desc->fuse_unk;
    bool any = desc->sentencepiece;
    for (unsigned byte = 0; byte < 256; byte++) {
        const char c = (char)byte;
        const uint32_t id = lm_vocab_find(tok, &c, 1);
        any = any || id != LM_NO_TOKEN;
        if (desc->sentencepiece && byte < 128)
            tok->ascii_id[byte] = id;
        else if (!desc->sentencepiece)
            tok->byte_id[byte] = id;
    }
    return any || lm_fail(err, LM_ERROR_INPUT, "tokenizer: no byte has a token; this is not a byte-level vocabulary");
}

static bool parts_at_spaces(const lm_tokenizer *tok)
{
    for (uint32_t id = 0; id < tok->n_token; id++)
        for (uint32_t i = 1; (tok->tokens[id].traits & LM_TOKEN_ENCODABLE) && i < tok->tokens[id].length; i++)
            if (tok->tokens[id].bytes[i] == ' ' && tok->tokens[id].bytes[i - 1] != ' ')
                return false;
    return true;
}

/* ----------------------------------------------------------------------------------------- special tokens ---- */

typedef struct special_key {
    const char *bytes;
    uint32_t length, id;
} special_key;

/* By first byte, then longest first; equal texts end up side by side. */
static int compare_special(const void *a, const void *b)
{
    const special_key *x = a, *y = b;
    unsigned char first_x = (unsigned char)x->bytes[0], first_y = (unsigned char)y->bytes[0];
    if (first_x != first_y)
        return first_x < first_y ? -1 : 1;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return memcmp(x->bytes, y->bytes, x->length);
}

static bool load_special(lm_tokenizer *tok, lm_error *err)
{
    size_t n = 0;
    for (uint32_t id = 0; id < tok->n_token; id++)
        n += is_special(tok->tokens[id].type) && tok->tokens[id].length > 0;
    special_key *keys = malloc((n + 1) * sizeof *keys);
    if (!keys)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu special tokens", n);
    n = 0;
    for (uint32_t id = 0; id < tok->n_token; id++)
        if (is_special(tok->tokens[id].type) && tok->tokens[id].length > 0)
            keys[n++] = (special_key){tok->tokens[id].bytes, tok->tokens[id].length, id};
    qsort(keys, n, sizeof *keys, compare_special);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && compare_special(&keys[i - 1], &keys[i]) == 0)
            ok = lm_fail(err, LM_ERROR_INPUT, "tokenizer: special tokens %u and %u have the same text", keys[i - 1].id,
                         keys[i].id);
        tok->special[i] = keys[i].id;
        tok->special_start[(unsigned char)keys[i].bytes[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++)
        tok->special_start[b + 1] += tok->special_start[b];
    free(keys);
    return ok;
}

bool lm_vocab_build(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err)
{
    lm_spelling spelling;
    lm_spelling_init(&spelling, desc->sentencepiece);
    if (!allocate(tok, desc, err) || !load_tokens(tok, desc, &spelling, err) || !load_bytes(tok, desc, err) ||
        !lm_merges_build(tok, desc, &spelling, err) || !load_special(tok, err))
        return false;
    tok->sentencepiece = desc->sentencepiece;
    tok->parts_at_spaces = desc->sentencepiece && parts_at_spaces(tok);
    return true;
}
