/*
 * The tokenizer against Hugging Face `tokenizers` (recorded by record_tokenizer.py), its identities, and files that
 * are wrong.
 */
#include "lm_test.h"

#include "eval/rng.h"
#include "lm/file.h"
#include "lm/json.h"
#include "lm/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const names[] = {"qwen2", "llama-bpe"};
static lm_tokenizer *toks[2];
static cJSON *cases;
static lm_text fragments[512];
static size_t n_fragment;

static lm_tokenizer *load(const char *name)
{
    char path[512], *json;
    size_t n;
    lm_tokenizer *tok = NULL;
    snprintf(path, sizeof path, "%s/tokenizer-%s.json", LM_TEST_DATA, name);
    ok(lm_read_file(path, 1 << 24, &json, &n, &err));
    ok(lm_tokenizer_from_json(json, n, "tokenizer.json", &tok, &err));
    free(json);
    return tok;
}

static const lm_tokenizer *tok_of(const cJSON *item)
{
    return toks[strcmp(lm_json_get(item, "tokenizer")->valuestring, names[0]) != 0];
}

static lm_text unhex(const char *hex)
{
    lm_text out = {0};
    ok(lm_text_append(&out, NULL, 0, &err));
    for (; *hex; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        char c = (char)byte;
        ok(lm_text_append(&out, &c, 1, &err));
    }
    return out;
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        toks[i] = load(names[i]);
    lm_error err = {0};
    cases = lm_json_read(LM_TEST_DATA "/tokenizer-cases.json", 1 << 24, &err);
    if (!cases)
        fail_msg("%s", err.text);
    const cJSON *item;
    cJSON_ArrayForEach(item, lm_json_get(cases, "fragments"))
    {
        assert_true(n_fragment < sizeof fragments / sizeof fragments[0]);
        fragments[n_fragment++] = unhex(item->valuestring);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        lm_tokenizer_free(toks[i]);
    for (size_t i = 0; i < n_fragment; i++)
        lm_text_free(&fragments[i]);
    cJSON_Delete(cases);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ recorded ---- */

static uint64_t fnv(const lm_tokens *ids)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < ids->n; i++)
        h = (h ^ (uint64_t)ids->ids[i]) * 0x100000001B3u;
    return h;
}

static void check_hash(const cJSON *item, const char *text, size_t n, unsigned flags)
{
    lm_tokens ids = {0};
    ok(lm_tokenizer_encode(tok_of(item), text, n, flags, &ids, &err));
    assert_int_equal(ids.n, lm_json_get(item, "n")->valueint);
    assert_int_equal(fnv(&ids), strtoull(lm_json_get(item, "fnv")->valuestring, NULL, 16));
    lm_tokens_free(&ids);
}

static void short_texts(void **state)
{
    (void)state;
    const cJSON *item;
    cJSON_ArrayForEach(item, lm_json_get(cases, "short"))
    {
        lm_text text = unhex(lm_json_get(item, "text")->valuestring);
        const cJSON *wanted = lm_json_get(item, "ids");
        lm_tokens ids = {0};
        ok(lm_tokenizer_encode(tok_of(item), text.data, text.n, LM_ENCODE_SPECIAL, &ids, &err));
        int n = cJSON_GetArraySize(wanted);
        for (int i = 0; i < n || (size_t)i < ids.n; i++)
            if (i == n || (size_t)i == ids.n || ids.ids[i] != cJSON_GetArrayItem(wanted, i)->valueint)
                fail_msg("%s: text %s: token %d differs", lm_tokenizer_pre(tok_of(item)),
                         lm_json_get(item, "text")->valuestring, i);
        lm_tokens_free(&ids);
        lm_text_free(&text);
    }
}

