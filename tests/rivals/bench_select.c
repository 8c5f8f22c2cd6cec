/*
 * What selection costs, method by method, on random data:
 *
 *   bench_select [n_token [n_head [n_kv_head [d_head [n_repeat]]]]]
 *
 * On a machine that others use, `taskset -c 0 bench_select ...` and the processor time are what can be believed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "prism_attn/prism.h"

static float *random_values(size_t n)
{
    float *x = malloc(n * sizeof *x);
    unsigned long long state = 1;
    for (size_t i = 0; x && i < n; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        x[i] = (float)((double)(state >> 33) / 2147483648.0 - 0.5) * 3.4f; /* variance about 1 */
    }
    return x;
}

static int by_rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? 1 : x < y ? -1 : 0;
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(prism_ctx *ctx, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, prism_last_error(ctx));
    exit(1);
}

static void bench(prism_ctx *ctx, prism_options *o, const prism_call *call, int n_repeat)
{
    enum { max_repeat = 100 };
    double seconds[max_repeat], cpu = 1e9;
    size_t bytes;
    prism_plan *plan;
    prism_plan_view view = {.struct_size = sizeof view};
    if (prism_workspace_bytes(ctx, o, call, &bytes) || prism_plan_create(ctx, call, o->block_size, 0, &plan))
        fail(ctx, "setting up");
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int i = 0; i < n_repeat; i++) {
        const double start = now(CLOCK_MONOTONIC), cpu_start = now(CLOCK_PROCESS_CPUTIME_ID);
        if (prism_plan_build(ctx, o, call, plan, workspace, bytes))
            fail(ctx, prism_method_name(o->method));
        seconds[i] = now(CLOCK_MONOTONIC) - start;
        cpu = fmin(cpu, now(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    }
    prism_plan_read(plan, &view);
    qsort(seconds, (size_t)n_repeat, sizeof *seconds, by_rising);
    printf("%-13s median %9.2f ms  best %9.2f ms  cpu %9.2f ms  density %.3f  keys %lld  workspace %7.1f MB\n",
           prism_method_name(o->method), 1e3 * seconds[n_repeat / 2], 1e3 * seconds[0], 1e3 * cpu, view.density,
           (long long)view.n_key_selected, (double)bytes / 1e6);
    free(workspace);
    prism_plan_destroy(plan);
}

int main(int argc, char **argv)
{
    const int n = argc > 1 ? atoi(argv[1]) : 8192, n_head = argc > 2 ? atoi(argv[2]) : 32;
    const int n_kv_head = argc > 3 ? atoi(argv[3]) : 8, d = argc > 4 ? atoi(argv[4]) : 128;
    const int n_repeat = argc > 5 ? atoi(argv[5]) : 5;
    const size_t n_q_value = (size_t)n * (size_t)n_head * (size_t)d,
                 n_k_value = (size_t)n * (size_t)n_kv_head * (size_t)d;
    prism_ctx *ctx;
    prism_call call;
    prism_rope rope;
    prism_bands bands;
    if (prism_create(NULL, &ctx) || prism_rope_init(&rope, d) ||
        prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, d, 1e6) || prism_bands_split(&bands, &rope, d / 2, d / 4 * 3))
        return 1;
    prism_call_init(&call);
    call.n_head = n_head;
    call.n_kv_head = n_kv_head;
    call.d_head = d;
    call.n_q = call.n_kv = n;
    call.q = prism_tensor_token_major(random_values(n_q_value), PRISM_F32, n, n_head, d);
    call.k = prism_tensor_token_major(random_values(n_k_value), PRISM_F32, n, n_kv_head, d);
    for (int m = 0; m < prism_method_count(); m++) {
        prism_options o;
        prism_options_init(&o);
        o.method = (prism_method)m;
        o.bands = &bands;
        if (m != PRISM_METHOD_DENSE)
            bench(ctx, &o, &call, n_repeat);
    }
    free(call.q.data), free(call.k.data);
    prism_destroy(ctx);
    return 0;
}
