#include "config.h"

#include <math.h>
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

static void add_eos(lm_config *c, int64_t id)
{
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos_id[i] == id)
            return;
    if (c->n_eos < LM_MAX_EOS)
        c->eos_id[c->n_eos++] = (int32_t)id;
}

bool lm_config_check(const lm_config *c, const char *where, lm_error *err)
{
    return check_shape(c, where, err) && check_rope(c, where, err);
}

/* --------------------------------------------------------------------------------------------- GGUF ---- */

static const char *const architectures[] = {"qwen3", "llama"};

static bool known_architecture(const char *name)
{
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (strcmp(architectures[i], name) == 0)
            return true;
    return false;
}

/* "<arch>.<key>" */
typedef struct arch_key {
    char text[96];
} arch_key;

static const char *key_of(arch_key *key, const lm_config *c, const char *name)
{
    const size_t n = strlen(c->arch), m = strlen(name);
    memcpy(key->text, c->arch, n);
    key->text[n] = '.';
    memcpy(key->text + n + 1, name, m + 1);
    return key->text;
}

static bool gguf_int(const lm_gguf *g, const lm_config *c, const char *name, int32_t *out, bool required,
                     const char *where, lm_error *err)
{
    arch_key key;
    int64_t v = *out;
    if (!lm_gguf_int(g, key_of(&key, c, name), INT32_MIN, INT32_MAX, &v, err))
        return false;
    if (required && !lm_gguf_value_find(g, key.text))
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no metadata key %s", where, key.text);
    *out = (int32_t)v;
    return true;
}

static bool gguf_number(const lm_gguf *g, const lm_config *c, const char *name, double *out, lm_error *err)
{
    arch_key key;
    return lm_gguf_number(g, key_of(&key, c, name), out, err);
}

static bool gguf_refuse(const lm_gguf *g, const lm_config *c, const char *name, const char *where, lm_error *err)
{
    int32_t v = 0;
    if (!gguf_int(g, c, name, &v, false, where, err))
        return false;
    return v == 0 || lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: %s.%s is %d, which this runner does not compute", where,
                             c->arch, name, v);
}

static bool gguf_rope(const lm_gguf *g, const char *where, lm_config *c, lm_error *err)
{
    lm_rope *r = &c->rope;
    r->layout = strcmp(c->arch, "llama") == 0 ? PRISM_ROPE_INTERLEAVED : PRISM_ROPE_HALF_SPLIT;
    r->n_dim = c->d_head;
    r->n_ctx_original = c->n_ctx_train;
    char type[32] = "none";
    arch_key key;
    double scale_linear = 0, attention = 1;
    if (!gguf_int(g, c, "rope.dimension_count", &r->n_dim, false, where, err) ||
        !gguf_number(g, c, "rope.freq_base", &r->base, err) ||
        !lm_gguf_string(g, key_of(&key, c, "rope.scaling.type"), type, sizeof type, err) ||
        !gguf_number(g, c, "rope.scale_linear", &scale_linear, err) || /* the old spelling */
        !gguf_number(g, c, "rope.scaling.factor", &r->factor, err) ||
        !gguf_number(g, c, "rope.scaling.original_context_length", &r->n_ctx_original, err) ||
        !gguf_number(g, c, "rope.scaling.yarn_beta_fast", &r->beta_fast, err) ||
        !gguf_number(g, c, "rope.scaling.yarn_beta_slow", &r->beta_slow, err) ||
        !gguf_number(g, c, "rope.scaling.attn_factor", &attention, err))
        return false;
    if (scale_linear > 1 && !lm_gguf_value_find(g, key.text)) {
        r->scaling = LM_ROPE_LINEAR;
        r->factor = scale_linear;
    } else if (strcmp(type, "linear") == 0) {
        r->scaling = LM_ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        r->scaling = LM_ROPE_YARN;
        r->attention_factor = attention * (1 + 0.1 * log(r->factor > 1 ? r->factor : 1));
    } else if (strcmp(type, "none") != 0) {
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: RoPE scaling \"%s\" is not supported (none, linear, yarn are)",
                       where, type);
    }
    if (lm_gguf_tensor(g, "rope_freqs.weight")) {
        if (r->scaling != LM_ROPE_NONE)
            return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: has rope_freqs.weight and scaling \"%s\" at once", where,
                           type);
        r->scaling = LM_ROPE_FACTORS;
    }
    if (r->scaling == LM_ROPE_NONE || r->scaling == LM_ROPE_FACTORS)
        r->factor = 1;
    return true;
}

