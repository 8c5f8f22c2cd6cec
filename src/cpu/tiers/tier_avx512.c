/* AVX-512 tier (F, BW, DQ, VL): 6 x 64 products in 24 of 32 registers. */
#include "cpu/tiers/vector_avx512.h"

#define SUFFIX(name) name##_avx512
#include "cpu/tiers/vector_kernels.h"

void prism_tier_avx512(prism_tier *k)
{
    prism_cpu_kernels_fill_avx512(k);
}
