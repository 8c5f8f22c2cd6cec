/* Rows: loading, adding and storing in every format; dot_rows, sum_rows; scale_max and exp_row of a row of scores. */
#include <math.h>
#include <string.h>

#include "checkkern.h"
#include "cpu/cpu.h"

enum { max_row = 300 };

static const char *const dtype_name[] = {"f32", "f16", "bf16"};

/* Values that stress a format: ordinary ones, both zeros, subnormals, the largest, halfway cases, infinities, NaN. */
static double wild(rng *r, bool with_non_finite)
{
    static const double special[] = {0.0,           -0.0,     65504,     65519.99, 65520,   65536,   -65520,
                                     6e-8,          2.98e-8,  2.99e-8,   5.96e-8,  6.09e-5, -6.1e-5, 1.00390625,
                                     1.01171875,    3.3e38,   -3.39e38,  1e-40,    1.4e-45, -1e-39,  1.00048828125,
                                     1.00146484375, INFINITY, -INFINITY, NAN};
    const int n_special = sizeof special / sizeof special[0] - (with_non_finite ? 0 : 3);
    if (rng_range(r, 0, 3) == 0)
        return (double)(float)special[rng_range(r, 0, n_special - 1)];
    return (double)(float)ldexp(rng_normal(r), rng_range(r, -20, 15));
}

/* A row of n values at an address that is only aligned to its own size, its end at the guard. */
static guarded new_row(prism_dtype dtype, int n, rng *r, double *value)
{
    const size_t size = prism_dtype_bytes(dtype);
    guarded g = guarded_new((size_t)n * size, size);
    for (int j = 0; j < n; j++) {
        value_encode(dtype, wild(r, true), (char *)g.data + (size_t)j * size);
        value[j] = value_decode(dtype, (char *)g.data + (size_t)j * size);
    }
    return g;
}

static void check_load_add(const prism_tier *k, prism_dtype dtype, int n, rng *r)
{
    double value[max_row];
    guarded src = new_row(dtype, n, r, value), dst = guarded_new((size_t)n * 4, 4), sum = guarded_new((size_t)n * 4, 4);
    float *y = dst.data, *s = sum.data, before[max_row];
    for (int j = 0; j < n; j++)
        before[j] = s[j] = (float)rng_normal(r);
    k->load_row[dtype](y, src.data, n);
    k->add_row[dtype](s, src.data, n);
    for (int j = 0; j < n; j++) {
        /* Widening is exact, and so is the rounding of one addition: not a bit may differ. */
        ck_near(y[j], value[j], 0, "%s load_row %s n %d [%d]", k->name, dtype_name[dtype], n, j);
        ck_ok(isnan(y[j]) || !signbit(y[j]) == !signbit(value[j]), "%s load_row %s: sign of zero", k->name,
              dtype_name[dtype]);
        const float x = (float)value[j], want = before[j] + x;
        ck_near(s[j], want, 0, "%s add_row %s n %d [%d]", k->name, dtype_name[dtype], n, j);
    }
    guarded_free(&src);
    guarded_free(&dst);
    guarded_free(&sum);
}

