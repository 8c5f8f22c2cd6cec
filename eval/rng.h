/* eval/rng.h - splitmix64: the same numbers on every machine and compiler for a seed. */
#ifndef EVAL_RNG_H
#define EVAL_RNG_H

#include <stdint.h>

typedef struct eval_rng {
    uint64_t state;
} eval_rng;

static inline uint64_t eval_rng_next(eval_rng *rng)
{
    uint64_t z = rng->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Uniform in 0 .. n-1, n > 0. */
static inline uint64_t eval_rng_below(eval_rng *rng, uint64_t n)
{
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n; /* a multiple of n: below it every remainder is as likely */
    uint64_t x;
    do
        x = eval_rng_next(rng);
    while (x >= limit);
    return x % n;
}

#endif
