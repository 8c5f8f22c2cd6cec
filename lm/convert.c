#include "convert_internal.h"
#include "file.h"
#include "json.h"
#include "model.h"
#include "ops.h"
#include "rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENIZER_BYTES (1u << 28)

typedef struct conversion {
    const lm_model *model;
    const lm_convert_options *options;
    const char *dir;
    lm_gguf_writer *writer;
    lm_error *err;
} conversion;

/* -------------------------------------------------------------------------------------------- metadata ---- */

static const char *arch_key(const conversion *c, const char *name, char key[96])
{
    snprintf(key, 96, "%s.%s", c->model->config.family->gguf, name);
    return key;
}

static void put_u32(const conversion *c, const char *name, int32_t value)
{
    char key[96];
    lm_gguf_put_u32(c->writer, arch_key(c, name, key), (uint32_t)value);
}

static void put_f32(const conversion *c, const char *name, double value)
{
    char key[96];
    lm_gguf_put_f32(c->writer, arch_key(c, name, key), (float)value);
}

static bool put_rope(const conversion *c)
{
    const lm_rope *r = &c->model->config.rope;
    char key[96];
    put_u32(c, "rope.dimension_count", r->n_dim);
    put_f32(c, "rope.freq_base", r->base);
    if (r->scaling == LM_ROPE_LINEAR || r->scaling == LM_ROPE_YARN) {
        lm_gguf_put_string(c->writer, arch_key(c, "rope.scaling.type", key),
                           r->scaling == LM_ROPE_YARN ? "yarn" : "linear");
        put_f32(c, "rope.scaling.factor", r->factor);
    }
    if (r->scaling == LM_ROPE_YARN) {
        if (!r->truncate)
            return lm_fail(c->err, LM_ERROR_UNSUPPORTED, "%s: YaRN without truncation cannot be written to GGUF",
                           c->dir);
        put_u32(c, "rope.scaling.original_context_length", (int32_t)r->n_ctx_original);
        put_f32(c, "rope.scaling.yarn_beta_fast", r->beta_fast);
        put_f32(c, "rope.scaling.yarn_beta_slow", r->beta_slow);
        /* Readers multiply this by 0.1 ln(factor) + 1. */
        put_f32(c, "rope.scaling.attn_factor", r->attention_factor / (1 + 0.1 * log(r->factor)));
    }
    return true;
}

static bool put_model(const conversion *c)
{
    const lm_config *m = &c->model->config;
    lm_gguf_writer *w = c->writer;
    lm_gguf_put_string(w, "general.architecture", m->family->gguf);
    lm_gguf_put_string(w, "general.type", "model");
    lm_gguf_put_string(w, "general.name", c->options->name ? c->options->name : m->name);
    if (c->options->description)
        lm_gguf_put_string(w, "general.description", c->options->description);
    if (c->options->license)
        lm_gguf_put_string(w, "general.license", c->options->license);
    lm_gguf_put_u32(w, "general.file_type", (uint32_t)lm_dtypes[c->options->type].file);
    lm_gguf_put_u32(w, "general.quantization_version", 2);
    put_u32(c, "block_count", m->n_layer);
    put_u32(c, "context_length", m->n_ctx_train);
    put_u32(c, "embedding_length", m->d_model);
    put_u32(c, "feed_forward_length", m->d_ff);
    put_u32(c, "attention.head_count", m->n_head);
    put_u32(c, "attention.head_count_kv", m->n_kv_head);
    put_u32(c, "attention.key_length", m->d_head);
    put_u32(c, "attention.value_length", m->d_head);
    put_u32(c, "vocab_size", m->n_vocab);
    put_f32(c, "attention.layer_norm_rms_epsilon", (double)m->rms_eps);
    return put_rope(c);
}

/* ------------------------------------------------------------------------------------------- tokenizer ---- */

static bool put_token(const conversion *c, const lm_tokenizer *tok, int32_t id, lm_text *text)
{
    size_t n;
    const char *bytes = lm_tokenizer_bytes(tok, id, &n);
    const lm_token_type type = lm_tokenizer_type(tok, id);
    text->n = 0;
    if (!bytes) { /* a row of the embedding without a token: readers want a unique name for it */
        char pad[32];
        n = (size_t)snprintf(pad, sizeof pad, "[PAD%d]", id);
        lm_gguf_put_array_string(c->writer, pad, n);
        return true;
    }
    if (type == LM_TOKEN_CONTROL || type == LM_TOKEN_USER_DEFINED) {
        lm_gguf_put_array_string(c->writer, bytes, n);
        return true;
    }
    if (!lm_tokenizer_spell(bytes, n, text, c->err))
        return false;
    lm_gguf_put_array_string(c->writer, text->data, text->n);
    return true;
}

