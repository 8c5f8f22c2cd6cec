/*
 * The first byte picks: a tokenizer.json from the input (up to the first NUL) with the rest as text, or a fixed
 * tokenizer that exercises both splits with the whole input as text. Whatever was encoded must decode to itself.
 */
#include "lm/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(const lm_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    lm_error err;
    lm_tokens ids = {0};
    lm_text whole = {0}, streamed = {0};
    lm_stream stream = {0};
    if (!lm_tokenizer_encode(tok, text, n, flags & LM_ENCODE_SPECIAL, &ids, &err) ||
        !lm_tokenizer_decode(tok, ids.ids, ids.n, 0, &whole, &err))
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!lm_stream_push(&stream, tok, ids.ids[i], 0, &streamed, &err))
            abort();
    if (!lm_stream_flush(&stream, &streamed, &err))
        abort();
    if (whole.n != n || (n && memcmp(whole.data, text, n) != 0) || streamed.n != n ||
        (n && memcmp(streamed.data, text, n) != 0))
        abort();
    lm_tokens_free(&ids);
    lm_text_free(&whole);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static lm_tokenizer *toks[2];
    if (!toks[0]) {
        toks[0] = fixed("qwen2");
        toks[1] = fixed("llama-bpe");
    }
    if (n == 0)
        return 0;
    const char *rest = (const char *)data + 1;
    n--;
    if (data[0] & 1) {
        round_trip(toks[data[0] >> 1 & 1], rest, n, data[0] >> 2);
        return 0;
    }
    const char *nul = n ? memchr(rest, '\0', n) : NULL;
    size_t n_json = nul ? (size_t)(nul - rest) : n, skip = nul ? n_json + 1 : n;
    lm_tokenizer *tok = NULL;
    lm_error err;
    if (lm_tokenizer_from_json(rest, n_json, "tokenizer.json", &tok, &err)) {
        round_trip(tok, rest + skip, n - skip, data[0] >> 2);
        round_trip(tok, rest, n_json, LM_ENCODE_SPECIAL);
        lm_tokenizer_free(tok);
    }
    return 0;
}
