/* AVX2 tier (with FMA and F16C): 6 x 16 products in 12 of 16 registers. */
#include "cpu/tiers/vector_avx2.h"

#define SUFFIX(name) name##_avx2
#include "cpu/tiers/vector_kernels.h"

void prism_tier_avx2(prism_tier *k)
{
    prism_cpu_kernels_fill_avx2(k);
}
