/* checkkern --bench: every inner loop on one core, every stage on all cores; each beside the C reference and beside the
 * peak that this machine showed in the same run. Best of several runs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkkern.h"
#include "bench/peak_loops.h"
#include "cpu/cpu.h"

enum { ROWS = 128, DIM = 128, LD = 128 };

/* Others use the machine too: stages take one core, and the processor's time in the place of the clock's. */
static bool shared;

static double now(void)
{
    struct timespec t;
    clock_gettime(shared ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Data of one bench: sizes of a tile of attention at d 128. */
typedef struct arena {
    float *a, *b, *c, *alpha;
    uint16_t *half, *packed, *weight;
    int32_t n_valid[ROWS];
    prism_softmax state[ROWS];
} arena;

typedef struct job {
    const char *name;
    void (*run)(const prism_tier *k, arena *x);
    double flop, bytes; /* of one run; the one that bounds it */
    bool bf16;          /* only in tiers with such products; flop counts against their peak */
} job;

static void run_load_bf16(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->load_row[PRISM_BF16](x->c + i * DIM, x->half + i * DIM, DIM);
}

static void run_load_f16(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->load_row[PRISM_F16](x->c + i * DIM, x->half + i * DIM, DIM);
}

static void run_add_f32(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->add_row[PRISM_F32](x->c, x->a + i * DIM, DIM);
}

static void run_add_bf16(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->add_row[PRISM_BF16](x->c, x->half + i * DIM, DIM);
}

static void run_store_bf16(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->store_row[PRISM_BF16](x->half + i * DIM, x->a + i * DIM, DIM, 0.5f);
}

static void run_store_f16(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->store_row[PRISM_F16](x->half + i * DIM, x->a + i * DIM, DIM, 0.5f);
}

static void run_gemm_qk(const prism_tier *k, arena *x)
{
    k->gemm(x->c, LD, NULL, x->a, LD, x->b, ROWS, LD, DIM);
}

static void run_gemm_pv(const prism_tier *k, arena *x)
{
    k->gemm(x->c, LD, x->alpha, x->a, LD, x->b, ROWS, LD, DIM);
}

static void run_softmax(const prism_tier *k, arena *x)
{
    /* Weights of the last run are logits in 0 .. 1 for this one; nothing grows. */
    k->softmax(x->c, LD, ROWS, LD, x->n_valid, x->state, x->alpha);
}

static void run_gemm_bf16(const prism_tier *k, arena *x)
{
    k->gemm_bf16(x->c, LD, NULL, x->half, LD, x->packed, ROWS, LD, DIM);
}

static void run_gemm_bf16_pv(const prism_tier *k, arena *x)
{
    k->gemm_bf16(x->c, LD, x->alpha, x->half, LD, x->packed, ROWS, LD, DIM);
}

static void run_softmax_bf16(const prism_tier *k, arena *x)
{
    k->softmax_bf16(x->weight, x->c, LD, ROWS, LD, 0.1f, x->n_valid, x->state, x->alpha);
}

static void run_exp_row(const prism_tier *k, arena *x)
{
    for (int i = 0; i < ROWS; i++)
        k->exp_row(x->c + i * DIM, DIM, 1.0f);
}

static void run_scale_max(const prism_tier *k, arena *x)
{
    bool finite;
    for (int i = 0; i < ROWS; i++)
        k->scale_max(x->c + i * DIM, DIM, 0.999f, &finite);
}

static void run_dot_rows(const prism_tier *k, arena *x)
{
    k->dot_rows(x->c, x->a, DIM, x->b, ROWS, DIM);
}

static void run_sum_rows(const prism_tier *k, arena *x)
{
    k->sum_rows(x->c, 0.5f, x->alpha, x->a, DIM, ROWS, DIM);
}

#define TILE ((double)ROWS * DIM)
static const job jobs[] = {
    {"load_row bf16", run_load_bf16, 0, 6 * TILE, false},
    {"load_row f16", run_load_f16, 0, 6 * TILE, false},
    {"add_row f32", run_add_f32, 0, 4 * TILE, false},
    {"add_row bf16", run_add_bf16, 0, 2 * TILE, false},
    {"store_row bf16", run_store_bf16, 0, 6 * TILE, false},
    {"store_row f16", run_store_f16, 0, 6 * TILE, false},
    {"gemm QK 128^3", run_gemm_qk, 2 * TILE * 128, 0, false},
    {"gemm PV 128^3", run_gemm_pv, 2 * TILE * 128, 0, false},
    {"softmax 128x128", run_softmax, 0, 8 * TILE, false},
    {"exp_row 128", run_exp_row, 0, 8 * TILE, false},
    {"scale_max 128", run_scale_max, 0, 8 * TILE, false},
    {"dot_rows 128x128", run_dot_rows, 2 * TILE, 0, false},
    {"sum_rows 128x128", run_sum_rows, 2 * TILE, 0, false},
    {"bf16 gemm QK", run_gemm_bf16, 2 * TILE * 128, 0, true},
    {"bf16 gemm PV", run_gemm_bf16_pv, 2 * TILE * 128, 0, true},
    {"bf16 softmax", run_softmax_bf16, 0, 6 * TILE, true},
};
enum { n_job = sizeof jobs / sizeof jobs[0] };

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p)
        abort();
    memset(p, 0, bytes);
    return p;
}

