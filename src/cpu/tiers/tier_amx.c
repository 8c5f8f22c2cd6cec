/*
 * AMX tier: the AVX-512-BF16 tier's kernels, with products on tiles: 16 rows of 16 float32 sums, 16 rows of 16 pairs.
 * Two by two tiles of sums take 4 of the 8 registers and need one load for each product. The tiles' shape is loaded
 * and released within a call: nothing of it outlasts the kernel.
 *
 * attend_bf16 keeps close what comes again, because a step of products reads 4 KB in 64 cycles. It takes 32 rows (a
 * strip) through two blocks at once: sums are loaded and stored once in 8 steps, maxima and sums across lanes are taken
 * once in 256 keys. Logits lie tile by tile, and weights take their place. Keys and values pass by: they are loaded
 * with the hint that the first cache need not keep them.
 */
#include "cpu/tiers/vector_avx512.h"
#include "cpu/tiers/vector_exp2_weight.h"
#include "cpu/tiers/vector_softmax.h"

enum { TILE = 16, PANEL = 2 * TILE, PAIRS = 32 }; /* PAIRS: elements of k in one tile */

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

/* How 2 x 2 tiles lie in memory: bytes from row to row, elements from tile to tile. */
typedef struct tiles {
    int64_t row_bytes, right, down;
} tiles;

