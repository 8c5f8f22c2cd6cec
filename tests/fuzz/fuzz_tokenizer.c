/*
 * The first byte picks: a tokenizer.json from the input (up to the first NUL) with the rest as text, or a fixed
 * tokenizer, one for every pre-tokenizer and a SentencePiece one, with the whole input as text.
 */
#include "lm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* exact: whatever was encoded must decode to itself. Else tokens may be missing, and patterns may run away. */
static void round_trip(const lm_tokenizer *tok, const char *text, size_t n, unsigned flags, bool exact)
{
    lm_error err;
    lm_tokens ids = {0};
    lm_text whole = {0}, continued = {0}, streamed = {0};
    lm_stream stream = {0};
    if (!lm_tokenizer_encode(tok, text, n, flags & LM_ENCODE_SPECIAL, &ids, &err)) {
        if (exact || err.kind != LM_ERROR_RUN)
            abort();
        return;
    }
    if (!lm_tokenizer_decode(tok, ids.ids, ids.n, 0, &whole, &err) ||
        !lm_tokenizer_decode(tok, ids.ids, ids.n, LM_DECODE_CONTINUES, &continued, &err))
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!lm_stream_push(&stream, tok, ids.ids[i], 0, &streamed, &err))
            abort();
    if (!lm_stream_flush(&stream, &streamed, &err))
        abort();
    if (exact && (whole.n != n || (n && memcmp(whole.data, text, n) != 0)))
        abort();
    if (streamed.n != continued.n || (streamed.n && memcmp(streamed.data, continued.data, streamed.n) != 0))
        abort();
    lm_tokens_free(&ids);
    lm_text_free(&whole);
    lm_text_free(&continued);
    lm_text_free(&streamed);
}

/* Bytes, pairs of some common ones, and special tokens that overlap. */
static lm_tokenizer *fixed(const char *pre)
{
    static const char common[] = "aeinost ";
    enum { N_COMMON = sizeof common - 1, N = 256 + N_COMMON * N_COMMON + 3 };
    static const char *const special[] = {"<|a|>", "<|a|>>", " <"};
    static char text[N][8], pair_text[N_COMMON * N_COMMON][8];
    lm_string tokens[N], merges[N_COMMON * N_COMMON];
    int32_t types[N];
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        unsigned c = printable ? b : next++;
        size_t n = 0;
        if (c >= 0x80)
            text[b][n++] = (char)(0xC0 | c >> 6);
        text[b][n] = (char)(c >= 0x80 ? 0x80 | (c & 0x3F) : c);
        tokens[b] = (lm_string){text[b], n + 1};
    }
    size_t n_merge = 0;
    for (size_t i = 0; i < N_COMMON; i++)
        for (size_t j = 0; j < N_COMMON; j++, n_merge++) {
            lm_string x = tokens[(unsigned char)common[i]], y = tokens[(unsigned char)common[j]];
            memcpy(text[256 + n_merge], x.data, x.n);
            memcpy(text[256 + n_merge] + x.n, y.data, y.n);
            tokens[256 + n_merge] = (lm_string){text[256 + n_merge], x.n + y.n};
            memcpy(pair_text[n_merge], x.data, x.n);
            pair_text[n_merge][x.n] = ' ';
            memcpy(pair_text[n_merge] + x.n + 1, y.data, y.n);
            merges[n_merge] = (lm_string){pair_text[n_merge], x.n + 1 + y.n};
        }
    for (size_t i = 0; i < N; i++)
        types[i] = LM_TOKEN_NORMAL;
    for (size_t i = 0; i < 3; i++) {
        tokens[N - 3 + i] = (lm_string){special[i], strlen(special[i])};
        types[N - 3 + i] = i == 2 ? LM_TOKEN_USER_DEFINED : LM_TOKEN_CONTROL;
    }
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    desc.tokens = tokens, desc.types = types, desc.n_token = N;
    desc.merges = merges, desc.n_merge = n_merge, desc.pre = pre;
    lm_tokenizer *tok = NULL;
    if (!lm_tokenizer_create(&desc, &tok, NULL))
        abort();
    return tok;
}

/* SentencePiece: bytes, some characters, pairs of them, special tokens. */
static lm_tokenizer *sentencepiece(void)
{
    static const char *const letters[] = {"\u2581", "a", "e", "n", "\u00e9", "\u4e00", ">"};
    enum { N_LETTER = sizeof letters / sizeof *letters, N = 256 + N_LETTER + N_LETTER * N_LETTER + 3 };
    static char text[N][16];
    lm_string tokens[N];
    int32_t types[N];
    float scores[N];
    static const char *const special[] = {"<unk>", "<s>", "<a>>"};
    for (size_t i = 0; i < N; i++) {
        const size_t k = i < 256 ? i : i - 256, pair = k - N_LETTER;
        if (i < 256)
            snprintf(text[i], sizeof text[i], "<0x%02X>", (unsigned)i);
        else if (k < N_LETTER)
            strcpy(text[i], letters[k]);
        else if (i + 3 < N)
            snprintf(text[i], sizeof text[i], "%s%s", letters[pair / N_LETTER], letters[pair % N_LETTER]);
        else
            strcpy(text[i], special[i + 3 - N]);
        tokens[i] = (lm_string){text[i], strlen(text[i])};
        types[i] = i + 3 < N ? LM_TOKEN_NORMAL : i + 3 == N ? LM_TOKEN_UNKNOWN : LM_TOKEN_CONTROL;
        scores[i] = (float)(i * 7 % 11);
    }
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    desc.sentencepiece = true, desc.prefix = LM_PREFIX_ALL;
    desc.tokens = tokens, desc.types = types, desc.scores = scores, desc.n_token = N;
    lm_tokenizer *tok = NULL;
    if (!lm_tokenizer_create(&desc, &tok, NULL))
        abort();
    return tok;
}

static bool has_mark(const char *text, size_t n)
{
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(text + i, "\u2581", 3) == 0)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const pres[] = {"qwen2", "llama-bpe", "smollm", "gpt-2", "tekken", "deepseek-llm", "default"};
    enum { N_PRE = sizeof pres / sizeof *pres };
    static lm_tokenizer *toks[N_PRE + 1];
    for (size_t i = 0; !toks[N_PRE] && i < N_PRE; i++)
        toks[i] = fixed(pres[i]);
    if (!toks[N_PRE])
        toks[N_PRE] = sentencepiece();
    if (n == 0)
        return 0;
    const char *rest = (const char *)data + 1;
    n--;
    if (data[0] & 1) {
        const size_t i = data[0] >> 2 & 7;
        round_trip(toks[i], rest, n, data[0] >> 1, i < N_PRE || !has_mark(rest, n));
        return 0;
    }
    const char *nul = n ? memchr(rest, '\0', n) : NULL;
    size_t n_json = nul ? (size_t)(nul - rest) : n, skip = nul ? n_json + 1 : n;
    lm_tokenizer *tok = NULL;
    lm_error err;
    if (lm_tokenizer_from_json(rest, n_json, "tokenizer.json", &tok, &err)) {
        round_trip(tok, rest + skip, n - skip, data[0] >> 1, false);
        round_trip(tok, rest, n_json, LM_ENCODE_SPECIAL, false);
        lm_tokenizer_free(tok);
    }
    return 0;
}
