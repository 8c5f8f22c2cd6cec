/* Sessions: misuse, memory that is not there, weights that are not numbers, and plans that do not depend on chunks. */
#include "lm_test.h"

#include "lm/convert.h"
#include "lm/lm.h"
#include "lm/model.h"
#include "lm/ops.h"
#include "lm/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fixture {
    prism_ctx *ctx;
    lm_model *model;
} fixture;

static int setup(void **state)
{
    static fixture f;
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 2;
    lm_error err;
    if (prism_create(&config, &f.ctx) != PRISM_OK || !lm_model_open(LM_TEST_MODEL, &f.model, &err))
        return 1;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    lm_model_close(f->model);
    prism_destroy(f->ctx);
    return 0;
}

static void test_misuse(void **state)
{
    const fixture *f = *state;
    lm_session *s = NULL;
    lm_session_options o;
    lm_session_options_init(&o);
    o.n_ctx = 0;
    refused(lm_session_create(f->model, f->ctx, &o, &s, &err), LM_ERROR_USAGE, "too short");
    o.n_ctx = 16;
    o.chunk = -1;
    refused(lm_session_create(f->model, f->ctx, &o, &s, &err), LM_ERROR_USAGE, "chunk");
    o.chunk = 0;
    o.kv_type = (prism_dtype)9;
    refused(lm_session_create(f->model, f->ctx, &o, &s, &err), LM_ERROR_USAGE, "KV cache");
    o.kv_type = PRISM_BF16;
    ok(lm_session_create(f->model, f->ctx, &o, &s, &err));
    int32_t tokens[17] = {0, 5, 6};
    refused(lm_session_prefill(s, tokens, 0, NULL, NULL, &err), LM_ERROR_USAGE, "empty");
    refused(lm_session_prefill(s, tokens, 17, NULL, NULL, &err), LM_ERROR_USAGE, "do not fit");
    tokens[1] = 8192;
    refused(lm_session_prefill(s, tokens, 3, NULL, NULL, &err), LM_ERROR_USAGE, "token 1 has id 8192");
    tokens[1] = -1;
    refused(lm_session_prefill(s, tokens, 3, NULL, NULL, &err), LM_ERROR_USAGE, "id -1");
    assert_null(lm_session_logits(s));
    assert_int_equal(lm_session_argmax(s), -1);
    tokens[1] = 5;
    ok(lm_session_prefill(s, tokens, 16, NULL, NULL, &err));
    assert_non_null(lm_session_logits(s));
    refused(lm_session_decode(s, 5, &err), LM_ERROR_USAGE, "do not fit");
    lm_session_reset(s);
    assert_null(lm_session_logits(s));
    ok(lm_session_decode(s, 5, &err)); /* no prompt at all is one token of prompt */
    lm_session_destroy(s);
    lm_session_destroy(NULL);
    lm_model_close(NULL);
}

static void note_types(void *user, int32_t layer, const prism_call *call)
{
    lm_types *seen = user;
    if (layer == 0)
        *seen = (lm_types){.kv = call->k.dtype, .attention = call->q.dtype};
    assert_int_equal(call->o.dtype, call->q.dtype);
    assert_int_equal(call->v.dtype, call->k.dtype);
}

/* What a session of these options computes in, by lm_session_types() and by what the library gets. */
static lm_types types_of(const fixture *f, prism_ctx *ctx, prism_dtype kv, lm_product_type product)
{
    lm_session_options o;
    lm_types said, seen = {0};
    lm_session *s = NULL;
    const int32_t tokens[] = {5, 6, 7, 8};
    lm_session_options_init(&o);
    o.n_ctx = 4;
    o.kv_type = kv;
    o.product = product;
    o.on_call = note_types;
    o.user = &seen;
    ok(lm_session_types(ctx, &o, &said, &err));
    ok(lm_session_create(f->model, ctx, &o, &s, &err));
    ok(lm_session_prefill(s, tokens, 4, NULL, NULL, &err));
    lm_session_destroy(s);
    assert_int_equal(seen.kv, said.kv);
    assert_int_equal(seen.attention, said.attention);
    return said;
}

