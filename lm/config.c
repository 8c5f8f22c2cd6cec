#include "config.h"
#include "tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Far above any model; below it no product of two dimensions overflows. */
enum { MAX_LAYER = 1024, MAX_WIDTH = 1 << 20, MAX_HEAD = 4096, MAX_VOCAB = 1 << 24 };

static bool range(const char *where, const char *what, int64_t value, int64_t min, int64_t max, lm_error *err)
{
    if (value >= min && value <= max)
        return true;
    return lm_fail(err, LM_ERROR_INPUT, "%s: %s is %lld; must be from %lld to %lld", where, what, (long long)value,
                   (long long)min, (long long)max);
}

/* Checks that hold for both file formats. */
static bool check_shape(const lm_config *c, const char *where, lm_error *err)
{
    if (!range(where, "the number of layers", c->n_layer, 1, MAX_LAYER, err) ||
        !range(where, "the hidden size", c->d_model, 1, MAX_WIDTH, err) ||
        !range(where, "the MLP size", c->d_ff, 1, MAX_WIDTH, err) ||
        !range(where, "the number of heads", c->n_head, 1, MAX_HEAD, err) ||
        !range(where, "the number of KV heads", c->n_kv_head, 1, c->n_head, err) ||
        !range(where, "the size of a head", c->d_head, 2, PRISM_MAX_D_HEAD, err) ||
        !range(where, "the number of rotated dimensions", c->rope.n_dim, 2, c->d_head, err))
        return false;
    if (c->n_head % c->n_kv_head)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %d heads are no multiple of %d KV heads", where, c->n_head,
                       c->n_kv_head);
    if (c->rope.n_dim % 2)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %d rotated dimensions do not make pairs", where, c->rope.n_dim);
    if (!(c->rms_eps > 0 && c->rms_eps < 1))
        return lm_fail(err, LM_ERROR_INPUT, "%s: the epsilon of the norms is %g; must be in (0, 1)", where,
                       (double)c->rms_eps);
    return true;
}

static bool check_rope(const lm_config *c, const char *where, lm_error *err)
{
    const lm_rope *r = &c->rope;
    if (!(r->base > 1 && r->base < 1e15))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE base %g; must be above 1", where, r->base);
    if (!(r->factor >= 1 && r->factor <= 1e6))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE scaling factor %g; must be from 1 to 1e6", where, r->factor);
    if ((r->scaling == LM_ROPE_YARN || r->scaling == LM_ROPE_LLAMA3) && !(r->n_ctx_original >= 1))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE scaling needs the original context length", where);
    if (!(r->attention_factor > 0 && r->attention_factor < 100))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE attention factor %g is out of range", where, r->attention_factor);
    if (r->scaling == LM_ROPE_YARN && !(r->beta_fast > r->beta_slow && r->beta_slow > 0))
        return lm_fail(err, LM_ERROR_INPUT, "%s: YaRN needs beta_fast > beta_slow > 0; they are %g and %g", where,
                       r->beta_fast, r->beta_slow);
    if (r->scaling == LM_ROPE_LLAMA3 && !(r->high_freq_factor > r->low_freq_factor && r->low_freq_factor > 0))
        return lm_fail(err, LM_ERROR_INPUT, "%s: llama3 scaling needs high_freq_factor > low_freq_factor > 0", where);
    return true;
}

void lm_config_defaults(lm_config *c)
{
    *c = (lm_config){.n_ctx_train = 2048, .bos_id = -1, .pad_id = -1};
    c->rope = (lm_rope){.base = 10000,
                        .factor = 1,
                        .beta_fast = 32,
                        .beta_slow = 1,
                        .truncate = true,
                        .attention_factor = 1,
                        .low_freq_factor = 1,
                        .high_freq_factor = 4};
}

void lm_config_add_eos(lm_config *c, int64_t id)
{
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos_id[i] == id)
            return;
    if (id >= 0 && c->n_eos < LM_MAX_EOS)
        c->eos_id[c->n_eos++] = (int32_t)id;
}

bool lm_config_check(const lm_config *c, const char *where, lm_error *err)
{
    return check_shape(c, where, err) && check_rope(c, where, err);
}

/* --------------------------------------------------------------------------------------------- GGUF ---- */

