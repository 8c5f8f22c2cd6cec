/* The CPU's stages (one file each) and what they share. */
#ifndef PRISM_CPU_CPU_H
#define PRISM_CPU_CPU_H

#include <math.h>
#include <omp.h>

#include "core/arena.h"
#include "core/calibrate.h"
#include "core/topp.h"
#include "cpu/tiers/tier.h"
#include "stages.h"

size_t prism_means_bytes_cpu(const prism_problem *p, bool keys);
void prism_pool_cpu(const prism_ctx *ctx, const prism_pool_job *job);
size_t prism_moments_bytes_cpu(const prism_problem *p);
/* Pools sequence s; n_done of its keys were pooled before. */
void prism_pool_moments_cpu(const prism_ctx *ctx, const prism_pool_job *job, int32_t s, int32_t n_done);
size_t prism_bits_bytes_cpu(const prism_problem *p);
void prism_pick_lines_cpu(const prism_ctx *ctx, const prism_pick_job *job);
#define PRISM_STAGE_CPU(stage, job)                                                                                    \
    size_t prism_##stage##_bytes_cpu(const prism_ctx *, const job *);                                                  \
    void prism_##stage##_cpu(const prism_ctx *, const job *);
PRISM_STAGES(PRISM_STAGE_CPU)
#undef PRISM_STAGE_CPU

/*
 * Computes the factor of every row and band from the energies of pooled queries and keys (core/calibrate.h).
 *   factor  out, [n_row][PRISM_MAX_BAND]: high, low
 *   k_upto  [n_kblk] scratch
 */
void prism_calibrate_cpu(const prism_select_job *job, float *factor, prism_energy *k_upto);

/* Keeps every causal block of sequence s, which has fewer than min_tokens keys. */
void prism_keep_all_cpu(const prism_problem *p, int32_t s, uint64_t *bits);

/* attend's way for a few queries against many keys (decoding): no packing, keys split over threads. */
bool prism_attend_few_fits(const prism_problem *p, const prism_seq *q, const prism_plan *plan);
size_t prism_attend_few_bytes(const prism_ctx *ctx, const prism_problem *p);
void prism_attend_few(const prism_ctx *ctx, const prism_problem *p, int32_t s, void *scratch);

/* Returns the best tier of this machine at or below cap; PRISM_ISA_AUTO if the machine lacks cap itself. */
prism_isa prism_tier_best(prism_isa cap);
prism_isa prism_tier_find(const char *name); /* Returns PRISM_ISA_AUTO: no tier has this name */
void prism_tier_describe(char *text, size_t n);
void prism_tier_get(prism_isa isa, prism_tier *k);
extern const prism_backend prism_backend_cpu;

static inline int32_t prism_thread_index(void)
{
    return omp_get_thread_num();
}

static inline int32_t prism_round_up(int32_t n, int32_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Returns the number of key blocks, rounded up to whole panels of every tier. */
static inline int32_t prism_padded_blocks(const prism_problem *p)
{
    return prism_round_up(p->n_kblk, PRISM_MAX_PANEL);
}

/* Keeps the blocks whose score is not finite, and sets their scores to -inf. Returns the largest finite score. */
static inline float prism_keep_non_finite(float *logit, int32_t n, uint64_t *bits)
{
    float max = -INFINITY;
    for (int32_t v = 0; v < n; v++) {
        if (!isfinite(logit[v])) {
            prism_bits_set(bits, v);
            logit[v] = -INFINITY;
        }
        max = fmaxf(max, logit[v]);
    }
    return max;
}

/* Loads token t of head h as float32. */
static inline void prism_load_token(const prism_tier *k, const prism_tensor *x, int32_t s, int32_t t, int32_t h,
                                    int32_t d, float *dst)
{
    const char *src = prism_tensor_at(x, s, t, h);
    if (x->stride_dim == 1) {
        k->load_row[x->dtype](dst, src, d);
        return;
    }
    const int64_t step = prism_bytes_of(x->dtype, x->stride_dim);
    for (int32_t j = 0; j < d; j++)
        k->load_row[x->dtype](dst + j, src + j * step, 1);
}

static inline void prism_store_token(const prism_tier *k, const prism_tensor *x, int32_t s, int32_t t, int32_t h,
                                     int32_t d, const float *src, float factor)
{
    char *dst = prism_tensor_at(x, s, t, h);
    if (x->stride_dim == 1) {
        k->store_row[x->dtype](dst, src, d, factor);
        return;
    }
    const int64_t step = prism_bytes_of(x->dtype, x->stride_dim);
    for (int32_t j = 0; j < d; j++)
        k->store_row[x->dtype](dst + j * step, src + j, 1, factor);
}

#endif