static arena arena_new(void)
{
    arena x = {.a = aligned(TILE * 4),
               .b = aligned(TILE * 4),
               .c = aligned(TILE * 4),
               .alpha = aligned(ROWS * 4),
               .half = aligned(TILE * 2),
               .packed = aligned(TILE * 2),
               .weight = aligned(TILE * 2)};
    rng r = {1};
    for (int i = 0; i < ROWS * DIM; i++) {
        x.a[i] = (float)rng_normal(&r) * 0.01f;
        x.b[i] = (float)rng_normal(&r);
        x.c[i] = (float)rng_unit(&r);
        value_encode(PRISM_BF16, rng_normal(&r) * 0.01, &x.half[i]);
        value_encode(PRISM_BF16, rng_normal(&r), &x.packed[i]);
    }
    for (int i = 0; i < ROWS; i++) {
        x.alpha[i] = 0.5f;
        x.n_valid[i] = LD;
        x.state[i] = (prism_softmax){1, 1};
    }
    return x;
}

static double time_job(const job *j, const prism_tier *k, arena *x)
{
    double best = 1e9;
    int inner = 1;
    for (int repeat = 0; repeat < 12; repeat++) {
        const double start = now();
        for (int i = 0; i < inner; i++)
            j->run(k, x);
        const double took = (now() - start) / inner;
        best = took < best ? took : best;
        if (repeat == 0)
            inner = took > 2e-3 ? 1 : (int)(2e-3 / (took + 1e-9)) + 1;
    }
    return best;
}

static void bench_kernels(const double *flops, const double *flops_bf16, double bytes)
{
    printf("Inner loops, one core, data in cache\n%-18s %-10s %10s %12s %8s %8s\n", "kernel", "tier", "us", "rate",
           "x C", "of peak");
    for (int i = 0; i < n_job; i++) {
        double c_time = 0;
        for (int tier = 0; tier < ck_n_tier(); tier++) {
            prism_tier k;
            prism_tier_get(ck_tiers[tier], &k);
            if (jobs[i].bf16 && !k.gemm_bf16)
                continue;
            arena x = arena_new();
            const double t = time_job(&jobs[i], &k, &x);
            c_time = c_time > 0 ? c_time : t;
            const double peak = jobs[i].bf16 ? flops_bf16[tier] : flops[tier];
            const double rate = (jobs[i].flop > 0 ? jobs[i].flop : jobs[i].bytes) / t;
            printf("%-18s %-10s %10.2f %6.1f %s %7.2fx %7.1f%%\n", jobs[i].name, k.name, t * 1e6, rate / 1e9,
                   jobs[i].flop > 0 ? "GFLOP" : "GB/s ", c_time / t, 100 * rate / (jobs[i].flop > 0 ? peak : bytes));
            free(x.a);
            free(x.b);
            free(x.c);
            free(x.alpha);
            free(x.half);
            free(x.packed);
            free(x.weight);
        }
    }
}

/* ----------------------------------------------------------------------------------------------- stages ---- */

enum { N_TOKEN = 8192, N_HEAD = 4, N_KV_HEAD = 1 };

typedef struct stage_times {
    double pool, plan, dense, sparse, few, density;
} stage_times;

static prism_call decode_call(const prism_call *call)
{
    prism_call one = *call;
    one.n_q = 1;
    one.q_start = N_TOKEN - 1;
    one.q.n_element = one.o.n_element = one.lse.n_element = 0;
    return one;
}

static double best_of(int n, runner *r, const prism_options *o, const prism_call *call, bool attend)
{
    double best = 1e9;
    for (int i = 0; i < n; i++) {
        const double start = now();
        if (attend)
            prism_attend(r->ctx, call, r->plan, r->workspace.data, r->workspace.bytes);
        else
            prism_plan_build(r->ctx, o, call, r->plan, r->workspace.data, r->workspace.bytes);
        const double took = now() - start;
        best = took < best ? took : best;
    }
    return best;
}

static double best_pool(prism_ctx *ctx, const prism_call *call)
{
    size_t bytes;
    prism_pooled pooled;
    prism_call c = *call;
    const prism_options o = pooled_options(128, false);
    prism_pooled_bytes(&o, N_KV_HEAD, DIM, N_TOKEN, &bytes);
    void *memory = aligned(bytes);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        prism_pooled_init(&pooled, &o, N_KV_HEAD, DIM, N_TOKEN, memory, bytes);
        c.pooled = &pooled;
        const double start = now();
        prism_pool_append(ctx, &c);
        const double took = now() - start;
        best = took < best ? took : best;
    }
    free(memory);
    return best;
}