/* bfloat16 where the library is fastest in it and products are of it, and never where float32 was asked for. */
static void test_types(void **state)
{
    const fixture *f = *state;
    lm_session_options o;
    lm_types t;
    lm_session_options_init(&o);
    refused(lm_session_types(NULL, &o, &t, &err), LM_ERROR_USAGE, "context");
    t = types_of(f, f->ctx, LM_KV_AUTO, LM_PRODUCT_F32);
    assert_true(t.kv == PRISM_F16 && t.attention == PRISM_F32 && t.product == PRISM_F32);
    t = types_of(f, f->ctx, PRISM_BF16, LM_PRODUCT_F32);
    assert_true(t.kv == PRISM_BF16 && t.attention == PRISM_F32);
    t = types_of(f, f->ctx, PRISM_F32, LM_PRODUCT_AUTO);
    assert_true(t.kv == PRISM_F32 && t.attention == PRISM_F32);
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(f->ctx, &info);
    t = types_of(f, f->ctx, LM_KV_AUTO, LM_PRODUCT_AUTO);
    const bool fast = t.product == PRISM_BF16 && info.fast_type == PRISM_BF16;
    assert_true(t.kv == (fast ? PRISM_BF16 : PRISM_F16) && t.attention == (fast ? PRISM_BF16 : PRISM_F32));
    prism_ctx *ctx;
    prism_config config;
    prism_config_init(&config);
    config.isa = PRISM_ISA_C;
    assert_int_equal(prism_create(&config, &ctx), PRISM_OK);
    t = types_of(f, ctx, LM_KV_AUTO, LM_PRODUCT_AUTO);
    assert_true(t.kv == PRISM_F16 && t.attention == PRISM_F32);
    prism_destroy(ctx);
}

static void test_too_large(void **state)
{
    const fixture *f = *state;
    lm_session *s = NULL;
    lm_session_options o;
    lm_session_options_init(&o);
    o.n_ctx = INT32_MAX - 4096; /* 16 TiB of keys and values */
    o.chunk = 128;
    refused(lm_session_create(f->model, f->ctx, &o, &s, &err), LM_ERROR_MEMORY, "GiB");
}

static void test_encode(void **state)
{
    const fixture *f = *state;
    lm_tokens t = {0};
    lm_text text = {0};
    ok(lm_model_encode(f->model, "The house.", 10, true, &t, &err));
    assert_true(t.n >= 3 && t.ids[0] == 0); /* the file asks for BOS */
    ok(lm_tokenizer_decode(lm_model_tokenizer(f->model), t.ids, t.n, LM_DECODE_SKIP_SPECIAL, &text, &err));
    assert_string_equal(text.data, "The house.");
    t.n = 0;
    ok(lm_model_encode(f->model, "The house.", 10, false, &t, &err));
    assert_int_not_equal(t.ids[0], 0);
    lm_tokens_free(&t);
    lm_text_free(&text);
}

/* Plans of a session, as one number per layer and query block: rows of all heads hashed together. */
typedef struct seen {
    uint64_t rows[8][64];
    double density;
} seen;

/* One function chooses bands in every door, whatever the base: heads of 128 at base 1e4 do not get those of base 1e6. */
static void test_bands(void **state)
{
    const fixture *f = *state;
    lm_model slow = *f->model;
    prism_bands got, want;
    ok(lm_model_bands(f->model, 128, &got, &err));
    assert_true(got.n_high == 64 && got.n_low == 96);
    assert_int_equal(prism_rope_init(&slow.rope, 128), PRISM_OK);
    assert_int_equal(prism_rope_add(&slow.rope, PRISM_ROPE_HALF_SPLIT, 0, 128, 1e4), PRISM_OK);
    assert_int_equal(prism_bands_auto(&want, &slow.rope, 128), PRISM_OK);
    ok(lm_model_bands(&slow, 128, &got, &err));
    assert_true(got.n_high == 80 && got.n_low == 80);
    assert_memory_equal(&got, &want, sizeof got);
}

static void on_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan)
{
    seen *out = user;
    prism_plan_view v = {.struct_size = sizeof v};
    assert_int_equal(prism_plan_read(plan, &v), PRISM_OK);
    for (int64_t r = 0; r < v.n_row; r++) {
        uint64_t hash = (uint64_t)(r / v.n_qblk) + 1;
        for (int64_t i = 0; i < v.row_ptr[r + 1] - v.row_ptr[r]; i++)
            hash = (hash ^ (uint64_t)(v.index ? v.index[v.row_ptr[r] + i] : i)) * 0x100000001b3u + 1;
        out->rows[layer][q_start / v.block_size + r % v.n_qblk] += hash;
    }
}

