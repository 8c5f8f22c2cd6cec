/* Rotary frequencies and the bands made of them. Every scaled frequency is worked out here a second time. */
#include <math.h>
#include <string.h>

#include "check.h"

static const double two_pi = 6.283185307179586;

static prism_rope half_split(int d, double base)
{
    prism_rope rope;
    assert_ok(prism_rope_init(&rope, d));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, d, base));
    return rope;
}

/* A list of dimensions given as ranges [from, to), ended by -1. */
static void assert_dims(const int16_t *dim, int n, const int *range)
{
    int at = 0;
    for (; *range >= 0; range += 2)
        for (int j = range[0]; j < range[1]; j++, at++)
            if (at >= n || dim[at] != j)
                fail_msg("dimension %d of the band is %d, want %d", at, at < n ? dim[at] : -1, j);
    assert_int_equal(n, at);
}

/* ------------------------------------------------------------------------------------------ frequencies ---- */

static void test_plain(void **state)
{
    (void)state;
    const prism_rope rope = half_split(128, 1e6);
    assert_int_equal(rope.n_pair, 64);
    for (int j = 0; j < 64; j++) {
        assert_near(rope.frequency[j], exp(-2.0 * j / 128 * log(1e6)), 1e-14);
        assert_int_equal(rope.dim[j][0], j);
        assert_int_equal(rope.dim[j][1], j + 64);
    }
    prism_rope inter;
    assert_ok(prism_rope_init(&inter, 64));
    assert_ok(prism_rope_add(&inter, PRISM_ROPE_INTERLEAVED, 16, 32, 1e4));
    assert_int_equal(inter.n_pair, 16);
    for (int j = 0; j < 16; j++) {
        assert_near(inter.frequency[j], exp(-2.0 * j / 32 * log(1e4)), 1e-14);
        assert_int_equal(inter.dim[j][0], 16 + 2 * j);
        assert_int_equal(inter.dim[j][1], 16 + 2 * j + 1);
    }
}

static void test_linear(void **state)
{
    (void)state;
    const prism_rope plain = half_split(128, 1e4);
    prism_rope rope = plain;
    assert_ok(prism_rope_scale_linear(&rope, 8));
    for (int j = 0; j < 64; j++)
        assert_near(rope.frequency[j], plain.frequency[j] / 8, 1e-15);
}

/* Qwen3 at 4 times its context: pairs up to 23 keep their speed, from 40 on they turn 4 times slower, and between the
 * share grows with the pair index. */
static void test_yarn(void **state)
{
    (void)state;
    const prism_rope plain = half_split(128, 1e6);
    prism_rope rope = plain;
    assert_ok(prism_rope_scale_yarn(&rope, 1e6, 4, 32768, 32, 1, 1));
    for (int j = 0; j < 64; j++) {
        const double slow = j <= 23 ? 0 : j >= 40 ? 1 : (j - 23) / 17.0;
        assert_near(rope.frequency[j] / plain.frequency[j], 1 - slow + slow / 4, 1e-12);
    }
    assert_int_equal(prism_rope_scale_yarn(&rope, 1e6, 4, 32768, 1, 32, 1), PRISM_ERROR_INVALID);
    assert_int_equal(prism_rope_scale_yarn(&rope, 1e6, 4, 32768, 32, 32, 1), PRISM_ERROR_INVALID);
    /* Not truncated, the ramp runs between real indices: where 128 ln(n / (2 pi beta)) / (2 ln base) says. */
    prism_rope exact = plain;
    assert_ok(prism_rope_scale_yarn(&exact, 1e6, 4, 32768, 32, 1, 0));
    const double low = 64 * log(32768 / (32 * two_pi)) / log(1e6), high = 64 * log(32768 / two_pi) / log(1e6);
    assert_true(low > 23 && low < 24 && high > 39 && high < 40);
    for (int j = 0; j < 64; j++) {
        const double slow = j <= low ? 0 : j >= high ? 1 : (j - low) / (high - low);
        assert_near(exact.frequency[j] / plain.frequency[j], 1 - slow + slow / 4, 1e-12);
    }
}