static bool put_merges(const conversion *c, const cJSON *tokenizer)
{
    const cJSON *merges = lm_json_get(lm_json_get(tokenizer, "model"), "merges"), *item;
    lm_text text = {0};
    size_t n = 0;
    bool ok = true;
    lm_gguf_put_array(c->writer, "tokenizer.ggml.merges", LM_GGUF_STRING, (uint64_t)cJSON_GetArraySize(merges));
    for (item = merges ? merges->child : NULL; ok && item; item = item->next) {
        text.n = 0;
        ok = lm_tokenizer_json_merge(item, &text, n++, c->err);
        lm_gguf_put_array_string(c->writer, text.data, text.n);
    }
    lm_text_free(&text);
    return ok;
}

static bool put_vocabulary(const conversion *c)
{
    const lm_config *m = &c->model->config;
    const lm_tokenizer *tok = c->model->tokenizer;
    lm_gguf_writer *w = c->writer;
    lm_text text = {0};
    bool ok = true;
    lm_gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    lm_gguf_put_string(w, "tokenizer.ggml.pre", lm_tokenizer_pre(tok));
    lm_gguf_put_array(w, "tokenizer.ggml.tokens", LM_GGUF_STRING, (uint64_t)m->n_vocab);
    for (int32_t id = 0; ok && id < m->n_vocab; id++)
        ok = put_token(c, tok, id, &text);
    lm_text_free(&text);
    lm_gguf_put_array(w, "tokenizer.ggml.token_type", LM_GGUF_I32, (uint64_t)m->n_vocab);
    for (int32_t id = 0; id < m->n_vocab; id++)
        lm_gguf_put_array_i32(w, (int32_t)lm_tokenizer_type(tok, id));
    return ok;
}

static bool put_tokenizer(const conversion *c)
{
    const lm_config *m = &c->model->config;
    lm_gguf_writer *w = c->writer;
    if (!c->model->tokenizer)
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: has no tokenizer.json, which a complete GGUF file needs", c->dir);
    if (!lm_tokenizer_pre(c->model->tokenizer))
        return lm_fail(c->err, LM_ERROR_UNSUPPORTED,
                       "%s/tokenizer.json: no name of tokenizer.ggml.pre stands for its pre-tokenizer; run the directory "
                       "itself, or convert it with llama.cpp's convert_hf_to_gguf.py",
                       c->dir);
    char *path = lm_path_join(c->dir, "tokenizer.json");
    cJSON *json = path ? lm_json_read(path, MAX_TOKENIZER_BYTES, c->err) : NULL;
    if (!path)
        lm_fail(c->err, LM_ERROR_MEMORY, "%s: no memory", c->dir);
    free(path);
    char *template = NULL;
    const bool ok = json && put_vocabulary(c) && put_merges(c, json) && lm_chat_template(c->dir, &template, c->err);
    cJSON_Delete(json);
    if (template)
        lm_gguf_put_string(w, LM_GGUF_CHAT_TEMPLATE, template);
    free(template);
    if (m->bos_id >= 0)
        lm_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)m->bos_id);
    for (int32_t i = 0; i < m->n_eos && i < LM_N_EOS_KEY; i++)
        lm_gguf_put_u32(w, lm_eos_keys[i], (uint32_t)m->eos_id[i]);
    if (m->pad_id >= 0)
        lm_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)m->pad_id);
    lm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", m->add_bos);
    return ok;
}

/* --------------------------------------------------------------------------------------------- tensors ---- */

lm_dtype lm_convert_type(const lm_convert_options *options, const lm_tensor *t)
{
    if (t->n_dim < 2)
        return LM_F32;
    return t->dim[t->n_dim - 1] % lm_dtypes[options->type].block ? LM_F16 : options->type;
}

static int64_t source_row(const lm_interleave *order, int64_t i)
{
    if (!order->n_dim)
        return i;
    const int64_t r = i % order->d_head;
    return r >= order->n_dim ? i : i - r + r / 2 + r % 2 * (order->n_dim / 2);
}

bool lm_convert_tensor(lm_gguf_writer *w, const lm_tensor *t, lm_dtype type, const lm_interleave *order,
                       const char *where, lm_error *err)
{
    if (!t->bytes)
        return true;
    /* Of a bias each element is a row, of a vector whose rows stay all elements together. */
    const int64_t cols = t->n_dim > 1 || (t->n_dim == 1 && !order->n_dim) ? t->dim[t->n_dim - 1] : 1;
    const size_t in_bytes = lm_row_bytes(t->dtype, cols), out_bytes = lm_row_bytes(type, cols);
    const int64_t rows = (int64_t)(t->bytes / in_bytes);
    float *row = malloc((size_t)cols * sizeof *row);
    uint8_t *out = malloc(out_bytes);
    bool ok = row && out;
    if (!ok)
        lm_fail(err, LM_ERROR_MEMORY, "%s: tensor %s: no memory for a row", where, t->name);
    for (int64_t i = 0; ok && i < rows; i++) {
        const int64_t from = source_row(order, i);
        const uint8_t *in = (const uint8_t *)t->data + (size_t)from * in_bytes;
        lm_to_float(t->dtype, in, row, cols);
        if (!lm_all_finite(row, cols)) {
            ok = lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: row %lld has values that are not finite", where, t->name,
                         (long long)from);
            break;
        }
        if (type != t->dtype)
            lm_from_float(type, row, out, cols);
        ok = lm_gguf_writer_data(w, type == t->dtype ? in : out, out_bytes, err);
    }
    free(row);
    free(out);
    return ok;
}