static float *run(const fixture *f, const int32_t *tokens, int32_t n, int32_t chunk, seen *out)
{
    lm_session *s = NULL;
    lm_session_options o;
    prism_options p;
    prism_options_init(&p);
    p.calibration = PRISM_CALIBRATION_CAUSAL;
    p.min_tokens = 1024;
    lm_session_options_init(&o);
    o.n_ctx = n;
    o.chunk = chunk;
    o.options = &p;
    o.on_plan = on_plan;
    o.user = out;
    ok(lm_session_create(f->model, f->ctx, &o, &s, &err));
    ok(lm_session_prefill(s, tokens, n, NULL, NULL, &err));
    lm_session_stats stats;
    lm_session_read_stats(s, &stats);
    assert_int_equal(stats.n_prefill, n);
    out->density = stats.density;
    float *logits = malloc(sizeof(float) * 8192);
    memcpy(logits, lm_session_logits(s), sizeof(float) * 8192);
    lm_session_destroy(s);
    return logits;
}

static void test_chunks(void **state)
{
    const fixture *f = *state;
    enum { N = 3001 };
    int32_t *tokens = malloc(N * sizeof *tokens);
    uint32_t random = 1;
    for (int i = 0; i < N; i++) {
        random = random * 1664525u + 1013904223u;
        tokens[i] = i == 0 ? 0 : 260 + (int32_t)(random >> 16) % 800; /* common words */
    }
    static seen whole, cut;
    memset(&whole, 0, sizeof whole);
    float *a = run(f, tokens, N, 0, &whole);
    assert_true(whole.density > 0 && whole.density < 0.9);
    const int32_t chunks[] = {1000, 128, 5};
    for (int i = 0; i < 3; i++) {
        memset(&cut, 0, sizeof cut);
        float *b = run(f, tokens, N, chunks[i], &cut);
        /* The arithmetic of the linear layers depends on how many rows BLAS sees at once, so a block at the very edge
         * of the threshold may fall on either side: not more than one row in a hundred. */
        int differ = 0;
        for (int layer = 0; layer < 8; layer++)
            for (int block = 0; block < 24; block++)
                differ += whole.rows[layer][block] != cut.rows[layer][block];
        double worst = 0;
        for (int v = 0; v < 8192; v++)
            worst = fmax(worst, fabs((double)a[v] - (double)b[v]));
        print_message("chunks of %4d: %d of 192 plan rows differ, logits by %.1e\n", chunks[i], differ, worst);
        assert_true(differ <= 2 && worst < 0.05);
        free(b);
    }
    free(a);
    free(tokens);
}

enum { N_SCORED = 200 };

typedef struct losses {
    const int32_t *tokens;
    double nll[N_SCORED];
} losses;

static bool note_losses(void *user, int32_t first, int32_t n, const float *logits)
{
    losses *l = user;
    for (int32_t i = first; i < first + n && i + 1 < N_SCORED; i++)
        l->nll[i] = lm_nll(logits + (int64_t)(i - first) * 8192, 8192, l->tokens[i + 1]);
    return true;
}

/* Losses are those of the logits that the hook sees, whatever the chunks; what is not asked for is 0. */
static void test_score(void **state)
{
    const fixture *f = *state;
    int32_t tokens[N_SCORED], targets[N_SCORED];
    double nll[N_SCORED];
    for (int i = 0; i < N_SCORED; i++)
        tokens[i] = i == 0 ? 0 : 260 + i * 7 % 800;
    for (int i = 0; i < N_SCORED; i++)
        targets[i] = i < 10 || i + 1 == N_SCORED ? -1 : tokens[i + 1];
    losses hooked = {.tokens = tokens};
    lm_session_options o;
    lm_session_options_init(&o);
    o.chunk = 128;
    o.on_logits = note_losses;
    o.user = &hooked;
    lm_session *s;
    ok(lm_session_create(f->model, f->ctx, &o, &s, &err));
    ok(lm_session_score(s, tokens, targets, N_SCORED, nll, NULL, NULL, &err));
    lm_session_stats stats;
    lm_session_read_stats(s, &stats);
    assert_int_equal(stats.n_prefill, N_SCORED);
    assert_non_null(lm_session_logits(s));
    for (int i = 0; i < N_SCORED; i++) {
        assert_true(nll[i] == (targets[i] < 0 ? 0 : hooked.nll[i]));
        assert_true(targets[i] < 0 || (nll[i] > 0 && nll[i] < 100));
    }
    lm_session_reset(s);
    targets[3] = 8192;
    refused(lm_session_score(s, tokens, targets, N_SCORED, nll, NULL, NULL, &err), LM_ERROR_USAGE,
            "target 3 has id 8192");
    lm_session_destroy(s);
}

