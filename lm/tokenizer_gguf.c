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

static bool read_vocab(const lm_gguf *g, const char *where, gguf_vocab *v, lm_tokenizer_desc *desc, lm_error *err)
{
    const lm_gguf_value *tokens = lm_gguf_value_find(g, "tokenizer.ggml.tokens");
    const lm_gguf_value *merges = lm_gguf_value_find(g, "tokenizer.ggml.merges");
    strcpy(v->pre, "default");
    if (!lm_gguf_string(g, "tokenizer.ggml.model", v->model, sizeof v->model, err) ||
        !lm_gguf_string(g, "tokenizer.ggml.pre", v->pre, sizeof v->pre, err))
        return false;
    if (!tokens || !v->model[0])
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no tokenizer: the key %s is missing", where,
                       tokens ? "tokenizer.ggml.model" : "tokenizer.ggml.tokens");
    if (strcmp(v->model, "gpt2") != 0)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: tokenizer model \"%s\" is not supported (gpt2 is)", where,
                       v->model);
    if (!merges)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tokenizer model \"gpt2\" needs the key tokenizer.ggml.merges", where);
    if (!gguf_strings(tokens, "tokenizer.ggml.tokens", where, &v->tokens, err) ||
        !gguf_strings(merges, "tokenizer.ggml.merges", where, &v->merges, err) ||
        !gguf_types(g, (size_t)tokens->n, where, &v->types, err))
        return false;
    desc->tokens = v->tokens;
    desc->types = v->types;
    desc->n_token = (size_t)tokens->n;
    desc->merges = v->merges;
    desc->n_merge = (size_t)merges->n;
    desc->pre = v->pre;
    return true;
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
    return ok;
}
