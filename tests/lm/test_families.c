/* What is in a model file is used or refused: keys of GGUF metadata, tensors of both formats. */
#include "lm_test.h"

#include "lm/lm.h"
#include "lm/safetensors.h"
#include "lm/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 8, N_VOCAB = 12 };

static char folder[] = "/tmp/lm-families-XXXXXX", gguf_path[64], safetensors_path[64], config_path[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(gguf_path, sizeof gguf_path, "%s/model.gguf", folder);
    snprintf(safetensors_path, sizeof safetensors_path, "%s/model.safetensors", folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove(gguf_path);
    remove(safetensors_path);
    remove(config_path);
    return rmdir(folder);
}

/* -------------------------------------------------------------------------------------- a model of one layer ---- */

static const float ones[D * N_VOCAB] = {1, 1, 1, 1, 1, 1, 1, 1};

/* Every matrix is D x D, but for the embedding; norms and biases are vectors of D. */
static lm_tensor tensor_named(const char *name)
{
    const bool is_matrix = strstr(name, "proj.weight") || strstr(name, "attn_q.w") || strstr(name, "attn_k.w") ||
                           strstr(name, "attn_v.w") || strstr(name, "attn_output.w") || strstr(name, "ffn_gate") ||
                           strstr(name, "ffn_up") || strstr(name, "ffn_down");
    const bool is_vocabulary = strstr(name, "emb") || strstr(name, "lm_head") || !strcmp(name, "output.weight");
    lm_tensor t = {.name = name, .dtype = LM_F32, .n_dim = is_matrix || is_vocabulary ? 2 : 1, .data = ones};
    t.dim[0] = is_vocabulary ? N_VOCAB : D;
    t.dim[1] = D;
    t.bytes = sizeof *ones * (size_t)(t.dim[0] * (t.n_dim == 2 ? D : 1));
    return t;
}

enum { MOST = 32 };

/* The tensors of a family with tied weights, and more: names, separated by spaces. Names live in text. */
static size_t list_tensors(bool gguf, const char *more, char text[MOST][128], lm_tensor *out)
{
    size_t n_name, n = 0;
    const lm_weight_name *names = lm_weight_names(&n_name);
    for (size_t i = 0; i < n_name; i++) {
        if (strstr(names[i].gguf, "bias") || strstr(names[i].gguf, "_q_norm") || strstr(names[i].gguf, "_k_norm") ||
            !strcmp(names[i].gguf, "output.weight"))
            continue;
        lm_weight_name_text(gguf ? names[i].gguf : names[i].hf, 0, text[n++], 128);
    }
    for (int length; sscanf(more, "%127s%n", text[n], &length) == 1; more += length)
        n++;
    for (size_t i = 0; i < n; i++)
        out[i] = tensor_named(text[i]);
    return n;
}

typedef void put_more(lm_gguf_writer *w);

static void write_gguf(const char *architecture, put_more *put, const char *more)
{
    static const struct {
        const char *name;
        uint32_t value;
    } keys[] = {{"block_count", 1},
                {"context_length", 64},
                {"embedding_length", D},
                {"vocab_size", N_VOCAB},
                {"feed_forward_length", D},
                {"attention.head_count", 2},
                {"rope.dimension_count", D / 2}};
    char text[MOST][128], key[64];
    lm_tensor tensors[MOST];
    lm_gguf_writer *w = lm_gguf_writer_create();
    lm_gguf_put_string(w, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, keys[i].name);
        lm_gguf_put_u32(w, key, keys[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    lm_gguf_put_f32(w, key, 1e-5F);
    if (put)
        put(w);
    const size_t n = list_tensors(true, more, text, tensors);
    for (size_t i = 0; i < n; i++)
        lm_gguf_put_tensor(w, tensors[i].name, LM_F32, tensors[i].n_dim, tensors[i].dim);
    ok(lm_gguf_writer_start(w, gguf_path, &err));
    for (size_t i = 0; i < n; i++)
        ok(lm_gguf_writer_data(w, tensors[i].data, tensors[i].bytes, &err));
    ok(lm_gguf_writer_finish(w, &err));
    lm_gguf_writer_free(w);
}

static void write_directory(const char *more_config, const char *more)
{
    char text[MOST][128];
    lm_tensor tensors[MOST];
    FILE *f = fopen(config_path, "w");
    fprintf(f,
            "{\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":1,"
            "\"num_attention_heads\":2,\"head_dim\":4,\"tie_word_embeddings\":true,%s}",
            N_VOCAB, D, D, more_config);
    fclose(f);
    const size_t n = list_tensors(false, more, text, tensors);
    ok(lm_safetensors_write(safetensors_path, tensors, n, NULL, 0, &err));
}

static bool opens(const char *path, lm_error *err)
{
    lm_model *model = NULL;
    const bool done = lm_model_open(path, &model, err);
    lm_model_close(model);
    return done;
}

/* -------------------------------------------------------------------------------------------- GGUF metadata ---- */

static const char *key;
static double value;

static void put_number(lm_gguf_writer *w)
{
    lm_gguf_put_f32(w, key, (float)value);
}
static void put_bool(lm_gguf_writer *w)
{
    lm_gguf_put_bool(w, key, value != 0);
}
static void put_text(lm_gguf_writer *w)
{
    lm_gguf_put_string(w, key, "words");
}
static void put_list(lm_gguf_writer *w) /* the value, then 2 */
{
    lm_gguf_put_array(w, key, LM_GGUF_I32, 2);
    lm_gguf_put_array_i32(w, (int32_t)value);
    lm_gguf_put_array_i32(w, 2);
}

static void test_keys(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        put_more *put;
        double value;
        bool is_fine;
    } cases[] = {
        {"llama.attn_logit_softcapping", put_number, 50, false},
        {"llama.attn_logit_softcapping", put_number, 0, true},
        {"llama.final_logit_softcapping", put_number, 30, false},
        {"llama.logit_scale", put_number, 0.5, false},
        {"llama.logit_scale", put_number, 1, true},
        {"llama.residual_scale", put_number, 0.2, false},
        {"llama.embedding_scale", put_number, 12, false},
        {"llama.attention.scale", put_number, 0.25, false},
        {"llama.attention.scale", put_number, 0.5, true}, /* heads of 4 */
        {"llama.attention.sliding_window", put_number, 63, false},
        {"llama.attention.sliding_window", put_number, 64, true}, /* the whole context */
        {"llama.attention.sliding_window_pattern", put_list, 0, false},
        {"llama.attention.causal", put_bool, 0, false},
        {"llama.attention.causal", put_bool, 1, true},
        {"llama.expert_count", put_number, 8, false},
        {"llama.expert_used_count", put_number, 2, true}, /* of none */
        {"llama.attention.head_count_kv", put_list, 1, false},
        {"llama.attention.head_count_kv", put_list, 2, true},
        {"llama.rope.scaling.attn_factor", put_number, 1.5, false},
        {"llama.rope.scaling.type", put_text, 0, false},
        {"llama.swiglu_clamp_exp", put_list, 0, false},
        {"llama.something_new", put_text, 0, false},
        {"llama.tensor_data_layout", put_text, 0, true},
        {"qwen2.expert_count", put_number, 8, true}, /* no key of this family */
        {"general.something_new", put_number, 8, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        key = cases[i].key;
        value = cases[i].value;
        write_gguf("llama", cases[i].put, "");
        if (cases[i].is_fine)
            ok(opens(gguf_path, &err));
        else
            refused(opens(gguf_path, &err), LM_ERROR_UNSUPPORTED, strstr(key, "scaling.type") ? "\"words\"" : key);
    }
}

/* llama.cpp takes a factor without a type for linear scaling. */
static void test_factor_without_type(void **state)
{
    (void)state;
    lm_model *model;
    key = "llama.rope.scaling.factor";
    value = 4;
    write_gguf("llama", put_number, "");
    ok(lm_model_open(gguf_path, &model, &err));
    assert_true(lm_model_config(model)->rope.scaling == LM_ROPE_LINEAR && lm_model_config(model)->rope.factor == 4);
    lm_model_close(model);
}

/* -------------------------------------------------------------------------------------------------- tensors ---- */

static void test_gguf_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *more, *part; /* NULL: it opens */
    } cases[] = {
        {"llama", "", NULL},
        {"llama", "blk.0.attn_q.bias blk.0.attn_k.bias blk.0.attn_v.bias blk.0.attn_output.bias", NULL},
        {"llama", "output.weight", NULL},
        {"llama", "blk.0.post_attention_norm.weight", "blk.0.post_attention_norm.weight"},
        {"llama", "blk.0.attn_sinks.weight", "blk.0.attn_sinks.weight"},
        {"llama", "blk.0.attn_q_norm.weight", "blk.0.attn_q_norm.weight"},
        {"llama", "blk.1.attn_norm.weight", "blk.1.attn_norm.weight"},
        {"llama", "blk.0.ffn_up.bias", "blk.0.ffn_up.bias"},
        {"qwen2", "", "has no tensor blk.0.attn_q.bias"},
        {"qwen2", "blk.0.attn_q.bias blk.0.attn_k.bias blk.0.attn_v.bias", NULL},
        {"qwen2", "blk.0.attn_q.bias blk.0.attn_k.bias blk.0.attn_v.bias rope_freqs.weight", "rope_freqs.weight"},
        {"qwen3", "", "has no tensor blk.0.attn_q_norm.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_gguf(cases[i].architecture, NULL, cases[i].more);
        if (cases[i].part)
            refused(opens(gguf_path, &err), strstr(cases[i].part, "has no") ? LM_ERROR_INPUT : LM_ERROR_UNSUPPORTED,
                    cases[i].part);
        else
            ok(opens(gguf_path, &err));
    }
}

#define LAYER "model.layers.0.self_attn."
#define QKV_BIASES LAYER "q_proj.bias " LAYER "k_proj.bias " LAYER "v_proj.bias "

static void test_directory_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *config, *more, *part;
    } cases[] = {
        {"\"model_type\":\"llama\"", "", NULL},
        {"\"model_type\":\"llama\"", LAYER "rotary_emb.inv_freq model.rotary_emb.inv_freq", NULL},
        {"\"model_type\":\"llama\"", "lm_head.weight", NULL},
        {"\"model_type\":\"llama\"", LAYER "q_norm.weight", "q_norm.weight"},
        {"\"model_type\":\"llama\"", "score.weight", "score.weight"},
        {"\"model_type\":\"llama\"", QKV_BIASES LAYER "o_proj.bias", ".bias"}, /* attention_bias does not say so */
        {"\"model_type\":\"llama\",\"attention_bias\":true", QKV_BIASES LAYER "o_proj.bias", NULL},
        {"\"model_type\":\"llama\",\"attention_bias\":true", QKV_BIASES, "has no tensor " LAYER "o_proj.bias"},
        {"\"model_type\":\"mistral\"", "", NULL},
        {"\"model_type\":\"qwen2\"", QKV_BIASES, NULL},
        {"\"model_type\":\"qwen2\"", QKV_BIASES LAYER "o_proj.bias", "o_proj.bias"},
        {"\"model_type\":\"qwen2\"", "", "has no tensor " LAYER "q_proj.bias"},
        {"\"model_type\":\"qwen3\"", "", "has no tensor " LAYER "q_norm.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_directory(cases[i].config, cases[i].more);
        if (cases[i].part)
            refused(opens(folder, &err), strstr(cases[i].part, "has no") ? LM_ERROR_INPUT : LM_ERROR_UNSUPPORTED,
                    cases[i].part);
        else
            ok(opens(folder, &err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_factor_without_type),
        cmocka_unit_test(test_gguf_tensors),
        cmocka_unit_test(test_directory_tensors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
