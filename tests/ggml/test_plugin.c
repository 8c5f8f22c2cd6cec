/* The plug-in's rooms on nodes made by hand; what ggml itself does with them is tools/test-llamacpp.sh's matter. */
#include "check.h"

#include "node.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* float16 and bfloat16 products are exact in float32; sums of 128, softmax and sums over keys round in float32. */
static const double bound = 2e-5;
static plugin_engine *engine;

static void set_method(const char *method, const char *min_tokens)
{
    prism_options_init(&plugin_options.options);
    assert_ok(prism_options_set(&plugin_options.options, "method", method));
    assert_ok(prism_options_set(&plugin_options.options, "min_tokens", min_tokens));
}

static plugin_report compute(node *n)
{
    plugin_report report = {.path = "ggml"};
    const char *why = plugin_engine_compute(engine, 2, &n->out, &report);
    if (why)
        fail_msg("%s", why);
    return report;
}

static const char *refusal(node *n)
{
    plugin_report report = {0};
    return plugin_engine_compute(engine, 2, &n->out, &report);
}

static int setup(void **state)
{
    (void)state;
    node_codes();
    engine = plugin_engine_create();
    return engine ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    plugin_engine_destroy(engine);
    return 0;
}

/* A permutation of 0 .. n - 1. */
static int *shuffled(int n, uint64_t seed)
{
    int *x = malloc((size_t)n * sizeof *x);
    rng r = {seed};
    for (int i = 0; i < n; i++)
        x[i] = i;
    for (int i = n - 1; i > 0; i--) {
        const int j = rng_range(&r, 0, i), keep = x[i];
        x[i] = x[j];
        x[j] = keep;
    }
    return x;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void check_outputs(const node *n, double limit)
{
    for (int s = 0; s < n->shape.n_sequence; s++) {
        const double error = node_error(n, s);
        if (!(error <= limit))
            fail_msg("sequence %d is off by %g, more than %g", s, error, limit);
    }
}

/* -------------------------------------------------------------------------------------------- full attention ---- */

static void test_types(void **state)
{
    (void)state;
    set_method("dense", "-1");
    static const struct {
        int type, n_mixed;
    } kinds[] = {{GGML_TYPE_F16, 0}, {GGML_TYPE_BF16, 0}, {GGML_TYPE_Q8_0, 0}, {GGML_TYPE_Q8_0, 64}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        node n;
        node_make(&n, &(node_shape){.d = 64,
                                    .n_head = 4,
                                    .n_kv_head = 2,
                                    .n_stream = 1,
                                    .n_cell = 512,
                                    .type = kinds[i].type,
                                    .n_mixed = kinds[i].n_mixed,
                                    .n_sequence = 1,
                                    .sequence = {{.n_old = 200, .n_new = 130, .seed = 1}}});
        const plugin_report report = compute(&n);
        assert_string_equal(report.path, "dense");
        check_outputs(&n, bound);
        node_free(&n);
    }
}

/* Three prompts in one ubatch, one of them new, in cells that lie mixed and out of order. */
static void test_mixed_sequences(void **state)
{
    (void)state;
    set_method("dense", "-1");
    int *cells = shuffled(900, 5);
    qsort(cells, 70, sizeof *cells, ascending); /* what a row saw before its ubatch is taken in the order of cells */
    qsort(cells + 300, 150, sizeof *cells, ascending);
    for (int type = 0; type < 2; type++) {
        node n;
        node_make(&n, &(node_shape){.d = 64,
                                    .n_head = 4,
                                    .n_kv_head = 1,
                                    .n_stream = 1,
                                    .n_cell = 1024,
                                    .type = type ? GGML_TYPE_Q8_0 : GGML_TYPE_F16,
                                    .n_sequence = 3,
                                    .sequence = {{.n_old = 70, .n_new = 61, .cell = cells, .seed = 1},
                                                 {.n_old = 150, .n_new = 1, .cell = cells + 300, .seed = 2},
                                                 {.n_old = 0, .n_new = 140, .cell = cells + 500, .seed = 3}}});
        assert_int_equal(compute(&n).n_group, 3);
        check_outputs(&n, bound);
        node_free(&n);
    }
    free(cells);
}

/* Streams of their own, as without a unified cache. */
static void test_streams(void **state)
{
    (void)state;
    set_method("dense", "-1");
    node n;
    node_make(&n, &(node_shape){.d = 128,
                                .n_head = 2,
                                .n_kv_head = 2,
                                .n_stream = 3,
                                .n_cell = 256,
                                .type = GGML_TYPE_F16,
                                .n_sequence = 3,
                                .sequence = {{.stream = 0, .n_old = 100, .n_new = 80, .seed = 1},
                                             {.stream = 1, .n_old = 0, .n_new = 80, .seed = 2},
                                             {.stream = 2, .n_old = 7, .n_new = 80, .seed = 3}}});
    assert_int_equal(compute(&n).n_group, 3);
    check_outputs(&n, bound);
    node_free(&n);
}

/* -------------------------------------------------------------------------------------------------- refusals ---- */

static void test_masks_refused(void **state)
{
    (void)state;
    set_method("dense", "-1");
    const node_shape shape = {.d = 64,
                              .n_head = 2,
                              .n_kv_head = 1,
                              .n_stream = 1,
                              .n_cell = 512,
                              .type = GGML_TYPE_F16,
                              .n_sequence = 1,
                              .sequence = {{.n_old = 64, .n_new = 128, .seed = 1}}};
    node n;
    node_make(&n, &shape);
    uint16_t *mask = n.mask.data;
    for (int i = 0; i < 128; i++) /* a window of 33 */
        for (int j = 0; j < 64 + i - 32; j++)
            mask[i * 512 + j] = 0xFC00;
    assert_string_equal(refusal(&n), "the mask is not causal, or of many short sequences");
    node_rewrite(&n, &shape);
    ((uint16_t *)n.mask.data)[3] = 0xB800; /* -0.5: a bias */
    assert_string_equal(refusal(&n), "the mask holds other values than 0 and -inf");
    node_rewrite(&n, &shape);
    for (int j = 0; j < 512; j++) /* the last row sees nothing */
        ((uint16_t *)n.mask.data)[127 * 512 + j] = 0xFC00;
    assert_string_equal(refusal(&n), "a query sees nothing");
    node_rewrite(&n, &shape);
    for (int i = 0; i < 128; i++) /* every row sees the same: no causal order */
        for (int j = 0; j < 192; j++)
            ((uint16_t *)n.mask.data)[i * 512 + j] = 0;
    assert_non_null(refusal(&n));
    node_free(&n);
}

static void test_claims(void **state)
{
    (void)state;
    node n;
    node_make(&n, &(node_shape){.d = 64,
                                .n_head = 2,
                                .n_kv_head = 1,
                                .n_stream = 1,
                                .n_cell = 512,
                                .type = GGML_TYPE_F16,
                                .n_sequence = 1,
                                .sequence = {{.n_new = 64, .seed = 1}}});
    assert_true(plugin_claims(&n.out));
    assert_true(plugin_claims(&n.q));
    assert_false(plugin_claims(&n.rope));
#define REFUSED(lvalue, value)                                                                                         \
    do {                                                                                                               \
        const __typeof__(lvalue) keep_ = lvalue;                                                                       \
        lvalue = value;                                                                                                \
        assert_false(plugin_claims(&n.out));                                                                           \
        lvalue = keep_;                                                                                                \
        assert_true(plugin_claims(&n.out));                                                                            \
    } while (0)
    REFUSED(n.q.ne[1], 63);
    REFUSED(n.q.ne[0], 128);
    REFUSED(n.q.type, GGML_TYPE_F16);
    REFUSED(n.k.type, GGML_TYPE_F32);
    REFUSED(n.v.ne[0], 32);
    REFUSED(n.v.ne[2], 2);
    REFUSED(n.k.nb[3], n.k.nb[3] + 2);
    REFUSED(n.mask.type, GGML_TYPE_F32);
    REFUSED(n.mask.ne[2], 2);
    REFUSED(n.out.op_params[1], 1); /* ALiBi */
    REFUSED(n.out.op_params[2], 1); /* soft cap */
    REFUSED(n.out.op_params[4], 1); /* of a later version */
    REFUSED(n.out.src[3], NULL);
    REFUSED(n.out.src[4], &n.k); /* sinks */
    node_free(&n);
}

/* -------------------------------------------------------------------------------------------------- sparsity ---- */

static node_shape prompt(int n_old, int n_new)
{
    return (node_shape){.d = 64,
                        .n_head = 4,
                        .n_kv_head = 2,
                        .n_stream = 1,
                        .n_cell = 4096,
                        .type = GGML_TYPE_F16,
                        .n_sequence = 1,
                        .sequence = {{.n_old = n_old, .n_new = n_new, .seed = 1}}};
}

static size_t out_bytes(const node *n)
{
    return n->out.nb[3] * (size_t)n->shape.n_stream;
}

/* The same node through the library, from plain tensors of float32. */
static void library_call(const node *n, float *out)
{
    const node_shape *p = &n->shape;
    const node_sequence *q = &p->sequence[0];
    const int n_kv = q->n_old + q->n_new;
    const size_t sizes[] = {(size_t)(p->n_head * q->n_new * p->d), (size_t)(p->n_kv_head * n_kv * p->d)};
    float *data[3];
    const double *from[] = {n->q_of[0], n->k_of[0], n->v_of[0]};
    for (int i = 0; i < 3; i++) {
        data[i] = malloc(sizes[i > 0] * sizeof(float));
        for (size_t j = 0; j < sizes[i > 0]; j++)
            data[i][j] = (float)from[i][j];
    }
    prism_rope rope;
    prism_bands bands;
    assert_ok(prism_rope_init(&rope, p->d));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, p->d, 1e6));
    assert_ok(prism_bands_auto(&bands, &rope, 128));
    prism_options options = plugin_options.options;
    options.bands = &bands;
    prism_call call;
    prism_call_init(&call);
    call.n_head = p->n_head, call.n_kv_head = p->n_kv_head, call.d_head = p->d, call.n_q = q->n_new, call.n_kv = n_kv;
    call.q = prism_tensor_head_major(data[0], PRISM_F32, q->n_new, p->n_head, p->d);
    call.k = prism_tensor_head_major(data[1], PRISM_F32, n_kv, p->n_kv_head, p->d);
    call.v = prism_tensor_head_major(data[2], PRISM_F32, n_kv, p->n_kv_head, p->d);
    call.o = prism_tensor_token_major(out, PRISM_F32, q->n_new, p->n_head, p->d);
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 2;
    prism_ctx *ctx;
    prism_plan *plan;
    size_t bytes;
    assert_ok(prism_create(&config, &ctx));
    assert_ok(prism_plan_create(ctx, &call, 128, 0, &plan));
    assert_ok(prism_workspace_bytes(ctx, &options, &call, &bytes));
    bytes = (bytes + 63) / 64 * 64;
    void *workspace = aligned_alloc(64, bytes);
    assert_ok(prism_attention(ctx, &options, &call, plan, workspace, bytes, NULL));
    free(workspace);
    prism_plan_destroy(plan);
    prism_destroy(ctx);
    for (int i = 0; i < 3; i++)
        free(data[i]);
}