static stage_times time_stages(prism_isa isa, test_case *c)
{
    stage_times t;
    const int n_run = isa == PRISM_ISA_C ? 1 : 7;
    prism_ctx *ctx = context_new(isa, shared ? 1 : 0);
    prism_options o;
    prism_options_init(&o);
    o.bands = &c->bands;
    o.min_tokens = 0;
    o.top_p = 0.3f;
    t.pool = best_pool(ctx, &c->call);
    runner r = runner_new(ctx, &o, &c->call);
    t.plan = best_of(5, &r, &o, &c->call, false);
    prism_plan_view view = {.struct_size = sizeof view};
    prism_plan_read(r.plan, &view);
    t.density = view.density;
    t.sparse = best_of(n_run, &r, &o, &c->call, true);
    o.method = PRISM_METHOD_DENSE;
    best_of(1, &r, &o, &c->call, false);
    t.dense = best_of(n_run, &r, &o, &c->call, true);
    const prism_call one = decode_call(&c->call);
    best_of(1, &r, &o, &one, false);
    t.few = best_of(9, &r, &o, &one, true);
    runner_free(&r);
    prism_destroy(ctx);
    return t;
}

static void print_stage(const char *name, prism_isa isa, double t, double c_time, double work, bool flop, double peak)
{
    printf("%-18s %-10s %10.3f %6.1f %s %7.2fx %7.1f%%\n", name, prism_isa_name(isa), t * 1e3, work / t / 1e9,
           flop ? "GFLOP" : "GB/s ", c_time / t, 100 * work / t / peak);
}

static void bench_stages(const double *flops, const double *flops_bf16, double memory_bytes)
{
    shape s = {.n_seq = 1,
               .n_head = N_HEAD,
               .n_kv_head = N_KV_HEAD,
               .d = DIM,
               .block = 128,
               .page_size = 16,
               .dtype = PRISM_BF16,
               .out_dtype = PRISM_BF16};
    s.n_q[0] = N_TOKEN;
    test_case *c = case_new(&s, 1);
    const int cores = shared ? 1 : omp_get_num_procs();
    /* Multiply-adds of Q K and P V over all causal blocks, in full: that is what is computed. */
    const double n_blk = N_TOKEN / 128.0, dense = n_blk * (n_blk + 1) / 2 * N_HEAD * 4.0 * 128 * 128 * DIM;
    const double keys = 2.0 * N_TOKEN * N_KV_HEAD * DIM, queries = 2.0 * N_TOKEN * N_HEAD * DIM;
    stage_times first = {0};
    printf("\nBytes are set against the copy in memory; 2 MB of keys may stay in cache, and then pass 100 %%.\n");
    printf("Stages, %d cores, %d tokens, %d query heads, %d KV head, d %d, bf16, block 128\n%-18s %-10s %10s %12s %8s "
           "%8s\n",
           cores, N_TOKEN, N_HEAD, N_KV_HEAD, DIM, "stage", "tier", "ms", "rate", "x C", "of peak");
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        const prism_isa isa = ck_tiers[tier];
        const stage_times t = time_stages(isa, c);
        first = tier ? first : t;
        print_stage("pool keys", isa, t.pool, first.pool, keys, false, memory_bytes);
        print_stage("plan_build", isa, t.plan, first.plan, keys + queries, false, memory_bytes);
        const double peak = (flops_bf16[tier] > 0 ? flops_bf16[tier] : flops[tier]) * cores;
        char name[32];
        snprintf(name, sizeof name, "attend %.0f %%", 100 * t.density);
        print_stage(name, isa, t.sparse, first.sparse, dense * t.density, true, peak);
        print_stage("attend full", isa, t.dense, first.dense, dense, true, peak);
        print_stage("attend one query", isa, t.few, first.few, 2 * keys, false, memory_bytes);
    }
    case_free(c);
}

void ck_bench(bool on_shared_machine)
{
    const double peak_seconds = 0.3;
    shared = on_shared_machine;
    double flops[CK_MAX_TIER], flops_bf16[CK_MAX_TIER];
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        const double fma = bench_peak_flops(ck_tiers[tier], BENCH_PEAK_FMA, peak_seconds, 1);
        flops[tier] = fma > 0 ? fma : flops[tier - 1];
        flops_bf16[tier] = bench_peak_flops(ck_tiers[tier], BENCH_PEAK_DOT, peak_seconds, 1);
        printf("peak of one core, %-10s %7.1f GFLOP/s", prism_isa_name(ck_tiers[tier]), flops[tier] / 1e9);
        if (flops_bf16[tier] > 0)
            printf(", bfloat16 dot products %7.1f", flops_bf16[tier] / 1e9);
        putchar('\n');
    }
    const double cache = bench_peak_traffic(16 << 10, BENCH_PEAK_COPY, peak_seconds, 1);
    const double memory = bench_peak_traffic(256 << 20, BENCH_PEAK_COPY, peak_seconds, 1);
    printf("copy of one core, read and written: in cache %.1f GB/s, in memory %.1f GB/s\n\n", cache / 1e9,
           memory / 1e9);
    bench_kernels(flops, flops_bf16, cache);
    bench_stages(flops, flops_bf16, memory);
}
