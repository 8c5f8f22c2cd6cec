/*
 * The runner on a GPU against the runner on the CPU, on the bundled model.
 *
 * The GPU rounds what goes into products and attention to float16 (2^-12 of each number on average), the CPU computes
 * in float32. Such errors are independent and add up like a random walk: each layer adds seven products' worth to a
 * residual stream of which it is a part, so the logits end up with a few 2^-12 of their size: 4e-4 to 7e-4 of it on an
 * H200. A mistake of any kind (a weight, a frequency, a token of causality) costs more than a tenth.
 */
#include "lm_test.h"

#include "lm/convert.h"
#include "lm/file.h"
#include "lm/lm.h"
#include "lm/ops.h"

#include <math.h>
#include <prism_attn/prism_cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_TOKEN = 6000, N_VOCAB = 8192 /* of the bundled model */ };

typedef struct fixture {
    lm_model *model;
    prism_ctx *cpu, *gpu;
    lm_tokens tokens;
} fixture;

static int setup(void **state)
{
    static fixture f;
    lm_error err;
    char *book;
    size_t n;
    prism_config config;
    prism_config_init(&config);
    if (!lm_model_open(LM_TEST_MODEL, &f.model, &err) || prism_create(&config, &f.cpu) ||
        !lm_read_file(LM_TEST_DATA "/../../../eval/data/nostromo.txt", 1 << 24, &book, &n, &err) ||
        !lm_model_encode(f.model, book, n, true, &f.tokens, &err)) {
        print_message("the model and the book of the tree are needed\n");
        return 1;
    }
    free(book);
    config.device = PRISM_DEVICE_CUDA;
    if (prism_create(&config, &f.gpu)) {
        prism_cuda_info info = {.struct_size = sizeof info};
        prism_cuda_describe(0, &info);
        print_message("no GPU: %s\n", info.problem);
        return 1;
    }
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    if (!f)
        return 0;
    prism_destroy(f->cpu);
    prism_destroy(f->gpu);
    lm_tokens_free(&f->tokens);
    lm_model_close(f->model);
    return 0;
}

static lm_session *start(const fixture *f, bool on_gpu, prism_method method, int32_t chunk, prism_dtype type)
{
    lm_session *s;
    lm_session_options o;
    prism_options p;
    prism_options_init(&p);
    p.method = method;
    p.min_tokens = 1024;
    lm_session_options_init(&o);
    o.n_ctx = N_TOKEN;
    o.chunk = chunk;
    o.kv_type = type;
    o.options = &p;
    ok(lm_session_create(f->model, on_gpu ? f->gpu : f->cpu, &o, &s, &err));
    return s;
}

/* The last logits of a prefill, for the caller to free. */
static float *prefill(lm_session *s, const int32_t *tokens, int32_t n)
{
    float *logits = malloc(N_VOCAB * sizeof *logits);
    ok(lm_session_prefill(s, tokens, n, NULL, NULL, &err));
    memcpy(logits, lm_session_logits(s), N_VOCAB * sizeof *logits);
    assert_int_equal(lm_session_argmax(s), lm_argmax(logits, N_VOCAB));
    return logits;
}

/* |a - b| / |b|, Euclidean. */
static double distance(const float *a, const float *b, int32_t n_vocab)
{
    double d = 0, n = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        n += (double)b[i] * (double)b[i];
    }
    return sqrt(d / n);
}

static void compare(const char *what, const float *a, const float *b, double bound)
{
    const double d = distance(a, b, N_VOCAB);
    print_message("%-44s %.1e of the logits\n", what, d);
    if (!(d <= bound))
        fail_msg("%s: off by %g, %g allowed", what, d, bound);
}

/* bfloat16 has three bits less than float16: eight times the error. */
static void test_logits(void **state)
{
    const fixture *f = *state;
    const int32_t lengths[] = {1, 7, 600, 2049};
    for (int i = 0; i < 4; i++) {
        char what[64];
        lm_session *s = start(f, false, PRISM_METHOD_DENSE, 0, PRISM_F32);
        float *want = prefill(s, f->tokens.ids, lengths[i]), *got;
        lm_session_destroy(s);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            s = start(f, true, PRISM_METHOD_DENSE, 0, bf16 ? PRISM_BF16 : PRISM_F16);
            got = prefill(s, f->tokens.ids, lengths[i]);
            snprintf(what, sizeof what, "%d tokens, %s", lengths[i], bf16 ? "bf16" : "f16");
            compare(what, got, want, bf16 ? 1.6e-2 : 2e-3);
            free(got);
            lm_session_destroy(s);
        }
        free(want);
    }
}