/* Llama 3.1 by wavelength; frequencies change from pair 29 on. */
static void test_llama3(void **state)
{
    (void)state;
    const prism_rope plain = half_split(128, 5e5);
    prism_rope rope = plain;
    assert_ok(prism_rope_scale_llama3(&rope, 8, 1, 4, 8192));
    for (int j = 0; j < 64; j++) {
        const double w = plain.frequency[j], wavelength = two_pi / w;
        double want = w;
        if (wavelength > 8192.0 / 1)
            want = w / 8;
        else if (wavelength > 8192.0 / 4) {
            const double s = (8192 / wavelength - 1) / (4 - 1);
            want = (1 - s) * w / 8 + s * w;
        }
        assert_near(rope.frequency[j] / want, 1, 1e-12);
        assert_int_equal(rope.frequency[j] == w, j < 29);
    }
}

static void test_factors_and_axes(void **state)
{
    (void)state;
    const prism_rope plain = half_split(96, 1e4);
    prism_rope rope = plain;
    float factor[48];
    int32_t axis[48];
    const double advance[3] = {1, 0.25, 0};
    for (int j = 0; j < 48; j++) {
        factor[j] = 1.0f + 0.5f * (float)j;
        axis[j] = j % 3;
    }
    assert_ok(prism_rope_scale_factors(&rope, factor, 48));
    for (int j = 0; j < 48; j++)
        assert_near(rope.frequency[j] * (1 + 0.5 * j) / plain.frequency[j], 1, 1e-12);
    assert_ok(prism_rope_set_axes(&rope, axis, 48, advance, 3));
    for (int j = 0; j < 48; j++)
        assert_near(rope.frequency[j], plain.frequency[j] / (1 + 0.5 * j) * advance[j % 3], 1e-15);
    factor[5] = 0;
    const prism_rope before = rope;
    assert_int_equal(prism_rope_scale_factors(&rope, factor, 48), PRISM_ERROR_INVALID);
    assert_memory_equal(&rope, &before, sizeof rope);
}

/* ----------------------------------------------------------------------------------------------- bands ---- */

static void test_paper_bands(void **state)
{
    (void)state;
    prism_bands b;
    prism_rope rope = half_split(128, 1e6);
    assert_ok(prism_bands_split(&b, &rope, 64, 96));
    assert_dims(b.high, b.n_high, (int[]){0, 32, 64, 96, -1});
    assert_dims(b.low, b.n_low, (int[]){16, 64, 80, 128, -1});

    assert_ok(prism_rope_init(&rope, 128));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_INTERLEAVED, 0, 128, 1e6));
    assert_ok(prism_bands_split(&b, &rope, 64, 96));
    assert_dims(b.high, b.n_high, (int[]){0, 64, -1});
    assert_dims(b.low, b.n_low, (int[]){32, 128, -1});
}

/* Scalings that slow some pairs down keep the order of the pairs, and with it the paper's bands. */
static void test_scaled_bands(void **state)
{
    (void)state;
    prism_rope rope[4];
    for (int i = 0; i < 4; i++)
        rope[i] = half_split(128, i == 1 ? 5e5 : 1e6);
    assert_ok(prism_rope_scale_yarn(&rope[0], 1e6, 4, 32768, 32, 1, 1));
    assert_ok(prism_rope_scale_llama3(&rope[1], 8, 1, 4, 8192));
    assert_ok(prism_rope_scale_linear(&rope[2], 16));
    float factor[64];
    for (int j = 0; j < 64; j++)
        factor[j] = 1.0f + (float)j / 8;
    assert_ok(prism_rope_scale_factors(&rope[3], factor, 64));
    for (int i = 0; i < 4; i++) {
        prism_bands b;
        assert_ok(prism_bands_split(&b, &rope[i], 64, 96));
        assert_dims(b.high, b.n_high, (int[]){0, 32, 64, 96, -1});
        assert_dims(b.low, b.n_low, (int[]){16, 64, 80, 128, -1});
    }
}

/* Only dimensions 32 .. 95 turn: pairs (32 + j, 64 + j); all others are slower than any of them. */
static void test_partial_bands(void **state)
{
    (void)state;
    prism_rope rope;
    prism_bands b;
    assert_ok(prism_rope_init(&rope, 128));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 32, 64, 1e4));
    assert_ok(prism_bands_split(&b, &rope, 32, 96));
    assert_dims(b.high, b.n_high, (int[]){32, 48, 64, 80, -1});
    assert_dims(b.low, b.n_low, (int[]){0, 32, 48, 64, 80, 128, -1});
    assert_ok(prism_bands_split(&b, &rope, 0, 128));
    assert_dims(b.low, b.n_low, (int[]){0, 128, -1});
    assert_int_equal(prism_bands_split(&b, &rope, 33, 96), PRISM_ERROR_INVALID); /* would split a pair */
}

