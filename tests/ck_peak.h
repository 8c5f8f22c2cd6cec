#ifndef TESTS_CK_PEAK_H
#define TESTS_CK_PEAK_H

#include <stddef.h>

#include "prism_attn/prism.h"

/* Floating-point operations a second of one core: float32 multiply-adds with this tier's vectors; and, in tiers that
 * have them, dot products of bfloat16, 0 in others. */
double ck_peak_flops(prism_isa isa);
double ck_peak_flops_bf16(prism_isa isa);

/* Bytes read and written a second by copying n bytes: small n stays in cache, large n goes through memory. */
double ck_peak_bytes(size_t n);

#endif