/* A reader that remembers its first failure, so that thirty keys do not need thirty ifs. Keys are "<family>.<name>". */
typedef struct reader {
    const lm_gguf *gguf;
    const char *prefix, *where;
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

static int32_t get_int(reader *r, const char *name, int32_t fallback)
{
    int64_t v = fallback;
    r->failed = r->failed || !lm_gguf_int(r->gguf, key_of(r, name).text, INT32_MIN, INT32_MAX, &v, r->err);
    return (int32_t)v;
}

static int32_t required(reader *r, const char *name)
{
    if (!r->failed && !lm_gguf_value_find(r->gguf, key_of(r, name).text))
        fail(r, LM_ERROR_INPUT, "%s: has no metadata key %s", r->where, key_of(r, name).text);
    return get_int(r, name, 0);
}

static double get_number(reader *r, const char *name, double fallback)
{
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

static void refuse(reader *r, const char *name)
{
    const int32_t v = get_int(r, name, 0);
    if (!r->failed && v != 0)
        fail(r, LM_ERROR_UNSUPPORTED, "%s: %s is %d, which this runner does not compute", r->where,
                             key_of(r, name).text, v);
}

static void read_scaling(reader *r, lm_rope *rope)
{
    char type[32] = "none";
    const double scale_linear = get_number(r, "rope.scale_linear", 0); /* the old spelling */
    const double attention = get_number(r, "rope.scaling.attn_factor", 1);
    get_string(r, key_of(r, "rope.scaling.type").text, type, sizeof type);
    rope->factor = get_number(r, "rope.scaling.factor", 1);
    rope->n_ctx_original = get_number(r, "rope.scaling.original_context_length", rope->n_ctx_original);
    rope->beta_fast = get_number(r, "rope.scaling.yarn_beta_fast", rope->beta_fast);
    rope->beta_slow = get_number(r, "rope.scaling.yarn_beta_slow", rope->beta_slow);
    if (r->failed)
        return;
    const bool factors = lm_gguf_tensor(r->gguf, "rope_freqs.weight") != NULL;
    if (scale_linear > 1 && !lm_gguf_value_find(r->gguf, key_of(r, "rope.scaling.type").text)) {
        rope->scaling = LM_ROPE_LINEAR;
        rope->factor = scale_linear;
    } else if (strcmp(type, "linear") == 0) {
        rope->scaling = LM_ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        rope->scaling = LM_ROPE_YARN;
        rope->attention_factor = attention * (1 + 0.1 * log(rope->factor > 1 ? rope->factor : 1));
    } else if (strcmp(type, "none") != 0) {
        fail(r, LM_ERROR_UNSUPPORTED,
                             "%s: RoPE scaling \"%s\" is not supported (none, linear, yarn are)", r->where, type);
    }
    if (!r->failed && factors && rope->scaling != LM_ROPE_NONE)
        fail(r, LM_ERROR_UNSUPPORTED, "%s: has rope_freqs.weight and scaling \"%s\" at once",
                             r->where, type);
    if (rope->scaling == LM_ROPE_NONE)
        rope->factor = 1;
    if (factors)
        rope->scaling = LM_ROPE_FACTORS;
}

static void read_tokens(reader *r, lm_config *c)
{
    c->bos_id = get_token(r, "tokenizer.ggml.bos_token_id", c->n_vocab);
    c->pad_id = get_token(r, "tokenizer.ggml.padding_token_id", c->n_vocab);
    lm_config_add_eos(c, get_token(r, "tokenizer.ggml.eos_token_id", c->n_vocab));
    lm_config_add_eos(c, get_token(r, "tokenizer.ggml.eot_token_id", c->n_vocab));
    /* Older files lack the key: their pre-tokenizer tells. */
    char pre[32] = "";
    get_string(r, "tokenizer.ggml.pre", pre, sizeof pre);
    c->add_bos = lm_tokenizer_pre_adds_bos(pre);
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
        fail(r, LM_ERROR_UNSUPPORTED,
                             "%s: keys of %d and values of %d dimensions: they must be equal", r->where, c->d_head,
                             d_value);
}

bool lm_config_from_gguf(const lm_gguf *g, const char *where, lm_config *out, lm_error *err)
{
    lm_config c;
    lm_config_defaults(&c);
    char arch[64] = "", name[256] = "", names[200];
    if (!lm_gguf_string(g, "general.architecture", arch, sizeof arch, err))
        return false;
    c.family = lm_family_find(arch, NULL);
    if (!c.family)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: architecture \"%s\" is not supported (%s are)", where, arch,
                       lm_family_names(true, names, sizeof names));
    const lm_tensor *embedding = lm_gguf_tensor(g, "token_embd.weight");
    if (!embedding || embedding->n_dim != 2)
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no matrix token_embd.weight", where);
    if (!range(where, "the vocabulary", embedding->dim[0], 1, MAX_VOCAB, err))
        return false;
    c.n_vocab = (int32_t)embedding->dim[0];
    c.tied = !lm_gguf_tensor(g, "output.weight");
    reader r = {.gguf = g, .prefix = c.family->gguf, .where = where, .err = err};
    read_sizes(&r, &c);
    get_string(&r, "general.name", name, sizeof name);
    memcpy(c.name, name, sizeof c.name - 1);
    for (const char *const *key = c.family->refused_gguf; *key; key++)
        refuse(&r, *key);
    c.rope.layout = c.family->gguf_layout;
    c.rope.n_dim = get_int(&r, "rope.dimension_count", c.d_head);
    c.rope.base = get_number(&r, "rope.freq_base", c.rope.base);
    c.rope.n_ctx_original = c.n_ctx_train;
    read_scaling(&r, &c.rope);
    read_tokens(&r, &c);
    if (r.failed || !lm_config_check(&c, where, err))
        return false;
    *out = c;
    return true;
}