static void long_texts(void **state)
{
    (void)state;
    const cJSON *item;
    cJSON_ArrayForEach(item, lm_json_get(cases, "long"))
    {
        eval_rng rng = {(uint64_t)lm_json_get(item, "seed")->valueint};
        lm_text text = {0};
        for (int i = 0; i < lm_json_get(item, "count")->valueint; i++) {
            const lm_text *f = &fragments[eval_rng_next(&rng) % (uint64_t)lm_json_get(item, "pool")->valueint];
            ok(lm_text_append(&text, f->data, f->n, &err));
        }
        assert_int_equal(text.n, lm_json_get(item, "n_bytes")->valueint);
        unsigned special = cJSON_IsTrue(lm_json_get(item, "special")) ? LM_ENCODE_SPECIAL : 0;
        check_hash(item, text.data, text.n, special | LM_ENCODE_BOS);
        lm_text_free(&text);
    }
}

static void book(void **state)
{
    (void)state;
    char *text;
    size_t n;
    ok(lm_read_file(LM_TEST_DATA "/../../../eval/data/nostromo.txt", 1 << 24, &text, &n, &err));
    const cJSON *item;
    cJSON_ArrayForEach(item, lm_json_get(cases, "book"))
    {
        clock_t start = clock();
        check_hash(item, text, n, 0);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        print_message("%s: %.1f MB/s\n", lm_tokenizer_pre(tok_of(item)), 1e-6 * (double)n / seconds);
    }
    free(text);
}

/* ---------------------------------------------------------------------------------------------- identities ---- */

static void check_round_trip(const lm_tokenizer *tok, const char *bytes, size_t n, unsigned flags)
{
    lm_tokens ids = {0};
    lm_text whole = {0}, streamed = {0};
    lm_stream stream = {0};
    ok(lm_tokenizer_encode(tok, bytes, n, flags, &ids, &err));
    ok(lm_tokenizer_decode(tok, ids.ids, ids.n, 0, &whole, &err));
    for (size_t i = 0; i < ids.n; i++)
        ok(lm_stream_push(&stream, tok, ids.ids[i], 0, &streamed, &err));
    ok(lm_stream_flush(&stream, &streamed, &err));
    assert_int_equal(whole.n, n);
    assert_int_equal(streamed.n, n);
    if (n) {
        assert_memory_equal(whole.data, bytes, n);
        assert_memory_equal(streamed.data, bytes, n);
    }
    lm_text_free(&whole);
    lm_text_free(&streamed);
    lm_tokens_free(&ids);
}

static void round_trip_of_random_bytes(void **state)
{
    (void)state;
    eval_rng rng = {7};
    char bytes[300];
    for (int trial = 0; trial < 4000; trial++) {
        size_t n = eval_rng_below(&rng, sizeof bytes);
        uint64_t mask = trial % 3 == 0 ? 0x7F : 0xFF; /* every third is ASCII */
        for (size_t i = 0; i < n; i++)
            bytes[i] = (char)(eval_rng_next(&rng) & mask);
        check_round_trip(toks[trial % 2], bytes, n, trial % 5 ? LM_ENCODE_SPECIAL : 0);
    }
}

/* A text without a break is one piece: this must not take time in proportion to its square. */
static void megabyte_without_spaces(void **state)
{
    (void)state;
    const size_t n = 1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    for (int kind = 0; kind < 3; kind++) {
        eval_rng rng = {11};
        for (size_t i = 0; i < n; i++)
            text[i] = kind == 0 ? 'a' : kind == 1 ? (char)('a' + eval_rng_below(&rng, 26)) : ' ';
        clock_t start = clock();
        check_round_trip(toks[kind % 2], text, n, 0);
        /* Seconds where a quadratic algorithm takes an hour; wide, for sanitizers and busy machines. */
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 30);
    }
    free(text);
}

static void stream_holds_back_incomplete_characters(void **state)
{
    (void)state;
    const lm_tokenizer *tok = toks[0];
    const char bytes[] = "a\xF0\x9F\x99\x82\xE2\x82"; /* a smile, then the start of a euro sign */
    const size_t shown[] = {1, 1, 1, 1, 5, 5, 5};
    lm_stream stream = {0};
    lm_text out = {0};
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        int32_t id = lm_tokenizer_find(tok, bytes + i, 1);
        assert_true(id >= 0);
        ok(lm_stream_push(&stream, tok, id, 0, &out, &err));
        assert_int_equal(out.n, shown[i]);
    }
    ok(lm_stream_flush(&stream, &out, &err));
    assert_string_equal(out.data, bytes);
    lm_text_free(&out);
}

