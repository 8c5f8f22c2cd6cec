/* NEON-BF16 tier: the NEON tier's kernels, and dot products of pairs of bfloat16. */
#include <string.h>

#include "cpu/tiers/vector_neon.h"

#define SUFFIX(name) name##_neonbf16
#define VH bfloat16x8_t
#define LOAD_PAIRS(p) vreinterpretq_bf16_u16(vld1q_u16(p))
#define SET_PAIR(p) vreinterpretq_bf16_u32(vdupq_n_u32(pair_at(p)))
#define DOT(acc, a, b) vbfdotq_f32(acc, a, b)
#define NARROW(p, x) vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(x)))
#define EXP2_WEIGHT(x) EXP2(x)

static inline uint32_t pair_at(const void *p)
{
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return pair;
}

#include "cpu/tiers/vector_bf16.h"

void prism_tier_neonbf16(prism_tier *k)
{
    k->depth_bf16 = 2;
    k->panel_bf16 = PANEL;
    k->gemm_bf16 = gemm_bf16_neonbf16;
    k->softmax_bf16 = softmax_bf16_neonbf16;
}