/* The last logits of a random prompt, dense, for the caller to free. */
static float *read_random(const lm_model *model, prism_ctx *ctx, prism_dtype type)
{
    enum { N = 300 };
    const int32_t n_vocab = lm_model_config(model)->n_vocab;
    int32_t tokens[N];
    uint32_t random = 1;
    for (int i = 0; i < N; i++) {
        random = random * 1664525u + 1013904223u;
        tokens[i] = (int32_t)(random >> 8) % n_vocab;
    }
    lm_session *s;
    lm_session_options o;
    prism_options dense;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    lm_session_options_init(&o);
    o.kv_type = type;
    o.options = &dense;
    ok(lm_session_create(model, ctx, &o, &s, &err));
    ok(lm_session_prefill(s, tokens, N, NULL, NULL, &err));
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    memcpy(logits, lm_session_logits(s), (size_t)n_vocab * sizeof *logits);
    lm_session_destroy(s);
    return logits;
}

static void compare_family(const fixture *f, const char *path, const char *name)
{
    lm_model *model;
    ok(lm_model_open(path, &model, &err));
    float *want = read_random(model, f->cpu, PRISM_F32), *got = read_random(model, f->gpu, PRISM_F16);
    const double d = distance(got, want, lm_model_config(model)->n_vocab);
    print_message("%-44s %.1e of the logits\n", name, d);
    assert_true(d < 5e-3);
    free(want);
    free(got);
    lm_model_close(model);
}

/* What the bundled model lacks: biases, no head norm, scaled frequencies, interleaved pairs (in converted files of
 * Llama), other head dimensions. Weights are random, so logits are sums that cancel, and feel roundings more. */
static void test_families(void **state)
{
    static const char *const names[] = {"llama3", "llama-plain", "qwen3-yarn", "qwen3-linear"};
    const lm_convert_options f32 = {.type = LM_F32};
    for (int i = 0; i < 4; i++) {
        char dir[512], gguf[] = "/tmp/lm-cuda-XXXXXX";
        snprintf(dir, sizeof dir, "%s/%s", LM_TEST_DATA, names[i]);
        compare_family(*state, dir, names[i]);
        close(mkstemp(gguf));
        ok(lm_convert(dir, gguf, &f32, &err));
        compare_family(*state, gguf, "  converted");
        unlink(gguf);
    }
}

/* cuBLAS takes other kernels for other numbers of rows, so chunks differ by roundings; a block at the very edge of a
 * threshold may then fall on either side. */
static void test_chunks(void **state)
{
    const fixture *f = *state;
    const int32_t chunks[] = {0, 1000, 128};
    float *whole = NULL;
    double density = 0;
    for (int i = 0; i < 3; i++) {
        lm_session_stats stats;
        lm_session *s = start(f, true, PRISM_METHOD_PRISM, chunks[i], PRISM_F16);
        float *got = prefill(s, f->tokens.ids, 5001);
        lm_session_read_stats(s, &stats);
        lm_session_destroy(s);
        if (i == 0) {
            whole = got;
            density = stats.density;
            assert_true(density > 0.02 && density < 0.9);
            continue;
        }
        char what[64];
        snprintf(what, sizeof what, "chunks of %d, density %.4f and %.4f", chunks[i], stats.density, density);
        compare(what, got, whole, 2e-3);
        assert_true(fabs(stats.density - density) < 0.005 * density);
        free(got);
    }
    free(whole);
}

static void test_decode(void **state)
{
    const fixture *f = *state;
    enum { N = 700, HALF = 680 };
    lm_session *s = start(f, true, PRISM_METHOD_DENSE, 0, PRISM_F16);
    float *whole = prefill(s, f->tokens.ids, N), *got;
    lm_session_reset(s);
    got = prefill(s, f->tokens.ids, HALF);
    for (int32_t t = HALF; t < N; t++)
        ok(lm_session_decode(s, f->tokens.ids[t], &err));
    compare("decoded", lm_session_logits(s), whole, 2e-3);
    lm_session_destroy(s);
    free(got);
    free(whole);
}