static bool gguf_tokens(const lm_gguf *g, const char *where, lm_config *c, lm_error *err)
{
    int64_t bos = -1, eos = -1, eot = -1, pad = -1;
    const int64_t max = (int64_t)c->n_vocab - 1;
    if (!lm_gguf_int(g, "tokenizer.ggml.bos_token_id", 0, max, &bos, err) ||
        !lm_gguf_int(g, "tokenizer.ggml.eos_token_id", 0, max, &eos, err) ||
        !lm_gguf_int(g, "tokenizer.ggml.eot_token_id", 0, max, &eot, err) ||
        !lm_gguf_int(g, "tokenizer.ggml.padding_token_id", 0, max, &pad, err) ||
        !lm_gguf_bool(g, "tokenizer.ggml.add_bos_token", &c->add_bos, err))
        return false;
    c->bos_id = (int32_t)bos;
    c->pad_id = (int32_t)pad;
    if (eos >= 0)
        add_eos(c, eos);
    if (eot >= 0)
        add_eos(c, eot);
    /* Llama 3 files from before the key existed: their pre-tokenizer is known to start texts with BOS. */
    char pre[32] = "";
    const lm_gguf_value *v = lm_gguf_value_find(g, "tokenizer.ggml.pre");
    if (v && !lm_gguf_string(g, "tokenizer.ggml.pre", pre, sizeof pre, err))
        return false;
    if (!lm_gguf_value_find(g, "tokenizer.ggml.add_bos_token"))
        c->add_bos = strcmp(pre, "llama-bpe") == 0 || strcmp(pre, "llama3") == 0;
    if (c->add_bos && c->bos_id < 0)
        return lm_fail(err, LM_ERROR_INPUT, "%s: asks for a BOS token but names none", where);
    return true;
}

bool lm_config_from_gguf(const lm_gguf *g, const char *where, lm_config *out, lm_error *err)
{
    lm_config c;
    lm_config_defaults(&c);
    char arch[64] = "";
    if (!lm_gguf_string(g, "general.architecture", arch, sizeof arch, err))
        return false;
    if (!known_architecture(arch))
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: architecture \"%s\" is not supported (qwen3 and llama are)",
                       where, arch);
    memcpy(c.arch, arch, strlen(arch) + 1);
    const lm_tensor *embedding = lm_gguf_tensor(g, "token_embd.weight");
    if (!embedding || embedding->n_dim != 2)
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no matrix token_embd.weight", where);
    if (!range(where, "the vocabulary", embedding->dim[0], 1, MAX_VOCAB, err))
        return false;
    c.n_vocab = (int32_t)embedding->dim[0];
    c.tied = !lm_gguf_tensor(g, "output.weight");
    c.qk_norm = strcmp(arch, "qwen3") == 0;
    double eps = 0;
    if (!gguf_int(g, &c, "block_count", &c.n_layer, true, where, err) ||
        !gguf_int(g, &c, "embedding_length", &c.d_model, true, where, err) ||
        !gguf_int(g, &c, "feed_forward_length", &c.d_ff, true, where, err) ||
        !gguf_int(g, &c, "attention.head_count", &c.n_head, true, where, err) ||
        !gguf_int(g, &c, "context_length", &c.n_ctx_train, false, where, err) ||
        !gguf_number(g, &c, "attention.layer_norm_rms_epsilon", &eps, err))
        return false;
    c.rms_eps = (float)eps;
    c.n_kv_head = c.n_head;
    c.d_head = c.n_head > 0 ? c.d_model / c.n_head : 0;
    int32_t d_value;
    char name[256] = "";
    if (!gguf_int(g, &c, "attention.head_count_kv", &c.n_kv_head, false, where, err) ||
        !gguf_int(g, &c, "attention.key_length", &c.d_head, false, where, err) ||
        !lm_gguf_string(g, "general.name", name, sizeof name, err))
        return false;
    memcpy(c.name, name, sizeof c.name - 1);
    d_value = c.d_head;
    if (!gguf_int(g, &c, "attention.value_length", &d_value, false, where, err) ||
        !gguf_refuse(g, &c, "expert_count", where, err) ||
        !gguf_refuse(g, &c, "attention.sliding_window", where, err) || !gguf_rope(g, where, &c, err))
        return false;
    if (d_value != c.d_head)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: keys of %d and values of %d dimensions: they must be equal",
                       where, c.d_head, d_value);
    if (!gguf_tokens(g, where, &c, err) || !lm_config_check(&c, where, err))
        return false;
    *out = c;
    return true;
}
