#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the tensors come from and what has gone wrong so far: after the first failure the rest is skipped. */
typedef struct source {
    const lm_safetensors *st;
    const lm_gguf *gguf;
    const char *where;
    lm_weights *weights;
    bool *taken; /* [tensors of the file] */
    lm_error *err;
    bool failed;
} source;

/* Tensors that are not used, and why that is right. Every other tensor that nobody takes is an error: it belongs to a
 * model that is not computed here. */
static const char *const unused_endings[] = {
    ".rotary_emb.inv_freq", /* old checkpoints: config.json says it */
};

enum {
    NAME_EMBEDDING,
    NAME_OUTPUT_NORM,
    NAME_OUTPUT,
    NAME_ATTN_NORM,
    NAME_FFN_NORM,
    NAME_Q,
    NAME_K,
    NAME_V,
    NAME_O,
    NAME_Q_NORM,
    NAME_K_NORM,
    NAME_Q_BIAS,
    NAME_K_BIAS,
    NAME_V_BIAS,
    NAME_O_BIAS,
    NAME_GATE,
    NAME_UP,
    NAME_DOWN,
    NAME_COUNT
};

static const lm_weight_name names[NAME_COUNT] = {
    [NAME_EMBEDDING] = {"model.embed_tokens.weight", "token_embd.weight"},
    [NAME_OUTPUT_NORM] = {"model.norm.weight", "output_norm.weight"},
    [NAME_OUTPUT] = {"lm_head.weight", "output.weight"},
    [NAME_ATTN_NORM] = {"model.layers.%d.input_layernorm.weight", "blk.%d.attn_norm.weight"},
    [NAME_FFN_NORM] = {"model.layers.%d.post_attention_layernorm.weight", "blk.%d.ffn_norm.weight"},
    [NAME_Q] = {"model.layers.%d.self_attn.q_proj.weight", "blk.%d.attn_q.weight"},
    [NAME_K] = {"model.layers.%d.self_attn.k_proj.weight", "blk.%d.attn_k.weight"},
    [NAME_V] = {"model.layers.%d.self_attn.v_proj.weight", "blk.%d.attn_v.weight"},
    [NAME_O] = {"model.layers.%d.self_attn.o_proj.weight", "blk.%d.attn_output.weight"},
    [NAME_Q_NORM] = {"model.layers.%d.self_attn.q_norm.weight", "blk.%d.attn_q_norm.weight"},
    [NAME_K_NORM] = {"model.layers.%d.self_attn.k_norm.weight", "blk.%d.attn_k_norm.weight"},
    [NAME_Q_BIAS] = {"model.layers.%d.self_attn.q_proj.bias", "blk.%d.attn_q.bias"},
    [NAME_K_BIAS] = {"model.layers.%d.self_attn.k_proj.bias", "blk.%d.attn_k.bias"},
    [NAME_V_BIAS] = {"model.layers.%d.self_attn.v_proj.bias", "blk.%d.attn_v.bias"},
    [NAME_O_BIAS] = {"model.layers.%d.self_attn.o_proj.bias", "blk.%d.attn_output.bias"},
    [NAME_GATE] = {"model.layers.%d.mlp.gate_proj.weight", "blk.%d.ffn_gate.weight"},
    [NAME_UP] = {"model.layers.%d.mlp.up_proj.weight", "blk.%d.ffn_up.weight"},
    [NAME_DOWN] = {"model.layers.%d.mlp.down_proj.weight", "blk.%d.ffn_down.weight"},
};

const lm_weight_name *lm_weight_names(size_t *n)
{
    *n = NAME_COUNT;
    return names;
}

void lm_weight_name_text(const char *pattern, int32_t layer, char *text, size_t n)
{
    const char *at = strstr(pattern, "%d");
    if (at)
        snprintf(text, n, "%.*s%d%s", (int)(at - pattern), pattern, layer, at + 2);
    else
        snprintf(text, n, "%s", pattern);
}

static const lm_tensor *tensor_at(const source *s, size_t i)
{
    return s->gguf ? lm_gguf_tensor_at(s->gguf, i) : lm_safetensors_at(s->st, i);
}

static size_t tensor_count(const source *s)
{
    return s->gguf ? lm_gguf_tensor_count(s->gguf) : lm_safetensors_count(s->st);
}

