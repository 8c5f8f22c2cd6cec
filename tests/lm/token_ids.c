/*
 * What the runner's tokenizer makes of texts, for test_tokenizers.py: token_ids FILE, where FILE is a tokenizer.json or a
 * GGUF file (its tokenizer.ggml keys suffice).
 *   stdin    texts: a length (uint32, little-endian like every number here) and as many bytes
 *   stdout   for each: the number of ids and the ids (int32), then the number of bytes and the bytes they decode to
 * Special tokens in a text become their ids; BOS is not added.
 */
#include "lm/file.h"
#include "lm/gguf.h"
#include "lm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool open_tokenizer(const char *path, lm_tokenizer **tok, lm_error *err)
{
    if (strstr(path, ".gguf")) {
        lm_gguf *gguf = NULL;
        const bool ok = lm_gguf_open(path, &gguf, err) && lm_tokenizer_from_gguf(gguf, path, -1, false, tok, err);
        lm_gguf_close(gguf);
        return ok;
    }
    char *json;
    size_t n;
    if (!lm_read_file(path, 1 << 28, &json, &n, err))
        return false;
    const bool ok = lm_tokenizer_from_json(json, n, path, tok, err);
    free(json);
    return ok;
}

static void put(const void *data, size_t size, size_t n)
{
    const uint32_t count = (uint32_t)n;
    fwrite(&count, sizeof count, 1, stdout);
    if (n)
        fwrite(data, size, n, stdout);
}

int main(int argc, char **argv)
{
    lm_error err = {0};
    lm_tokenizer *tok = NULL;
    bool ok = argc == 2 && open_tokenizer(argv[1], &tok, &err);
    for (uint32_t n; ok && fread(&n, sizeof n, 1, stdin) == 1;) {
        char *text = malloc((size_t)n + 1);
        lm_tokens ids = {0};
        lm_text back = {0};
        ok = text && fread(text, 1, n, stdin) == n &&
             lm_tokenizer_encode(tok, text, n, LM_ENCODE_SPECIAL, &ids, &err) &&
             lm_tokenizer_decode(tok, ids.ids, ids.n, 0, &back, &err);
        if (ok) {
            put(ids.ids, sizeof *ids.ids, ids.n);
            put(back.data, 1, back.n);
        }
        lm_tokens_free(&ids);
        lm_text_free(&back);
        free(text);
    }
    lm_tokenizer_free(tok);
    if (!ok)
        fprintf(stderr, "%s\n", err.text);
    return ok ? 0 : (int)err.kind + !err.kind;
}