static void queries(void **state)
{
    (void)state;
    lm_tokenizer *tok = toks[1];
    size_t n;
    int32_t bos = lm_tokenizer_find(tok, "<|endoftext|>", 13);
    assert_true(bos >= 0);
    assert_int_equal(lm_tokenizer_bos(tok), bos);
    assert_true(lm_tokenizer_adds_bos(tok));
    assert_false(lm_tokenizer_adds_bos(toks[0]));
    assert_int_equal(lm_tokenizer_type(tok, bos), LM_TOKEN_CONTROL);
    assert_int_equal(lm_tokenizer_type(tok, lm_tokenizer_find(tok, "<tool_call>", 11)), LM_TOKEN_USER_DEFINED);
    assert_int_equal(lm_tokenizer_type(tok, lm_tokenizer_n_token(tok)), LM_TOKEN_UNUSED);
    assert_string_equal(lm_tokenizer_bytes(tok, bos, &n), "<|endoftext|>");
    assert_int_equal(n, 13);
    assert_null(lm_tokenizer_bytes(tok, -1, &n));
    assert_int_equal(lm_tokenizer_find(tok, "no such token", 13), -1);
    refused(lm_tokenizer_set_bos(tok, lm_tokenizer_n_token(tok), &err), LM_ERROR_INPUT, "BOS");
    lm_text out = {0};
    const int32_t ids[] = {bos, INT32_MAX, -5};
    ok(lm_tokenizer_decode(tok, ids, 3, LM_DECODE_SKIP_SPECIAL, &out, &err));
    assert_string_equal(out.data, "");
    lm_text_free(&out);
}

/* ---------------------------------------------------------------------------------------------- wrong files ---- */

/* The qwen2 fixture with the first `from` replaced by `to` must be refused. */
static void refused_with(const char *from, const char *to, lm_error_kind kind, const char *part)
{
    char *json;
    size_t n;
    ok(lm_read_file(LM_TEST_DATA "/tokenizer-qwen2.json", 1 << 24, &json, &n, &err));
    const char *at = strstr(json, from);
    if (!at)
        fail_msg("the fixture has no %s", from);
    lm_text edited = {0};
    ok(lm_text_append(&edited, json, (size_t)(at - json), &err));
    ok(lm_text_append(&edited, to, strlen(to), &err));
    ok(lm_text_append(&edited, at + strlen(from), strlen(at + strlen(from)), &err));
    lm_tokenizer *tok = NULL;
    refused(lm_tokenizer_from_json(edited.data, edited.n, "tokenizer.json", &tok, &err), kind, part);
    assert_null(tok);
    lm_text_free(&edited);
    free(json);
}

