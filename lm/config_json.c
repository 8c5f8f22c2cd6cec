/* config.json -> lm_config. Keys of both spellings: rope_theta and rope_scaling, and the later rope_parameters. */
#include "config.h"
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef lm_json_reader reader;

static void fail(reader *r, lm_error_kind kind, const char *what, const char *value)
{
    if (!r->failed)
        lm_fail(r->err, kind, "%s: %s \"%.64s\"", r->where, what, value);
    r->failed = true;
}

/* 0.1 ln s + 1 and its relatives (arXiv 2309.00071, section 3.4; DeepSeek's mscale). */
static double yarn_mscale(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

static void read_yarn(reader *r, lm_rope *rope)
{
    rope->scaling = LM_ROPE_YARN;
    rope->beta_fast = lm_json_number(r, "beta_fast", 32);
    rope->beta_slow = lm_json_number(r, "beta_slow", 1);
    rope->truncate = lm_json_bool(r, "truncate", true);
    const double mscale = lm_json_number(r, "mscale", 0), all = lm_json_number(r, "mscale_all_dim", 0);
    double factor = yarn_mscale(rope->factor, 1);
    if (mscale != 0 && all != 0)
        factor = yarn_mscale(rope->factor, mscale) / yarn_mscale(rope->factor, all);
    rope->attention_factor = lm_json_number(r, "attention_factor", factor);
}

static void read_scaling(reader *r, lm_rope *rope)
{
    const char *type = lm_json_text(r, "rope_type", NULL);
    if (!type)
        type = lm_json_text(r, "type", "default");
    rope->factor = lm_json_number(r, "factor", 1);
    rope->n_ctx_original = lm_json_number(r, "original_max_position_embeddings", rope->n_ctx_original);
    if (r->failed)
        return;
    if (strcmp(type, "default") == 0 || strcmp(type, "none") == 0) {
        rope->factor = 1;
    } else if (strcmp(type, "linear") == 0) {
        rope->scaling = LM_ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        read_yarn(r, rope);
    } else if (strcmp(type, "llama3") == 0) {
        rope->scaling = LM_ROPE_LLAMA3;
        rope->low_freq_factor = lm_json_number(r, "low_freq_factor", 1);
        rope->high_freq_factor = lm_json_number(r, "high_freq_factor", 4);
    } else {
        fail(r, LM_ERROR_UNSUPPORTED, "only RoPE scaling default, linear, yarn and llama3 are supported, not", type);
    }
}

static void read_rope(reader *r, lm_config *c)
{
    lm_rope *rope = &c->rope;
    rope->layout = PRISM_ROPE_HALF_SPLIT;
    rope->n_ctx_original = c->n_ctx_train;
    rope->base = lm_json_number(r, "rope_theta", rope->base);
    rope->n_dim = c->d_head;
    double partial = lm_json_number(r, "partial_rotary_factor", 1);
    const cJSON *parameters = lm_json_get(r->object, "rope_parameters");
    const cJSON *scaling = parameters ? parameters : lm_json_get(r->object, "rope_scaling");
    if (!r->failed && scaling && !cJSON_IsObject(scaling))
        fail(r, LM_ERROR_INPUT, "must be an object:", scaling == parameters ? "rope_parameters" : "rope_scaling");
    if (!r->failed && scaling) {
        const cJSON *item;
        cJSON_ArrayForEach(item, scaling) if (cJSON_IsObject(item)) fail(
            r, LM_ERROR_UNSUPPORTED, "RoPE parameters that differ between layers are not supported:", item->string);
        reader inner = {.object = scaling, .where = r->where, .err = r->err, .failed = r->failed};
        rope->base = lm_json_number(&inner, "rope_theta", rope->base);
        partial = lm_json_number(&inner, "partial_rotary_factor", partial);
        read_scaling(&inner, rope);
        r->failed = inner.failed;
    }
    if (!r->failed && partial != 1)
        fail(r, LM_ERROR_UNSUPPORTED, "the family rotates whole heads, not a part of them:", "partial_rotary_factor");
}

/* value: an id, a list of ids, or NULL. */
static void read_eos(reader *r, lm_config *c, const cJSON *value)
{
    const cJSON *item = cJSON_IsArray(value) ? value->child : value;
    for (; item && !r->failed; item = cJSON_IsArray(value) ? item->next : NULL) {
        uint64_t id;
        if (!lm_json_u53(item, &id) || id >= (uint64_t)c->n_vocab)
            fail(r, LM_ERROR_INPUT, "not an id of the vocabulary:", "eos_token_id");
        else
            lm_config_add_eos(c, (int64_t)id);
    }
}

/* Refuses a key that is neither false, 0, null nor absent. */
static void refuse(reader *r, const char *key)
{
    const cJSON *value = lm_json_get(r->object, key);
    if (value && !cJSON_IsFalse(value) && !(cJSON_IsNumber(value) && value->valuedouble == 0))
        fail(r, LM_ERROR_UNSUPPORTED, "not supported:", key);
}

static void read_family(reader *r, lm_config *c)
{
    const char *type = lm_json_text(r, "model_type", "");
    if (r->failed)
        return;
    c->family = lm_family_find(NULL, type);
    if (!c->family) {
        char names[200], text[240];
        lm_family_names(false, names, sizeof names);
        snprintf(text, sizeof text, "only model_type %s are supported, not", names);
        fail(r, LM_ERROR_UNSUPPORTED, text, type);
        return;
    }
    const char *activation = lm_json_text(r, "hidden_act", "silu");
    if (!r->failed && strcmp(activation, "silu") != 0)
        fail(r, LM_ERROR_UNSUPPORTED, "only hidden_act silu is supported, not", activation);
    for (const char *const *key = c->family->refused_hf; key && *key; key++)
        refuse(r, *key);
    if (!lm_json_bool(r, "is_causal", true))
        fail(r, LM_ERROR_UNSUPPORTED, "attention must be causal:", "is_causal");
    const bool asked = c->family->bias_key && lm_json_bool(r, "attention_bias", false);
    c->qkv_bias = asked || c->family->qkv_bias ? LM_REQUIRED : LM_ABSENT;
    c->o_bias = asked ? LM_REQUIRED : LM_ABSENT;
    if (lm_json_get(r->object, "quantization_config"))
        fail(r, LM_ERROR_UNSUPPORTED,
             "quantised checkpoints are not supported; use the original, or a Q8_0 GGUF:", "quantization_config");
}

/* Whether a layer has a window, by a list of the layers' types. */
static bool has_windowed_layer(reader *r, const cJSON *types)
{
    bool has = false;
    const cJSON *type;
    cJSON_ArrayForEach(type, types)
    {
        const char *name = cJSON_IsString(type) ? type->valuestring : "?";
        has = has || strcmp(name, "sliding_attention") == 0;
        if (!has && strcmp(name, "full_attention") != 0)
            fail(r, LM_ERROR_UNSUPPORTED, "layer_types must be full_attention or sliding_attention, not", name);
    }
    return has;
}

static void check_window(reader *r, const lm_config *c)
{
    const lm_window kind = c->family ? c->family->hf_window : LM_WINDOW_NEVER;
    const cJSON *types = kind == LM_WINDOW_UPPER ? lm_json_get(r->object, "layer_types") : NULL;
    bool windowed = kind == LM_WINDOW_EVERY;
    if (types)
        windowed = has_windowed_layer(r, types);
    else if (kind == LM_WINDOW_UPPER)
        windowed = lm_json_bool(r, "use_sliding_window", false) &&
                   lm_json_int(r, "max_window_layers", 0, INT32_MAX, 28) < c->n_layer;
    if (r->failed || !windowed || cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(r->object, "sliding_window")))
        return;
    const int64_t window = lm_json_int(r, "sliding_window", 0, INT32_MAX, 4096);
    if (!r->failed && window < c->n_ctx_train) {
        lm_fail(r->err, LM_ERROR_UNSUPPORTED,
                "%s: layers attend to a window of %lld tokens (sliding_window), which this runner does not compute",
                r->where, (long long)window);
        r->failed = true;
    }
}

