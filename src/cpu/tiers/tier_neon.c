/* NEON tier, which every AArch64 machine runs: 6 x 16 products in 24 of 32 registers. */
#include "cpu/tiers/vector_neon.h"

#define SUFFIX(name) name##_neon
#include "cpu/tiers/vector_kernels.h"

void prism_tier_neon(prism_tier *k)
{
    prism_cpu_kernels_fill_neon(k);
}
