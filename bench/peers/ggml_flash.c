/* ggml's FLASH_ATTN_EXT on the CPU beside full attention by libprismattn, in turns: float32 queries, float16 keys and
 * values of 128 dimensions, the last N_Q of N_KV tokens.
 *
 *   ggml_flash N_Q N_KV N_HEAD N_KV_HEAD N_THREAD REPS [cpu]        cpu: processor time instead of the clock's */
#include <ggml-cpu.h>
#include <ggml.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <prism_attn/prism.h>

enum { DIM = 128, MAX_REPS = 64 };

typedef struct shape {
    int32_t n_q, n_kv, n_head, n_kv_head, n_thread;
} shape;

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

/* Uniform, variance 1. */
static float noise(void)
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return ((float)(state >> 8) / 16777216.0f - 0.5f) * 3.4641016f;
}

typedef struct peer {
    struct ggml_context *context;
    struct ggml_tensor *q, *k, *v, *out;
    struct ggml_cgraph *graph;
    struct ggml_cplan plan;
} peer;

static void fill(const shape *s, peer *g, struct ggml_tensor *mask)
{
    for (int64_t i = 0; i < ggml_nelements(g->q); i++)
        ((float *)g->q->data)[i] = noise();
    for (int64_t i = 0; i < ggml_nelements(g->k); i++) {
        ((ggml_fp16_t *)g->k->data)[i] = ggml_fp32_to_fp16(noise());
        ((ggml_fp16_t *)g->v->data)[i] = ggml_fp32_to_fp16(noise());
    }
    for (int64_t i = 0; i < s->n_q; i++)
        for (int64_t j = 0; j < s->n_kv; j++)
            ((ggml_fp16_t *)mask->data)[i * s->n_kv + j] = ggml_fp32_to_fp16(j <= s->n_kv - s->n_q + i ? 0 : -INFINITY);
}

static peer peer_new(const shape *s)
{
    const size_t n_kv = (size_t)s->n_kv, n_q = (size_t)s->n_q;
    const struct ggml_init_params params = {.mem_size = n_kv * (size_t)s->n_kv_head * DIM * 8 +
                                                        n_q * (size_t)s->n_head * DIM * 16 + n_q * n_kv * 4 +
                                                        (64 << 20)};
    peer g = {.context = ggml_init(params)};
    g.q = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, DIM, s->n_q, s->n_head);
    g.k = ggml_new_tensor_3d(g.context, GGML_TYPE_F16, DIM, s->n_kv, s->n_kv_head);
    g.v = ggml_new_tensor_3d(g.context, GGML_TYPE_F16, DIM, s->n_kv, s->n_kv_head);
    struct ggml_tensor *mask = ggml_new_tensor_2d(g.context, GGML_TYPE_F16, s->n_kv, s->n_q);
    fill(s, &g, mask);
    g.out = ggml_flash_attn_ext(g.context, g.q, g.k, g.v, mask, 1 / sqrtf(DIM), 0, 0);
    g.graph = ggml_new_graph(g.context);
    ggml_build_forward_expand(g.graph, g.out);
    g.plan = ggml_graph_plan(g.graph, s->n_thread, NULL);
    g.plan.work_data = malloc(g.plan.work_size + 1);
    return g;
}

/* Full attention by libprismattn over the peer's tensors, all [head][token][d]. */
typedef struct ours {
    prism_ctx *ctx;
    prism_options options;
    prism_call call;
    prism_plan *plan;
    void *workspace;
    size_t workspace_bytes;
} ours;

static bool ours_start(ours *c, const shape *s, const peer *g, float *o)
{
    prism_config config;
    prism_config_init(&config);
    config.n_thread = s->n_thread;
    prism_options_init(&c->options);
    c->options.method = PRISM_METHOD_DENSE;
    prism_call_init(&c->call);
    c->call.n_head = s->n_head;
    c->call.n_kv_head = s->n_kv_head;
    c->call.d_head = DIM;
    c->call.n_q = s->n_q;
    c->call.n_kv = s->n_kv;
    c->call.q = prism_tensor_head_major(g->q->data, PRISM_F32, s->n_q, s->n_head, DIM);
    c->call.k = prism_tensor_head_major(g->k->data, PRISM_F16, s->n_kv, s->n_kv_head, DIM);
    c->call.v = prism_tensor_head_major(g->v->data, PRISM_F16, s->n_kv, s->n_kv_head, DIM);
    c->call.o = prism_tensor_head_major(o, PRISM_F32, s->n_q, s->n_head, DIM);
    if (!o || prism_create(&config, &c->ctx) ||
        prism_workspace_bytes(c->ctx, &c->options, &c->call, &c->workspace_bytes) ||
        prism_plan_create(c->ctx, &c->call, c->options.block_size, 0, &c->plan))
        return false;
    c->workspace = aligned_alloc(64, (c->workspace_bytes + 63) / 64 * 64);
    return c->workspace;
}

static void ours_run(ours *c)
{
    prism_attention(c->ctx, &c->options, &c->call, c->plan, c->workspace, c->workspace_bytes, NULL);
}

static double largest_difference(const shape *s, const float *theirs, const float *mine)
{
    double worst = 0; /* ggml's output is [token][head][d] */
    for (int64_t t = 0; t < s->n_q; t++)
        for (int64_t h = 0; h < s->n_head; h++)
            for (int64_t j = 0; j < DIM; j++)
                worst = fmax(worst, fabs((double)theirs[(t * s->n_head + h) * DIM + j] -
                                         (double)mine[(h * s->n_q + t) * DIM + j]));
    return worst;
}

int main(int argc, char **argv)
{
    if (argc < 7 || atoi(argv[6]) < 1 || atoi(argv[6]) > MAX_REPS) {
        fprintf(stderr, "usage: ggml_flash N_Q N_KV N_HEAD N_KV_HEAD N_THREAD REPS [cpu]\n");
        return 2;
    }
    const shape s = {atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5])};
    const int reps = atoi(argv[6]);
    const clockid_t clock = argc > 7 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    peer g = peer_new(&s);
    float *o = aligned_alloc(64, (size_t)ggml_nelements(g.q) * sizeof *o);
    ours c = {0};
    if (!g.plan.work_data || !ours_start(&c, &s, &g, o)) {
        fprintf(stderr, "no memory, or libprismattn refused the call\n");
        return 1;
    }
    double theirs[MAX_REPS], mine[MAX_REPS], ratio[MAX_REPS];
    for (int r = -1; r < reps; r++) { /* the first warms up */
        const double start = seconds(clock);
        ggml_graph_compute(g.graph, &g.plan);
        const double middle = seconds(clock);
        ours_run(&c);
        const double end = seconds(clock);
        if (r >= 0) {
            theirs[r] = middle - start;
            mine[r] = end - middle;
            ratio[r] = theirs[r] / mine[r];
        }
    }
    const double flop = 4.0 * DIM * s.n_head * s.n_q * (s.n_kv - s.n_q + (s.n_q + 1) / 2.0);
    printf("%d of %d tokens, %d/%d heads, %d threads: ggml %.1f, ours %.1f GFLOP/s, x %.2f; largest difference %.1e\n",
           s.n_q, s.n_kv, s.n_head, s.n_kv_head, s.n_thread, flop / median(theirs, reps) * 1e-9,
           flop / median(mine, reps) * 1e-9, median(ratio, reps), largest_difference(&s, g.out->data, o));
    prism_plan_destroy(c.plan);
    prism_destroy(c.ctx);
    free(c.workspace);
    free(g.plan.work_data);
    free(o);
    ggml_free(g.context);
    return 0;
}
