#include "model.h"
#include "file.h"
#include "json.h"
#include "rope.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 24)
#define MAX_TOKENIZER_BYTES (1u << 28)

/* --------------------------------------------------------------------------------------- Hugging Face ---- */

/* Parses dir/name; *out is NULL where the file does not exist. */
static bool read_optional(const char *dir, const char *name, cJSON **out, lm_error *err)
{
    *out = NULL;
    char *path = lm_path_join(dir, name);
    if (!path)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", dir);
    bool ok = true;
    if (lm_path_exists(path))
        ok = (*out = lm_json_read(path, MAX_CONFIG_BYTES, err)) != NULL;
    free(path);
    return ok;
}

static bool hf_tokenizer(lm_model *m, const char *dir, lm_error *err)
{
    char *path = lm_path_join(dir, "tokenizer.json"), *text = NULL;
    size_t n;
    if (!path)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", dir);
    bool ok = true;
    if (lm_path_exists(path)) {
        ok = lm_read_file(path, MAX_TOKENIZER_BYTES, &text, &n, err) &&
             lm_tokenizer_from_json(text, n, path, &m->tokenizer, err);
        free(text);
    }
    free(path);
    if (!ok || !m->tokenizer)
        return ok;
    if (lm_tokenizer_n_token(m->tokenizer) > m->config.n_vocab)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tokenizer.json has %d tokens, the model %d", dir,
                       lm_tokenizer_n_token(m->tokenizer), m->config.n_vocab);
    if (m->config.bos_id < 0)
        m->config.bos_id = lm_tokenizer_bos(m->tokenizer);
    return lm_tokenizer_set_bos(m->tokenizer, m->config.bos_id, err);
}

static bool hf_config(lm_model *m, const char *dir, lm_error *err)
{
    cJSON *config = NULL, *generation = NULL, *tokenizer = NULL;
    bool ok = read_optional(dir, "config.json", &config, err) &&
              read_optional(dir, "generation_config.json", &generation, err) &&
              read_optional(dir, "tokenizer_config.json", &tokenizer, err);
    if (ok && !config)
        ok = lm_fail(err, LM_ERROR_INPUT, "%s: has no config.json; give a Hugging Face directory or a GGUF file", dir);
    char where[200];
    snprintf(where, sizeof where, "%.180s/config.json", dir);
    ok = ok && lm_config_from_json(config, generation, where, &m->config, err) && hf_tokenizer(m, dir, err) &&
         lm_config_decide_bos(&m->config, tokenizer, m->tokenizer && lm_tokenizer_adds_bos(m->tokenizer),
                              "tokenizer_config.json", err);
    cJSON_Delete(config);
    cJSON_Delete(generation);
    cJSON_Delete(tokenizer);
    if (ok && !m->config.name[0]) {
        const char *end = dir + strlen(dir), *start;
        while (end > dir && end[-1] == '/')
            end--;
        for (start = end; start > dir && start[-1] != '/';)
            start--;
        snprintf(m->config.name, sizeof m->config.name, "%.*s", (int)(end - start), start);
    }
    return ok;
}

static bool open_hf(lm_model *m, const char *dir, lm_error *err)
{
    return hf_config(m, dir, err) && lm_safetensors_open(dir, &m->st, err) &&
           lm_weights_open(&m->config, m->st, NULL, dir, &m->weights, err);
}

/* ------------------------------------------------------------------------------------------------ GGUF ---- */

static bool gguf_tokenizer(lm_model *m, const char *where, lm_error *err)
{
    const lm_gguf_value *tokens = lm_gguf_value_find(m->gguf, "tokenizer.ggml.tokens");
    if (!tokens)
        return true;
    if (tokens->n > (uint64_t)m->config.n_vocab)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %llu tokens, but the embedding has %d rows", where,
                       (unsigned long long)tokens->n, m->config.n_vocab);
    return lm_tokenizer_from_gguf(m->gguf, where, m->config.bos_id, m->config.add_bos, &m->tokenizer, err);
}

