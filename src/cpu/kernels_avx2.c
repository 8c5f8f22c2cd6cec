/* AVX2 tier (with FMA and F16C): 6 x 16 products in 12 of 16 registers. */
#include "cpu/vector_avx2.h"

#define SUFFIX(name) name##_avx2
#include "cpu/vector_kernels.h"

void prism_cpu_kernels_avx2(prism_cpu_kernels *k)
{
    prism_cpu_kernels_fill_avx2(k);
}
