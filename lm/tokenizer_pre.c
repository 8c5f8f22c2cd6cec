/*
 * Text -> pieces that BPE does not cross. The patterns are the published ones with one change: \s is written out as
 * Unicode's White_Space, which is what the original engine (Oniguruma) means by it and PCRE2 does not quite.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#define SPACE                                                                                                          \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* The two rows below differ in DIGITS. */
#define PATTERN(DIGITS)                                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGITS "| ?[^" SPACE                                 \
    "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

/* The same pattern as tokenizer.json files spell it. */
#define PUBLISHED(DIGITS)                                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGITS                                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const lm_pre pres[] = {
    {.names = {"qwen2", "deepseek-r1-qwen"}, .pattern = PATTERN("\\p{N}"), .published = PUBLISHED("\\p{N}")},
    {.names = {"llama-bpe", "llama3", "llama-v3"},
     .pattern = PATTERN("\\p{N}{1,3}"),
     .published = PUBLISHED("\\p{N}{1,3}"),
     .adds_bos = true,
     .ignores_merges = true},
};
enum { N_PRE = sizeof pres / sizeof *pres };

const char *lm_pre_recognise(const char *pattern)
{
    for (size_t i = 0; i < N_PRE; i++)
        if (strcmp(pattern, pres[i].published) == 0)
            return pres[i].names[0];
    return NULL;
}

const char *lm_pre_names(char *text, size_t n)
{
    const char *names[N_PRE];
    for (size_t i = 0; i < N_PRE; i++)
        names[i] = pres[i].names[0];
    return lm_list_text(names, N_PRE, "or", text, n);
}

static const lm_pre *find_pre(const char *name)
{
    for (size_t i = 0; i < N_PRE; i++)
        for (size_t j = 0; j < LM_PRE_NAMES && pres[i].names[j]; j++)
            if (strcmp(name, pres[i].names[j]) == 0)
                return &pres[i];
    return NULL;
}

bool lm_tokenizer_pre_adds_bos(const char *name)
{
    const lm_pre *pre = find_pre(name);
    return pre && pre->adds_bos;
}

/* A name from a file goes into a message only if it cannot upset a terminal. */
static bool is_plain(const char *s)
{
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7E)
            return false;
    return true;
}

bool lm_pre_compile(lm_tokenizer *tok, const char *name, lm_error *err)
{
    if (!name)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: no pre-tokenizer is named (tokenizer.ggml.pre)");
    const lm_pre *pre = find_pre(name);
    char names[200];
    if (!pre)
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "tokenizer: pre-tokenizer \"%.40s\" is not supported; use a model with %s",
                       is_plain(name) ? name : "?", lm_pre_names(names, sizeof names));
    int code;
    PCRE2_SIZE offset;
    tok->pattern = pcre2_compile((PCRE2_SPTR)pre->pattern, PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &offset, NULL);
    if (!tok->pattern)
        return lm_fail(err, LM_ERROR_RUN,
                       "tokenizer: PCRE2 refuses the %s pattern (error %d at %zu); is it built with "
                       "Unicode support?",
                       pre->names[0], code, (size_t)offset);
    /* Where JIT is not available or not allowed, the interpreter does the same, slower. */
    tok->jit = pcre2_jit_compile(tok->pattern, PCRE2_JIT_COMPLETE) == 0;
    tok->pre = pre;
    return true;
}

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

/* Bytes from the start of s that belong to no character. */
static size_t invalid_run(const char *s, size_t n)
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

/* ---------------------------------------------------------------------------------------------- splitter ---- */

bool lm_splitter_init(lm_splitter *split, const lm_tokenizer *tok, lm_error *err)
{
    *split = (lm_splitter){.tok = tok};
    split->match = pcre2_match_data_create(1, NULL);
    split->context = pcre2_match_context_create(NULL);
    if (!split->match || !split->context) {
        lm_splitter_free(split);
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a match");
    }
    /* A run of ten million spaces is one match: the default limit counts its backtracking as runaway. */
    pcre2_set_match_limit(split->context, UINT32_MAX);
    return true;
}

void lm_splitter_start(lm_splitter *split, const char *text, size_t n)
{
    split->text = text;
    split->n = n;
    split->position = 0;
    split->valid_end = lm_utf8_valid(text, n);
}

/* Length of the match at the position, 0 if there is none, or a negative error of PCRE2. */
static int match_here(lm_splitter *split, size_t *length)
{
    const lm_tokenizer *tok = split->tok;
    /* What follows the valid stretch is hidden from the pattern, as the end of the text would be. */
    PCRE2_SPTR subject = (PCRE2_SPTR)split->text + split->position;
    size_t n = split->valid_end - split->position;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (tok->jit)
        rc = pcre2_jit_match(tok->pattern, subject, n, 0, 0, split->match, split->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        rc = pcre2_match(tok->pattern, subject, n, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, split->match, split->context);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *length = 0;
        return 0;
    }
    if (rc >= 0)
        *length = pcre2_get_ovector_pointer(split->match)[1];
    return rc;
}

bool lm_splitter_next(lm_splitter *split, lm_string *piece, lm_error *err)
{
    size_t left = split->n - split->position, length;
    piece->data = split->text + split->position;
    if (left == 0) {
        piece->n = 0;
        return true;
    }
    if (split->position == split->valid_end) {
        length = invalid_run(piece->data, left);
        split->valid_end += length + lm_utf8_valid(piece->data + length, left - length);
    } else {
        int rc = match_here(split, &length);
        if (rc < 0)
            return lm_fail(err, LM_ERROR_RUN, "tokenizer: splitting the text failed (PCRE2 error %d)", rc);
        if (length == 0) /* no pattern here leaves a character out, but a piece must never be empty */
            length = lm_utf8_length(piece->data, left);
    }
    piece->n = length;
    split->position += length;
    return true;
}

void lm_splitter_free(lm_splitter *split)
{
    pcre2_match_data_free(split->match);
    pcre2_match_context_free(split->context);
    split->match = NULL;
    split->context = NULL;
}
