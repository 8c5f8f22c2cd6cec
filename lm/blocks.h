/*
 * lm/blocks.h - one function a weight type: a block as it lies in a file -> floats. Written once, for C and for CUDA.
 *
 *   lm_unpack_NAME(src, dst)   src: the block's bytes, unaligned; dst: its elements
 *
 * Rules for a function: no branch that depends on data (the C compiler vectorises loops over blocks), no alignment, and
 * the value of each element as GGUF's own reference computes it in float32.
 */
#ifndef LM_BLOCKS_H
#define LM_BLOCKS_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define LM_BLOCK static __host__ __device__ __forceinline__
#else
#define LM_BLOCK static inline __attribute__((always_inline))
#endif

LM_BLOCK float lm_float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

LM_BLOCK uint32_t lm_bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* The float16 at src. */
LM_BLOCK float lm_half_at(const uint8_t *src)
{
    uint16_t h;
    memcpy(&h, src, sizeof h);
    const uint32_t rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t bits = lm_bits_of_float(lm_float_of_bits(rest) * 0x1p112f); /* moves the exponent, of subnormals too */
    bits |= rest >= 0x0f800000 ? 0x7f800000 : 0;
    return lm_float_of_bits(bits | (uint32_t)(h & 0x8000) << 16);
}

LM_BLOCK void lm_unpack_f32(const uint8_t *src, float *dst)
{
    memcpy(dst, src, sizeof *dst);
}

LM_BLOCK void lm_unpack_f16(const uint8_t *src, float *dst)
{
    *dst = lm_half_at(src);
}

LM_BLOCK void lm_unpack_bf16(const uint8_t *src, float *dst)
{
    uint16_t h;
    memcpy(&h, src, sizeof h);
    *dst = lm_float_of_bits((uint32_t)h << 16);
}

/* A float16 scale, then 32 int8. */
LM_BLOCK void lm_unpack_q8_0(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src);
    for (int i = 0; i < 32; i++)
        dst[i] = scale * (float)(int8_t)src[2 + i];
}

#endif
