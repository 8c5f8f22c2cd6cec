/* Checks and times every kernel and stage.
 *
 *   checkkern [--seed N] [--verbose] [--every N] [TEST ...]   check; no TEST: all of them; --every N: a part of the
 *                                                             cases, for emulators
 *   checkkern --device cuda [...]                             check the GPU's kernels, not the processor's tiers
 *   checkkern --bench [--shared]                              time; --shared: one core, processor time, on a machine
 *                                                             that others use too
 */
#include "checkkern.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu.h"

ck_state ck;

prism_isa ck_tiers[CK_MAX_TIER];

enum { ON_CPU = 1, ON_GPU = 2, ON_BOTH = 3 };

static const struct {
    const char *name;
    void (*run)(void);
    int where; /* ON_BOTH: stages of the API; else inner loops of the processor's, or launch functions of the GPU's */
} tests[] = {
    {"rows", ck_rows, ON_CPU},
    {"gemm", ck_gemm, ON_CPU},
    {"softmax", ck_softmax, ON_CPU},
    {"select", ck_select, ON_BOTH},
    {"attend", ck_attend, ON_BOTH},
    {"moments", ck_moments, ON_BOTH},
    {"nonfinite", ck_nonfinite, ON_BOTH},
#ifdef CK_CUDA
    {"launch_attend", ck_launch_attend, ON_GPU},
    {"launch_plan", ck_launch_plan, ON_GPU},
    {"launch_moments", ck_launch_moments, ON_GPU},
    {"launch_fp8", ck_launch_fp8, ON_GPU},
#endif
};
enum { n_test = sizeof tests / sizeof tests[0], n_printed = 40 };

static int n_tier;

static void find_tiers(void)
{
    for (int isa = PRISM_ISA_C; isa < PRISM_N_ISA; isa++)
        if (prism_tier_best((prism_isa)isa) != PRISM_ISA_AUTO)
            ck_tiers[n_tier++] = (prism_isa)isa;
}

int ck_n_tier(void)
{
    return ck.gpu ? 2 : n_tier;
}

bool ck_is_gpu(int tier)
{
    return ck.gpu && tier > 0;
}

const char *ck_tier_name(int tier)
{
    return ck_is_gpu(tier) ? "cuda" : prism_isa_name(ck_tiers[tier]);
}

prism_ctx *ck_context(int tier)
{
    if (!ck_is_gpu(tier))
        return context_new(ck_tiers[tier], 2);
    prism_config config;
    prism_ctx *ctx = NULL;
    prism_config_init(&config);
    config.device = PRISM_DEVICE_CUDA;
    prism_create(&config, &ctx);
    return ctx;
}

static bool count(bool ok, const char *format, va_list args)
{
    ck.n_check++;
    if (ok)
        return true;
    if (ck.n_fail++ < n_printed || ck.verbose) {
        printf("FAIL %s: ", ck.what);
        vprintf(format, args);
        printf("  (--seed %llu)\n", (unsigned long long)ck.seed);
    }
    return false;
}

bool ck_ok(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    count(ok, format, args);
    va_end(args);
    return ok;
}

bool ck_near(double got, double want, double bound, const char *format, ...)
{
    const bool ok = (isnan(got) && isnan(want)) || got == want || fabs(got - want) <= bound;
    va_list args;
    va_start(args, format);
    if (!count(ok, format, args) && ck.n_fail <= n_printed)
        printf("     got %.9g, want %.9g, off by %.3g, bound %.3g\n", got, want, fabs(got - want), bound);
    va_end(args);
    return ok;
}

rng ck_rng(const char *test)
{
    uint64_t h = ck.seed ^ UINT64_C(0xcbf29ce484222325);
    while (*test)
        h = (h ^ (unsigned char)*test++) * UINT64_C(0x100000001b3);
    return (rng){h};
}

static int run_test(int i)
{
    const double start = seconds_now();
    ck.what = tests[i].name;
    ck.n_check = ck.n_fail = 0;
    tests[i].run();
    printf("%-14s %8ld checks, %ld failed, %.1f s\n", tests[i].name, ck.n_check, ck.n_fail, seconds_now() - start);
    fflush(stdout);
    return ck.n_fail > 0 || ck.n_check == 0;
}

static bool chosen(const char *name, char **args, int n_arg)
{
    for (int i = 0; i < n_arg; i++)
        if (!strcmp(args[i], name))
            return true;
    return n_arg == 0;
}

int main(int argc, char **argv)
{
    int n_arg = 0, failed = 0, n_run = 0;
    bool bench = false, shared = false;
    ck.seed = (uint64_t)time(NULL);
    ck.every = 1;
    find_tiers();
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            ck.seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--every") && i + 1 < argc)
            ck.every = atoi(argv[++i]) > 0 ? atoi(argv[i]) : 1;
        else if (!strcmp(argv[i], "--bench"))
            bench = true;
        else if (!strcmp(argv[i], "--shared"))
            shared = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            ck.gpu = !strcmp(argv[++i], "cuda");
        else if (!strcmp(argv[i], "--verbose"))
            ck.verbose = true;
        else
            argv[1 + n_arg++] = argv[i];
    }
    if (bench) {
        ck_bench(shared);
        return 0;
    }
    if (ck.gpu && !ck_gpu_begin())
        return 2;
    printf("seed %llu, tiers up to %s\n", (unsigned long long)ck.seed, ck_tier_name(ck_n_tier() - 1));
    for (int i = 0; i < n_test; i++)
        if ((tests[i].where & (ck.gpu ? ON_GPU : ON_CPU)) && chosen(tests[i].name, argv + 1, n_arg)) {
            failed += run_test(i);
            n_run++;
        }
    if (n_run < (n_arg ? n_arg : 1)) {
        fprintf(stderr, "checkkern: unknown test; there are:");
        for (int i = 0; i < n_test; i++)
            fprintf(stderr, " %s", tests[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    return failed > 0;
}