static void wrong_json(void **state)
{
    (void)state;
    refused_with("\"!\":4", "\"!\":5", LM_ERROR_INPUT, "two tokens");
    refused_with("\"!\":4", "\"!\":-4", LM_ERROR_INPUT, "whole number");
    refused_with("\"!\":4", "\"!\":4.5", LM_ERROR_INPUT, "whole number");
    refused_with("\"!\":4", "\"!\":2147483648", LM_ERROR_INPUT, "whole number");
    refused_with("\"!\":4", "\"!\":1e300", LM_ERROR_INPUT, "whole number");
    refused_with("\"!\":4", "\"!\\u0000\":4", LM_ERROR_INPUT, "NUL");
    refused_with("\"merges\":[[", "\"merges\":[[\"zz\",\"qqq\"],[", LM_ERROR_INPUT, "not in the vocabulary");
    refused_with("\"merges\":[[", "\"merges\":[[\"a\"],[", LM_ERROR_INPUT, "merge 0");
    refused_with("\"merges\":[[", "\"merges\":[7,[", LM_ERROR_INPUT, "merge 0");
    refused_with("\"merges\"", "\"mergers\"", LM_ERROR_INPUT, "missing");
    refused_with("\"type\":\"BPE\"", "\"type\":\"Unigram\"", LM_ERROR_UNSUPPORTED, "not BPE");
    refused_with("\\\\p{N}|", "[\\\\p{N}&&a]|", LM_ERROR_UNSUPPORTED, "an intersection of classes");
    refused_with("\\\\p{N}|", "(\\\\p{N}|", LM_ERROR_UNSUPPORTED, "PCRE2 does not take");
    refused_with("\"Isolated\"", "\"Shuffled\"", LM_ERROR_UNSUPPORTED, "Shuffled");
    refused_with("\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}", LM_ERROR_UNSUPPORTED, "normalizer");
    refused_with("\"post_processor\":null", "\"post_processor\":{\"type\":\"BertProcessing\"}", LM_ERROR_UNSUPPORTED,
                 "post-processor");
    refused_with("\"lstrip\":false", "\"lstrip\":true", LM_ERROR_UNSUPPORTED, "lstrip");
    refused_with("\"content\":\"<|im_start|>\"", "\"content\":\"<|endoftext|>\"", LM_ERROR_INPUT, "two tokens");
    refused_with("{", "[", LM_ERROR_INPUT, "JSON");
    lm_tokenizer *tok = NULL;
    refused(lm_tokenizer_from_json("", 0, "tokenizer.json", &tok, &err), LM_ERROR_INPUT, "JSON");
    refused(lm_tokenizer_from_json("{}", 2, "tokenizer.json", &tok, &err), LM_ERROR_UNSUPPORTED, "BPE");
    refused(lm_tokenizer_from_json("7", 1, "tokenizer.json", &tok, &err), LM_ERROR_UNSUPPORTED, "BPE");
    refused(lm_tokenizer_from_json(NULL, 0, "tokenizer.json", &tok, &err), LM_ERROR_USAGE, "NULL");
}

/* ------------------------------------------------------------------------------------------- plain arrays ---- */

/* The 256 bytes in the alphabet of the files, then "ab". */
static void fill_alphabet(char text[257][4], lm_string tokens[257])
{
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
    tokens[256] = (lm_string){"ab", 2};
}

static void plain_arrays(void **state)
{
    (void)state;
    char text[257][4];
    lm_string tokens[257], merges[1] = {{"a b", 3}};
    int32_t types[257];
    fill_alphabet(text, tokens);
    for (int i = 0; i < 257; i++)
        types[i] = LM_TOKEN_NORMAL;
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    desc.tokens = tokens, desc.types = types, desc.n_token = 257;
    desc.merges = merges, desc.n_merge = 1;
    desc.pre = "llama3", desc.bos_id = 0, desc.add_bos = true, desc.ignore_merges = 0;
    lm_tokenizer *tok = NULL;
    ok(lm_tokenizer_create(&desc, &tok, &err));
    lm_tokens ids = {0};
    ok(lm_tokenizer_encode(tok, "abba", 4, LM_ENCODE_BOS, &ids, &err));
    const int32_t wanted[] = {0, 256, 'b', 'a'};
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.ids, wanted, sizeof wanted);
    lm_tokens_free(&ids);
    lm_tokenizer_free(tok);

    lm_tokenizer_desc bad = desc;
    bad.pre = "gpt-9";
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_UNSUPPORTED, "gpt-9");
    bad = desc, bad.n_token = 0;
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_INPUT, "empty");
    bad = desc, bad.n_token = SIZE_MAX;
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_INPUT, "more than");
    bad = desc, bad.bos_id = 257;
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_INPUT, "BOS");
    bad = desc, bad.bos_id = -1;
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_INPUT, "BOS");
    bad = desc, bad.tokens = NULL;
    refused(lm_tokenizer_create(&bad, &tok, &err), LM_ERROR_USAGE, "NULL");
    types[5] = 99;
    refused(lm_tokenizer_create(&desc, &tok, &err), LM_ERROR_INPUT, "type");
    types[5] = LM_TOKEN_NORMAL;
    tokens[256] = tokens['x'];
    refused(lm_tokenizer_create(&desc, &tok, &err), LM_ERROR_INPUT, "same text");
    tokens[256] = (lm_string){"ac", 2};
    refused(lm_tokenizer_create(&desc, &tok, &err), LM_ERROR_INPUT, "merge 0");
    merges[0] = (lm_string){"ac", 2};
    refused(lm_tokenizer_create(&desc, &tok, &err), LM_ERROR_INPUT, "merge 0");
    merges[0] = (lm_string){NULL, 0};
    refused(lm_tokenizer_create(&desc, &tok, &err), LM_ERROR_INPUT, "merge 0");
}

