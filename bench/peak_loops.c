/*
 * What the processor can do: loops that only multiply and add, in registers, and loops that only move memory. One loop
 * for each tier of the library's kernels, so that a tier is judged by what its own instructions can give.
 */
#include "peak_loops.h"

#include <omp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { n_chain = 12 }; /* independent accumulators: latency 4, two units, and some to spare; 16 registers hold them */

/* Each loop runs n rounds and returns something that depends on all of them; operations: of one round. */
typedef float peak_loop(int64_t n);

typedef struct peak_tier {
    prism_isa isa;
    bench_peak_kind kind;
    peak_loop *run;
    double flop_per_round;
} peak_tier;

/* Defines a loop over n_chain vectors. x = x * 0.5 + 0.5 stays bounded. Variables, not an array: the compiler must have
 * no reason to keep them in memory; and an empty asm after each, so that it cannot fold a chain. */
#define CHAINS(DO, ...)                                                                                                \
    DO(0, __VA_ARGS__) DO(1, __VA_ARGS__) DO(2, __VA_ARGS__) DO(3, __VA_ARGS__) DO(4, __VA_ARGS__)                     \
    DO(5, __VA_ARGS__) DO(6, __VA_ARGS__) DO(7, __VA_ARGS__) DO(8, __VA_ARGS__) DO(9, __VA_ARGS__)                     \
    DO(10, __VA_ARGS__) DO(11, __VA_ARGS__)