/* Blocks of 32: a float16 factor, 32 signed bytes. One product each, rounded once. */
static void check_q8_0(const prism_tier *k, int n_block, rng *r)
{
    guarded src = guarded_new((size_t)n_block * 34, 2), dst = guarded_new((size_t)n_block * 128, 4);
    guarded sum = guarded_new((size_t)n_block * 128, 4);
    float *y = dst.data, *s = sum.data;
    char *block = src.data;
    for (int b = 0; b < n_block; b++) {
        value_encode(PRISM_F16, ldexp(rng_normal(r), rng_range(r, -20, 5)), block + 34 * b);
        for (int j = 0; j < 32; j++) {
            block[34 * b + 2 + j] = (char)rng_range(r, -128, 127);
            s[32 * b + j] = (float)rng_normal(r);
        }
    }
    k->load_row[PRISM_Q8_0](y, block, 32 * n_block);
    for (int b = 0; b < n_block; b++)
        for (int j = 0; j < 32; j++) {
            const float want =
                (float)(value_decode(PRISM_F16, block + 34 * b) * (double)(signed char)block[34 * b + 2 + j]);
            ck_near(y[32 * b + j], want, 0, "%s load_row q8_0 block %d [%d]", k->name, b, j);
            y[32 * b + j] = s[32 * b + j] + want;
        }
    k->add_row[PRISM_Q8_0](s, block, 32 * n_block);
    for (int j = 0; j < 32 * n_block; j++) /* a multiply-add that rounds once may differ by a unit of the product */
        ck_near(s[j], y[j], fabs((double)s[j]) * 0x1p-23 + 0x1p-30, "%s add_row q8_0 [%d]", k->name, j);
    guarded_free(&src);
    guarded_free(&dst);
    guarded_free(&sum);
}

static void check_store(const prism_tier *k, prism_dtype dtype, int n, rng *r)
{
    double value[max_row];
    const size_t size = prism_dtype_bytes(dtype);
    const float factor = rng_range(r, 0, 1) ? 1.0f : (float)rng_unit(r) * 3;
    guarded src = new_row(PRISM_F32, n, r, value), dst = guarded_new((size_t)n * size, size);
    k->store_row[dtype](dst.data, src.data, n, factor);
    for (int j = 0; j < n; j++) {
        const float scaled = (float)value[j] * factor; /* one float rounding, then one to the format */
        const double got = value_decode(dtype, (char *)dst.data + (size_t)j * size);
        ck_near(got, value_round(dtype, scaled), 0, "%s store_row %s n %d [%d] of %.9g", k->name, dtype_name[dtype], n,
                j, (double)scaled);
    }
    guarded_free(&src);
    guarded_free(&dst);
}

static guarded new_floats(int n, rng *r)
{
    guarded g = guarded_new((size_t)n * 4, 4);
    for (int j = 0; j < n; j++)
        ((float *)g.data)[j] = (float)rng_normal(r);
    return g;
}

/* Any order of summing k products in float stays within k + 1 roundings of the sum of magnitudes. */
static double sum_bound(int k, double magnitude)
{
    return (k + 1) * 0x1p-24 * magnitude + 0x1p-140;
}

static void check_dot_rows(const prism_tier *kern, int m, int k, int lda, rng *r)
{
    guarded a = new_floats((m - 1) * lda + k, r), x = new_floats(k, r), y = guarded_new((size_t)m * 4, 4);
    const float *pa = a.data, *px = x.data;
    kern->dot_rows(y.data, pa, lda, px, m, k);
    for (int i = 0; i < m; i++) {
        double want = 0, magnitude = 0;
        for (int l = 0; l < k; l++) {
            want += (double)pa[i * lda + l] * px[l];
            magnitude += fabs((double)pa[i * lda + l] * px[l]);
        }
        ck_near(((float *)y.data)[i], want, sum_bound(k, magnitude), "%s dot_rows m %d k %d lda %d [%d]", kern->name, m,
                k, lda, i);
    }
    guarded_free(&a);
    guarded_free(&x);
    guarded_free(&y);
}

static void check_sum_rows(const prism_tier *kern, int m, int n, int lda, rng *r)
{
    guarded a = new_floats(m ? (m - 1) * lda + n : 1, r), w = new_floats(m, r), y = new_floats(n, r);
    const float *pa = a.data, *pw = w.data, alpha = (float)rng_unit(r);
    float before[max_row];
    memcpy(before, y.data, (size_t)n * 4);
    kern->sum_rows(y.data, alpha, pw, pa, lda, m, n);
    for (int j = 0; j < n; j++) {
        double want = (double)alpha * before[j], magnitude = fabs(want);
        for (int i = 0; i < m; i++) {
            want += (double)pw[i] * pa[i * lda + j];
            magnitude += fabs((double)pw[i] * pa[i * lda + j]);
        }
        ck_near(((float *)y.data)[j], want, sum_bound(m + 1, magnitude), "%s sum_rows m %d n %d lda %d [%d]",
                kern->name, m, n, lda, j);
    }
    guarded_free(&a);
    guarded_free(&w);
    guarded_free(&y);
}

