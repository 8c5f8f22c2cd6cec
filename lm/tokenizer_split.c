/*
 * Text -> pieces that BPE does not cross. Each step of the pre-tokenizer splits the pieces of the step before it; a
 * piece is produced when it is asked for, so that a text of any length needs no list of them.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- UTF-8 ---- */

size_t lm_utf8_length(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    size_t length = u[0] < 0xC2 ? 0 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : u[0] < 0xF5 ? 4 : 0;
    if (length == 0)
        return 0;
    for (size_t i = 1; i < length && i < n; i++)
        if ((u[i] & 0xC0) != 0x80)
            return 0;
    /* The second byte also rules out overlong forms, surrogates and what lies past U+10FFFF. */
    if (n > 1 && ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F) || (u[0] == 0xF0 && u[1] < 0x90) ||
                  (u[0] == 0xF4 && u[1] > 0x8F)))
        return 0;
    return length;
}

size_t lm_utf8_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof word) {
            memcpy(&word, s + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        size_t length = lm_utf8_length(s + i, n - i);
        if (length == 0 || length > n - i)
            return i;
        i += length;
    }
    return n;
}

size_t lm_utf8_invalid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t length = lm_utf8_length(s + i, n - i);
        if (length > 0 && length <= n - i)
            break;
        i++;
    }
    return i;
}

/* ---------------------------------------------------------------------------------------------- one step ---- */

/* A part of a piece: what the pattern matched, or what lies between two matches. */
typedef struct segment {
    size_t start, end;
    bool hit;
} segment;

struct lm_split_level {
    const char *text; /* the piece that is split here */
    size_t n;
    size_t done;       /* segments up to here were taken */
    size_t start, end; /* the match that comes next; start == SIZE_MAX: there is none */
    bool found;        /* start and end hold */
    size_t last;       /* end of the match before, SIZE_MAX: there was none */
    segment ahead;     /* a segment that was taken too early */
    bool has_ahead;
};

static void level_start(struct lm_split_level *level, lm_string piece)
{
    *level = (struct lm_split_level){.text = piece.data, .n = piece.n, .last = SIZE_MAX};
}

