/*
 * AMX tier: the AVX-512-BF16 tier's kernels, with products on tiles: 16 rows of 16 float32 sums, 16 rows of 16 pairs.
 * Two by two tiles of sums take 4 of the 8 registers and need one load for each product. The tiles' shape is loaded
 * and released within a call: nothing of it outlasts the kernel.
 *
 * Tiles and vectors work side by side, and a block's softmax takes as long as its products. attend_bf16 therefore goes
 * through the rows in strips of 32, and puts vector work between the steps of a product:
 *   logits of strip s          with the weights of strip s - 1
 *   output of strip s - 1      with the largest logits of strip s
 */
#include "cpu/vector_avx512.h"
#include "cpu/vector_exp2_weight.h"
#include "cpu/vector_softmax.h"

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

/* 32 columns of 16 rows, of 32 with second: sums start as what the caller left in c, or as 0. */
static inline __attribute__((always_inline)) void start_sums(const float *c, int64_t ldc, bool adds, bool second)
{
    const int64_t bytes = ldc * (int64_t)sizeof *c;
    if (adds) {
        _tile_loadd(0, c, bytes);
        _tile_loadd(1, c + TILE, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (second && adds) {
        _tile_loadd(2, c + TILE * ldc, bytes);
        _tile_loadd(3, c + TILE * ldc + TILE, bytes);
    } else if (second) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

/* 32 of k. */
static inline __attribute__((always_inline)) void step_sums(const uint16_t *a, int64_t lda, const uint16_t *b,
                                                            bool second)
{
    enum { b_bytes = PANEL * 4 };
    const int64_t a_bytes = lda * (int64_t)sizeof *a;
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(6, b, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 2 * TILE, b_bytes);
    _tile_dpbf16ps(1, 4, 7);
    if (second) {
        _tile_loadd(5, a + TILE * lda, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static inline __attribute__((always_inline)) void store_sums(float *c, int64_t ldc, bool second)
{
    const int64_t bytes = ldc * (int64_t)sizeof *c;
    _tile_stored(0, c, bytes);
    _tile_stored(1, c + TILE, bytes);
    if (second) {
        _tile_stored(2, c + TILE * ldc, bytes);
        _tile_stored(3, c + TILE * ldc + TILE, bytes);
    }
}

static inline __attribute__((always_inline)) void tile_product(float *c, int64_t ldc, bool adds, const uint16_t *a,
                                                               int64_t lda, const uint16_t *b, int32_t k, bool second)
{
    start_sums(c, ldc, adds, second);
    for (int32_t l = 0; l < k; l += PAIRS, b += PAIRS * PANEL)
        step_sums(a + l, lda, b, second);
    store_sums(c, ldc, second);
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
            const uint16_t *panel = b + (int64_t)(j / PANEL) * PANEL * k + j % PANEL * 2;
            for (int32_t i = 0; i < whole; i += 2 * TILE)
                tile_product(c + i * ldc + j, ldc, alpha, a + i * lda, lda, panel, k, true);
        }
    }
    if (rest) {
        configure(rest < TILE ? rest : TILE, rest > TILE ? rest - TILE : 0);
        for (int32_t j = 0; j < n; j += 2 * TILE)
            tile_product(c + whole * ldc + j, ldc, alpha, a + whole * lda, lda,
                         b + (int64_t)(j / PANEL) * PANEL * k + j % PANEL * 2, k, rest > TILE);
    }
    _tile_release();
}

/* ------------------------------------------------------------------------------------------ whole blocks ---- */

enum { STRIP = 2 * TILE };

typedef struct strip {
    const prism_block_bf16 *b;
    int32_t first;                               /* row */
    float max[STRIP], base[STRIP], alpha[STRIP]; /* of these rows: see start_rows() */
} strip;

/* Row i's largest logit; keys that it does not see become -inf. */
static inline void find_max(strip *s, int32_t i)
{
    const prism_block_bf16 *b = s->b;
    float *x = b->logit + (int64_t)(s->first + i) * b->n;
    for (int32_t j = b->n_valid[s->first + i]; j < b->n; j++)
        x[j] = -INFINITY;
    __m512 m0 = LOAD(x), m1 = LOAD(x + VL);
    for (int32_t j = 2 * VL; j < b->n; j += 2 * VL) {
        m0 = MAX(m0, LOAD(x + j));
        m1 = MAX(m1, LOAD(x + j + VL));
    }
    s->max[i] = RMAX(MAX(m0, m1)) * b->scale;
}

static void start_strip(strip *s)
{
    prism_softmax *state = s->b->state + s->first;
    for (int32_t i = 0; i < STRIP; i++) {
        const float max = s->max[i] > state[i].max ? s->max[i] : state[i].max;
        s->base[i] = max == -INFINITY ? 0.0f : max; /* nothing but -inf so far: every weight is 0 */
        s->alpha[i] = state[i].max - s->base[i];
        state[i].max = max;
    }
    for (int32_t i = 0; i < STRIP; i += VL)
        STORE(s->alpha + i, EXP2(LOAD(s->alpha + i)));
}

/* Row i: its weights, its sum, and its output scaled, unless the largest logit stayed. */
static inline void weigh_row(const strip *s, int32_t i)
{
    const prism_block_bf16 *b = s->b;
    const int64_t row = s->first + i;
    const float *x = b->logit + row * b->n;
    uint16_t *y = b->weight + row * b->n;
    const __m512 factor = SET1(b->scale), shift = SET1(-s->base[i]);
    __m512 sum0 = SET1(0.0f), sum1 = SET1(0.0f);
    for (int32_t j = 0; j < b->n; j += 2 * VL) {
        const __m512 w0 = exp2_weight(FMA(LOAD(x + j), factor, shift));
        const __m512 w1 = exp2_weight(FMA(LOAD(x + j + VL), factor, shift));
        sum0 = ADD(sum0, w0);
        sum1 = ADD(sum1, w1);
        _mm512_storeu_si512(y + j, (__m512i)_mm512_cvtne2ps_pbh(w1, w0));
    }
    b->state[row].sum = b->state[row].sum * s->alpha[i] + SUM(ADD(sum0, sum1));
    for (int32_t j = 0; j < b->d_pad && s->alpha[i] != 1.0f; j += VL) {
        float *o = b->output + row * b->d_pad + j;
        STORE(o, MUL(SET1(s->alpha[i]), LOAD(o)));
    }
}

/* The vector work beside a product: some rows after each of its steps. */
typedef struct errand {
    strip *s; /* NULL: none */
    int32_t n_step, step, done;
} errand;

static inline __attribute__((always_inline)) void run_errand(errand *e, bool weighs)
{
    e->step++;
    for (const int32_t end = STRIP * e->step / e->n_step; e->s && e->done < end; e->done++)
        if (weighs)
            weigh_row(e->s, e->done);
        else
            find_max(e->s, e->done);
}

/* A strip's product, n columns: c = (adds ? c : 0) + a b. */
static inline __attribute__((always_inline)) void strip_product(float *c, int32_t n, bool adds, const uint16_t *a,
                                                                const uint16_t *b, int32_t k, errand *e, bool weighs)
{
    for (int32_t j = 0; j < n; j += 2 * TILE) {
        const uint16_t *panel = b + (int64_t)(j / PANEL) * PANEL * k + j % PANEL * 2;
        start_sums(c + j, n, adds, true);
        for (int32_t l = 0; l < k; l += PAIRS, panel += PAIRS * PANEL) {
            step_sums(a + l, k, panel, true);
            run_errand(e, weighs);
        }
        store_sums(c + j, n, true);
    }
}

static void attend_bf16_amx(const prism_block_bf16 *b)
{
    strip strips[2]; /* the one before and this one, in turns */
    const int32_t n_strip = b->m / STRIP;
    configure(TILE, TILE);
    for (int32_t i = 0; i <= n_strip; i++) {
        strip *now = i < n_strip ? &strips[i % 2] : NULL, *last = i > 0 ? &strips[(i + 1) % 2] : NULL;
        errand weights = {last, b->n / (2 * TILE) * (b->depth / PAIRS), 0, 0};
        errand maxima = {now, b->d_pad / (2 * TILE) * (b->n / PAIRS), 0, 0};
        if (now) {
            now->b = b;
            now->first = i * STRIP;
            strip_product(b->logit + (int64_t)i * STRIP * b->n, b->n, false, b->query + (int64_t)i * STRIP * b->depth,
                          b->key, b->depth, &weights, true);
        }
        for (; last && weights.done < STRIP; weights.done++)
            weigh_row(last, weights.done);
        if (last) /* its weights are in memory before tiles load them: gcc's intrinsic does not say that it reads */
            __asm__ volatile("" : : : "memory");
        if (last)
            strip_product(b->output + (int64_t)(i - 1) * STRIP * b->d_pad, b->d_pad, true,
                          b->weight + (int64_t)(i - 1) * STRIP * b->n, b->value, b->n, &maxima, false);
        for (; now && maxima.done < STRIP; maxima.done++)
            find_max(now, maxima.done);
        if (now)
            start_strip(now);
    }
    _tile_release();
}

void prism_cpu_kernels_amx(prism_cpu_kernels *k)
{
    k->depth_bf16 = PAIRS;
    k->gemm_bf16 = gemm_bf16_amx;
    k->attend_bf16 = attend_bf16_amx;
}