static double difference(const node *n, const float *want)
{
    const float *got = n->out.data;
    double worst = 0;
    for (size_t i = 0; i < out_bytes(n) / 4; i++)
        worst = fmax(worst, isnan(got[i]) ? INFINITY : fabs((double)got[i] - want[i]));
    return worst;
}

/* The plug-in and the library choose the same blocks: frequencies, scale, positions and, for a
 * quantised cache, the undone mixing are right. */
static void test_sparse(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        const int kind = i % 3; /* of cache */
        set_method(i < 3 ? "prism" : "moments", "0");
        node_shape shape = prompt(1900, 300);
        shape.type = kind ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
        shape.n_mixed = kind == 2 ? 32 : 0;
        node n;
        node_make(&n, &shape);
        const plugin_report report = compute(&n);
        assert_string_equal(report.path, "sparse");
        assert_true(report.stats.density < 0.8);
        float *want = malloc(out_bytes(&n));
        library_call(&n, want);
        const double error = difference(&n, want);
        if (!(error <= bound))
            fail_msg("kind %d differs from the library by %g", kind, error);
        assert_true(node_error(&n, 0) > 1e-3); /* and it did leave blocks out */
        free(want);
        node_free(&n);
    }
}

/* Every method with every correction, chosen in the environment: the library takes what is pooled for it. */
static void test_corrections(void **state)
{
    (void)state;
    static const char *const methods[] = {"moments", "prism"};
    static const char *const corrections[] = {"none", "mean", "moments"};
    node n;
    const node_shape shape = prompt(1900, 300);
    node_make(&n, &shape);
    float *want = malloc(out_bytes(&n));
    for (int i = 0; i < 6; i++) {
        char options[64];
        snprintf(options, sizeof options, "correct=%s,min_tokens=0", corrections[i % 3]);
        setenv("PRISM_METHOD", methods[i / 3], 1);
        setenv("PRISM_OPTIONS", options, 1);
        plugin_settings_read();
        assert_string_equal(compute(&n).path, "sparse");
        library_call(&n, want);
        if (!(difference(&n, want) <= bound))
            fail_msg("method %s with %s differs from the library", methods[i / 3], options);
        memset(n.out.data, 0xFF, out_bytes(&n));
        plugin_engine_destroy(engine); /* kept moments depend on the queries of earlier calls */
        engine = plugin_engine_create();
    }
    unsetenv("PRISM_METHOD");
    unsetenv("PRISM_OPTIONS");
    free(want);
    node_free(&n);
}

