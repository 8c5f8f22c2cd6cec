/* Random plans of a given density. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static uint64_t next_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}

/* Marks n of the blocks 1 .. u - 1, each set as likely as any other (Knuth, selection sampling). */
static void pick_blocks(uint8_t *row, int32_t u, int32_t n, uint64_t *state)
{
    for (int32_t v = 1; v < u && n > 0; v++)
        if ((next_random(state) >> 32) * (uint64_t)(u - v) >> 32 < (uint64_t)n) {
            row[v] = 1;
            n--;
        }
}

/* One head: rows first .. n_kblk - 1. Each row gets what the rows up to it should have in all, less what they have. */
static void fill_head(uint8_t *mask, int32_t first, int32_t n_kblk, double density, uint64_t *state)
{
    double wanted = 0;
    int64_t listed = 0;
    for (int32_t u = first; u < n_kblk; u++, mask += n_kblk) {
        const int32_t n_fixed = u > 0 ? 2 : 1;
        wanted += density * (u + 1);
        const int64_t n = llround(wanted) - listed;
        const int32_t n_block = n < n_fixed ? n_fixed : n > u + 1 ? u + 1 : (int32_t)n;
        mask[0] = mask[u] = 1;
        pick_blocks(mask, u, n_block - n_fixed, state);
        listed += n_block;
    }
}

bool bench_impose_density(prism_ctx *ctx, const prism_call *call, int32_t block_size, double density, uint64_t seed,
                          prism_plan *plan, lm_error *err)
{
    if (!(density > 0 && density <= 1))
        return lm_fail(err, LM_ERROR_USAGE, "a density of %g: give one above 0 and up to 1", density);
    const int32_t q_start = call->q_start >= 0 ? call->q_start : call->n_kv - call->n_q;
    const int32_t first = q_start / block_size, n_kblk = (q_start + call->n_q - 1) / block_size + 1;
    const size_t head = (size_t)(n_kblk - first) * (size_t)n_kblk, bytes = (size_t)call->n_head * head;
    uint8_t *mask = calloc(bytes, 1);
    if (!mask)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for a mask of %zu bytes", bytes);
    uint64_t state = seed * 0x9e3779b97f4a7c15 | 1;
    for (int32_t h = 0; h < call->n_head; h++)
        fill_head(mask + (size_t)h * head, first, n_kblk, density, &state);
    const prism_status status = prism_plan_from_mask(ctx, call, block_size, mask, bytes, plan);
    free(mask);
    return !status || lm_fail(err, LM_ERROR_RUN, "the random plan was refused: %s", prism_last_error(ctx));
}
