/* GGUF metadata -> lm_config. */
#include "config.h"
#include "tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys of a family, without its prefix, that are not read: they leave the computation alone, whatever they say, or at
 * one value. Every other key that is not read is refused, unless it is 0, false or an empty list: what it means cannot be
 * known here, and a model computed without it would be another model. */
static const struct neutral {
    const char *name;
    bool always;
    double at;
} neutral[] = {
    {"vocab_size", .always = true},             /* the embedding has that many rows */
    {"tensor_data_layout", .always = true},     /* how the original file had q and k; GGUF has them one way */
    {"rope.scaling.finetuned", .always = true}, /* for people */
    {"expert_used_count", .always = true},      /* of expert_count, which is 0 */
    {"attention.causal", .at = 1},
    {"logit_scale", .at = 1},
    {"residual_scale", .at = 1},
    {"embedding_scale", .at = 1},
    {"rope.scaling.yarn_attn_factor", .at = 1},
    {"rope.scaling.yarn_ext_factor", .at = 1},
};

/* Remembers its first failure, so that thirty keys do not need thirty ifs, and the keys that it read. */
typedef struct reader {
    const lm_gguf *gguf;
    const char *prefix, *where; /* keys are "<prefix>.<name>" */
    bool *used;                 /* [values of the file] */
    lm_error *err;
    bool failed;
} reader;

#define fail(r, kind, ...) (lm_error_set((r)->err, kind, __VA_ARGS__), (r)->failed = true)

typedef struct family_key {
    char text[96];
} family_key;

static family_key key_of(const reader *r, const char *name)
{
    family_key key;
    snprintf(key.text, sizeof key.text, "%s.%s", r->prefix, name);
    return key;
}

/* The value of a family's key, which counts as read; NULL: there is none. */
static const lm_gguf_value *find(reader *r, const char *name)
{
    const lm_gguf_value *v = lm_gguf_value_find(r->gguf, key_of(r, name).text);
    if (v)
        r->used[v - lm_gguf_value_at(r->gguf, 0)] = true;
    return v;
}

static bool all_are(const lm_gguf_value *v, double x)
{
    for (uint64_t i = 0; i < v->n; i++)
        if (lm_gguf_value_number(v, i) != x)
            return false;
    return true;
}

/* An integer, or a list with one integer a layer if all layers agree. */
static int32_t get_int(reader *r, const char *name, int32_t fallback)
{
    const lm_gguf_value *v = find(r, name);
    if (r->failed || !v)
        return fallback;
    const double x = v->n ? lm_gguf_value_number(v, 0) : NAN;
    if (x != floor(x) || !(fabs(x) <= INT32_MAX))
        fail(r, LM_ERROR_INPUT, "%s: key %s must be an integer of 32 bits", r->where, v->key);
    else if (!all_are(v, x))
        fail(r, LM_ERROR_UNSUPPORTED, "%s: key %s differs between layers, which this runner does not compute", r->where,
             v->key);
    return r->failed ? fallback : (int32_t)x;
}

static int32_t required(reader *r, const char *name)
{
    if (!r->failed && !find(r, name))
        fail(r, LM_ERROR_INPUT, "%s: has no metadata key %s", r->where, key_of(r, name).text);
    return get_int(r, name, 0);
}

static double get_number(reader *r, const char *name, double fallback)
{
    find(r, name);
    r->failed = r->failed || !lm_gguf_number(r->gguf, key_of(r, name).text, &fallback, r->err);
    return fallback;
}

static void get_string(reader *r, const char *key, char *out, size_t n)
{
    r->failed = r->failed || !lm_gguf_string(r->gguf, key, out, n, r->err);
}

static int32_t get_token(reader *r, const char *key, int32_t n_vocab)
{
    int64_t id = -1;
    r->failed = r->failed || !lm_gguf_int(r->gguf, key, 0, (int64_t)n_vocab - 1, &id, r->err);
    return (int32_t)id;
}