/* What a prompt gets does not depend on its company: three in one ubatch, in cells that lie mixed, as each alone. */
static void test_sparse_company(void **state)
{
    (void)state;
    set_method("prism", "0");
    int cells[3][1700];
    for (int i = 0; i < 3 * 1700; i++)
        cells[i % 3][i / 3] = i;
    node_shape all = {.d = 64, .n_head = 4, .n_kv_head = 2, .n_stream = 1, .n_cell = 5120, .type = GGML_TYPE_F16};
    all.n_sequence = 3;
    all.sequence[0] = (node_sequence){.n_old = 1300, .n_new = 77, .cell = cells[0], .seed = 1};
    all.sequence[1] = (node_sequence){.n_old = 0, .n_new = 200, .cell = cells[1], .seed = 2};
    all.sequence[2] = (node_sequence){.n_old = 1501, .n_new = 140, .cell = cells[2], .seed = 3};
    node n;
    node_make(&n, &all);
    assert_string_equal(compute(&n).path, "sparse");
    const size_t row = n.out.nb[2];
    char *together = malloc(out_bytes(&n));
    memcpy(together, n.out.data, out_bytes(&n));
    node_free(&n);
    size_t first = 0;
    for (int s = 0; s < 3; s++) {
        node_shape one = all;
        one.n_sequence = 1;
        one.sequence[0] = all.sequence[s];
        one.sequence[0].cell = NULL;
        node_make(&n, &one);
        assert_string_equal(compute(&n).path, "sparse");
        assert_memory_equal(n.out.data, together + first * row, out_bytes(&n));
        first += (size_t)one.sequence[0].n_new;
        node_free(&n);
    }
    free(together);
}

