/* What this machine can do at most, measured in the same run: multiply-adds from registers, bytes through a copy. */
#include "ck_peak.h"

#include <stdlib.h>
#include <string.h>

#include "checkkern.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__x86_64__)
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

__attribute__((target("avx512f,avx512bf16"))) static float dot_avx512(long n)
{
    __m512 acc[20]; /* of longer latency than a multiply-add */
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3c003c00);
    _Pragma("GCC unroll 20") for (int j = 0; j < 20; j++) acc[j] = _mm512_set1_ps((float)j);
    for (long i = 0; i < n; i++)
        _Pragma("GCC unroll 20") for (int j = 0; j < 20; j++)
        {
            acc[j] = _mm512_dpbf16_ps(acc[j], x, x);
            __asm__ volatile("" : "+v"(acc[j]));
        }
    _Pragma("GCC unroll 20") for (int j = 1; j < 20; j++) acc[0] = _mm512_add_ps(acc[0], acc[j]);
    return _mm512_cvtss_f32(acc[0]);
}

/* Six tiles of sums, two of operands, all zero: time does not depend on values. */
__attribute__((target("amx-tile,amx-bf16"))) static float dot_amx(long n)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    __asm__ volatile("" : : "m"(config)); /* gcc's intrinsic tells of the first bytes only: the rest must be stored */
    _tile_loadconfig(&config);
    for (long i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    _tile_release();
    return 0;
}
#elif defined(__aarch64__)
__attribute__((target("arch=armv8.2-a+bf16"))) static float dot_neon(long n)
{
    float32x4_t acc[12];
    const bfloat16x8_t x = vreinterpretq_bf16_u16(vdupq_n_u16(0x3c00));
    _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) acc[j] = vdupq_n_f32((float)j);
    for (long i = 0; i < n; i++)
        _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) acc[j] = vbfdotq_f32(acc[j], x, x);
    _Pragma("GCC unroll 12") for (int j = 1; j < 12; j++) acc[0] = vaddq_f32(acc[0], acc[j]);
    return vgetq_lane_f32(acc[0], 0);
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

/* Rounds a second. */
static double best_rate(float (*run)(long), long n)
{
    double best = 1e9;
    static volatile float sink;
    for (int repeat = 0; repeat < 400; repeat++) { /* short and often: the best run is one that nobody disturbed */
        const double start = seconds_now();
        sink = run(n);
        const double took = seconds_now() - start;
        best = took < best ? took : best;
    }
    (void)sink;
    return (double)n / best;
}

double ck_peak_flops(prism_isa isa)
{
    (void)isa;
#if defined(__x86_64__)
    if (isa >= PRISM_ISA_AVX512)
        return best_rate(fma_avx512, 200000) * 2 * 12 * 16;
    if (isa == PRISM_ISA_AVX2)
        return best_rate(fma_avx2, 200000) * 2 * 12 * 8;
#endif
    return best_rate(fma_c, 200000) * 2 * 12 * 4;
}

double ck_peak_flops_bf16(prism_isa isa)
{
#if defined(__x86_64__)
    if (isa == PRISM_ISA_AMX)
        return best_rate(dot_amx, 5000) * 6 * 2 * 16 * 16 * 32;
    if (isa == PRISM_ISA_AVX512BF16)
        return best_rate(dot_avx512, 100000) * 20 * 4 * 16;
#elif defined(__aarch64__)
    if (isa == PRISM_ISA_NEONBF16)
        return best_rate(dot_neon, 200000) * 12 * 4 * 4;
#endif
    return 0;
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