static int search(const lm_splitter *split, const lm_split_code *code, const struct lm_split_level *level, size_t from)
{
    PCRE2_SPTR text = (PCRE2_SPTR)level->text;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (code->jit)
        rc = pcre2_jit_match(code->pattern, text, level->n, from, 0, split->match, split->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        rc = pcre2_match(code->pattern, text, level->n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, split->match,
                         split->context);
    return rc;
}

/* Finds the next match. An empty match right behind the one before does not count: the search goes on one character
 * later. */
static bool find_match(lm_splitter *split, const lm_split_code *code, struct lm_split_level *level, lm_error *err)
{
    size_t from = level->done;
    level->found = true;
    for (;;) {
        int rc = from > level->n ? PCRE2_ERROR_NOMATCH : search(split, code, level, from);
        if (rc == PCRE2_ERROR_NOMATCH) {
            level->start = SIZE_MAX;
            return true;
        }
        if (rc < 0)
            return lm_fail(err, LM_ERROR_RUN,
                           "tokenizer: a pattern of the pre-tokenizer takes too long for this text (PCRE2 error %d)",
                           rc);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(split->match);
        level->start = ends[0];
        level->end = ends[1];
        if (ends[0] != ends[1] || ends[1] != level->last)
            break;
        from = ends[1] + (ends[1] < level->n ? lm_utf8_length(level->text + ends[1], level->n - ends[1]) : 1);
    }
    level->last = level->end;
    return true;
}

/* True with the next segment; *more is false behind the last. */
static bool next_segment(lm_splitter *split, const lm_split_code *code, struct lm_split_level *level, segment *out,
                         bool *more, lm_error *err)
{
    *more = true;
    if (level->has_ahead) {
        level->has_ahead = false;
        *out = level->ahead;
        return true;
    }
    if (!level->found && !find_match(split, code, level, err))
        return false;
    const bool match = level->start != SIZE_MAX;
    const size_t gap_end = match ? level->start : level->n;
    if (level->done < gap_end) {
        *out = (segment){level->done, gap_end, code->invert};
    } else if (match) {
        *out = (segment){level->start, level->end, !code->invert};
        level->found = false;
    } else {
        *more = false;
        return true;
    }
    level->done = out->end;
    return true;
}

/* True if the segment that follows belongs to the piece that ends with this one. */
static bool joins(lm_split_behavior behavior, const segment *now, const segment *next)
{
    switch (behavior) {
    case LM_SPLIT_MERGED_WITH_PREVIOUS: return !now->hit && next->hit;
    case LM_SPLIT_MERGED_WITH_NEXT: return now->hit && !next->hit;
    case LM_SPLIT_CONTIGUOUS: return now->hit == next->hit;
    default: return false;
    }
}

/* True with the next piece of this level, or with an empty one behind the last. */
static bool level_next(lm_splitter *split, const lm_split_code *code, struct lm_split_level *level, lm_string *piece,
                       lm_error *err)
{
    segment now, next;
    bool more;
    do {
        if (!next_segment(split, code, level, &now, &more, err))
            return false;
        if (!more) {
            piece->n = 0;
            return true;
        }
        while (code->behavior > LM_SPLIT_REMOVED) {
            if (!next_segment(split, code, level, &next, &more, err))
                return false;
            if (!more)
                break;
            if (!joins(code->behavior, &now, &next)) {
                level->ahead = next;
                level->has_ahead = true;
                break;
            }
            now.end = next.end;
            if (code->behavior != LM_SPLIT_CONTIGUOUS)
                break;
        }
    } while (now.start == now.end || (now.hit && code->behavior == LM_SPLIT_REMOVED));
    *piece = (lm_string){level->text + now.start, now.end - now.start};
    return true;
}

/* ---------------------------------------------------------------------------------------------- all steps ---- */

bool lm_splitter_init(lm_splitter *split, const lm_tokenizer *tok, lm_error *err)
{
    *split = (lm_splitter){.tok = tok};
    split->match = pcre2_match_data_create(1, NULL);
    split->context = pcre2_match_context_create(NULL);
    split->levels = calloc(tok->n_split + 1, sizeof *split->levels);
    if (!split->match || !split->context || !split->levels) {
        lm_splitter_free(split);
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a match");
    }
    return true;
}

void lm_splitter_start(lm_splitter *split, const char *text, size_t n)
{
    split->text = text;
    split->n = n;
    split->position = 0;
    split->valid_end = lm_utf8_valid(text, n);
    split->depth = 0;
    /* A run of ten million spaces is one match, so the limit grows with the text; what takes more steps than this is a
     * pattern that runs away. */
    pcre2_set_match_limit(split->context, n < UINT32_MAX / 64 ? 1000000 + 32 * (uint32_t)n : UINT32_MAX);
}

/* The next stretch of valid text, or of bytes that belong to no character, which no pattern sees. What follows a valid
 * stretch is hidden from the patterns, as the end of the text would be. */
static lm_string next_stretch(lm_splitter *split, bool *valid)
{
    const char *at = split->text + split->position;
    const size_t left = split->n - split->position;
    size_t length = split->valid_end - split->position;
    *valid = length > 0;
    if (length == 0 && left > 0) {
        length = lm_utf8_invalid(at, left);
        split->valid_end += length + lm_utf8_valid(at + length, left - length);
    }
    split->position += length;
    return (lm_string){at, length};
}

bool lm_splitter_next(lm_splitter *split, lm_string *piece, lm_error *err)
{
    const lm_tokenizer *tok = split->tok;
    for (;;) {
        if (split->depth == 0) {
            bool valid;
            *piece = next_stretch(split, &valid);
            if (piece->n == 0 || !valid || tok->n_split == 0)
                return true;
            level_start(&split->levels[split->depth++], *piece);
        }
        if (!level_next(split, &tok->splits[split->depth - 1], &split->levels[split->depth - 1], piece, err))
            return false;
        if (piece->n == 0)
            split->depth--;
        else if (split->depth == tok->n_split)
            return true;
        else
            level_start(&split->levels[split->depth++], *piece);
    }
}

void lm_splitter_free(lm_splitter *split)
{
    pcre2_match_data_free(split->match);
    pcre2_match_context_free(split->context);
    free(split->levels);
    *split = (lm_splitter){0};
}