static void check_scale_max(const prism_tier *k, int n, rng *r)
{
    const float factor = (float)rng_unit(r) * 4;
    const int bad = rng_range(r, 0, 2 * n); /* above n: none */
    guarded x = new_floats(n, r);
    float *px = x.data, max = -INFINITY;
    double before[max_row];
    if (bad < n)
        px[bad] = bad % 3 == 0 ? NAN : bad % 3 == 1 ? INFINITY : -INFINITY;
    for (int j = 0; j < n; j++)
        before[j] = px[j];
    bool finite = bad < n;
    const float got = k->scale_max(px, n, factor, &finite);
    for (int j = 0; j < n; j++) {
        ck_near(px[j], (float)before[j] * factor, 0, "%s scale_max n %d [%d]", k->name, n, j);
        max = px[j] > max ? px[j] : max;
    }
    ck_ok(finite == (bad >= n), "%s scale_max n %d: finite with bad value at %d", k->name, n, bad);
    if (bad >= n)
        ck_near(got, max, 0, "%s scale_max n %d: the maximum", k->name, n);
    guarded_free(&x);
}

/* e^(x - max) for the weights of a softmax. With u = 2^-24: x - max is rounded once (|t| u), turning it into base 2
 * costs a rounding of the product and half of one in the constant (1.5 |t| u), the polynomial 7.5e-8 (vector_softmax.h)
 * and the result's own rounding u. Below e^-87 the result may be flushed to 0. */
static void check_exp_row(const prism_tier *k, int n, rng *r)
{
    guarded x = new_floats(n, r);
    float *px = x.data, max = -INFINITY;
    double before[max_row];
    for (int j = 0; j < n; j++) {
        px[j] *= rng_range(r, 0, 4) == 0 ? 60 : 3;
        if (rng_range(r, 0, 9) == 0)
            px[j] = -INFINITY;
    }
    px[rng_range(r, 0, n - 1)] = 200;
    for (int j = 0; j < n; j++) {
        before[j] = px[j];
        max = px[j] > max ? px[j] : max;
    }
    k->exp_row(px, n, max);
    for (int j = 0; j < n; j++) {
        const double t = before[j] - (double)max, want = exp(t);
        const double bound = isinf(t) ? 0 : want * (2.5 * fabs(t) * 0x1p-24 + 1.5e-7) + exp(-87);
        ck_near(px[j], want, bound, "%s exp_row n %d of %.9g", k->name, n, t);
        ck_ok(px[j] >= 0 && px[j] <= 1, "%s exp_row n %d: %g lies outside [0, 1]", k->name, n, (double)px[j]);
        ck_ok(t != 0 || px[j] == 1.0f, "%s exp_row n %d: the largest weight is %.9g", k->name, n, (double)px[j]);
    }
    guarded_free(&x);
}

/* Ties go to the lower block, so equal scores must become equal weights wherever in the row they stand. */
static void check_exp_ties(const prism_tier *k, int n, rng *r)
{
    guarded x = new_floats(n, r);
    float *px = x.data;
    const float value = (float)-rng_unit(r) * 8;
    for (int j = 0; j < n; j++)
        px[j] = value;
    k->exp_row(px, n, 0.25f);
    for (int j = 1; j < n; j++)
        ck_near(px[j], px[0], 0, "%s exp_row n %d: equal scores, unequal weights at 0 and %d", k->name, n, j);
    guarded_free(&x);
}

/* Three additions, two products, a root and a quotient, each rounded once. A spread that is NaN or infinite counts as
 * the cap. */
