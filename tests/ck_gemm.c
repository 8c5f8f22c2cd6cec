/* The product of a few rows with packed panels: c = alpha c + a b. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"
#include "cpu/cpu.h"

typedef struct product {
    int m, n, k, lda, ldc;
    bool scaled;
    guarded a, b, c, alpha;
    double *matrix; /* [k][n], what b packs */
    float *before;  /* c */
} product;

static void *new_floats(int64_t n)
{
    void *p = malloc((size_t)n * sizeof(double));
    if (!p)
        abort();
    return p;
}

/* Rows of c beyond n, and rows beyond m, do not exist: the guard stands behind the last element. */
static product product_new(int panel, int m, int n, int k, int gap, bool scaled, rng *r)
{
    product p = {m, n, k, k + gap, n + 16 * gap, scaled, {0}, {0}, {0}, {0}, NULL, NULL};
    p.a = guarded_new((size_t)((m - 1) * p.lda + k) * 4, 4);
    p.b = guarded_new((size_t)n * (size_t)k * 4, 64);
    p.c = guarded_new((size_t)((m - 1) * p.ldc + n) * 4, 64);
    p.alpha = guarded_new((size_t)m * 4, 4);
    p.matrix = new_floats((int64_t)k * n);
    p.before = new_floats((int64_t)m * n);
    float *a = p.a.data, *b = p.b.data, *c = p.c.data, *alpha = p.alpha.data;
    for (int i = 0; i < (m - 1) * p.lda + k; i++)
        a[i] = (float)rng_normal(r);
    for (int l = 0; l < k; l++)
        for (int j = 0; j < n; j++) {
            const float x = (float)rng_normal(r);
            p.matrix[l * n + j] = x;
            b[(int64_t)(j / panel) * panel * k + l * panel + j % panel] = x;
        }
    for (int i = 0; i < m; i++) {
        alpha[i] = (float)rng_unit(r);
        /* Not scaled: the old contents must not be read, not even multiplied by 0. */
        for (int j = 0; j < n; j++)
            p.before[i * n + j] = c[i * p.ldc + j] = scaled ? (float)rng_normal(r) : NAN;
    }
    return p;
}

static void product_free(product *p)
{
    guarded_free(&p->a);
    guarded_free(&p->b);
    guarded_free(&p->c);
    guarded_free(&p->alpha);
    free(p->matrix);
    free(p->before);
}

static void check_gemm(const prism_tier *kern, int m, int n, int k, int gap, bool scaled, rng *r)
{
    product p = product_new(kern->panel, m, n, k, gap, scaled, r);
    const float *a = p.a.data, *c = p.c.data, *alpha = p.alpha.data;
    kern->gemm(p.c.data, p.ldc, scaled ? alpha : NULL, a, p.lda, p.b.data, m, n, k);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < p.ldc && (i < m - 1 || j < n); j++) {
            const float got = c[i * p.ldc + j];
            if (j >= n) {
                uint32_t bits;
                memcpy(&bits, &got, 4);
                ck_ok(bits == 0xa5a5a5a5u, "%s gemm m %d n %d: wrote between rows", kern->name, m, n);
                continue;
            }
            double want = scaled ? (double)alpha[i] * p.before[i * n + j] : 0, magnitude = fabs(want);
            for (int l = 0; l < k; l++) {
                want += (double)a[i * p.lda + l] * p.matrix[l * n + j];
                magnitude += fabs((double)a[i * p.lda + l] * p.matrix[l * n + j]);
            }
            /* k products and alpha's: at most k + 2 roundings, each of at most the sum of magnitudes */
            ck_near(got, want, (k + 2) * 0x1p-24 * magnitude, "%s gemm m %d n %d k %d [%d][%d]%s", kern->name, m, n, k,
                    i, j, scaled ? " scaled" : "");
        }
    product_free(&p);
}

/* Equal columns give equal sums, bit for bit, wherever they stand: ties between blocks must survive scoring. */
static void check_equal_columns(const prism_tier *kern, int m, int n, int k, rng *r)
{
    product p = product_new(kern->panel, m, n, k, 0, false, r);
    float *b = p.b.data;
    for (int l = 0; l < k; l++) {
        const float x = (float)rng_normal(r);
        for (int j = 0; j < n; j++)
            b[(int64_t)(j / kern->panel) * kern->panel * k + l * kern->panel + j % kern->panel] = x;
    }
    kern->gemm(p.c.data, p.ldc, NULL, p.a.data, p.lda, b, m, n, k);
    const float *c = p.c.data;
    for (int i = 0; i < m; i++)
        for (int j = 1; j < n; j++)
            ck_ok(c[i * p.ldc + j] == c[i * p.ldc], "%s gemm: equal columns 0 and %d differ", kern->name, j);
    product_free(&p);
}

