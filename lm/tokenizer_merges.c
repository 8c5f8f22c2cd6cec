/*
 * Description -> merges by pair of tokens: from a list of them, or from the scores of tokens.
 */
#include "tokenizer_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool allocate(lm_tokenizer *tok, size_t n_merge, lm_error *err)
{
    const size_t n = lm_table_size(n_merge);
    tok->merges = malloc(n * sizeof *tok->merges);
    if (!tok->merges)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %zu merges", n_merge);
    memset(tok->merges, 0xFF, n * sizeof *tok->merges); /* all LM_NO_TOKEN */
    tok->merge_mask = (uint32_t)(n - 1);
    return true;
}

static void insert(lm_tokenizer *tok, lm_merge_slot merge)
{
    uint32_t i = lm_pair_hash(merge.left, merge.right);
    lm_merge_slot *slot;
    for (; (slot = &tok->merges[i & tok->merge_mask])->left != LM_NO_TOKEN; i++)
        if (slot->left == merge.left && slot->right == merge.right)
            break;
    *slot = merge; /* of a pair listed twice the last counts, as upstream */
}

/* -------------------------------------------------------------------------------------------------- listed ---- */

static bool load_listed(lm_tokenizer *tok, const lm_spelling *spelling, uint32_t rank, lm_string text, char *scratch,
                        lm_error *err)
{
    const char *space = text.n ? memchr(text.data, ' ', text.n) : NULL;
    if (!space)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u is not two tokens with a space between them", rank);
    const size_t n_left_text = (size_t)(space - text.data);
    const size_t n_left = lm_spelling_bytes(spelling, (lm_string){text.data, n_left_text}, scratch);
    size_t n_right = SIZE_MAX;
    if (n_left != SIZE_MAX)
        n_right = lm_spelling_bytes(spelling, (lm_string){space + 1, text.n - n_left_text - 1}, scratch + n_left);
    if (n_right == SIZE_MAX)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u is not spelt as tokens are", rank);
    const lm_merge_slot merge = {lm_vocab_find(tok, scratch, n_left), lm_vocab_find(tok, scratch + n_left, n_right),
                                 rank, lm_vocab_find(tok, scratch, n_left + n_right)};
    if (merge.left == LM_NO_TOKEN || merge.right == LM_NO_TOKEN || merge.id == LM_NO_TOKEN)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: merge %u uses a token that is not in the vocabulary", rank);
    insert(tok, merge);
    return true;
}

static bool load_list(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const lm_spelling *spelling, lm_error *err)
{
    size_t longest = 0;
    for (size_t i = 0; i < desc->n_merge; i++)
        if (desc->merges[i].n > longest)
            longest = desc->merges[i].n;
    char *scratch = malloc(longest + 1);
    if (!scratch)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a merge of %zu bytes", longest);
    bool ok = allocate(tok, desc->n_merge, err);
    for (size_t i = 0; ok && i < desc->n_merge; i++)
        ok = load_listed(tok, spelling, (uint32_t)i, desc->merges[i], scratch, err);
    free(scratch);
    return ok;
}

/* -------------------------------------------------------------------------------------------------- scored ---- */

/* Highest first. */
static int compare_scores(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The place of a score among the n sorted ones: equal scores have one place, and of equals BPE takes the leftmost. */
static uint32_t place(const float *sorted, size_t n, float score)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (sorted[middle] > score)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)low;
}

/* Merges of two tokens into token id, wherever it can be parted. Only counts them if there is no table yet. */
static size_t part_token(lm_tokenizer *tok, uint32_t id, uint32_t rank)
{
    const char *bytes = tok->tokens[id].bytes;
    const size_t n = tok->tokens[id].length;
    size_t n_merge = 0;
    for (size_t i = 1; i < n; i++) {
        if ((bytes[i] & 0xC0) == 0x80)
            continue;
        const uint32_t left = lm_vocab_find(tok, bytes, i), right = lm_vocab_find(tok, bytes + i, n - i);
        if (left == LM_NO_TOKEN || right == LM_NO_TOKEN)
            continue;
        n_merge++;
        if (tok->merges)
            insert(tok, (lm_merge_slot){left, right, rank, id});
    }
    return n_merge;
}

static bool load_scored(lm_tokenizer *tok, const float *scores, lm_error *err)
{
    float *sorted = malloc(tok->n_token * sizeof *sorted);
    if (!sorted)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for %u scores", tok->n_token);
    memcpy(sorted, scores, tok->n_token * sizeof *sorted);
    size_t n_merge = 0;
    bool ok = true;
    for (uint32_t id = 0; ok && id < tok->n_token; id++) {
        if (!isfinite(scores[id]))
            ok = lm_fail(err, LM_ERROR_INPUT, "tokenizer: the score of token %u is not finite", id);
        if (tok->tokens[id].traits & LM_TOKEN_ENCODABLE)
            n_merge += part_token(tok, id, 0);
    }
    qsort(sorted, tok->n_token, sizeof *sorted, compare_scores);
    ok = ok && allocate(tok, n_merge, err);
    for (uint32_t id = 0; ok && id < tok->n_token; id++)
        if (tok->tokens[id].traits & LM_TOKEN_ENCODABLE)
            part_token(tok, id, place(sorted, tok->n_token, scores[id]));
    free(sorted);
    return ok;
}

bool lm_merges_build(lm_tokenizer *tok, const lm_tokenizer_desc *desc, const lm_spelling *spelling, lm_error *err)
{
    return desc->scores ? load_scored(tok, desc->scores, err) : load_list(tok, desc, spelling, err);
}