static void check_spread(const prism_tier *k, int n_panel, rng *r)
{
    const int n = n_panel * k->panel;
    guarded x = new_floats(n, r), spread = new_floats(n, r), bias = new_floats(n, r);
    float *px = x.data, *ps = spread.data, *pb = bias.data, before[PRISM_MAX_PANEL * 4];
    for (int pass = 0; pass < 3; pass++) {
        const float slow = pass == 2 ? 0.25f : 0.0f;
        for (int j = 0; j < n; j++) {
            ps[j] = rng_range(r, 0, 9) == 0 ? NAN : rng_range(r, 0, 9) == 0 ? INFINITY : fabsf(ps[j]) * 8;
            pb[j] = rng_range(r, 0, 9) == 0 ? -INFINITY : pb[j];
            before[j] = px[j];
        }
        k->add_spread(px, pass ? ps : NULL, pb, n, 0.5f, slow, 3.0f);
        for (int j = 0; j < n; j++) {
            const double grown = 0.5 * (double)ps[j] / sqrt(1 + (double)slow * (double)ps[j]);
            const double add = !pass ? 0 : grown < 3 ? grown : 3;
            const double want = (double)before[j] + (double)pb[j] + add;
            ck_near(px[j], want, 0x1p-23 * (fabs((double)before[j]) + fmin(fabs((double)pb[j]), 10) + 2 * add),
                    "%s add_spread pass %d n %d [%d]", k->name, pass, n, j);
            px[j] = before[j];
        }
    }
    guarded_free(&x);
    guarded_free(&spread);
    guarded_free(&bias);
}

/* A root, three products and an addition, each rounded once. */
static void check_error(const prism_tier *k, int n_panel, rng *r)
{
    const int n = n_panel * k->panel;
    guarded sum = new_floats(n, r), a = new_floats(n, r), b = new_floats(n, r);
    float *ps = sum.data, *pa = a.data, *pb = b.data;
    double want[PRISM_MAX_PANEL * 4], bound[PRISM_MAX_PANEL * 4];
    for (int j = 0; j < n; j++) {
        pb[j] = rng_range(r, 0, 9) ? fabsf(pb[j]) : 0;
        const double term = 0.75 * (double)pa[j] * (double)pb[j] * sqrt((double)pb[j]);
        want[j] = (double)ps[j] + term;
        bound[j] = 0x1p-24 * (4 * fabs(term) + fabs(want[j])) + 1e-30;
    }
    k->add_error(ps, pa, pb, n, 0.75f);
    for (int j = 0; j < n; j++)
        ck_near(ps[j], want[j], bound[j], "%s add_error n %d [%d]", k->name, n, j);
    guarded_free(&sum);
    guarded_free(&a);
    guarded_free(&b);
}

void ck_rows(void)
{
    for (int tier = 0; tier < ck_n_tier(); tier++) {
        prism_tier k;
        prism_tier_get(ck_tiers[tier], &k);
        rng r = ck_rng("rows");
        for (int n = 1; n <= 260; n += n < 70 ? 1 : 19) {
            for (int dtype = 0; dtype <= PRISM_BF16; dtype++) {
                check_load_add(&k, (prism_dtype)dtype, n, &r);
                check_store(&k, (prism_dtype)dtype, n, &r);
            }
            if (n <= 4) {
                check_spread(&k, n, &r);
                check_error(&k, n, &r);
            }
            if (n <= 8)
                check_q8_0(&k, n, &r);
            check_dot_rows(&k, rng_range(&r, 1, 9), n, n + rng_range(&r, 0, 3), &r);
            check_sum_rows(&k, rng_range(&r, 0, 9), n, n + rng_range(&r, 0, 3), &r);
            for (int repeat = 0; repeat < 8; repeat++) {
                check_scale_max(&k, n, &r);
                check_exp_row(&k, n, &r);
                check_exp_ties(&k, n, &r);
            }
        }
    }
}