/* Calls each for every tensor of the model, in the order of the file. */
typedef bool visit(const conversion *c, const lm_tensor *t, const char *gguf_name);

static bool for_each_tensor(const conversion *c, visit *each)
{
    size_t n;
    const lm_weight_name *names = lm_weight_names(&n);
    const int32_t n_layer = c->model->config.n_layer;
    const bool tied = c->model->weights.output.data == c->model->weights.embedding.data;
    for (int32_t layer = -1; layer < n_layer; layer++)
        for (size_t i = 0; i < n; i++) {
            char hf[128], gguf[128];
            if ((strstr(names[i].hf, "%d") != NULL) != (layer >= 0))
                continue;
            lm_weight_name_text(names[i].hf, layer, hf, sizeof hf);
            lm_weight_name_text(names[i].gguf, layer, gguf, sizeof gguf);
            const lm_tensor *t = lm_safetensors_find(c->model->st, hf);
            /* Files of tied models may hold the embedding a second time. */
            if (t && !(tied && strcmp(gguf, "output.weight") == 0) && !each(c, t, gguf))
                return false;
        }
    return true;
}

static bool list_tensor(const conversion *c, const lm_tensor *t, const char *name)
{
    lm_gguf_put_tensor(c->writer, name, lm_convert_type(c->options, t), t->n_dim, t->dim);
    return true;
}

static bool write_tensor(const conversion *c, const lm_tensor *t, const char *name)
{
    const lm_config *m = &c->model->config;
    const bool rotated = strstr(name, "attn_q.") || strstr(name, "attn_k.");
    lm_interleave order = {0};
    if (rotated && m->family->gguf_layout == PRISM_ROPE_INTERLEAVED)
        order = (lm_interleave){m->d_head, m->rope.n_dim};
    return lm_convert_tensor(c->writer, t, lm_convert_type(c->options, t), &order, c->dir, c->err);
}

/* llama3 scaling as factors: unscaled frequency / scaled frequency. */
static bool rope_factors(const conversion *c, float factors[PRISM_MAX_D_HEAD / 2])
{
    lm_config plain = c->model->config;
    prism_rope unscaled;
    plain.rope.scaling = LM_ROPE_NONE;
    if (!lm_rope_build(&plain, NULL, &unscaled, c->err))
        return false;
    for (int32_t j = 0; j < unscaled.n_pair; j++)
        factors[j] = (float)(unscaled.frequency[j] / c->model->rope.frequency[j]);
    return true;
}

static bool convert(const conversion *c, const char *path)
{
    const lm_rope *r = &c->model->config.rope;
    const bool llama3 = r->scaling == LM_ROPE_LLAMA3;
    const int64_t n_factor = r->n_dim / 2;
    float factors[PRISM_MAX_D_HEAD / 2];
    if (llama3 && !c->model->config.family->gguf_factors)
        return lm_fail(c->err, LM_ERROR_UNSUPPORTED, "%s: llama3 RoPE scaling of a %s model cannot be written to GGUF",
                       c->dir, c->model->config.family->hf);
    if (!put_model(c) || !put_tokenizer(c) || (llama3 && !rope_factors(c, factors)))
        return false;
    if (llama3)
        lm_gguf_put_tensor(c->writer, "rope_freqs.weight", LM_F32, 1, &n_factor);
    return for_each_tensor(c, list_tensor) && lm_gguf_writer_start(c->writer, path, c->err) &&
           (!llama3 || lm_gguf_writer_data(c->writer, factors, (size_t)n_factor * sizeof *factors, c->err)) &&
           for_each_tensor(c, write_tensor) && lm_gguf_writer_finish(c->writer, c->err);
}

static bool convert_directory(const char *hf_dir, const char *path, const lm_convert_options *options, lm_error *err)
{
    lm_model *model;
    if (!lm_model_open(hf_dir, &model, err))
        return false;
    const conversion c = {
        .model = model, .options = options, .dir = hf_dir, .writer = lm_gguf_writer_create(), .err = err};
    const bool ok = c.writer ? convert(&c, path) : lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    lm_gguf_writer_free(c.writer);
    lm_model_close(model);
    return ok;
}

bool lm_convert(const char *from, const char *path, const lm_convert_options *options, lm_error *err)
{
    char types[200];
    if ((unsigned)options->type >= LM_DTYPE_COUNT || !lm_dtypes[options->type].narrow)
        return lm_fail(err, LM_ERROR_USAGE, "matrices can be written as %s, not %s",
                       lm_dtype_names(true, types, sizeof types), lm_dtype_name(options->type));
    return (lm_path_is_directory(from) ? convert_directory : lm_convert_gguf)(from, path, options, err);
}
