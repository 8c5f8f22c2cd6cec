/*
 * lm/blocks.h - a block of a weight type as it lies in a file -> floats. Written once, for C and for CUDA.
 *
 *   lm_unpack_NAME(src, dst)               src: the block's bytes, unaligned; dst: its elements
 *   lm_split_NAME(src, q, scale, less)     the same in parts: element i is scale[i / 16] q[i] - less[i / 16]
 *
 * A type of single floats has the first, a type of blocks the second, from which LM_UNPACK makes the first; processors
 * with wide vectors have one loop over the parts for all types (tensor.c).
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

/* --------------------------------------------------------------------------------------- single floats ---- */

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

/* --------------------------------------------------------------------------------------- blocks of 32 ---- */

/* The same for both runs. */
LM_BLOCK void lm_both(float *pair, float value)
{
    pair[0] = pair[1] = value;
}

/* The low halves of 16 bytes, then their high halves, less offset. */
LM_BLOCK void lm_halves(const uint8_t *src, int offset, int8_t *q)
{
    for (int i = 0; i < 16; i++)
        q[i] = (int8_t)((src[i] & 15) - offset);
    for (int i = 0; i < 16; i++)
        q[16 + i] = (int8_t)((src[i] >> 4) - offset);
}

/* The same with a fifth bit: bit i of the four bytes at src. */
LM_BLOCK void lm_halves_and_bit(const uint8_t *src, int offset, int8_t *q)
{
    uint32_t fifth;
    memcpy(&fifth, src, sizeof fifth);
    for (int i = 0; i < 16; i++)
        q[i] = (int8_t)((src[4 + i] & 15) + (int)(fifth >> i & 1) * 16 - offset);
    for (int i = 0; i < 16; i++)
        q[16 + i] = (int8_t)((src[4 + i] >> 4) + (int)(fifth >> (16 + i) & 1) * 16 - offset);
}

/* The same with the values that four bits stand for. */
LM_BLOCK void lm_looked_up(const uint8_t *src, const int8_t *values, int8_t *q)
{
    for (int i = 0; i < 16; i++)
        q[i] = values[src[i] & 15];
    for (int i = 0; i < 16; i++)
        q[16 + i] = values[src[i] >> 4];
}

/* A float16 scale, then 32 int8. */
LM_BLOCK void lm_split_q8_0(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_both(scale, lm_half_at(src));
    lm_both(less, 0);
    memcpy(q, src + 2, 32);
}

/* A float16 scale, then halves of bytes. */
LM_BLOCK void lm_split_q4_0(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_both(scale, lm_half_at(src));
    lm_both(less, 0);
    lm_halves(src + 2, 8, q);
}

/* A float16 scale, a float16 that is added, then halves of bytes. */
LM_BLOCK void lm_split_q4_1(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_both(scale, lm_half_at(src));
    lm_both(less, -lm_half_at(src + 2));
    lm_halves(src + 4, 0, q);
}

LM_BLOCK void lm_split_q5_0(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_both(scale, lm_half_at(src));
    lm_both(less, 0);
    lm_halves_and_bit(src + 2, 16, q);
}

LM_BLOCK void lm_split_q5_1(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_both(scale, lm_half_at(src));
    lm_both(less, -lm_half_at(src + 2));
    lm_halves_and_bit(src + 4, 0, q);
}

#define LM_IQ4_VALUES {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

LM_BLOCK void lm_split_iq4_nl(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const int8_t values[16] = LM_IQ4_VALUES;
    lm_both(scale, lm_half_at(src));
    lm_both(less, 0);
    lm_looked_up(src + 2, values, q);
}

/* The exponent of half the scale, biased as a float's, then two E2M1 a byte; twice their values are whole numbers. */
LM_BLOCK void lm_split_mxfp4(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const uint32_t e = src[0];
    lm_both(scale, lm_float_of_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23));
    lm_both(less, 0);
    lm_looked_up(src + 1, twice, q);
}

/* --------------------------------------- blocks of 256, whose runs of 16 or 32 have scales of their own ---- */

/* Two bits of 64 bytes: those of 32 bytes, lowest bits first, then those of the other 32. */
LM_BLOCK void lm_quarters(const uint8_t *src, int8_t *q)
{
    for (int part = 0; part < 8; part++)
        for (int i = 0; i < 32; i++)
            q[32 * part + i] = (int8_t)(src[part / 4 * 32 + i] >> part % 4 * 2 & 3);
}

/* A byte a run of 16 (scale, scale of what is subtracted); 64 bytes with four elements each; their two float16. */
LM_BLOCK void lm_split_q2_k(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const float all = lm_half_at(src + 80), all_less = lm_half_at(src + 82);
    for (int run = 0; run < 16; run++) {
        scale[run] = all * (float)(src[run] & 15);
        less[run] = all_less * (float)(src[run] >> 4);
    }
    lm_quarters(src + 16, q);
}

/* A third bit of each element, 0 of which subtracts 4: bit p of 32 bytes belongs to part p of 32 elements; the lower
 * two as in Q2_K; 16 scales of six bits: the low four of all in 8 bytes, the high two of all in 4; a float16. */
