/*
 * What attend multiplies, and how it lies in memory: float32, or bfloat16 in a tier with bfloat16 dot products. Both
 * take the same way through attend.c; this file has the differences.
 *
 *   rows     [n][depth], zero past d: tokens as the products read their left operand, and on their way into panels
 *   keys     panels of tokens,     [depth][panel], bfloat16 [depth / 2][panel][2]
 *   values   panels of dimensions, [n][panel],     bfloat16 [n / 2][panel][2]
 */
#ifndef PRISM_CPU_OPERAND_H
#define PRISM_CPU_OPERAND_H

#include "cpu/cpu.h"

typedef struct prism_operand {
    const prism_tier *k;
    bool bf16;
    size_t bytes;   /* of an element */
    int32_t d;      /* d_head */
    int32_t depth;  /* d, rounded up to what the products take */
    int32_t panel;  /* columns */
    int32_t d_pad;  /* d, rounded up to panels, whatever the tier */
    float q_factor; /* Q is multiplied by this when it is loaded; 1 for bfloat16: Q stays exact */
    float scale;    /* logits are multiplied by this; 1 for float32 */
} prism_operand;

/* Whether the call's tensors are all bfloat16. bfloat16 products round the softmax weights to bfloat16, as the output
 * is rounded, so they serve only such calls. */
static inline bool prism_operand_fits_bf16(const prism_tier *k, const prism_call *c)
{
    return k->gemm_bf16 && c->q.dtype == PRISM_BF16 && c->k.dtype == PRISM_BF16 && c->v.dtype == PRISM_BF16 &&
           c->o.dtype == PRISM_BF16;
}

prism_operand prism_operand_make(const prism_tier *k, const prism_problem *p, bool bf16);

/* Loads one token times factor: q_factor for Q, else 1. */
void prism_operand_load(const prism_operand *op, const prism_tensor *x, int32_t s, int32_t t, int32_t h, float factor,
                        void *row);
/* Loads tokens begin .. begin + n - 1, then zero rows up to n_row. */
void prism_operand_load_rows(const prism_operand *op, const prism_tensor *x, int32_t s, int32_t begin, int32_t n,
                             int32_t n_row, int32_t h, void *rows);

/* Pack n rows. n: a multiple of the panel for keys; even for values. */
void prism_operand_pack_keys(const prism_operand *op, const void *rows, int32_t n, void *keys);
void prism_operand_pack_values(const prism_operand *op, const void *rows, int32_t n, void *values);
/* Sets token j to 0 in the packed values of n tokens. */
void prism_operand_clear_value(const prism_operand *op, void *values, int32_t n, int32_t j);
bool prism_operand_all_finite(const prism_operand *op, const void *rows, int32_t n);

static inline void *prism_operand_at(const prism_operand *op, const void *base, int64_t element)
{
    return (char *)base + element * (int64_t)op->bytes;
}

/* Computes c = alpha c + a b, as in tier.h. */
static inline void prism_operand_product(const prism_operand *op, float *c, int64_t ldc, const float *alpha,
                                         const void *a, int64_t lda, const void *b, int32_t m, int32_t n, int32_t k)
{
    if (op->bf16)
        op->k->gemm_bf16(c, ldc, alpha, a, lda, b, m, n, k);
    else
        op->k->gemm(c, ldc, alpha, a, lda, b, m, n, k);
}

#endif