static const lm_tensor *find(const source *s, const char *name)
{
    const lm_tensor *t = s->gguf ? lm_gguf_tensor(s->gguf, name) : lm_safetensors_find(s->st, name);
    if (t)
        s->taken[t - tensor_at(s, 0)] = true;
    return t;
}

static bool is_unused(const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof unused_endings / sizeof *unused_endings; i++) {
        const size_t m = strlen(unused_endings[i]);
        if (n >= m && strcmp(name + n - m, unused_endings[i]) == 0)
            return true;
    }
    return false;
}

static void check_rest(source *s, const lm_config *c)
{
    for (size_t i = 0; !s->failed && i < tensor_count(s); i++) {
        const char *name = tensor_at(s, i)->name;
        if (s->taken[i] || is_unused(name))
            continue;
        lm_fail(s->err, LM_ERROR_UNSUPPORTED,
                "%s: tensor %s is not part of a %s model of %d layers as it is computed here", s->where, name,
                s->gguf ? c->family->gguf : c->family->hf, c->n_layer);
        s->failed = true;
    }
}

/* The tensor, checked; NULL if there is none, or on failure. n_dim 1: rows is 0. */
static const lm_tensor *take(source *s, const char *name, int32_t n_dim, int64_t rows, int64_t cols, lm_presence wanted)
{
    if (s->failed || wanted == LM_ABSENT)
        return NULL;
    const lm_tensor *t = find(s, name);
    if (!t) {
        if (wanted == LM_REQUIRED) {
            lm_fail(s->err, LM_ERROR_INPUT, "%s: has no tensor %s", s->where, name);
            s->failed = true;
        }
        return NULL;
    }
    const bool fits = t->n_dim == n_dim && t->dim[n_dim - 1] == cols && (n_dim == 1 || t->dim[0] == rows);
    char have[160], want[64];
    const int64_t dim[2] = {n_dim == 1 ? cols : rows, cols};
    if (!fits)
        lm_fail(s->err, LM_ERROR_INPUT, "%s: tensor %s: shape %s, the model's configuration asks for %s", s->where,
                name, lm_shape_text(t->n_dim, t->dim, have, sizeof have), lm_shape_text(n_dim, dim, want, sizeof want));
    else if (!lm_dtypes[t->dtype].widen)
        lm_fail(s->err, LM_ERROR_UNSUPPORTED, "%s: tensor %s: weights of type %s are not supported", s->where, name,
                lm_dtype_name(t->dtype));
    if (!fits || !lm_dtypes[t->dtype].widen) {
        s->failed = true;
        return NULL;
    }
    s->weights->bytes += t->bytes;
    return t;
}

static const char *name_of(int which, const source *s, int32_t layer, char text[128])
{
    lm_weight_name_text(s->gguf ? names[which].gguf : names[which].hf, layer, text, 128);
    return text;
}

static void matrix(source *s, int which, int32_t layer, int64_t rows, int64_t cols, lm_presence wanted, lm_matrix *out)
{
    char name[128];
    const lm_tensor *t = take(s, name_of(which, s, layer, name), 2, rows, cols, wanted);
    if (t)
        *out = (lm_matrix){t->data, t->dtype, rows, cols};
}

static float *vector(source *s, const char *name, int64_t n, lm_presence wanted)
{
    const lm_tensor *t = take(s, name, 1, 0, n, wanted);
    if (!t)
        return NULL;
    float *v = malloc((size_t)n * sizeof *v);
    if (!v) {
        lm_fail(s->err, LM_ERROR_MEMORY, "%s: tensor %s: no memory for %lld floats", s->where, name, (long long)n);
        s->failed = true;
        return NULL;
    }
    lm_to_float(t->dtype, t->data, v, n);
    return v;
}

static float *layer_vector(source *s, int which, int32_t layer, int64_t n, lm_presence wanted)
{
    char name[128];
    return vector(s, name_of(which, s, layer, name), n, wanted);
}

