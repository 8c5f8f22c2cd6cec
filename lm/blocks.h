/*
 * lm/blocks.h - one function a weight type: a block as it lies in a file -> floats. Written once, for C and for CUDA.
 *
 *   lm_unpack_NAME(src, dst)   src: the block's bytes, unaligned; dst: its elements
 *
 * Rules for a function: no branch that depends on data (the C compiler vectorises its loops), no alignment, and the
 * value of each element as GGUF's own reference computes it in float32. A scale has 11 bits, a scale of scales and an
 * element at most 8 more each: every product is exact, so it does not matter whether a compiler fuses it with a sum.
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

/* ----------------------------------------------------------------------- blocks of 32, two elements a byte ---- */

/* Bit i of the four bytes at src. */
LM_BLOCK int lm_bit_at(const uint8_t *src, int i)
{
    return src[i / 8] >> (i % 8) & 1;
}

/* A float16 scale, then the low halves of 16 bytes, then the high halves: unsigned less 8. */
LM_BLOCK void lm_unpack_q4_0(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src);
    for (int i = 0; i < 16; i++) {
        dst[i] = scale * (float)((src[2 + i] & 15) - 8);
        dst[16 + i] = scale * (float)((src[2 + i] >> 4) - 8);
    }
}

/* The same, but unsigned, and a float16 that is added. */
LM_BLOCK void lm_unpack_q4_1(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src), least = lm_half_at(src + 2);
    for (int i = 0; i < 16; i++) {
        dst[i] = scale * (float)(src[4 + i] & 15) + least;
        dst[16 + i] = scale * (float)(src[4 + i] >> 4) + least;
    }
}

/* A fifth bit of each element stands in four bytes before the halves: unsigned less 16. */
LM_BLOCK void lm_unpack_q5_0(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src);
    for (int i = 0; i < 16; i++) {
        dst[i] = scale * (float)(((src[6 + i] & 15) | lm_bit_at(src + 2, i) << 4) - 16);
        dst[16 + i] = scale * (float)((src[6 + i] >> 4 | lm_bit_at(src + 2, 16 + i) << 4) - 16);
    }
}

LM_BLOCK void lm_unpack_q5_1(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src), least = lm_half_at(src + 2);
    for (int i = 0; i < 16; i++) {
        dst[i] = scale * (float)((src[8 + i] & 15) | lm_bit_at(src + 4, i) << 4) + least;
        dst[16 + i] = scale * (float)(src[8 + i] >> 4 | lm_bit_at(src + 4, 16 + i) << 4) + least;
    }
}

/* The values that four bits of IQ4_NL and IQ4_XS stand for. */
LM_BLOCK float lm_iq4_value(int i)
{
    const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return (float)values[i];
}

LM_BLOCK void lm_unpack_iq4_nl(const uint8_t *src, float *dst)
{
    const float scale = lm_half_at(src);
    for (int i = 0; i < 16; i++) {
        dst[i] = scale * lm_iq4_value(src[2 + i] & 15);
        dst[16 + i] = scale * lm_iq4_value(src[2 + i] >> 4);
    }
}

/* The exponent of half the scale, biased as a float's, then two E2M1 a byte; twice their values are whole numbers. */
LM_BLOCK void lm_unpack_mxfp4(const uint8_t *src, float *dst)
{
    const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const uint32_t e = src[0];
    const float half = lm_float_of_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (int i = 0; i < 16; i++) {
        dst[i] = half * (float)twice[src[1 + i] & 15];
        dst[16 + i] = half * (float)twice[src[1 + i] >> 4];
    }
}

/* --------------------------------------- blocks of 256, whose runs of 16 or 32 have scales of their own ---- */

/* A byte a run of 16 (scale, scale of what is subtracted); 64 bytes with four elements each; their two float16. */
LM_BLOCK void lm_unpack_q2_k(const uint8_t *src, float *dst)
{
    const float all = lm_half_at(src + 80), all_less = lm_half_at(src + 82);
    for (int run = 0; run < 16; run++) {
        const float scale = all * (float)(src[run] & 15), less = all_less * (float)(src[run] >> 4);
        const uint8_t *q = src + 16 + run / 8 * 32 + run % 2 * 16;
        for (int i = 0; i < 16; i++)
            dst[16 * run + i] = scale * (float)(q[i] >> run % 8 / 2 * 2 & 3) - less;
    }
}

/* A third bit of each element, as in Q5_K, 0 of which subtracts 4; the lower two as in Q2_K; 16 scales of six bits: the
 * low four of all in 8 bytes, the high two of all in 4; a float16. */
