/*
 * GGUF metadata -> lm_tokenizer_desc.
 */
#include "gguf.h"
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* What a description borrows. */
typedef struct gguf_vocab {
    lm_string *tokens, *merges;
    int32_t *types;
    float *scores;
    char model[32], pre[64];
} gguf_vocab;

static bool gguf_strings(const lm_gguf_value *v, const char *key, const char *where, lm_string **out, lm_error *err)
{
    if (!v->is_array || v->type != LM_GGUF_STRING)
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s must be a list of strings", where, key);
    *out = calloc(v->n ? (size_t)v->n : 1, sizeof **out);
    if (!*out)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: key %s: no memory for %llu strings", where, key,
                       (unsigned long long)v->n);
    const uint8_t *at = v->data;
    for (uint64_t i = 0; i < v->n; i++)
        (*out)[i].data = lm_gguf_value_string(&at, &(*out)[i].n);
    return true;
}

/* Integers 0 .. INT32_MAX of any width, or NULL where the key is missing. */
static bool gguf_types(const lm_gguf *g, size_t n, const char *where, int32_t **out, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, "tokenizer.ggml.token_type");
    if (!v)
        return true;
    if (!v->is_array || (v->type != LM_GGUF_I32 && v->type != LM_GGUF_U32) || v->n != n)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tokenizer.ggml.token_type must be a list of %zu integers", where, n);
    *out = malloc((n ? n : 1) * sizeof **out);
    if (!*out)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for %zu token types", where, n);
    for (size_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)lm_gguf_value_int(v, i);
    return true;
}

static bool gguf_scores(const lm_gguf *g, size_t n, const char *where, float **out, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, "tokenizer.ggml.scores");
    if (!v || !v->is_array || v->type != LM_GGUF_F32 || v->n != n)
        return lm_fail(err, LM_ERROR_INPUT,
                       "%s: tokenizer model \"llama\" needs tokenizer.ggml.scores, a list of %zu float32 numbers",
                       where, n);
    *out = malloc((n ? n : 1) * sizeof **out);
    if (!*out)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for %zu scores", where, n);
    memcpy(*out, v->data, n * sizeof **out);
    return true;
}

/* Byte-level BPE by a list of merges. */
static bool read_gpt2(const lm_gguf *g, const char *where, gguf_vocab *v, lm_tokenizer_desc *desc, lm_error *err)
{
    const lm_gguf_value *merges = lm_gguf_value_find(g, "tokenizer.ggml.merges");
    strcpy(v->pre, "default");
    if (!merges)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tokenizer model \"gpt2\" needs the key tokenizer.ggml.merges", where);
    if (!lm_gguf_string(g, "tokenizer.ggml.pre", v->pre, sizeof v->pre, err) ||
        !gguf_strings(merges, "tokenizer.ggml.merges", where, &v->merges, err))
        return false;
    desc->merges = v->merges;
    desc->n_merge = (size_t)merges->n;
    desc->pre = v->pre;
    return true;
}

/* SentencePiece BPE by scores. */
static bool read_llama(const lm_gguf *g, const char *where, gguf_vocab *v, lm_tokenizer_desc *desc, lm_error *err)
{
    int64_t unk_id = 0;
    bool space = true;
    if (!gguf_scores(g, desc->n_token, where, &v->scores, err) ||
        !lm_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &space, err) ||
        !lm_gguf_int(g, "tokenizer.ggml.unknown_token_id", 0, INT32_MAX, &unk_id, err))
        return false;
    desc->sentencepiece = true;
    desc->scores = v->scores;
    desc->prefix = space ? LM_PREFIX_ALL : LM_PREFIX_NONE;
    desc->missing = LM_MISSING_UNKNOWN;
    desc->fuse_unk = true;
    desc->unk_id = (int32_t)unk_id;
    return true;
}

static bool read_vocab(const lm_gguf *g, const char *where, gguf_vocab *v, lm_tokenizer_desc *desc, lm_error *err)
{
    const lm_gguf_value *tokens = lm_gguf_value_find(g, "tokenizer.ggml.tokens");
    if (!lm_gguf_string(g, "tokenizer.ggml.model", v->model, sizeof v->model, err))
        return false;
    if (!tokens || !v->model[0])
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no tokenizer: the key %s is missing", where,
                       tokens ? "tokenizer.ggml.model" : "tokenizer.ggml.tokens");
    if (!gguf_strings(tokens, "tokenizer.ggml.tokens", where, &v->tokens, err) ||
        !gguf_types(g, (size_t)tokens->n, where, &v->types, err))
        return false;
    desc->tokens = v->tokens;
    desc->types = v->types;
    desc->n_token = (size_t)tokens->n;
    if (strcmp(v->model, "gpt2") == 0)
        return read_gpt2(g, where, v, desc, err);
    if (strcmp(v->model, "llama") == 0)
        return read_llama(g, where, v, desc, err);
    return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: tokenizer model \"%s\" is not supported (gpt2 and llama are)", where,
                   v->model);
}

bool lm_tokenizer_from_gguf(const lm_gguf *g, const char *where, int32_t bos_id, bool add_bos, lm_tokenizer **out,
                            lm_error *err)
{
    gguf_vocab v = {0};
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    desc.bos_id = bos_id;
    desc.add_bos = add_bos;
    const bool ok =
        read_vocab(g, where, &v, &desc, err) && (lm_tokenizer_create(&desc, out, err) || lm_error_in(err, where));
    free(v.tokens);
    free(v.merges);
    free(v.types);
    free(v.scores);
    return ok;
}