static void read_scaling(reader *r, lm_rope *rope)
{
    char type[32] = "linear";                                   /* what a file means that has a factor alone */
    const double scale = get_number(r, "rope.scale_linear", 1); /* the old spelling of the factor */
    const double attention = get_number(r, "rope.scaling.attn_factor", 1);
    find(r, "rope.scaling.type");
    get_string(r, key_of(r, "rope.scaling.type").text, type, sizeof type);
    rope->factor = get_number(r, "rope.scaling.factor", scale);
    rope->n_ctx_original = get_number(r, "rope.scaling.original_context_length", rope->n_ctx_original);
    rope->beta_fast = get_number(r, "rope.scaling.yarn_beta_fast", rope->beta_fast);
    rope->beta_slow = get_number(r, "rope.scaling.yarn_beta_slow", rope->beta_slow);
    if (r->failed)
        return;
    if (strcmp(type, "none") == 0 || rope->factor == 0)
        rope->factor = 1;
    if (strcmp(type, "yarn") == 0) {
        rope->scaling = LM_ROPE_YARN;
        rope->attention_factor = attention * (1 + 0.1 * log(rope->factor > 1 ? rope->factor : 1));
    } else if (strcmp(type, "linear") == 0 && rope->factor != 1) {
        rope->scaling = LM_ROPE_LINEAR;
    } else if (strcmp(type, "none") != 0 && strcmp(type, "linear") != 0) {
        fail(r, LM_ERROR_UNSUPPORTED, "%s: RoPE scaling \"%s\" is not supported (none, linear, yarn are)", r->where,
             type);
    }
    if (!r->failed && rope->scaling != LM_ROPE_YARN && attention != 1)
        fail(r, LM_ERROR_UNSUPPORTED, "%s: key %s is %g, which this runner computes with yarn only", r->where,
             key_of(r, "rope.scaling.attn_factor").text, attention);
}

/* llama3 scaling: a tensor. */
static void read_factors(reader *r, lm_rope *rope)
{
    if (r->failed || !lm_gguf_tensor(r->gguf, "rope_freqs.weight"))
        return;
    if (rope->scaling != LM_ROPE_NONE)
        fail(r, LM_ERROR_UNSUPPORTED, "%s: has rope_freqs.weight and another RoPE scaling at once", r->where);
    rope->scaling = LM_ROPE_FACTORS;
}

const char *const lm_eos_keys[LM_N_EOS_KEY] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                               "tokenizer.ggml.eom_token_id"};

static void read_tokens(reader *r, lm_config *c)
{
    char model[32] = "", pre[64] = "";
    get_string(r, "tokenizer.ggml.model", model, sizeof model);
    get_string(r, "tokenizer.ggml.pre", pre, sizeof pre);
    c->bos_id = get_token(r, "tokenizer.ggml.bos_token_id", c->n_vocab);
    c->pad_id = get_token(r, "tokenizer.ggml.padding_token_id", c->n_vocab);
    for (int i = 0; i < LM_N_EOS_KEY; i++)
        lm_config_add_eos(c, get_token(r, lm_eos_keys[i], c->n_vocab));
    /* Where a SentencePiece file does not say, it has the ids of Llama 2. */
    const bool llama2 = strcmp(model, "llama") == 0 && c->n_vocab > 2;
    if (llama2 && c->bos_id < 0)
        c->bos_id = 1;
    if (llama2 && c->n_eos == 0)
        lm_config_add_eos(c, 2);
    /* Older files lack the key: their kind of tokenizer tells. */
    c->add_bos = llama2 || lm_tokenizer_pre_adds_bos(pre);
    r->failed = r->failed || !lm_gguf_bool(r->gguf, "tokenizer.ggml.add_bos_token", &c->add_bos, r->err);
    if (!r->failed && c->add_bos && c->bos_id < 0)
        fail(r, LM_ERROR_INPUT, "%s: asks for a BOS token but names none", r->where);
}

static void read_sizes(reader *r, lm_config *c)
{
    c->n_layer = required(r, "block_count");
    c->d_model = required(r, "embedding_length");
    c->d_ff = required(r, "feed_forward_length");
    c->n_head = required(r, "attention.head_count");
    c->n_ctx_train = get_int(r, "context_length", c->n_ctx_train);
    c->rms_eps = (float)get_number(r, "attention.layer_norm_rms_epsilon", 0);
    c->n_kv_head = get_int(r, "attention.head_count_kv", c->n_head);
    c->d_head = get_int(r, "attention.key_length", c->n_head > 0 ? c->d_model / c->n_head : 0);
    const int32_t d_value = get_int(r, "attention.value_length", c->d_head);
    if (!r->failed && d_value != c->d_head)
        fail(r, LM_ERROR_UNSUPPORTED, "%s: keys of %d and values of %d dimensions: they must be equal", r->where,
             c->d_head, d_value);
}

