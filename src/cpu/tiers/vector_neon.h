/* The vocabulary of vector_softmax.h in AArch64's NEON. */
#ifndef PRISM_CPU_VECTOR_NEON_H
#define PRISM_CPU_VECTOR_NEON_H

#include <arm_neon.h>

#define VL 4
#define NV 4
#define VF float32x4_t
#define LOAD(p) vld1q_f32(p)
#define STORE(p, x) vst1q_f32(p, x)
#define SET1(x) vdupq_n_f32(x)
#define ADD(a, b) vaddq_f32(a, b)
#define MUL(a, b) vmulq_f32(a, b)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define MAX(a, b) vmaxnmq_f32(a, b)
#define SQRT(x) vsqrtq_f32(x)
#define DIV(a, b) vdivq_f32(a, b)
#define SUM(x) vaddvq_f32(x)
#define RMAX(x) vmaxnmvq_f32(x)
#define LOAD_F16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define LOAD_BF16(p) vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))
#define STORE_F16(p, x) vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)))
#define STORE_BF16(p, x) vst1_u16(p, to_bf16(x))
#define EXP2_PARTS(x, poly) exp2_scale(x, poly(vsubq_f32(exp2_clamp(x), vrndnq_f32(exp2_clamp(x)))))
#define NOT_FINITE(x) any_not_finite(x)

/* x - x is 0 for a finite x and NaN for any other, which equals nothing */
static inline int any_not_finite(float32x4_t x)
{
    const float32x4_t zero = vsubq_f32(x, x);
    return vminvq_u32(vceqq_f32(zero, zero)) == 0;
}

static inline uint16x4_t to_bf16(float32x4_t x)
{
    const uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

static inline float32x4_t exp2_clamp(float32x4_t x)
{
    return vmaxq_f32(x, vdupq_n_f32(-126.0f)); /* NaN if x is */
}

/* p * 2^whole(x); 0 below -126 */
static inline float32x4_t exp2_scale(float32x4_t x, float32x4_t p)
{
    const uint32x4_t tiny = vcltq_f32(x, vdupq_n_f32(-126.0f)); /* false for NaN */
    const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(exp2_clamp(x)), vdupq_n_s32(127)), 23);
    const float32x4_t y = vmulq_f32(p, vreinterpretq_f32_s32(exponent));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), tiny));
}

#endif
