/* AVX-512 tier (F, BW, DQ, VL): 6 x 64 products in 24 of 32 registers. */
#include "cpu/vector_avx512.h"

#define SUFFIX(name) name##_avx512
#include "cpu/vector_kernels.h"

void prism_cpu_kernels_avx512(prism_cpu_kernels *k)
{
    prism_cpu_kernels_fill_avx512(k);
}
