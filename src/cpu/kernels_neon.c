/* NEON tier, which every AArch64 machine runs: 6 x 16 products in 24 of 32 registers. */
#include "cpu/vector_neon.h"

#define SUFFIX(name) name##_neon
#include "cpu/vector_kernels.h"

void prism_cpu_kernels_neon(prism_cpu_kernels *k)
{
    prism_cpu_kernels_fill_neon(k);
}