static int32_t required(reader *r, const char *key, int64_t max)
{
    const int64_t v = lm_json_int(r, key, 1, max, 0);
    if (!r->failed && v == 0)
        fail(r, LM_ERROR_INPUT, "has no", key);
    return (int32_t)v;
}

bool lm_config_decide_bos(lm_config *config, const cJSON *tokenizer_config, bool adds_bos, const char *where,
                          lm_error *err)
{
    reader r = {.object = tokenizer_config, .where = where, .err = err};
    const bool add = lm_json_bool(&r, "add_bos_token", adds_bos || (!tokenizer_config && config->bos_id >= 0));
    config->add_bos = add && config->bos_id >= 0;
    return !r.failed;
}

bool lm_config_from_json(const cJSON *config, const cJSON *generation, const char *where, lm_config *out, lm_error *err)
{
    if (!cJSON_IsObject(config))
        return lm_fail(err, LM_ERROR_INPUT, "%s: is not a JSON object", where);
    reader r = {.object = config, .where = where, .err = err};
    lm_config c;
    lm_config_defaults(&c);
    read_family(&r, &c);
    c.n_layer = required(&r, "num_hidden_layers", 1 << 16);
    c.d_model = required(&r, "hidden_size", 1 << 24);
    c.d_ff = required(&r, "intermediate_size", 1 << 24);
    c.n_head = required(&r, "num_attention_heads", 1 << 16);
    c.n_vocab = required(&r, "vocab_size", 1 << 24);
    c.n_kv_head = (int32_t)lm_json_int(&r, "num_key_value_heads", 1, 1 << 16, c.n_head);
    int32_t d_head = c.family ? c.family->d_head : 0;
    if (d_head == 0 && c.n_head)
        d_head = c.d_model / c.n_head;
    c.d_head = (int32_t)lm_json_int(&r, "head_dim", 1, 1 << 16, d_head);
    c.n_ctx_train = (int32_t)lm_json_int(&r, "max_position_embeddings", 1, INT32_MAX, c.n_ctx_train);
    c.rms_eps = (float)lm_json_number(&r, "rms_norm_eps", 1e-6);
    c.tied = lm_json_bool(&r, "tie_word_embeddings", false);
    c.bos_id = (int32_t)lm_json_int(&r, "bos_token_id", 0, (int64_t)c.n_vocab - 1, -1);
    c.pad_id = (int32_t)lm_json_int(&r, "pad_token_id", -1, (int64_t)c.n_vocab - 1, -1);
    check_window(&r, &c);
    read_rope(&r, &c);
    read_eos(&r, &c, lm_json_get(config, "eos_token_id"));
    read_eos(&r, &c, lm_json_get(generation, "eos_token_id"));
    if (r.failed || !lm_config_check(&c, where, err))
        return false;
    *out = c;
    return true;
}
