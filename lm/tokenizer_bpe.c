/*
 * Piece -> ids: the pair of lowest rank is merged first, the leftmost of equals, until no pair has a merge.
 * Short pieces scan an array for the best pair; long ones keep a heap, so that text without spaces takes n log n.
 */
#include "memory.h"
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* Up to here scanning beats the heap. */
#define SCAN_MAX 32

typedef struct lm_symbol {
    uint32_t id; /* LM_NO_TOKEN: merged into the one before */
    uint32_t prev, next;
} lm_symbol;

#define END UINT32_MAX

bool lm_tokens_reserve(lm_tokens *tokens, size_t n, lm_error *err)
{
    return lm_grow(&tokens->ids, &tokens->capacity, tokens->n, n, sizeof *tokens->ids) ||
           lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu tokens", tokens->n + n);
}

/* Merges ids[0..n) in place, returns how many are left. n <= SCAN_MAX. */
static size_t merge_scanning(const lm_tokenizer *tok, uint32_t *ids, size_t n)
{
    uint32_t rank[SCAN_MAX], merged[SCAN_MAX]; /* of the pair (i, i+1) */
    for (size_t i = 0; i + 1 < n; i++) {
        const lm_merge_slot *merge = lm_merge_find(tok, ids[i], ids[i + 1]);
        rank[i] = merge ? merge->rank : UINT32_MAX;
        merged[i] = merge ? merge->id : 0;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == UINT32_MAX)
            break;
        ids[best] = merged[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
            memmove(merged + best + 1, merged + best + 2, (n - best - 2) * sizeof *merged);
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const lm_merge_slot *merge = lm_merge_find(tok, ids[i], ids[i + 1]);
            rank[i] = merge ? merge->rank : UINT32_MAX;
            merged[i] = merge ? merge->id : 0;
        }
    }
    return n;
}

/* ---------------------------------------------------------------------------------------------- the heap ---- */

/* Keys are rank << 32 | position: the smallest is the next merge. */
static bool heap_push(lm_bpe *bpe, uint64_t key, lm_error *err)
{
    if (!lm_grow(&bpe->heap, &bpe->heap_capacity, bpe->heap_n, 1, sizeof *bpe->heap))
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu merges", bpe->heap_n + 1);
    size_t i = bpe->heap_n++;
    for (; i > 0 && bpe->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        bpe->heap[i] = bpe->heap[(i - 1) / 2];
    bpe->heap[i] = key;
    return true;
}

static uint64_t heap_pop(lm_bpe *bpe)
{
    uint64_t top = bpe->heap[0], last = bpe->heap[--bpe->heap_n];
    size_t i = 0, n = bpe->heap_n;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && bpe->heap[child + 1] < bpe->heap[child])
            child++;
        if (bpe->heap[child] >= last)
            break;
        bpe->heap[i] = bpe->heap[child];
    }
    if (n > 0)
        bpe->heap[i] = last;
    return top;
}

static bool push_pair(lm_bpe *bpe, const lm_tokenizer *tok, uint32_t position, lm_error *err)
{
    const lm_symbol *s = &bpe->symbols[position];
    if (s->next == END)
        return true;
    const lm_merge_slot *merge = lm_merge_find(tok, s->id, bpe->symbols[s->next].id);
    return !merge || heap_push(bpe, (uint64_t)merge->rank << 32 | position, err);
}

/* The token of the character at s; for one of invalid UTF-8 and in byte-level vocabularies, of the byte. */
static uint32_t first_id(const lm_tokenizer *tok, const char *s, size_t n, size_t *length)
{
    const unsigned char byte = (unsigned char)*s;
    *length = 1;
    if (!tok->sentencepiece)
        return tok->byte_id[byte];
    if (byte < 0x80)
        return tok->ascii_id[byte];
    *length = lm_utf8_length(s, n);
    if (*length == 0 || *length > n)
        *length = 1;
    return lm_vocab_find(tok, s, *length);
}

static bool have_bytes(const lm_tokenizer *tok, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tok->byte_id[(unsigned char)s[i]] == LM_NO_TOKEN)
            return false;
    return true;
}