LM_BLOCK void lm_split_q3_k(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const uint8_t *low = src + 96, *high = src + 104;
    const float all = lm_half_at(src + 108);
    for (int run = 0; run < 16; run++) {
        const int bits = (low[run % 8] >> run / 8 * 4 & 15) | (high[run % 4] >> run / 4 * 2 & 3) << 4;
        scale[run] = all * (float)(bits - 32);
        less[run] = 0;
    }
    lm_quarters(src + 32, q);
    for (int part = 0; part < 8; part++)
        for (int i = 0; i < 32; i++)
            q[32 * part + i] = (int8_t)(q[32 * part + i] + (src[i] >> part & 1) * 4 - 4);
}

/* Scales of six bits, 8 of the elements and 8 of what is subtracted, in 12 bytes. The first four have the low bits of
 * bytes 0 to 3 and 4 to 7. Of the others the low four bits are the halves of bytes 8 to 11, the high two stand above
 * the first four. Each is for a run of 32. */
LM_BLOCK void lm_k_scales(const uint8_t *src, float *scale, float *less)
{
    const float all = lm_half_at(src), all_less = lm_half_at(src + 2);
    const uint8_t *first = src + 4, *second = src + 8, *third = src + 12;
    for (int i = 0; i < 4; i++) {
        lm_both(scale + 2 * i, all * (float)(first[i] & 63));
        lm_both(less + 2 * i, all_less * (float)(second[i] & 63));
        lm_both(scale + 8 + 2 * i, all * (float)((third[i] & 15) | first[i] >> 6 << 4));
        lm_both(less + 8 + 2 * i, all_less * (float)(third[i] >> 4 | second[i] >> 6 << 4));
    }
}

/* The low halves of 32 bytes, then the high ones, then those of the next 32 bytes. */
LM_BLOCK void lm_k_halves(const uint8_t *src, int8_t *q)
{
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++)
            q[32 * run + i] = (int8_t)(src[run / 2 * 32 + i] >> run % 2 * 4 & 15);
}

/* Two float16 and the scales, then halves of bytes. */
LM_BLOCK void lm_split_q4_k(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_k_scales(src, scale, less);
    lm_k_halves(src + 16, q);
}

/* The same with a fifth bit: bit r of 32 bytes before the halves belongs to run r. */
LM_BLOCK void lm_split_q5_k(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    lm_k_scales(src, scale, less);
    lm_k_halves(src + 48, q);
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++)
            q[32 * run + i] = (int8_t)(q[32 * run + i] + (src[16 + i] >> run & 1) * 16);
}

/* Half a block at a time: the low four bits in 64 bytes (low halves, then high ones), the high two in 32 bytes (of four
 * runs of 32); then 16 scales of a byte, and a float16. */
LM_BLOCK void lm_split_q6_k(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const float all = lm_half_at(src + 208);
    for (int run = 0; run < 16; run++) {
        scale[run] = all * (float)(int8_t)src[192 + run];
        less[run] = 0;
    }
    for (int part = 0; part < 8; part++) {
        const uint8_t *low = src + part / 4 * 64 + part % 2 * 32, *high = src + 128 + part / 4 * 32;
        for (int i = 0; i < 32; i++)
            q[32 * part + i] = (int8_t)(((low[i] >> part % 4 / 2 * 4 & 15) | (high[i] >> part % 4 * 2 & 3) << 4) - 32);
    }
}

/* A float16, the high two bits of 8 scales, their low four, then runs of 32 as in IQ4_NL. */
LM_BLOCK void lm_split_iq4_xs(const uint8_t *src, int8_t *q, float *scale, float *less)
{
    const int8_t values[16] = LM_IQ4_VALUES;
    const float all = lm_half_at(src);
    for (int run = 0; run < 8; run++) {
        const int low = src[4 + run / 2] >> run % 2 * 4 & 15, high = src[2 + run / 4] >> run % 4 * 2 & 3;
        lm_both(scale + 2 * run, all * (float)((low | high << 4) - 32));
        lm_both(less + 2 * run, 0);
        lm_looked_up(src + 8 + 16 * run, values, q + 32 * run);
    }
}

/* ------------------------------------------------------------------------------------- parts together ---- */

#define LM_UNPACK(name, n)                                                                                             \
    LM_BLOCK void lm_unpack_##name(const uint8_t *src, float *dst)                                                     \
    {                                                                                                                  \
        int8_t q[n];                                                                                                   \
        float scale[(n) / 16], less[(n) / 16];                                                                         \
        lm_split_##name(src, q, scale, less);                                                                          \
        for (int run = 0; run < (n) / 16; run++)                                                                       \
            for (int i = 16 * run; i < 16 * run + 16; i++)                                                             \
                dst[i] = scale[run] * (float)q[i] - less[run];                                                         \
    }
LM_UNPACK(q8_0, 32)
LM_UNPACK(q4_0, 32)
LM_UNPACK(q4_1, 32)
LM_UNPACK(q5_0, 32)
LM_UNPACK(q5_1, 32)
LM_UNPACK(iq4_nl, 32)
LM_UNPACK(mxfp4, 32)
LM_UNPACK(q2_k, 256)
LM_UNPACK(q3_k, 256)
LM_UNPACK(q4_k, 256)
LM_UNPACK(q5_k, 256)
LM_UNPACK(q6_k, 256)
LM_UNPACK(iq4_xs, 256)
#undef LM_UNPACK

#endif