/* Without frequencies method prism cannot choose. */
static void test_no_rope(void **state)
{
    (void)state;
    set_method("prism", "0");
    node_shape shape = prompt(500, 100);
    shape.no_rope = true;
    node n;
    node_make(&n, &shape);
    assert_string_equal(compute(&n).path, "dense");
    check_outputs(&n, bound);
    node_free(&n);
}

/* llama.cpp mixes keys of quantised caches only. */
static void test_mixed_float16(void **state)
{
    (void)state;
    set_method("prism", "0");
    node_shape shape = prompt(500, 100);
    shape.n_mixed = 32;
    node n;
    node_make(&n, &shape);
    assert_string_equal(refusal(&n), "keys are mixed in a cache that is not Q8_0");
    node_free(&n);
}

/* ----------------------------------------------------------------------------------------------- pooled keys ---- */

/* The output of a fresh engine for the same node. */
static void fresh_output(node *n, float *out)
{
    plugin_engine *const old = engine;
    engine = plugin_engine_create();
    assert_int_equal(compute(n).n_reused, 0);
    memcpy(out, n->out.data, out_bytes(n));
    memset(n->out.data, 0xFF, out_bytes(n));
    plugin_engine_destroy(engine);
    engine = old;
}

static void expect_reused(node *n, int64_t n_reused)
{
    float *want = malloc(out_bytes(n));
    fresh_output(n, want);
    assert_int_equal(compute(n).n_reused, n_reused);
    assert_memory_equal(n->out.data, want, out_bytes(n));
    free(want);
}