static bool open_gguf(lm_model *m, const char *path, lm_error *err)
{
    return lm_gguf_open(path, &m->gguf, err) && lm_config_from_gguf(m->gguf, path, &m->config, err) &&
           gguf_tokenizer(m, path, err) && lm_weights_open(&m->config, NULL, m->gguf, path, &m->weights, err);
}

/* ---------------------------------------------------------------------------------------------- the face ---- */

bool lm_model_open(const char *path, lm_model **out, lm_error *err)
{
    lm_model *m = calloc(1, sizeof *m);
    if (!m)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    const bool is_dir = lm_path_is_directory(path);
    bool ok;
    if (!is_dir && lm_path_exists(path) && strstr(path, ".safetensors"))
        ok =
            lm_fail(err, LM_ERROR_INPUT, "%s: is one file of a model; give the directory that holds config.json", path);
    else
        ok = is_dir ? open_hf(m, path, err) : open_gguf(m, path, err);
    ok = ok && lm_rope_build(&m->config, m->weights.rope_factors, &m->rope, err);
    if (!ok) {
        lm_model_close(m);
        return false;
    }
    *out = m;
    return true;
}

void lm_model_close(lm_model *m)
{
    if (!m)
        return;
    lm_weights_close(&m->weights);
    lm_tokenizer_free(m->tokenizer);
    lm_safetensors_close(m->st);
    lm_gguf_close(m->gguf);
    free(m);
}

const lm_config *lm_model_config(const lm_model *m)
{
    return &m->config;
}
const lm_tokenizer *lm_model_tokenizer(const lm_model *m)
{
    return m->tokenizer;
}
const prism_rope *lm_model_rope(const lm_model *m)
{
    return &m->rope;
}
size_t lm_model_bytes(const lm_model *m)
{
    return m->weights.bytes;
}

bool lm_model_is_eos(const lm_model *m, int32_t token)
{
    for (int32_t i = 0; i < m->config.n_eos; i++)
        if (m->config.eos_id[i] == token)
            return true;
    return false;
}

bool lm_model_bands(const lm_model *m, int32_t block_size, prism_bands *out, lm_error *err)
{
    const prism_status status = prism_bands_auto(out, &m->rope, block_size);
    if (status != PRISM_OK)
        return lm_fail(err, LM_ERROR_RUN, "no band split for heads of %d at block size %d (%s); give the bands",
                       m->config.d_head, block_size, prism_status_name(status));
    return true;
}

bool lm_model_encode(const lm_model *m, const char *text, size_t n_bytes, bool bos, lm_tokens *out, lm_error *err)
{
    if (!m->tokenizer)
        return lm_fail(err, LM_ERROR_INPUT, "%s: came without a tokenizer", m->config.name);
    /* BOS is encoded as its own text: the tokenizer of a Hugging Face directory cannot always tell that it is wanted
     * (see lm_config_decide_bos), but it always knows the token. */
    size_t n_bos = 0;
    const char *bos_text = bos && m->config.add_bos ? lm_tokenizer_bytes(m->tokenizer, m->config.bos_id, &n_bos) : NULL;
    const size_t before = out->n;
    if (bos_text && !lm_tokenizer_encode(m->tokenizer, bos_text, n_bos, LM_ENCODE_SPECIAL, out, err))
        return false;
    if (bos_text && (out->n != before + 1 || out->ids[before] != m->config.bos_id)) {
        out->n = before;
        return lm_fail(err, LM_ERROR_INPUT, "%s: its BOS token %d is not a special token", m->config.name,
                       m->config.bos_id);
    }
    if (lm_tokenizer_encode(m->tokenizer, text, n_bytes, LM_ENCODE_SPECIAL, out, err))
        return true;
    out->n = before;
    return false;
}
