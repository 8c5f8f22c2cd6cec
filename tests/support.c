#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);

uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += step;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double rng_unit(rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

double rng_normal(rng *r)
{
    const double a = rng_unit(r), b = rng_unit(r);
    return sqrt(-2 * log(1 - a)) * cos(6.283185307179586 * b);
}

void rng_skip_normals(rng *r, uint64_t n)
{
    r->state += 2 * n * step;
}

int rng_range(rng *r, int low, int high)
{
    return low + (int)(rng_next(r) % (uint64_t)(high - low + 1));
}

void (*guarded_on_new)(void *data, size_t bytes);
void (*guarded_on_free)(void *data);

guarded guarded_new(size_t bytes, size_t align)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + align + page - 1) / page * page;
    guarded g = {.bytes = bytes, .map_bytes = room + page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + room, page, PROT_NONE)) {
        perror("guarded_new");
        exit(2);
    }
    g.data = (char *)g.map + (room - bytes) / align * align;
    memset(g.map, guard_poison, room);
    if (guarded_on_new)
        guarded_on_new(g.map, room);
    return g;
}

void guarded_free(guarded *g)
{
    if (g->map && guarded_on_free)
        guarded_on_free(g->map);
    if (g->map)
        munmap(g->map, g->map_bytes);
    *g = (guarded){0};
}

/* --------------------------------------------------------------------------------------------- formats ---- */

/* mantissa bits, exponent bits of a 16-bit format */
static double decode16(unsigned h, int n_mantissa)
{
    const int n_exponent = 15 - n_mantissa, bias = (1 << (n_exponent - 1)) - 1;
    const int exponent = (int)(h & 0x7fff) >> n_mantissa;
    const int mantissa = (int)h & ((1 << n_mantissa) - 1);
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == (1 << n_exponent) - 1)
        return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - n_mantissa);
    return sign * ldexp((1 << n_mantissa) + mantissa, exponent - bias - n_mantissa);
}

static unsigned encode16(double x, int n_mantissa)
{
    const int n_exponent = 15 - n_mantissa, bias = (1 << (n_exponent - 1)) - 1;
    const unsigned sign = signbit(x) ? 0x8000 : 0, infinity = ((1u << n_exponent) - 1) << n_mantissa;
    if (isnan(x))
        return sign | infinity | 1u << (n_mantissa - 1);
    x = fabs(x);
    if (isinf(x))
        return sign | infinity;
    int exponent = x > 0 ? ilogb(x) : 1 - bias;
    if (exponent < 1 - bias)
        exponent = 1 - bias;
    /* In units of the last place; rint rounds ties to even. Carries run into the exponent by themselves. */
    const double units = rint(ldexp(x, n_mantissa - exponent));
    const double code = units + (double)((long)(exponent + bias - 1) << n_mantissa);
    return sign | (code >= infinity ? infinity : (unsigned)code);
}

double value_decode(prism_dtype dtype, const void *from)
{
    if (dtype == PRISM_F32) {
        float f;
        memcpy(&f, from, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, from, sizeof h);
    return decode16(h, dtype == PRISM_F16 ? 10 : 7);
}

void value_encode(prism_dtype dtype, double x, void *to)
{
    if (dtype == PRISM_F32) {
        const float f = (float)x;
        memcpy(to, &f, sizeof f);
        return;
    }
    const uint16_t h = (uint16_t)encode16(x, dtype == PRISM_F16 ? 10 : 7);
    memcpy(to, &h, sizeof h);
}

double value_round(prism_dtype dtype, double x)
{
    char bytes[4];
    value_encode(dtype, x, bytes);
    return value_decode(dtype, bytes);
}

double value_unit(prism_dtype dtype)
{
    return dtype == PRISM_F32 ? 0x1p-24 : dtype == PRISM_F16 ? 0x1p-11 : 0x1p-8;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void make_bands(prism_bands *bands, int d)
{
    prism_rope rope;
    prism_rope_init(&rope, d);
    prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, d / 2 * 2, 1e6);
    const int n_high = d / 4 * 2, n_low = d - (d / 8) * 2;
    if (d < 2 || prism_bands_split(bands, &rope, n_high, n_low) != PRISM_OK)
        *bands = (prism_bands){.d_head = d, .n_high = 0, .n_low = d, .low = {0}};
    for (int j = 0; bands->n_high == 0 && j < d; j++)
        bands->low[j] = (int16_t)j;
}

prism_options pooled_options(int32_t block_size, bool moments)
{
    prism_options o;
    prism_options_init(&o);
    o.block_size = block_size;
    o.method = moments ? PRISM_METHOD_MOMENTS : PRISM_METHOD_PRISM;
    return o;
}
