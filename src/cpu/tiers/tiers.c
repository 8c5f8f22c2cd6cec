/* Which tiers of inner loops there are, and which of them this machine runs. */
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "cpu/cpu.h"

typedef struct tier {
    const char *name; /* as in PRISM_ISA */
    prism_isa isa;
    bool (*runs)(void);
    bool (*pays)(void);          /* whether it is chosen unasked */
    void (*fill)(prism_tier *k); /* overrides what the tiers before it set */
} tier;

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
/* The compiler's runtime asks CPUID and, for AVX, whether the operating system saves the registers. */
#define HAS(feature) (__builtin_cpu_init(), __builtin_cpu_supports(feature) != 0)
static bool has_f16c(void) /* a name that clang 14's runtime does not know */
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    return HAS("avx2") && HAS("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && HAS("avx512f") && HAS("avx512bw") && HAS("avx512dq") && HAS("avx512vl");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && HAS("avx512bf16");
}

/* Intel's processors take two cycles for a dot product and half a cycle for a multiply-add: float32 is faster there. */
static bool pays_avx512bf16(void)
{
    return __builtin_cpu_init(), !__builtin_cpu_is("intel");
}

/* Tiles are large: besides saving them, the system has to be asked for room to do so, once for the whole process. */
static bool has_amx(void)
{
    enum { amx_bf16 = 1 << 22, amx_tile = 1 << 24, tile_state = 3 << 17, osxsave = 1 << 27 };
    enum { arch_req_xcomp_perm = 0x1023, tile_data = 18 };
    unsigned a, b, c = 0, d = 0, saved, high;
    if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        (d & (amx_bf16 | amx_tile)) != (amx_bf16 | amx_tile) || !__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave))
        return false;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    return (saved & tile_state) == tile_state && !syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data);
}
#elif defined(__aarch64__)
static bool has_bf16(void)
{
    return (getauxval(AT_HWCAP2) & 1 << 14) != 0; /* HWCAP2_BF16 */
}
#endif

/* Climbing: a machine that runs one runs all before it. */
static const tier tiers[] = {
    {"c", PRISM_ISA_C, always, always, prism_tier_c},
#if defined(__x86_64__)
    {"avx2", PRISM_ISA_AVX2, has_avx2, always, prism_tier_avx2},
    {"avx512", PRISM_ISA_AVX512, has_avx512, always, prism_tier_avx512},
    {"avx512bf16", PRISM_ISA_AVX512BF16, has_avx512bf16, pays_avx512bf16, prism_tier_avx512bf16},
    {"amx", PRISM_ISA_AMX, has_amx, always, prism_tier_amx},
#elif defined(__aarch64__)
    {"neon", PRISM_ISA_NEON, always, always, prism_tier_neon},
    {"neonbf16", PRISM_ISA_NEONBF16, has_bf16, always, prism_tier_neonbf16},
#endif
};
enum { n_tier = sizeof tiers / sizeof tiers[0] };

prism_isa prism_tier_best(prism_isa cap)
{
    prism_isa best = PRISM_ISA_AUTO;
    for (int i = 0; i < n_tier && (cap == PRISM_ISA_AUTO || tiers[i].isa <= cap) && tiers[i].runs(); i++)
        if (cap != PRISM_ISA_AUTO || tiers[i].pays())
            best = tiers[i].isa;
    return cap == PRISM_ISA_AUTO || best == cap ? best : PRISM_ISA_AUTO;
}

prism_isa prism_tier_find(const char *name)
{
    for (int i = 0; i < n_tier; i++)
        if (!strcmp(name, tiers[i].name))
            return tiers[i].isa;
    return PRISM_ISA_AUTO;
}

const char *prism_isa_name(prism_isa isa)
{
    for (int i = 0; i < n_tier; i++)
        if (tiers[i].isa == isa)
            return tiers[i].name;
    return NULL;
}

void prism_tier_get(prism_isa isa, prism_tier *k)
{
    for (int i = 0; i < n_tier && tiers[i].isa <= isa; i++) {
        tiers[i].fill(k);
        k->name = tiers[i].name;
        k->isa = tiers[i].isa;
    }
}

/* "avx2 avx512 avx512bf16": the tiers that the machine runs, beyond C. */
void prism_tier_describe(char *text, size_t n)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 1; i < n_tier && tiers[i].runs(); i++)
        used += (size_t)snprintf(text + used, n - used, "%s%s", i > 1 ? " " : "", tiers[i].name);
}