LM_BLOCK void lm_unpack_q3_k(const uint8_t *src, float *dst)
{
    const uint8_t *low = src + 96, *high = src + 104;
    const float all = lm_half_at(src + 108);
    for (int run = 0; run < 16; run++) {
        const int bits = (low[run % 8] >> run / 8 * 4 & 15) | (high[run % 4] >> run / 4 * 2 & 3) << 4;
        const float scale = all * (float)(bits - 32);
        const uint8_t *q = src + 32 + run / 8 * 32 + run % 2 * 16, *third = src + run % 2 * 16;
        for (int i = 0; i < 16; i++)
            dst[16 * run + i] = scale * (float)((q[i] >> run % 8 / 2 * 2 & 3) + (third[i] >> run / 2 & 1) * 4 - 4);
    }
}

/* Number i of 8, six bits each: 0 to 3 the low bits of bytes 0 to 3; 4 to 7 have their low four bits in bytes 8 to 11
 * (there the low halves for the bytes 0 to 3, the high ones for 4 to 7) and their high two above those of 0 to 3. */
LM_BLOCK float lm_k_scale(const uint8_t *src, int i, int high_half)
{
    const uint8_t *first = src + 4 * high_half;
    const int late = (src[8 + i % 4] >> 4 * high_half & 15) | first[i % 4] >> 6 << 4;
    return (float)(i < 4 ? first[i] & 63 : late);
}

/* Two float16, 12 bytes with the scales of 8 runs of 32 and of what is subtracted, then four elements' halves of 32
 * bytes at a time: the low halves are one run, the high ones the next. */
LM_BLOCK void lm_unpack_q4_k(const uint8_t *src, float *dst)
{
    const float all = lm_half_at(src), all_less = lm_half_at(src + 2);
    for (int run = 0; run < 8; run++) {
        const float scale = all * lm_k_scale(src + 4, run, 0), less = all_less * lm_k_scale(src + 4, run, 1);
        const uint8_t *q = src + 16 + run / 2 * 32;
        for (int i = 0; i < 32; i++)
            dst[32 * run + i] = scale * (float)(q[i] >> run % 2 * 4 & 15) - less;
    }
}

/* The same with a fifth bit: bit r of 32 bytes before the halves belongs to run r. */
LM_BLOCK void lm_unpack_q5_k(const uint8_t *src, float *dst)
{
    const float all = lm_half_at(src), all_less = lm_half_at(src + 2);
    for (int run = 0; run < 8; run++) {
        const float scale = all * lm_k_scale(src + 4, run, 0), less = all_less * lm_k_scale(src + 4, run, 1);
        const uint8_t *q = src + 48 + run / 2 * 32, *fifth = src + 16;
        for (int i = 0; i < 32; i++)
            dst[32 * run + i] = scale * (float)((q[i] >> run % 2 * 4 & 15) + (fifth[i] >> run & 1) * 16) - less;
    }
}

/* Half a block at a time: the low four bits in 64 bytes (low halves, then high ones), the high two in 32 bytes (of four
 * runs of 32); then 16 scales of a byte, and a float16. */
LM_BLOCK void lm_unpack_q6_k(const uint8_t *src, float *dst)
{
    const float all = lm_half_at(src + 208);
    for (int run = 0; run < 16; run++) {
        const float scale = all * (float)(int8_t)src[192 + run];
        const int half = run / 8, quarter = run % 8 / 2, low = quarter / 2 * 4, side = run % 2 * 16;
        const uint8_t *q = src + 64 * half + quarter % 2 * 32 + side, *high = src + 128 + 32 * half + side;
        for (int i = 0; i < 16; i++)
            dst[16 * run + i] = scale * (float)(((q[i] >> low & 15) | (high[i] >> quarter * 2 & 3) << 4) - 32);
    }
}

/* A float16, the high two bits of 8 scales, their low four, then runs of 32 as in IQ4_NL. */
LM_BLOCK void lm_unpack_iq4_xs(const uint8_t *src, float *dst)
{
    const float all = lm_half_at(src);
    for (int run = 0; run < 8; run++) {
        const int low = src[4 + run / 2] >> run % 2 * 4 & 15, high = src[2 + run / 4] >> run % 4 * 2 & 3;
        const float scale = all * (float)((low | high << 4) - 32);
        const uint8_t *q = src + 8 + 16 * run;
        for (int i = 0; i < 16; i++) {
            dst[32 * run + i] = scale * lm_iq4_value(q[i] & 15);
            dst[32 * run + 16 + i] = scale * lm_iq4_value(q[i] >> 4);
        }
    }
}

#endif