/* Products of bfloat16 are exact in float32, so only sums round: two a pair, within k + 2 units as above. Arm's dot
 * product rounds to odd, which is off by up to a unit and not half of one. Its operands stand as pairs of rows. */
static void check_gemm_bf16(const prism_tier *kern, int m, int n, int k, int gap, bool scaled, rng *r)
{
    product p = product_new(kern->panel_bf16, m, n, k, gap, scaled, r);
    const double unit = kern->isa == PRISM_ISA_NEONBF16 ? 0x1p-23 : 0x1p-24;
    guarded a16 = guarded_new((size_t)((m - 1) * p.lda + k) * 2, 2), b16 = guarded_new((size_t)n * (size_t)k * 2, 64);
    uint16_t *a = a16.data, *b = b16.data;
    double *left = new_floats((int64_t)m * k);
    for (int i = 0; i < m; i++)
        for (int l = 0; l < k; l++) {
            const double x = rng_normal(r);
            left[i * k + l] = value_round(PRISM_BF16, x);
            value_encode(PRISM_BF16, x, &a[i * p.lda + l]);
        }
    for (int l = 0; l < k; l++)
        for (int j = 0; j < n; j++) {
            const int panel = kern->panel_bf16;
            uint16_t *pair = b + ((int64_t)(j / panel) * panel * k + l / 2 * 2 * panel);
            value_encode(PRISM_BF16, p.matrix[l * n + j], &pair[j % panel * 2 + l % 2]);
            p.matrix[l * n + j] = value_round(PRISM_BF16, p.matrix[l * n + j]);
        }
    kern->gemm_bf16(p.c.data, p.ldc, scaled ? p.alpha.data : NULL, a, p.lda, b, m, n, k);
    const float *c = p.c.data, *alpha = p.alpha.data;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < p.ldc && (i < m - 1 || j < n); j++) {
            uint32_t bits;
            memcpy(&bits, &c[i * p.ldc + j], 4);
            if (j >= n) {
                ck_ok(bits == 0xa5a5a5a5u, "%s gemm_bf16 m %d n %d: wrote between rows", kern->name, m, n);
                continue;
            }
            double want = scaled ? (double)alpha[i] * p.before[i * n + j] : 0, magnitude = fabs(want);
            for (int l = 0; l < k; l++) {
                want += left[i * k + l] * p.matrix[l * n + j];
                magnitude += fabs(left[i * k + l] * p.matrix[l * n + j]);
            }
            ck_near(c[i * p.ldc + j], want, (k + 2) * unit * magnitude, "%s gemm_bf16 m %d n %d k %d [%d][%d]%s",
                    kern->name, m, n, k, i, j, scaled ? " scaled" : "");
        }
    guarded_free(&a16);
    guarded_free(&b16);
    free(left);
    product_free(&p);
}

static void check_gemms_bf16(const prism_tier *kern, rng *r)
{
    ck_ok(PRISM_MAX_PANEL % kern->panel_bf16 == 0, "%s: bfloat16 panel %d does not divide %d", kern->name,
          kern->panel_bf16, PRISM_MAX_PANEL);
    for (int m = 1; m <= 67; m += m < 35 ? 1 : 16)
        for (int steps = 1; steps <= 8; steps += steps < 3 ? 1 : 5) {
            const int k = kern->depth_bf16 * steps;
            check_gemm_bf16(kern, m, kern->panel_bf16 * rng_range(r, 1, 3), k, rng_range(r, 0, 2), (m + steps) % 2, r);
        }
    check_gemm_bf16(kern, 128, 128, 128, 0, false, r);
    check_gemm_bf16(kern, 127, 128, 64, 1, true, r);
}

void ck_gemm(void)
{
    static const int depth[] = {1, 2, 3, 17, 64, 96, 128, 192, 256};
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_tier kern;
        prism_tier_get(ck_tiers[tier], &kern);
        rng r = ck_rng("gemm");
        ck_ok(kern.panel >= 16 && kern.panel <= PRISM_MAX_PANEL && PRISM_MAX_PANEL % kern.panel == 0,
              "%s: panel %d does not divide %d", kern.name, kern.panel, PRISM_MAX_PANEL);
        for (int m = 1; m <= 13; m++)
            for (int k = 0; k < (int)(sizeof depth / sizeof depth[0]); k++)
                check_gemm(&kern, m, kern.panel * rng_range(&r, 1, 3), depth[k], rng_range(&r, 0, 2), (m + k) % 2, &r);
        check_gemm(&kern, 128, 128, 128, 0, false, &r);
        check_gemm(&kern, 127, 128, 80, 1, true, &r);
        check_equal_columns(&kern, 7, 192, 96, &r);
        if (kern.gemm_bf16)
            check_gemms_bf16(&kern, &r);
    }
}