static bool stop(void *user, int32_t first, int32_t n, const float *logits)
{
    (void)user, (void)first, (void)n, (void)logits;
    return false;
}

/* Prefills that fail leave nothing behind: any number of them fits into the session's marks. */
static void test_many_failures(void **state)
{
    const fixture *f = *state;
    const int32_t tokens[2] = {0, 5};
    lm_session_options o;
    lm_session_options_init(&o);
    o.n_ctx = 16;
    o.on_logits = stop;
    lm_session *s;
    lm_model *tiny;
    ok(lm_model_open(LM_TEST_DATA "/llama3", &tiny, &err));
    ok(lm_session_create(tiny, f->ctx, &o, &s, &err));
    for (int i = 0; i < 600; i++) {
        refused(lm_session_prefill(s, tokens, 2, NULL, NULL, &err), LM_ERROR_RUN, "stopped at position 0");
        lm_session_reset(s);
    }
    lm_session_destroy(s);
    lm_model_close(tiny);
}

/* A copy of a small model with one weight replaced. */
static void test_nan_weights(void **state)
{
    const fixture *f = *state;
    char dir[] = "/tmp/lm-nan-XXXXXX", path[96], command[512];
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "cp %s/qwen3-yarn/config.json %s/qwen3-yarn/tokenizer.json %s/", LM_TEST_DATA,
             LM_TEST_DATA, dir);
    assert_int_equal(system(command), 0);
    lm_safetensors *st;
    ok(lm_safetensors_open(LM_TEST_DATA "/qwen3-yarn", &st, &err));
    const size_t n = lm_safetensors_count(st);
    lm_tensor *t = calloc(n, sizeof *t);
    uint16_t *copy = NULL;
    for (size_t i = 0; i < n; i++) {
        t[i] = *lm_safetensors_at(st, i);
        if (!strstr(t[i].name, "layers.1.mlp.down_proj"))
            continue;
        copy = malloc(t[i].bytes);
        memcpy(copy, t[i].data, t[i].bytes);
        copy[7] = 0x7fc0;
        t[i].data = copy;
    }
    assert_non_null(copy);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ok(lm_safetensors_write(path, t, n, NULL, 0, &err));
    lm_safetensors_close(st);
    lm_model *m;
    lm_session *s;
    lm_session_options o;
    lm_session_options_init(&o);
    ok(lm_model_open(dir, &m, &err));
    ok(lm_session_create(m, f->ctx, &o, &s, &err));
    const int32_t tokens[4] = {1, 2, 3, 4};
    refused(lm_session_prefill(s, tokens, 4, NULL, NULL, &err), LM_ERROR_RUN, "not finite");
    assert_null(lm_session_logits(s));
    lm_session_destroy(s);
    lm_model_close(m);
    const lm_convert_options q8 = {.type = LM_Q8_0};
    char gguf[112];
    snprintf(gguf, sizeof gguf, "%s/x.gguf", dir);
    refused(lm_convert(dir, gguf, &q8, &err), LM_ERROR_INPUT, "layers.1.mlp.down_proj");
    assert_int_not_equal(access(gguf, F_OK), 0);
    free(copy);
    free(t);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void test_open_errors(void **state)
{
    (void)state;
    lm_model *m = NULL;
    refused(lm_model_open("/nowhere", &m, &err), LM_ERROR_INPUT, "/nowhere");
    refused(lm_model_open("/tmp", &m, &err), LM_ERROR_INPUT, "config.json");
    refused(lm_model_open(LM_TEST_DATA "/llama3/model.safetensors", &m, &err), LM_ERROR_INPUT, "directory");
    refused(lm_model_open(LM_TEST_DATA "/llama3/config.json", &m, &err), LM_ERROR_INPUT, "GGUF");
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_misuse),      cmocka_unit_test(test_types),
      cmocka_unit_test(test_too_large), cmocka_unit_test(test_encode),
        cmocka_unit_test(test_bands),       cmocka_unit_test(test_chunks),    cmocka_unit_test(test_score),
        cmocka_unit_test(test_nan_weights),
        cmocka_unit_test(test_many_failures), cmocka_unit_test(test_open_errors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