/* 32 columns of 16 rows, of 32 with second: sums start as what the caller left in c, or as 0. */
static inline __attribute__((always_inline)) void start_sums(const float *c, tiles at, bool adds, bool second)
{
    if (adds) {
        _tile_loadd(0, c, at.row_bytes);
        _tile_loadd(1, c + at.right, at.row_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (second && adds) {
        _tile_loadd(2, c + at.down, at.row_bytes);
        _tile_loadd(3, c + at.down + at.right, at.row_bytes);
    } else if (second) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

/* 32 of k. b is loaded with the hint that the first cache need not keep it: a is what comes again. */
static inline __attribute__((always_inline)) void step_sums(const uint16_t *a, tiles at, const uint16_t *b, bool second)
{
    enum { b_bytes = PANEL * 4 };
    _tile_loadd(4, a, at.row_bytes);
    _tile_stream_loadd(6, b, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, b + 2 * TILE, b_bytes);
    _tile_dpbf16ps(1, 4, 7);
    if (second) {
        _tile_loadd(5, a + at.down, at.row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static inline __attribute__((always_inline)) void store_sums(float *c, tiles at, bool second)
{
    _tile_stored(0, c, at.row_bytes);
    _tile_stored(1, c + at.right, at.row_bytes);
    if (second) {
        _tile_stored(2, c + at.down, at.row_bytes);
        _tile_stored(3, c + at.down + at.right, at.row_bytes);
    }
}

static inline tiles rows_of_floats(int64_t ld)
{
    return (tiles){ld * (int64_t)sizeof(float), TILE, TILE * ld};
}

static inline tiles rows_of_pairs(int64_t ld)
{
    return (tiles){ld * (int64_t)sizeof(uint16_t), PAIRS, TILE * ld};
}

static inline __attribute__((always_inline)) void tile_product(float *c, int64_t ldc, bool adds, const uint16_t *a,
                                                               int64_t lda, const uint16_t *b, int32_t k, bool second)
{
    const tiles of_c = rows_of_floats(ldc), of_a = rows_of_pairs(lda);
    start_sums(c, of_c, adds, second);
    for (int32_t l = 0; l < k; l += PAIRS, b += PAIRS * PANEL)
        step_sums(a + l, of_a, b, second);
    store_sums(c, of_c, second);
}

/* Rows whose largest logit did not move keep alpha 1: nothing to do for them. */
static void scale_rows(float *c, int64_t ldc, const float *alpha, int32_t m, int32_t n)
{
    for (int32_t i = 0; i < m; i++) {
        const __m512 factor = _mm512_set1_ps(alpha[i]);
        for (int32_t j = 0; j < n && alpha[i] != 1.0f; j += TILE)
            _mm512_store_ps(c + i * ldc + j, _mm512_mul_ps(factor, _mm512_load_ps(c + i * ldc + j)));
    }
    __asm__ volatile("" : : : "memory"); /* stored before tiles load it: gcc's intrinsic does not say that it reads */
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
            const uint16_t *panel = b + (int64_t)j * k;
            for (int32_t i = 0; i < whole; i += 2 * TILE)
                tile_product(c + i * ldc + j, ldc, alpha, a + i * lda, lda, panel, k, true);
        }
    }
    if (rest) {
        configure(rest < TILE ? rest : TILE, rest > TILE ? rest - TILE : 0);
        for (int32_t j = 0; j < n; j += 2 * TILE)
            tile_product(c + whole * ldc + j, ldc, alpha, a + whole * lda, lda, b + (int64_t)j * k, k, rest > TILE);
    }
    _tile_release();
}

/* ------------------------------------------------------------------------------------------ whole blocks ---- */

enum { STRIP = 2 * TILE, LINE = 64, SIDE_BY_SIDE = 2, GROUP = 8 }; /* rows, bytes, blocks, blocks */

/* 32 rows of the tile against one block, or two side by side. */
typedef struct strip {
    const prism_tile_bf16 *t;
    const prism_key_block *block;
    int32_t n_block;
    int32_t first;                         /* row of the tile */
    int32_t n_tile;                        /* of logits in a row of tiles */
    _Alignas(LINE) float lanes[STRIP][VL]; /* largest logits, lane by lane */
    float base[STRIP], alpha[STRIP];       /* as in start_rows() */
} strip;

/* Row i of tile c of the logits. A tile of weights takes the place of an even one. */
static inline float *logits_at(const strip *s, int32_t i, int32_t c)
{
    return s->t->logit + (((int64_t)(i / TILE) * s->n_tile + c) * TILE + i % TILE) * TILE;
}

/* Tiles c and c + 1 of the logits: their part of the maxima. Keys that a row does not see become -inf. */
static void find_maxima(strip *s, int32_t c)
{
    const int32_t *n_valid = s->t->n_valid, first = c * TILE % s->t->n;
    for (int32_t i = 0; i < STRIP; i++) {
        float *x = logits_at(s, i, c), *y = x + TILE * TILE;
        __m512 x0 = LOAD(x), y0 = LOAD(y);
        if (n_valid && n_valid[s->first + i] < first + 2 * TILE) {
            const int32_t left = n_valid[s->first + i] - first;
            const uint32_t seen = left > 0 ? (1u << left) - 1 : 0;
            x0 = _mm512_mask_blend_ps((__mmask16)seen, SET1(-INFINITY), x0);
            y0 = _mm512_mask_blend_ps((__mmask16)(seen >> TILE), SET1(-INFINITY), y0);
            STORE(x, x0);
            STORE(y, y0);
        }
        STORE(s->lanes[i], MAX(LOAD(s->lanes[i]), MAX(x0, y0)));
    }
}

/* The maxima of 32 keys are found while products of the next 32 run: those have pauses where sums end. */
static void find_logits(strip *s)
{
    const prism_tile_bf16 *t = s->t;
    const tiles of_query = rows_of_pairs(t->depth), of_logit = {LINE, TILE * TILE, (int64_t)s->n_tile * TILE * TILE};
    const uint16_t *query = t->query + (int64_t)s->first * t->depth;
    for (int32_t i = 0; i < STRIP; i++)
        STORE(s->lanes[i], SET1(-INFINITY));
    for (int32_t c = 0; c < s->n_tile; c += 2) {
        const int32_t b = c * TILE / t->n;
        const int64_t at = (int64_t)(c * TILE % t->n) * t->depth;
        start_sums(NULL, of_logit, false, true);
        for (int32_t l = 0; l < t->depth; l += PAIRS)
            step_sums(query + l, of_query, s->block[b].key + at + (int64_t)l * PANEL, true);
        store_sums(logits_at(s, 0, c), of_logit, true);
        if (c > 0)
            find_maxima(s, c - 2);
    }
    find_maxima(s, s->n_tile - 2);
}

/* The rows' new maxima; what was summed before shrinks. As start_rows() does it, to the last bit. */
static void start_weights(strip *s)
{
    prism_softmax *state = s->t->state + s->first;
    for (int32_t i = 0; i < STRIP; i++) {
        const float largest = RMAX(LOAD(s->lanes[i])) * s->t->scale;
        const float max = largest > state[i].max ? largest : state[i].max;
        s->base[i] = max == -INFINITY ? 0.0f : max; /* nothing but -inf so far: every weight is 0 */
        s->alpha[i] = state[i].max - s->base[i];
        state[i].max = max;
    }
    for (int32_t i = 0; i < STRIP; i += VL)
        STORE(s->alpha + i, EXP2(LOAD(s->alpha + i)));
    for (int32_t i = 0; i < STRIP; i++)
        state[i].sum *= s->alpha[i];
}

/* As softmax_bf16() does it, to the last bit: a block whose values are not finite goes that way. */
static void find_weights(strip *s)
{
    const __m512 factor = SET1(s->t->scale);
    start_weights(s);
    for (int32_t i = 0; i < STRIP; i++) {
        float *x = logits_at(s, i, 0);
        const float *soon = logits_at(s, i + 2 < STRIP ? i + 2 : i, 0);
        const __m512 shift = SET1(-s->base[i]);
        __m512 sum = SET1(0.0f);
#pragma GCC unroll 2
        for (int32_t c = 0; c < s->n_tile; c += 2, x += 2 * TILE * TILE, soon += 2 * TILE * TILE) {
            _mm_prefetch((const char *)soon, _MM_HINT_T0);
            _mm_prefetch((const char *)(soon + TILE * TILE), _MM_HINT_T0);
            const __m512 w0 = exp2_weight(FMA(LOAD(x), factor, shift));
            const __m512 w1 = exp2_weight(FMA(LOAD(x + TILE * TILE), factor, shift));
            sum = ADD(sum, w0);
            sum = ADD(sum, w1);
            _mm512_store_si512(x, (__m512i)_mm512_cvtne2ps_pbh(w1, w0));
        }
        s->t->state[s->first + i].sum += SUM(sum);
    }
}

static void add_values(const strip *s)
{
    const prism_tile_bf16 *t = s->t;
    const tiles of_output = rows_of_floats(t->d_pad), of_weight = {LINE, 0, (int64_t)s->n_tile * TILE * PAIRS};
    float *output = t->output + (int64_t)s->first * t->d_pad;
    scale_rows(output, t->d_pad, s->alpha, STRIP, t->d_pad);
    for (int32_t j = 0; j < t->d_pad; j += PANEL) {
        const uint16_t *weight = (const uint16_t *)t->logit;
        start_sums(output + j, of_output, true, true);
        for (int32_t b = 0; b < s->n_block; b++)
            for (int32_t l = 0; l < t->n; l += PAIRS, weight += 2 * TILE * PAIRS) {
                const int64_t at = (int64_t)j * t->n + (int64_t)l * PANEL;
                step_sums(weight, of_weight, s->block[b].value + at, true);
            }
        store_sums(output + j, of_output, true);
    }
}

/* A strip stays for as many blocks as the second cache holds beside it: the next strip finds them there. */
static void attend_bf16_amx(const prism_tile_bf16 *t)
{
    strip s = {.t = t};
    configure(TILE, TILE);
    for (int32_t group = 0; group < t->n_block; group += GROUP)
        for (s.first = 0; s.first < t->m; s.first += STRIP)
            for (int32_t b = group; b < t->n_block && b < group + GROUP; b += SIDE_BY_SIDE) {
                s.block = t->block + b;
                s.n_block = t->n_block - b < SIDE_BY_SIDE ? t->n_block - b : SIDE_BY_SIDE;
                s.n_tile = s.n_block * t->n / TILE;
                find_logits(&s);
                find_weights(&s);
                add_values(&s);
            }
    _tile_release();
}

void prism_tier_amx(prism_tier *k)
{
    k->depth_bf16 = PAIRS;
    k->panel_bf16 = PANEL;
    k->gemm_bf16 = gemm_bf16_amx;
    k->attend_bf16 = attend_bf16_amx;
}