/* Whether a key that was not read leaves the computation alone. */
static bool is_neutral(const lm_gguf_value *v, const char *name, const lm_config *c)
{
    double at = 0;
    for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++)
        if (strcmp(name, neutral[i].name) == 0) {
            if (neutral[i].always)
                return true;
            at = neutral[i].at;
        }
    if (v->type == LM_GGUF_STRING)
        return v->n == 0;
    if (strcmp(name, "attention.sliding_window") == 0 && v->n == 1 && lm_gguf_value_number(v, 0) >= c->n_ctx_train)
        return true; /* it covers the whole context */
    if (strcmp(name, "attention.scale") == 0 && v->n == 1 &&
        fabs(lm_gguf_value_number(v, 0) * sqrt(c->d_head) - 1) < 1e-6)
        return true; /* the usual scale */
    return all_are(v, at);
}

/* Refuses what nobody read. */
static void check_rest(reader *r, const lm_config *c)
{
    const size_t n_prefix = strlen(r->prefix);
    for (size_t i = 0; !r->failed && i < lm_gguf_value_count(r->gguf); i++) {
        const lm_gguf_value *v = lm_gguf_value_at(r->gguf, i);
        if (r->used[i] || strncmp(v->key, r->prefix, n_prefix) != 0 || v->key[n_prefix] != '.' ||
            is_neutral(v, v->key + n_prefix + 1, c))
            continue;
        char value[32] = "set";
        if (!v->is_array && v->type != LM_GGUF_STRING)
            snprintf(value, sizeof value, "%g", lm_gguf_value_number(v, 0));
        fail(r, LM_ERROR_UNSUPPORTED, "%s: key %s is %s, which this runner does not compute", r->where, v->key, value);
    }
}

static void read_model(reader *r, lm_config *c)
{
    char name[256] = "";
    read_sizes(r, c);
    get_string(r, "general.name", name, sizeof name);
    memcpy(c->name, name, sizeof c->name - 1);
    c->qkv_bias = c->family->qkv_bias ? LM_REQUIRED : LM_OPTIONAL;
    c->o_bias = LM_OPTIONAL;
    c->rope.layout = c->family->gguf_layout;
    c->rope.n_dim = get_int(r, "rope.dimension_count", c->d_head);
    c->rope.base = get_number(r, "rope.freq_base", c->rope.base);
    c->rope.n_ctx_original = c->n_ctx_train;
    read_scaling(r, &c->rope);
    if (c->family->gguf_factors)
        read_factors(r, &c->rope);
    read_tokens(r, c);
    check_rest(r, c);
}

bool lm_config_from_gguf(const lm_gguf *g, const char *where, lm_config *out, lm_error *err)
{
    lm_config c;
    lm_config_defaults(&c);
    char arch[64] = "", names[200];
    if (!lm_gguf_string(g, "general.architecture", arch, sizeof arch, err))
        return false;
    c.family = lm_family_find(arch, NULL);
    if (!c.family)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: architecture \"%s\" is not supported (%s are)", where, arch,
                       lm_family_names(true, names, sizeof names));
    if (lm_gguf_tensor_count(g) == 0)
        return lm_fail(err, LM_ERROR_INPUT, "%s: holds no tensors: a vocabulary or a description, not a model", where);
    const lm_tensor *embedding = lm_gguf_tensor(g, "token_embd.weight");
    if (!embedding || embedding->n_dim != 2 || embedding->dim[0] > INT32_MAX)
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no matrix token_embd.weight", where);
    c.n_vocab = (int32_t)embedding->dim[0];
    c.tied = !lm_gguf_tensor(g, "output.weight");
    reader r = {.gguf = g, .prefix = c.family->gguf, .where = where, .err = err};
    r.used = calloc(lm_gguf_value_count(g) + 1, sizeof *r.used);
    if (!r.used)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", where);
    read_model(&r, &c);
    free(r.used);
    if (r.failed || !lm_config_check(&c, where, err))
        return false;
    *out = c;
    return true;
}