static void layer(source *s, const lm_config *c, int32_t i, lm_layer *l)
{
    const int64_t q_rows = (int64_t)c->n_head * c->d_head, kv_rows = (int64_t)c->n_kv_head * c->d_head;
    l->attn_norm = layer_vector(s, NAME_ATTN_NORM, i, c->d_model, LM_REQUIRED);
    l->ffn_norm = layer_vector(s, NAME_FFN_NORM, i, c->d_model, LM_REQUIRED);
    matrix(s, NAME_Q, i, q_rows, c->d_model, LM_REQUIRED, &l->q);
    matrix(s, NAME_K, i, kv_rows, c->d_model, LM_REQUIRED, &l->k);
    matrix(s, NAME_V, i, kv_rows, c->d_model, LM_REQUIRED, &l->v);
    matrix(s, NAME_O, i, c->d_model, q_rows, LM_REQUIRED, &l->o);
    matrix(s, NAME_GATE, i, c->d_ff, c->d_model, LM_REQUIRED, &l->gate);
    matrix(s, NAME_UP, i, c->d_ff, c->d_model, LM_REQUIRED, &l->up);
    matrix(s, NAME_DOWN, i, c->d_model, c->d_ff, LM_REQUIRED, &l->down);
    const lm_presence norms = c->family->qk_norm ? LM_REQUIRED : LM_ABSENT;
    l->q_norm = layer_vector(s, NAME_Q_NORM, i, c->d_head, norms);
    l->k_norm = layer_vector(s, NAME_K_NORM, i, c->d_head, norms);
    l->q_bias = layer_vector(s, NAME_Q_BIAS, i, q_rows, c->qkv_bias);
    l->k_bias = layer_vector(s, NAME_K_BIAS, i, kv_rows, c->qkv_bias);
    l->v_bias = layer_vector(s, NAME_V_BIAS, i, kv_rows, c->qkv_bias);
    l->o_bias = layer_vector(s, NAME_O_BIAS, i, c->d_model, c->o_bias);
}

static bool same_matrix(const lm_matrix *a, const lm_matrix *b)
{
    return a->dtype == b->dtype && memcmp(a->data, b->data, (size_t)a->rows * lm_row_bytes(a->dtype, a->cols)) == 0;
}

/* A file of tied weights may hold the matrix a second time. Where the two differ, transformers does not tie them. */
static void output(source *s, const lm_config *c, lm_weights *w)
{
    matrix(s, NAME_OUTPUT, 0, c->n_vocab, c->d_model, c->tied ? LM_OPTIONAL : LM_REQUIRED, &w->output);
    if (!s->failed && c->tied && (!w->output.data || same_matrix(&w->output, &w->embedding)))
        w->output = w->embedding;
}

static void all(source *s, const lm_config *c, lm_weights *w)
{
    char name[128];
    matrix(s, NAME_EMBEDDING, 0, c->n_vocab, c->d_model, LM_REQUIRED, &w->embedding);
    output(s, c, w);
    w->output_norm = vector(s, name_of(NAME_OUTPUT_NORM, s, 0, name), c->d_model, LM_REQUIRED);
    if (c->rope.scaling == LM_ROPE_FACTORS)
        w->rope_factors = vector(s, "rope_freqs.weight", c->rope.n_dim / 2, LM_REQUIRED);
    for (int32_t i = 0; i < c->n_layer && !s->failed; i++)
        layer(s, c, i, &w->layers[i]);
    check_rest(s, c);
}

bool lm_weights_open(const lm_config *c, const lm_safetensors *st, const lm_gguf *gguf, const char *where,
                     lm_weights *out, lm_error *err)
{
    lm_weights w = {.n_layer = c->n_layer};
    source s = {.st = st, .gguf = gguf, .where = where, .weights = &w, .err = err};
    w.layers = calloc((size_t)c->n_layer, sizeof *w.layers);
    s.taken = calloc(tensor_count(&s) + 1, sizeof *s.taken);
    if (w.layers && s.taken) {
        all(&s, c, &w);
    } else {
        lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for %d layers", where, c->n_layer);
        s.failed = true;
    }
    free(s.taken);
    if (s.failed) {
        lm_weights_close(&w);
        return false;
    }
    *out = w;
    return true;
}

void lm_weights_close(lm_weights *w)
{
    for (int32_t i = 0; w->layers && i < w->n_layer; i++) {
        lm_layer *l = &w->layers[i];
        float *vectors[] = {l->attn_norm, l->ffn_norm, l->q_norm, l->k_norm,
                            l->q_bias,    l->k_bias,   l->v_bias, l->o_bias};
        for (size_t j = 0; j < sizeof vectors / sizeof *vectors; j++)
            free(vectors[j]);
    }
    free(w->layers);
    free(w->output_norm);
    free(w->rope_factors);
    *w = (lm_weights){0};
}
