/*
 * AMX tier: the AVX-512-BF16 tier's kernels, with products on tiles: 16 rows of 16 float32 sums, 16 rows of 16 pairs.
 * Two by two tiles of sums take 4 of the 8 registers and need one load for each product. The tiles' shape is loaded
 * and released within a call: nothing of it outlasts the kernel.
 */
#include <immintrin.h>
#include <string.h>

#include "cpu/tier.h"

enum { TILE = 16, PANEL = 64, PAIRS = 32 }; /* PAIRS: elements of k in one tile */

/* Tile registers: 0 1 / 2 3 sums, 4 5 rows of a, 6 7 columns of b. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Products of r0 + r1 rows, up to 16 each. */
static void configure(int32_t r0, int32_t r1)
{
    tile_config config = {.palette = 1};
    const int32_t rows[8] = {r0, r0, r1, r1, r0, r1, TILE, TILE};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = (uint8_t)rows[t];
        config.row_bytes[t] = rows[t] ? 64 : 0;
    }
    __asm__ volatile("" : : "m"(config)); /* gcc's intrinsic tells of the first bytes only: the rest must be stored */
    _tile_loadconfig(&config);
}

/* 32 columns of r0 + r1 rows. c starts as what the caller left there, or as 0. */
static inline __attribute__((always_inline)) void tile_step(float *c, int64_t ldc, bool adds, const uint16_t *a,
                                                            int64_t lda, const uint16_t *b, int32_t k, bool second)
{
    const int64_t c_bytes = ldc * (int64_t)sizeof *c, a_bytes = lda * (int64_t)sizeof *a;
    enum { b_bytes = PANEL * 4 };
    if (adds) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + TILE, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (second && adds) {
        _tile_loadd(2, c + TILE * ldc, c_bytes);
        _tile_loadd(3, c + TILE * ldc + TILE, c_bytes);
    } else if (second) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int32_t l = 0; l < k; l += PAIRS, b += PAIRS * PANEL) {
        _tile_loadd(4, a + l, a_bytes);
        _tile_loadd(6, b, b_bytes);
        _tile_loadd(7, b + 2 * TILE, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (second) {
            _tile_loadd(5, a + TILE * lda + l, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + TILE, c_bytes);
    if (second) {
        _tile_stored(2, c + TILE * ldc, c_bytes);
        _tile_stored(3, c + TILE * ldc + TILE, c_bytes);
    }
}

/* Rows whose largest logit did not move keep alpha 1: nothing to do for them. */
static void scale_rows(float *c, int64_t ldc, const float *alpha, int32_t m, int32_t n)
{
    for (int32_t i = 0; i < m; i++) {
        const __m512 factor = _mm512_set1_ps(alpha[i]);
        for (int32_t j = 0; j < n && alpha[i] != 1.0f; j += TILE)
            _mm512_store_ps(c + i * ldc + j, _mm512_mul_ps(factor, _mm512_load_ps(c + i * ldc + j)));
    }
}

static void gemm_bf16_amx(float *c, int64_t ldc, const float *alpha, const uint16_t *a, int64_t lda, const uint16_t *b,
                          int32_t m, int32_t n, int32_t k)
{
    const int32_t whole = m / (2 * TILE) * 2 * TILE, rest = m - whole;
    if (alpha)
        scale_rows(c, ldc, alpha, m, n);
    if (whole) {
        configure(TILE, TILE);
        for (int32_t j = 0; j < n; j += 2 * TILE) {
            const uint16_t *panel = b + (int64_t)(j / PANEL) * PANEL * k + j % PANEL * 2;
            for (int32_t i = 0; i < whole; i += 2 * TILE)
                tile_step(c + i * ldc + j, ldc, alpha, a + i * lda, lda, panel, k, true);
        }
    }
    if (rest) {
        configure(rest < TILE ? rest : TILE, rest > TILE ? rest - TILE : 0);
        for (int32_t j = 0; j < n; j += 2 * TILE)
            tile_step(c + whole * ldc + j, ldc, alpha, a + whole * lda, lda,
                      b + (int64_t)(j / PANEL) * PANEL * k + j % PANEL * 2, k, rest > TILE);
    }
    _tile_release();
}

void prism_cpu_kernels_amx(prism_cpu_kernels *k)
{
    k->depth_bf16 = PAIRS;
    k->gemm_bf16 = gemm_bf16_amx;
}
