/* What the tests share: seeded random numbers, memory behind guard pages, and a second opinion on number formats. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prism_attn/prism.h"

/* splitmix64: the same numbers from the same seed on every machine. */
typedef struct rng {
    uint64_t state;
} rng;

uint64_t rng_next(rng *r);
double rng_unit(rng *r); /* [0, 1) */
double rng_normal(rng *r);
void rng_skip_normals(rng *r, uint64_t n); /* as if rng_normal() was called n times */
int rng_range(rng *r, int low, int high); /* low .. high, both included */

/* Memory whose last byte lies right before a page that may not be touched. Contents: 0xA5. */
typedef struct guarded {
    void *data;
    size_t bytes;
    void *map;
    size_t map_bytes;
} guarded;

enum { guard_poison = 0xA5 };

/* The block ends at the guard when bytes is a multiple of align, else less than align before it. */
guarded guarded_new(size_t bytes, size_t align);
void guarded_free(guarded *g);

/* Called with every block of memory that guarded_new() gives out and guarded_free() takes back, where set: a device may
 * want to know them. */
extern void (*guarded_on_new)(void *data, size_t bytes);
extern void (*guarded_on_free)(void *data);

/* Values of a dtype, by arithmetic rather than by moving bits. encode rounds to nearest, ties to even. */
double value_decode(prism_dtype dtype, const void *from);
void value_encode(prism_dtype dtype, double x, void *to);
double value_round(prism_dtype dtype, double x);
double value_unit(prism_dtype dtype); /* relative error of one rounding: 2^-24, 2^-11, 2^-8 */

double seconds_now(void);

/* Both bands of a plain half-split head of any d: half of the dimensions high, three quarters low, as 64/96 of 128. */
void make_bands(prism_bands *bands, int d);

/* Options for prism_pooled_init(): a state of sums, with moments or without. */
prism_options pooled_options(int32_t block_size, bool moments);

#endif
