/* float16 and bfloat16, one value at a time; round to nearest, ties to even; NaN stays NaN. */
#ifndef PRISM_CORE_HALF_H
#define PRISM_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t prism_float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float prism_float_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float prism_bf16_to_f32(uint16_t h)
{
    return prism_float_from_bits((uint32_t)h << 16);
}

static inline uint16_t prism_f32_to_bf16(float f)
{
    uint32_t u = prism_float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static inline float prism_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if ((h & 0x7c00) == 0x7c00) /* infinity, NaN */
        return prism_float_from_bits(sign | 0x7f800000 | rest);
    /* Moving the exponent by multiplication handles subnormals too. */
    return prism_float_from_bits(sign | prism_float_bits(prism_float_from_bits(rest) * 0x1p112f));
}

static inline uint16_t prism_f32_to_f16(float f)
{
    const uint32_t u = prism_float_bits(f), sign = (u >> 16) & 0x8000, abs = u & 0x7fffffff;
    if (abs > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (abs >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (abs < 0x38800000) { /* subnormal: adding 0.5 aligns the mantissa and rounds */
        const uint32_t r = prism_float_bits(prism_float_from_bits(abs) + 0.5f);
        return (uint16_t)(sign | (r - 0x3f000000));
    }
    return (uint16_t)(sign | ((abs - 0x38000000 + 0xfff + ((abs >> 13) & 1)) >> 13));
}

#endif