/* Three axes with their own dimensions and ladders; bands go by frequency across them. */
static void test_multi_axis_bands(void **state)
{
    (void)state;
    prism_rope rope;
    prism_bands b;
    assert_ok(prism_rope_init(&rope, 16));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_INTERLEAVED, 0, 4, 100));   /* 1, 0.1 */
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_INTERLEAVED, 4, 8, 10000)); /* 1, 0.1, 0.01, 0.001 */
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 12, 4, 4));     /* 1, 0.5 on (12, 14), (13, 15) */
    const int32_t axis[8] = {0, 0, 1, 1, 1, 1, 2, 2};
    const double advance[3] = {1, 0.04, 0.5};
    assert_ok(prism_rope_set_axes(&rope, axis, 8, advance, 3));
    /* now 1, .1 | .04, .004, .0004, .00004 | .5, .25 */
    assert_ok(prism_bands_split(&b, &rope, 6, 8));
    assert_dims(b.high, b.n_high, (int[]){0, 2, 12, 16, -1});
    assert_dims(b.low, b.n_low, (int[]){4, 12, -1});
}

/* The automatic split, every row of its table: d_h / d_l at block sizes 64, 128, 256. */
static void test_automatic(void **state)
{
    (void)state;
    static const struct {
        int d;
        double base;
        int want[3][2];
    } rows[] = {
        {128, 1e4, {{80, 96}, {80, 80}, {96, 64}}}, {128, 1e5, {{64, 96}, {64, 96}, {80, 80}}},
        {128, 5e5, {{48, 96}, {64, 96}, {64, 80}}}, {128, 1e6, {{48, 96}, {64, 96}, {64, 96}}},
        {128, 5e6, {{48, 96}, {48, 96}, {64, 96}}}, {64, 5e5, {{32, 48}, {32, 48}, {32, 48}}},
        {64, 1e6, {{32, 48}, {32, 48}, {32, 48}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int scaling = 0; scaling < 3; scaling++) {
            prism_rope rope = half_split(rows[i].d, rows[i].base);
            if (scaling && (rows[i].d != 128 || rows[i].base != (scaling == 1 ? 5e5 : 1e6)))
                continue;
            if (scaling == 1)
                assert_ok(prism_rope_scale_llama3(&rope, 8, 1, 4, 8192));
            if (scaling == 2)
                assert_ok(prism_rope_scale_yarn(&rope, 1e6, 4, 32768, 32, 1, 1));
            for (int size = 0; size < 3; size++) {
                prism_bands b;
                assert_ok(prism_bands_auto(&b, &rope, 64 << size));
                if (b.n_high != rows[i].want[size][0] || b.n_low != rows[i].want[size][1])
                    fail_msg("d %d base %g block %d scaling %d: %d/%d, want %d/%d", rows[i].d, rows[i].base, 64 << size,
                             scaling, b.n_high, b.n_low, rows[i].want[size][0], rows[i].want[size][1]);
            }
        }
}

/* Whatever turns and however: bands are within the head, ascending, without doubles, and not both empty. */
static void test_automatic_sane(void **state)
{
    (void)state;
    for (int d = 1; d <= PRISM_MAX_D_HEAD; d++)
        for (int kind = 0; kind < 4; kind++) {
            prism_rope rope;
            prism_bands b;
            assert_ok(prism_rope_init(&rope, d));
            if (kind && d >= 2)
                assert_ok(
                    prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, kind == 1 ? d / 2 * 2 : 2, kind == 3 ? 1.5 : 1e4));
            assert_ok(prism_bands_auto(&b, &rope, 128));
            assert_true(b.n_high + b.n_low > 0 && b.n_high <= d && b.n_low <= d && b.d_head == d);
            for (int j = 1; j < b.n_high; j++)
                assert_true(b.high[j] > b.high[j - 1] && b.high[j] < d);
            for (int j = 1; j < b.n_low; j++)
                assert_true(b.low[j] > b.low[j - 1] && b.low[j] < d);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_factors_and_axes),
        cmocka_unit_test(test_paper_bands),
        cmocka_unit_test(test_scaled_bands),
        cmocka_unit_test(test_partial_bands),
        cmocka_unit_test(test_multi_axis_bands),
        cmocka_unit_test(test_automatic),
        cmocka_unit_test(test_automatic_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