/* "a\\1\\2b" where \\1 and \\2 have no token, 256 is "ab" and 7 the unknown token. */
static void missing_bytes(void **state)
{
    (void)state;
    char text[257][4];
    lm_string tokens[257], merges[1] = {{"a b", 3}};
    static const struct {
        lm_missing missing;
        bool fuse;
        size_t n;
        int32_t ids[5];
    } kinds[] = {{LM_MISSING_GAP, false, 2, {'a', 'b'}},
                 {LM_MISSING_DROPPED, false, 1, {256}},
                 {LM_MISSING_UNKNOWN, false, 4, {'a', 7, 7, 'b'}},
                 {LM_MISSING_UNKNOWN, true, 3, {'a', 7, 'b'}}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fill_alphabet(text, tokens);
        tokens[1] = tokens[2] = (lm_string){NULL, 0};
        lm_tokenizer_desc desc;
        lm_tokenizer_desc_init(&desc);
        desc.tokens = tokens, desc.n_token = 257;
        desc.merges = merges, desc.n_merge = 1;
        desc.missing = kinds[i].missing, desc.fuse_unk = kinds[i].fuse, desc.unk_id = 7;
        lm_tokenizer *tok = NULL;
        ok(lm_tokenizer_create(&desc, &tok, &err));
        lm_tokens ids = {0};
        ok(lm_tokenizer_encode(tok, "a\1\2b", 4, 0, &ids, &err));
        assert_int_equal(ids.n, kinds[i].n);
        assert_memory_equal(ids.ids, kinds[i].ids, ids.n * sizeof *ids.ids);
        lm_tokens_free(&ids);
        lm_tokenizer_free(tok);
    }
}

/* ------------------------------------------------------------------------------------------- SentencePiece ---- */

enum { UNK, BOS, BYTE_0, MARK = BYTE_0 + 256, A, B, AB, MARK_A, N_SPM };

static lm_tokenizer *sentencepiece(lm_prefix prefix, bool keeps_space, int n_byte)
{
    static char byte[256][8];
    lm_string tokens[N_SPM] = {[UNK] = {"<unk>", 5}, [BOS] = {"<s>", 3}, [MARK] = {"\u2581", 3},   [A] = {"a", 1},
                               [B] = {"b", 1},       [AB] = {"ab", 2},   [MARK_A] = {"\u2581a", 4}};
    int32_t types[N_SPM] = {[UNK] = LM_TOKEN_UNKNOWN, [BOS] = LM_TOKEN_CONTROL};
    float scores[N_SPM] = {[AB] = -1, [MARK_A] = -2};
    for (int i = 0; i < 256; i++) {
        snprintf(byte[i], sizeof byte[i], "<0x%02X>", (unsigned)i);
        tokens[BYTE_0 + i] = (lm_string){byte[i], i < n_byte ? 6 : 0};
    }
    for (int i = 0; i < N_SPM; i++)
        types[i] = types[i] ? types[i] : LM_TOKEN_NORMAL;
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    desc.sentencepiece = true;
    desc.tokens = tokens, desc.types = types, desc.scores = scores, desc.n_token = N_SPM;
    desc.prefix = prefix, desc.prefix_keeps_space = keeps_space;
    desc.missing = LM_MISSING_UNKNOWN, desc.unk_id = UNK, desc.fuse_unk = true;
    lm_tokenizer *tok = NULL;
    ok(lm_tokenizer_create(&desc, &tok, &err));
    scores[A] = NAN;
    lm_tokenizer *none = NULL;
    refused(lm_tokenizer_create(&desc, &none, &err), LM_ERROR_INPUT, "score of token");
    return tok;
}

