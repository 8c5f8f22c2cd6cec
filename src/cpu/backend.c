/* The CPU backend: its stages, and which tier's inner loops they run. */
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/clock.h"
#include "cpu/cpu.h"

static bool fill_plan(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan,
                      int64_t *n_selected)
{
    (void)ctx;
    return prism_plan_set_bits(plan, p, bits, n_selected);
}

static void mark(const prism_ctx *ctx, prism_moment moment)
{
    ctx->moments[moment] = prism_seconds();
}

static double seconds(const prism_ctx *ctx, prism_moment from, prism_moment to)
{
    return ctx->moments[to] - ctx->moments[from];
}

const prism_kernels prism_kernels_cpu = {
    .name = "cpu",
    .device = PRISM_DEVICE_CPU,
    .min_tokens = 1024,
    .means_bytes = prism_means_bytes_cpu,
    .pool = prism_pool_cpu,
    .bits_bytes = prism_bits_bytes_cpu,
    .select_bytes = prism_select_bytes_cpu,
    .select = prism_select_cpu,
    .fill = fill_plan,
    .attend_bytes = prism_attend_bytes_cpu,
    .attend = prism_attend_cpu,
    .probe_bytes = prism_probe_bytes_cpu,
    .probe = prism_probe_cpu,
    .pick_lines = prism_pick_lines_cpu,
    .list_lines_bytes = prism_list_lines_bytes_cpu,
    .list_lines = prism_list_lines_cpu,
    .select_lines_bytes = prism_select_lines_bytes_cpu,
    .select_lines = prism_select_lines_cpu,
    .select_strided_bytes = prism_select_strided_bytes_cpu,
    .select_strided = prism_select_strided_cpu,
    .select_tokens_bytes = prism_select_tokens_bytes_cpu,
    .select_tokens = prism_select_tokens_cpu,
    .mark = mark,
    .seconds = seconds,
};

#if defined(__x86_64__)
/* The compiler's runtime asks CPUID and, for AVX, whether the operating system saves the registers. */
#define HAS(feature) __builtin_cpu_supports(feature)
static bool has_f16c(void) /* a name that clang 14's runtime does not know */
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return HAS("avx2") && HAS("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && HAS("avx512f") && HAS("avx512bw") && HAS("avx512dq") && HAS("avx512vl");
}

void prism_cpu_describe(char *text, size_t n)
{
    __builtin_cpu_init();
    snprintf(text, n, "%s%s%s%s%s%s%s%s", HAS("avx2") ? "avx2 " : "", HAS("fma") ? "fma " : "",
             has_f16c() ? "f16c " : "", HAS("avx512f") ? "avx512f " : "", HAS("avx512bw") ? "avx512bw " : "",
             HAS("avx512vl") ? "avx512vl " : "", HAS("avx512vnni") ? "avx512vnni " : "",
             HAS("avx512bf16") ? "avx512bf16 " : "");
    const size_t length = strlen(text);
    if (length)
        text[length - 1] = '\0';
}
#undef HAS
#else
static bool has_avx2(void)
{
    return false;
}

static bool has_avx512(void)
{
    return false;
}

void prism_cpu_describe(char *text, size_t n)
{
    snprintf(text, n, "none known");
}
#endif

prism_isa prism_cpu_best_isa(prism_isa cap)
{
    const prism_isa best = has_avx512() ? PRISM_ISA_AVX512 : has_avx2() ? PRISM_ISA_AVX2 : PRISM_ISA_C;
    return cap == PRISM_ISA_AUTO ? best : cap <= best ? cap : PRISM_ISA_AUTO;
}

void prism_cpu_get_kernels(prism_isa isa, prism_cpu_kernels *k)
{
    prism_cpu_kernels_c(k);
#if defined(__x86_64__)
    if (isa >= PRISM_ISA_AVX2)
        prism_cpu_kernels_avx2(k);
    if (isa >= PRISM_ISA_AVX512)
        prism_cpu_kernels_avx512(k);
#endif
}