/* Sums of losses hardly feel roundings: they cancel. */
static void test_losses(void **state)
{
    const fixture *f = *state;
    enum { N = 4096 };
    double mean[2][2], density[2][2], *nll = malloc(N * sizeof *nll);
    for (int method = 0; method < 2; method++)
        for (int gpu = 0; gpu < 2; gpu++) {
            lm_session_stats stats;
            lm_session *s = start(f, gpu, method ? PRISM_METHOD_PRISM : PRISM_METHOD_DENSE, 0, PRISM_F16);
            ok(lm_session_score(s, f->tokens.ids, f->tokens.ids + 1, N, nll, NULL, NULL, &err));
            lm_session_read_stats(s, &stats);
            mean[method][gpu] = 0;
            for (int i = 0; i < N; i++)
                mean[method][gpu] += nll[i] / N;
            density[method][gpu] = stats.density;
            lm_session_destroy(s);
        }
    free(nll);
    print_message("loss: dense %.5f CPU, %.5f GPU; prism %.5f CPU, %.5f GPU; density %.4f CPU, %.4f GPU\n", mean[0][0],
                  mean[0][1], mean[1][0], mean[1][1], density[1][0], density[1][1]);
    assert_true(fabs(mean[0][1] - mean[0][0]) < 1e-3); /* perplexity within 0.1 % */
    assert_true(fabs(density[1][1] - density[1][0]) < 0.005 * density[1][0]);
    assert_true(fabs(mean[1][1] - mean[1][0]) < 5e-3); /* a few blocks at the threshold fall on the other side */
}

typedef struct hook_calls {
    int n_call, n_plan, n_logits;
    float *logits;
    bool on_host;
} hook_calls;

static void on_call(void *user, int32_t layer, const prism_call *call)
{
    hook_calls *h = user;
    assert_int_equal(layer, h->n_call++);
    assert_true(call->q.dtype == PRISM_F16 && call->k.dtype == PRISM_F16);
    if (!h->on_host)
        return;
    const uint16_t *q = call->q.data; /* readable, and no infinity or NaN */
    for (int64_t i = 0; i < (int64_t)call->n_q * call->n_head * call->d_head; i++)
        assert_true((q[i] & 0x7c00) != 0x7c00);
}

static void on_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan)
{
    prism_plan_view v = {.struct_size = sizeof v};
    assert_int_equal(layer, ((hook_calls *)user)->n_plan++);
    assert_int_equal(q_start, 0);
    assert_int_equal(prism_plan_read(plan, &v), PRISM_OK);
    assert_true(v.n_selected > 0 && v.n_selected < v.n_causal);
    for (int64_t r = 0; r < v.n_row; r++)
        assert_int_equal(v.index[v.row_ptr[r]], 0); /* the sink */
}

static bool on_logits(void *user, int32_t first, int32_t n, const float *logits)
{
    hook_calls *h = user;
    assert_int_equal(first, h->n_logits);
    h->n_logits += n;
    memcpy(h->logits, logits + (int64_t)(n - 1) * N_VOCAB, N_VOCAB * sizeof *logits);
    return true;
}

static void test_hooks(void **state)
{
    const fixture *f = *state;
    for (int on_host = 0; on_host < 2; on_host++) {
        hook_calls h = {.logits = malloc(N_VOCAB * sizeof(float)), .on_host = on_host};
        lm_session *s;
        lm_session_options o;
        prism_options p;
        prism_options_init(&p);
        p.min_tokens = 0;
        lm_session_options_init(&o);
        o.options = &p;
        o.on_call = on_call;
        o.on_plan = on_plan;
        o.on_logits = on_logits;
        o.user = &h;
        o.calls_on_host = on_host;
        ok(lm_session_create(f->model, f->gpu, &o, &s, &err));
        float *last = prefill(s, f->tokens.ids, 4000);
        assert_true(h.n_call == 8 && h.n_plan == 8 && h.n_logits == 4000);
        compare("the hook's logits and the last ones", h.logits, last, 1e-3);
        free(last);
        free(h.logits);
        lm_session_destroy(s);
    }
}

static void test_misuse(void **state)
{
    const fixture *f = *state;
    lm_session *s;
    lm_session_options o;
    lm_session_options_init(&o);
    o.kv_type = PRISM_F32;
    refused(lm_session_create(f->model, f->gpu, &o, &s, &err), LM_ERROR_UNSUPPORTED, "float32");
    o.kv_type = PRISM_F16;
    o.n_ctx = 1 << 27; /* a terabyte of keys and values */
    refused(lm_session_create(f->model, f->gpu, &o, &s, &err), LM_ERROR_MEMORY, "GPU");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits), cmocka_unit_test(test_families), cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_decode), cmocka_unit_test(test_losses),   cmocka_unit_test(test_hooks),
        cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