/* ids: ends with -1 */
static void check_ids(const lm_tokenizer *tok, const char *text, const int32_t *wanted, const char *back)
{
    lm_tokens ids = {0};
    lm_text out = {0};
    ok(lm_tokenizer_encode(tok, text, strlen(text), LM_ENCODE_SPECIAL, &ids, &err));
    for (size_t i = 0; i <= ids.n; i++)
        assert_int_equal(i < ids.n ? ids.ids[i] : -1, wanted[i]);
    ok(lm_tokenizer_decode(tok, ids.ids, ids.n, 0, &out, &err));
    assert_string_equal(out.data, back);
    lm_tokens_free(&ids);
    lm_text_free(&out);
}

static void sentencepiece_by_scores(void **state)
{
    (void)state;
    lm_tokenizer *tok = sentencepiece(LM_PREFIX_ALL, false, 256);
    check_ids(tok, "", (const int32_t[]){-1}, "");
    check_ids(tok, "ab", (const int32_t[]){MARK, AB, -1}, "ab"); /* "ab" scores higher than " a" */
    check_ids(tok, " a", (const int32_t[]){MARK, MARK_A, -1}, " a");
    check_ids(tok, "a a\n", (const int32_t[]){MARK_A, MARK_A, BYTE_0 + '\n', -1}, "a a\n");
    check_ids(tok, "a<s>a<s> a", (const int32_t[]){MARK_A, BOS, MARK_A, BOS, MARK, MARK_A, -1}, "a<s>a<s> a");
    check_ids(tok, "\u00e9b", (const int32_t[]){MARK, BYTE_0 + 0xC3, BYTE_0 + 0xA9, B, -1}, "\u00e9b");
    check_ids(tok, "a\u2581a\xE2\x96", (const int32_t[]){MARK_A, MARK_A, BYTE_0 + 0xE2, BYTE_0 + 0x96, -1},
              "a a\xE2\x96");
    assert_int_equal(lm_tokenizer_find(tok, "\n", 1), BYTE_0 + '\n');
    lm_text out = {0};
    const int32_t answer[] = {MARK_A, BYTE_0 + 0xC3, BYTE_0 + 0xA9};
    ok(lm_tokenizer_decode(tok, answer, 3, LM_DECODE_CONTINUES, &out, &err));
    assert_string_equal(out.data, " a\u00e9");
    lm_stream stream = {0};
    const size_t shown[] = {6, 6, 8};
    for (int i = 0; i < 3; i++) {
        ok(lm_stream_push(&stream, tok, answer[i], 0, &out, &err));
        assert_int_equal(out.n, shown[i]);
    }
    lm_text_free(&out);
    lm_tokenizer_free(tok);

    tok = sentencepiece(LM_PREFIX_FIRST, true, 0);
    check_ids(tok, "a<s>a", (const int32_t[]){MARK_A, BOS, A, -1}, "a<s>a");
    check_ids(tok, " a<s> a", (const int32_t[]){MARK_A, BOS, MARK_A, -1}, "a<s> a");
    check_ids(tok, "axyb", (const int32_t[]){MARK_A, UNK, B, -1}, "a<unk>b"); /* no bytes: one unknown token */
    lm_tokenizer_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_texts),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(book),
        cmocka_unit_test(round_trip_of_random_bytes),
        cmocka_unit_test(megabyte_without_spaces),
        cmocka_unit_test(stream_holds_back_incomplete_characters),
        cmocka_unit_test(queries),
        cmocka_unit_test(wrong_json),
        cmocka_unit_test(plain_arrays),
        cmocka_unit_test(missing_bytes),
        cmocka_unit_test(sentencepiece_by_scores),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