static void test_pooled_keys(void **state)
{
    (void)state;
    set_method("prism", "0");
    node n;
    node_shape p = prompt(0, 512);
    node_make(&n, &p);
    expect_reused(&n, 0);
    p = prompt(512, 500);
    node_rewrite(&n, &p);
    expect_reused(&n, 512);
    p = prompt(1100, 400); /* the plug-in missed an ubatch */
    node_rewrite(&n, &p);
    expect_reused(&n, 1012);
    p = prompt(1300, 100); /* cut back, and on again: whole blocks are kept */
    node_rewrite(&n, &p);
    expect_reused(&n, 1280);
    p.sequence[0].seed = 2; /* another prompt in the same cells, of the same length */
    p.sequence[0].n_old = 1400;
    node_rewrite(&n, &p);
    expect_reused(&n, 0);
    p.sequence[0].n_old = 1500;
    node_rewrite(&n, &p);
    /* one cell of block 5 written again, its last: blocks 0 to 4 are true */
    const size_t cell = 5 * 128 + 127;
    memset((char *)n.k.data + cell * n.k.nb[1], 0x11, n.k.nb[1]);
    expect_reused(&n, 5 * 128);
    node_free(&n);
}

/* Two prompts take turns in one cache and do not disturb each other: each gets what an engine that sees it alone gives.
 * (Moments depend on queries that went before, which a fresh engine does not know.) */
static void test_pooled_turns(void **state)
{
    (void)state;
    plugin_engine *const both = engine;
    int cells[2][2000];
    for (int i = 0; i < 2000; i++) {
        cells[0][i] = 2 * i;
        cells[1][i] = 2 * i + 1;
    }
    for (int m = 0; m < 2; m++) {
        plugin_engine *alone[2] = {plugin_engine_create(), plugin_engine_create()};
        node n;
        set_method(m ? "moments" : "prism", "0");
        for (int turn = 0; turn < 6; turn++) {
            node_shape p = prompt(turn / 2 * 600, 600);
            p.sequence[0].cell = cells[turn % 2];
            p.sequence[0].seed = 10 + (uint64_t)(turn % 2) + (uint64_t)m * 2;
            turn ? node_rewrite(&n, &p) : node_make(&n, &p);
            float *want = malloc(out_bytes(&n));
            engine = alone[turn % 2];
            assert_int_equal(compute(&n).n_reused, turn / 2 * 600);
            memcpy(want, n.out.data, out_bytes(&n));
            memset(n.out.data, 0xFF, out_bytes(&n));
            engine = both;
            assert_int_equal(compute(&n).n_reused, turn / 2 * 600);
            assert_memory_equal(n.out.data, want, out_bytes(&n));
            free(want);
        }
        node_free(&n);
        plugin_engine_destroy(alone[0]);
        plugin_engine_destroy(alone[1]);
    }
}

/* -------------------------------------------------------------------------------------------------- rotation ---- */

static void set_float(ggml_tensor *t, int i, float x)
{
    memcpy(&t->op_params[i], &x, sizeof x);
}

static ggml_tensor rope_node(int d, int n_dim, int mode)
{
    ggml_tensor t = {.op = ggml.op.rope, .ne = {d, 1, 1, 1}};
    t.op_params[1] = n_dim;
    t.op_params[2] = mode;
    t.op_params[4] = 4096;
    set_float(&t, 5, 10000);
    set_float(&t, 6, 1);
    set_float(&t, 9, 32);
    set_float(&t, 10, 1);
    return t;
}

