/*
 * Description -> tables: bytes of every token, the vocabulary by bytes, merges by pair, special tokens by first byte.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------ byte alphabet ---- */

/* GPT-2: printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101, ... in order. */
static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

typedef struct byte_alphabet {
    int16_t byte[0x144]; /* by code point; -1: no byte */
} byte_alphabet;

static void alphabet_init(byte_alphabet *alphabet)
{
    for (size_t c = 0; c < 0x144; c++)
        alphabet->byte[c] = -1;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++)
        alphabet->byte[is_printable(byte) ? byte : next++] = (int16_t)byte;
}

bool lm_tokenizer_spell(const char *bytes, size_t n_bytes, lm_text *out, lm_error *err)
{
    byte_alphabet alphabet;
    alphabet_init(&alphabet);
    char letter[256][2];
    for (unsigned c = 0; c < 0x144; c++)
        if (alphabet.byte[c] >= 0)
            memcpy(letter[alphabet.byte[c]], (char[]){(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2);
    bool ok = true;
    for (size_t i = 0; ok && i < n_bytes; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        ok = byte < 0x80 && is_printable(byte) ? lm_text_append(out, bytes + i, 1, err)
                                               : lm_text_append(out, letter[byte], 2, err);
    }
    return ok;
}

/* Writes the bytes that text stands for (never more than text.n) and returns how many, SIZE_MAX if it has a character
 * outside the alphabet. */
static size_t alphabet_decode(const byte_alphabet *alphabet, lm_string text, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        size_t length = lm_utf8_length(text.data + i, text.n - i);
        unsigned c = (unsigned char)text.data[i];
        if (length == 2 && i + 1 < text.n)
            c = (c & 0x1F) << 6 | ((unsigned char)text.data[i + 1] & 0x3F);
        if (length == 0 || length > 2 || c >= 0x144 || alphabet->byte[c] < 0)
            return SIZE_MAX;
        out[n++] = (char)alphabet->byte[c];
        i += length;
    }
    return n;
}

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

/* The smallest power of two that keeps n entries at most half of it. */
static size_t table_size(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

static bool is_special(uint8_t type)
{
    return type == LM_TOKEN_CONTROL || type == LM_TOKEN_USER_DEFINED;
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
    size_t n_vocab = table_size(n), n_merge = table_size(desc->n_merge);
    tok->n_token = (uint32_t)n;
    tok->bytes = malloc(n_bytes);
    tok->tokens = calloc(n, sizeof *tok->tokens);
    tok->special = malloc(n * sizeof *tok->special);
    tok->vocab = malloc(n_vocab * sizeof *tok->vocab);
    tok->merges = malloc(n_merge * sizeof *tok->merges);
    tok->vocab_mask = (uint32_t)(n_vocab - 1);
    tok->merge_mask = (uint32_t)(n_merge - 1);
    if (!tok->bytes || !tok->tokens || !tok->special || !tok->vocab || !tok->merges)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu tokens and %zu merges", n,
                       desc->n_merge);
    memset(tok->vocab, 0xFF, n_vocab * sizeof *tok->vocab); /* all LM_NO_TOKEN */
    memset(tok->merges, 0xFF, n_merge * sizeof *tok->merges);
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

static bool load_tokens(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const byte_alphabet *alphabet, lm_error *err)
{
    size_t used = 0;
    for (uint32_t id = 0; id < tok->n_token; id++) {
        lm_string text = desc->tokens[id];
        int32_t type = desc->types ? desc->types[id] : LM_TOKEN_NORMAL;
        if (type < LM_TOKEN_NORMAL || type > LM_TOKEN_BYTE)
            return lm_fail(err, LM_ERROR_INPUT, "tokenizer: token %u has the unknown type %d", id, (int)type);
        tok->tokens[id].type = (uint8_t)type;
        if (text.n == 0)
            continue;
        char *bytes = tok->bytes + used;
        size_t n = is_special((uint8_t)type) ? SIZE_MAX : alphabet_decode(alphabet, text, bytes);
        bool encodable = n == SIZE_MAX ? is_special((uint8_t)type) && is_graphic_ascii(text) : type != LM_TOKEN_UNUSED;
        if (n == SIZE_MAX) {
            n = text.n;
            memcpy(bytes, text.data, n);
        }
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

static bool load_bytes(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err)
{
    if (desc->missing == LM_MISSING_UNKNOWN && (desc->unk_id < 0 || (uint32_t)desc->unk_id >= tok->n_token))
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: the unknown token %d is not in the vocabulary of %u tokens",
                       (int)desc->unk_id, tok->n_token);
    const uint32_t missing = desc->missing == LM_MISSING_UNKNOWN ? (uint32_t)desc->unk_id
                             : desc->missing == LM_MISSING_GAP   ? LM_HOLE
                                                                 : LM_NO_TOKEN;
    size_t n_missing = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        tok->byte_id[byte] = lm_vocab_find(tok, &c, 1);
        if (tok->byte_id[byte] != LM_NO_TOKEN)
            continue;
        tok->byte_id[byte] = missing;
        tok->is_missing[byte] = true;
        n_missing++;
    }
    tok->fuse_unk = desc->missing == LM_MISSING_UNKNOWN && desc->fuse_unk;
    tok->lacks_bytes = n_missing > 0;
    return n_missing < 256 ||
           lm_fail(err, LM_ERROR_INPUT, "tokenizer: no byte has a token; this is not a byte-level vocabulary");
}

/* ------------------------------------------------------------------------------------------------- merges ---- */

static bool load_merge(lm_tokenizer *tok, const byte_alphabet *alphabet, uint32_t rank, lm_string text, char *scratch,
                       lm_error *err)
{
    const char *space = text.n ? memchr(text.data, ' ', text.n) : NULL;
    if (!space)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u is not two tokens with a space between them", rank);
    size_t n_left_text = (size_t)(space - text.data);
    size_t n_left = alphabet_decode(alphabet, (lm_string){text.data, n_left_text}, scratch);
    if (n_left == SIZE_MAX)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u is not in the byte alphabet", rank);
    size_t n_right = alphabet_decode(alphabet, (lm_string){space + 1, text.n - n_left_text - 1}, scratch + n_left);
    if (n_right == SIZE_MAX)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u is not in the byte alphabet", rank);
    uint32_t left = lm_vocab_find(tok, scratch, n_left), right = lm_vocab_find(tok, scratch + n_left, n_right);
    uint32_t id = lm_vocab_find(tok, scratch, n_left + n_right);
    if (left == LM_NO_TOKEN || right == LM_NO_TOKEN || id == LM_NO_TOKEN)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u uses a token that is not in the vocabulary", rank);
    uint32_t i = lm_pair_hash(left, right);
    lm_merge_slot *slot;
    for (; (slot = &tok->merges[i & tok->merge_mask])->left != LM_NO_TOKEN; i++)
        if (slot->left == left && slot->right == right)
            break;
    *slot = (lm_merge_slot){left, right, rank, id}; /* of a pair listed twice the last counts, as upstream */
    return true;
}

static bool load_merges(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const byte_alphabet *alphabet, lm_error *err)
{
    size_t longest = 0;
    for (size_t i = 0; i < desc->n_merge; i++)
        if (desc->merges[i].n > longest)
            longest = desc->merges[i].n;
    char *scratch = malloc(longest + 1);
    if (!scratch)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a merge of %zu bytes", longest);
    bool ok = true;
    for (size_t i = 0; ok && i < desc->n_merge; i++)
        ok = load_merge(tok, alphabet, (uint32_t)i, desc->merges[i], scratch, err);
    free(scratch);
    return ok;
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
    byte_alphabet alphabet;
    alphabet_init(&alphabet);
    return allocate(tok, desc, err) && load_tokens(tok, desc, &alphabet, err) && load_bytes(tok, desc, err) &&
           load_merges(tok, desc, &alphabet, err) && load_special(tok, err);
}