#define DECLARE(i, vector, set1) vector x##i = set1((float)i);
#define STEP(i, fma, place)                                                                                            \
    x##i = fma(x##i, half, half);                                                                                      \
    __asm__ volatile("" : "+" place(x##i));
#define TOTAL(i, first) sum += first(x##i);
#define PEAK_LOOP(name, attributes, vector, set1, fma, first, place)                                                   \
    attributes static float name(int64_t n)                                                                            \
    {                                                                                                                  \
        const vector half = set1(0.5f);                                                                                \
        CHAINS(DECLARE, vector, set1)                                                                                  \
        for (int64_t r = 0; r < n; r++) {                                                                              \
            CHAINS(STEP, fma, place)                                                                                   \
        }                                                                                                              \
        float sum = 0;                                                                                                 \
        CHAINS(TOTAL, first)                                                                                           \
        return sum;                                                                                                    \
    }
#define FOR(instructions) __attribute__((target(instructions)))

typedef float v4f __attribute__((vector_size(16)));
#define SET1_V4(a) ((v4f){a, a, a, a})
#define FMA_V4(a, b, c) ((a) * (b) + (c))
#define FIRST_V4(a) ((a)[0])

#if defined(__x86_64__)
PEAK_LOOP(peak_c, , v4f, SET1_V4, FMA_V4, FIRST_V4, "x")
PEAK_LOOP(peak_avx2, FOR("avx2,fma"), __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_cvtss_f32, "x")
PEAK_LOOP(peak_avx512, FOR("avx512f"), __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_cvtss_f32, "v")

/* Four operations a lane: two products of bfloat16, added. A lane holds the pair (0, 0.5): sums grow by 0.25 a round,
 * until rounding holds them. */
#define DOT_512(x, a, b) _mm512_dpbf16_ps(x, (__m512bh)(a), (__m512bh)(b))
PEAK_LOOP(peak_avx512_bf16, FOR("avx512f,avx512bf16"), __m512, _mm512_set1_ps, DOT_512, _mm512_cvtss_f32, "v")

enum { n_tile = 6 }; /* of sums; two more of operands. A product takes 16 cycles, its result some 50 */

/* All zero: the time does not depend on the values. */
FOR("amx-tile,amx-bf16") static float peak_amx(int64_t n)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int t = 0; t < n_tile + 2; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    __asm__ volatile("" : : "m"(config)); /* gcc's intrinsic tells of the first bytes only: the rest must be stored */
    _tile_loadconfig(&config);
    for (int64_t r = 0; r < n; r++) {
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
#define DOT_128(x, a, b)                                                                                               \
    (v4f) vbfdotq_f32((float32x4_t)(x), vreinterpretq_bf16_f32((float32x4_t)(a)),                                      \
                      vreinterpretq_bf16_f32((float32x4_t)(b)))
PEAK_LOOP(peak_c, , v4f, SET1_V4, FMA_V4, FIRST_V4, "w")
PEAK_LOOP(peak_neon_bf16, FOR("arch=armv8.2-a+bf16"), v4f, SET1_V4, DOT_128, FIRST_V4, "w")
#else
PEAK_LOOP(peak_c, , v4f, SET1_V4, FMA_V4, FIRST_V4, "m")
#endif

static const peak_tier tiers[] = {
    {PRISM_ISA_C, BENCH_PEAK_FMA, peak_c, 2.0 * n_chain * 4},
#if defined(__x86_64__)
    {PRISM_ISA_AVX2, BENCH_PEAK_FMA, peak_avx2, 2.0 * n_chain * 8},
    {PRISM_ISA_AVX512, BENCH_PEAK_FMA, peak_avx512, 2.0 * n_chain * 16},
    {PRISM_ISA_AVX512BF16, BENCH_PEAK_DOT, peak_avx512_bf16, 4.0 * n_chain * 16},
    {PRISM_ISA_AMX, BENCH_PEAK_DOT, peak_amx, n_tile * 2.0 * 16 * 16 * 32},
#elif defined(__aarch64__)
    {PRISM_ISA_NEONBF16, BENCH_PEAK_DOT, peak_neon_bf16, 4.0 * n_chain * 4},
#endif
};

/* ------------------------------------------------------------------------------------------- multiplies ---- */

/* Uses the result, so that the compiler does not drop the loop before. */
static void keep(float x)
{
    __asm__ volatile("" : : "m"(x));
}

/* All threads run for `seconds`, each in pieces of about a millisecond; the sum of the threads' best pieces. A thread
 * that loses its core to another program for a while then costs nothing, and all threads are busy throughout. */
static double best_flops(const peak_tier *tier, double seconds, int32_t n_thread)
{
    double sum = 0;
    const double end = omp_get_wtime() + seconds;
#pragma omp parallel num_threads(n_thread) reduction(+ : sum)
    {
        int64_t n = 1 << 12;
        double best = 0;
        do {
            const double start = omp_get_wtime();
            keep(tier->run(n));
            const double took = omp_get_wtime() - start, rate = (double)n * tier->flop_per_round / took;
            if (took > 2e-4 && rate > best) /* shorter ones would tell the clock's grain */
                best = rate;
            n *= took < 5e-4 ? 2 : 1;
        } while (omp_get_wtime() < end);
        sum += best;
    }
    return sum;
}

double bench_peak_flops(prism_isa isa, bench_peak_kind kind, double seconds, int32_t n_thread)
{
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
        if (tiers[i].isa == isa && tiers[i].kind == kind)
            return best_flops(&tiers[i], seconds, n_thread);
    return 0;
}

/* ---------------------------------------------------------------------------------------------- memory ---- */

enum { moved_bytes = 8 << 20 }; /* in one measurement of one thread */

static uint64_t read_all(const uint64_t *x, int64_t n)
{
    typedef uint64_t v8 __attribute__((vector_size(64)));
    v8 sum[4] = {{0}};
    for (int64_t i = 0; i + 32 <= n; i += 32)
        for (int64_t j = 0; j < 4; j++) {
            v8 loaded;
            memcpy(&loaded, x + i + 8 * j, sizeof loaded);
            sum[j] ^= loaded;
        }
    uint64_t all = 0;
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < 8; l++)
            all ^= sum[j][l];
    return all;
}

/* Returns one thread's best rate. A measurement walks through a part of a large buffer, or several times through a
 * small one. */
static double best_bytes_s(const char *from, char *to, size_t buffer_bytes, double seconds)
{
    const size_t piece = buffer_bytes < moved_bytes ? buffer_bytes : moved_bytes;
    double best = 0;
    const double end = omp_get_wtime() + seconds;
    for (size_t at = 0; omp_get_wtime() < end; at = (at + piece) % buffer_bytes) {
        const double start = omp_get_wtime();
        for (size_t moved = 0; moved < moved_bytes; moved += piece) {
            if (to)
                memcpy(to + at, from + at, piece);
            else
                keep((float)read_all((const uint64_t *)(from + at), (int64_t)piece / 8));
            __asm__ volatile("" : : "r"(to) : "memory"); /* each round is run */
        }
        const double rate = (to ? 2.0 : 1.0) * moved_bytes / (omp_get_wtime() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

double bench_peak_traffic(size_t buffer_bytes, bench_peak_move move, double seconds, int32_t n_thread)
{
    double sum = 0;
    int32_t n_failed = 0;
#pragma omp parallel num_threads(n_thread) reduction(+ : sum, n_failed)
    {
        char *from = aligned_alloc(64, buffer_bytes), *to = aligned_alloc(64, buffer_bytes);
        n_failed += !from || !to;
        if (from && to) { /* touched here: the pages are this thread's */
            memset(from, 1, buffer_bytes);
            memset(to, 2, buffer_bytes);
        }
#pragma omp barrier
        if (from && to)
            sum += best_bytes_s(from, move == BENCH_PEAK_COPY ? to : NULL, buffer_bytes, seconds);
        free(from);
        free(to);
    }
    return n_failed ? 0 : sum;
}