static void check_rope(ggml_tensor *t, const prism_rope *want)
{
    plugin_rotation got;
    plugin_rotation_find(t, (int32_t)t->ne[0], &got);
    assert_true(got.found);
    assert_int_equal(got.rope.n_pair, want->n_pair);
    for (int j = 0; j < want->n_pair; j++) {
        assert_int_equal(got.rope.dim[j][0], want->dim[j][0]);
        assert_int_equal(got.rope.dim[j][1], want->dim[j][1]);
        assert_near(got.rope.frequency[j] / want->frequency[j], 1, 1e-6); /* parameters are float32 */
    }
}

static void test_rotation(void **state)
{
    (void)state;
    prism_rope want;
    ggml_tensor t = rope_node(128, 128, 2);
    prism_rope_init(&want, 128);
    prism_rope_add(&want, PRISM_ROPE_HALF_SPLIT, 0, 128, 10000);
    check_rope(&t, &want);
    t.op_params[2] = 40; /* sections */
    check_rope(&t, &want);

    set_float(&t, 6, 0.25f); /* YaRN, four times the context */
    set_float(&t, 7, 1);
    prism_rope_scale_yarn(&want, 10000, 4, 4096, 32, 1, 1);
    check_rope(&t, &want);

    t = rope_node(128, 64, 0); /* interleaved, half of the head, linear, factors */
    set_float(&t, 6, 0.5f);
    float factor[32];
    for (int j = 0; j < 32; j++)
        factor[j] = 1 + (float)j / 8;
    ggml_tensor factors = {.data = factor};
    t.src[2] = &factors;
    prism_rope_init(&want, 128);
    prism_rope_add(&want, PRISM_ROPE_INTERLEAVED, 0, 64, 10000);
    prism_rope_scale_linear(&want, 2);
    prism_rope_scale_factors(&want, factor, 32);
    check_rope(&t, &want);

    plugin_rotation got;
    t = rope_node(128, 128, 24); /* of images */
    plugin_rotation_find(&t, 128, &got);
    assert_false(got.found);
    ggml_tensor other = {
        .op = 77, .ne = {128, 1, 1, 1}, .src = {&t}}; /* something that is not known to keep dimensions */
    t = rope_node(128, 128, 2);
    plugin_rotation_find(&other, 128, &got);
    assert_false(got.found);
}

/* -------------------------------------------------------------------------------------------------- settings ---- */

static void test_settings(void **state)
{
    (void)state;
    setenv("PRISM_METHOD", "flexprefill", 1);
    setenv("PRISM_TOP_P", "0.75", 1);
    setenv("PRISM_MIN_TOKENS", "4096", 1);
    setenv("PRISM_OPTIONS", "flex_gamma=0.8,block_size=64", 1);
    plugin_settings_read();
    const prism_options *o = &plugin_options.options;
    assert_string_equal(plugin_options.error, "");
    assert_int_equal(o->method, PRISM_METHOD_FLEXPREFILL);
    assert_near(o->top_p, 0.75, 1e-6);
    assert_int_equal(o->min_tokens, 4096);
    assert_near(o->flex_gamma, 0.8, 1e-6);
    assert_int_equal(o->block_size, 64);
    setenv("PRISM_OPTIONS", "no_such=1", 1);
    plugin_settings_read();
    assert_string_equal(plugin_options.error, "PRISM_OPTIONS: option no_such cannot be '1'");
    unsetenv("PRISM_OPTIONS");
    setenv("PRISM_METHOD", "ggml", 1);
    plugin_settings_read();
    assert_true(plugin_options.delegate_all);
    setenv("PRISM_METHOD", "magic", 1);
    plugin_settings_read();
    assert_string_equal(plugin_options.error, "PRISM_METHOD: option method cannot be 'magic'");
    unsetenv("PRISM_METHOD");
    unsetenv("PRISM_MIN_TOKENS");
    prism_options defaults;
    prism_options_init(&defaults);
    for (int i = 0; i < 2; i++) { /* PRISM_TOP_P chooses no method */
        plugin_settings_read();
        assert_int_equal(o->method, defaults.method);
        unsetenv("PRISM_TOP_P");
    }
    assert_near(o->top_p, defaults.top_p, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_types, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mixed_sequences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masks_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_claims, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sparse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sparse_company, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_rope, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mixed_float16, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pooled_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pooled_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