/* The ids of a piece before any merge, at most piece.n. Returns how many. */
static size_t unmerged_ids(const lm_tokenizer *tok, lm_string piece, uint32_t *ids)
{
    size_t n = 0, length;
    bool was_missing = false;
    for (size_t i = 0; i < piece.n; i += length) {
        const char *s = piece.data + i;
        const uint32_t id = first_id(tok, s, piece.n - i, &length);
        const bool is_missing = id == LM_NO_TOKEN && !have_bytes(tok, s, length);
        if (id != LM_NO_TOKEN)
            ids[n++] = id;
        else if (is_missing && tok->missing_id != LM_NO_TOKEN && !(was_missing && tok->fuse_unk))
            ids[n++] = tok->missing_id;
        for (size_t j = 0; id == LM_NO_TOKEN && !is_missing && j < length; j++)
            ids[n++] = tok->byte_id[(unsigned char)s[j]];
        was_missing = is_missing;
    }
    return n;
}

static bool load_symbols(lm_bpe *bpe, const uint32_t *ids, size_t n, lm_error *err)
{
    if (n >= END)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "tokenizer: a piece of %zu bytes without a break is too long", n);
    if (!lm_grow(&bpe->symbols, &bpe->symbol_capacity, 0, n, sizeof *bpe->symbols))
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a piece of %zu bytes", n);
    for (size_t i = 0; i < n; i++)
        bpe->symbols[i] =
            (lm_symbol){.id = ids[i], .prev = i ? (uint32_t)i - 1 : END, .next = i + 1 < n ? (uint32_t)i + 1 : END};
    return true;
}

/* Merges ids[0..n) in place; *n becomes how many are left. */
static bool merge_with_heap(lm_bpe *bpe, const lm_tokenizer *tok, uint32_t *ids, size_t *n, lm_error *err)
{
    if (!load_symbols(bpe, ids, *n, err))
        return false;
    bpe->heap_n = 0;
    for (size_t i = 0; i < *n; i++)
        if (!push_pair(bpe, tok, (uint32_t)i, err))
            return false;
    lm_symbol *symbols = bpe->symbols;
    while (bpe->heap_n > 0) {
        uint64_t key = heap_pop(bpe);
        uint32_t position = (uint32_t)key;
        lm_symbol *s = &symbols[position];
        if (s->id == LM_NO_TOKEN || s->next == END)
            continue;
        /* Merges around it may have changed the pair since it was pushed; ranks name pairs. */
        const lm_merge_slot *merge = lm_merge_find(tok, s->id, symbols[s->next].id);
        if (!merge || merge->rank != key >> 32)
            continue;
        lm_symbol *right = &symbols[s->next];
        s->id = merge->id;
        s->next = right->next;
        right->id = LM_NO_TOKEN;
        if (s->next != END)
            symbols[s->next].prev = position;
        if (!push_pair(bpe, tok, position, err) || (s->prev != END && !push_pair(bpe, tok, s->prev, err)))
            return false;
    }
    *n = 0;
    for (uint32_t i = 0; i != END; i = symbols[i].next)
        ids[(*n)++] = symbols[i].id;
    return true;
}

bool lm_bpe_encode(lm_bpe *bpe, const lm_tokenizer *tok, lm_string piece, lm_tokens *out, lm_error *err)
{
    if (!lm_tokens_reserve(out, piece.n, err))
        return false;
    uint32_t whole = lm_vocab_find(tok, piece.data, piece.n);
    if (whole != LM_NO_TOKEN && (tok->ignore_merges || (tok->tokens[whole].traits & LM_TOKEN_WHOLE))) {
        out->ids[out->n++] = (int32_t)whole;
        return true;
    }
    uint32_t *ids = (uint32_t *)(out->ids + out->n); /* merged in place */
    size_t n = unmerged_ids(tok, piece, ids);
    if (n <= SCAN_MAX)
        n = merge_scanning(tok, ids, n);
    else if (!merge_with_heap(bpe, tok, ids, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (ids[i] != LM_HOLE)
            out->ids[out->n++] = (int32_t)ids[i];
    return true;
}

void lm_bpe_free(lm_bpe *bpe)
{
    free(bpe->symbols);
    free(bpe->heap);
    *bpe = (lm_bpe){0};
}
