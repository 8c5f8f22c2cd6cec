/* What this machine can do at most, measured in the same run: multiply-adds from registers, bytes through a copy. */
#include "ck_peak.h"

#include <stdlib.h>
#include <string.h>

#include "checkkern.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Enough independent accumulators to cover the latency of a multiply-add on two ports, and few enough for the
 * registers. */
#define FMA_LOOP(vector, set1, fmadd, n_acc)                                                                           \
    vector acc[n_acc]; /* every loop over it is unrolled: an index at run time would keep it in memory */              \
    _Pragma("GCC unroll 12") for (int j = 0; j < n_acc; j++) acc[j] = set1(1.0f + (float)j);                           \
    const vector x = set1(0.999f), y = set1(0.001f);                                                                   \
    for (long i = 0; i < n; i++)                                                                                       \
        _Pragma("GCC unroll 12") for (int j = 0; j < n_acc; j++) acc[j] = fmadd(acc[j], x, y);                         \
    vector sum = acc[0];                                                                                               \
    _Pragma("GCC unroll 12") for (int j = 1; j < n_acc; j++) sum = fmadd(acc[j], x, sum);                              \
    float first;                                                                                                       \
    memcpy(&first, &sum, sizeof first);                                                                                \
    return first;

__attribute__((target("avx2,fma"))) static float fma_avx2(long n)
{
    FMA_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps, 12)
}

__attribute__((target("avx512f"))) static float fma_avx512(long n)
{
    FMA_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps, 12)
}

#endif

/* Two operations a lane, 4 lanes of baseline vectors, compilers do not fuse: what plain C could reach. */
static float fma_c(long n)
{
    typedef float vector __attribute__((vector_size(16)));
    vector acc[12];
    _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) acc[j] = (vector){1, 2, 3, (float)j};
    for (long i = 0; i < n; i++)
        _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) acc[j] = acc[j] * 0.999f + 0.001f;
    _Pragma("GCC unroll 12") for (int j = 1; j < 12; j++) acc[0] += acc[j];
    return acc[0][0];
}

double ck_peak_flops(prism_isa isa)
{
    const long n = 200000; /* short and often: the best run is one that nobody disturbed */
    const int lanes = isa == PRISM_ISA_AVX512 ? 16 : isa == PRISM_ISA_AVX2 ? 8 : 4;
    float (*run)(long) = fma_c;
#if defined(__x86_64__)
    if (isa == PRISM_ISA_AVX2)
        run = fma_avx2;
    if (isa == PRISM_ISA_AVX512)
        run = fma_avx512;
#endif
    double best = 1e9;
    static volatile float sink;
    for (int repeat = 0; repeat < 400; repeat++) {
        const double start = seconds_now();
        sink = run(n);
        const double took = seconds_now() - start;
        best = took < best ? took : best;
    }
    (void)sink;
    return 2.0 * 12 * lanes * (double)n / best;
}

double ck_peak_bytes(size_t n)
{
    char *from = malloc(n), *to = malloc(n);
    if (!from || !to)
        abort();
    memset(from, 1, n);
    memset(to, 2, n);
    const int inner = n < 1 << 20 ? 2000 : 1;
    double best = 1e9;
    for (int repeat = 0; repeat < 9; repeat++) {
        const double start = seconds_now();
        for (int i = 0; i < inner; i++) {
            memcpy(to, from, n);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        const double took = (seconds_now() - start) / inner;
        best = took < best ? took : best;
    }
    free(from);
    free(to);
    return 2.0 * (double)n / best;
}
