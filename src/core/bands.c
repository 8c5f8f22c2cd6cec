/* The high and the low band of a head: which dimensions each one scores (paper, section 3.2). */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "prism_attn/prism.h"

typedef struct turning_dim {
    double frequency; /* 0: does not turn */
    int32_t pair;     /* n_pair and above: unrotated */
    int16_t dim;
} turning_dim;

static int fastest_first(const void *a, const void *b)
{
    const turning_dim *x = a, *y = b;
    if (x->frequency != y->frequency)
        return x->frequency > y->frequency ? -1 : 1;
    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return x->dim - y->dim;
}

/* Orders all dimensions of the head, fastest first, the two of a pair side by side. false: the rope is not valid. */
static bool order_dims(const prism_rope *rope, turning_dim order[PRISM_MAX_D_HEAD])
{
    if (!rope || rope->d_head < 1 || rope->d_head > PRISM_MAX_D_HEAD || rope->n_pair < 0 ||
        rope->n_pair > rope->d_head / 2)
        return false;
    for (int32_t j = 0; j < rope->d_head; j++)
        order[j] = (turning_dim){0, rope->n_pair + j, (int16_t)j};
    for (int32_t j = 0; j < rope->n_pair; j++) {
        if (!(rope->frequency[j] >= 0) || !isfinite(rope->frequency[j]))
            return false;
        for (int side = 0; side < 2; side++) {
            const int16_t dim = rope->dim[j][side];
            if (dim < 0 || dim >= rope->d_head || order[dim].pair < rope->n_pair)
                return false; /* outside the head, or in two pairs */
            order[dim] = (turning_dim){rope->frequency[j], j, dim};
        }
    }
    qsort(order, (size_t)rope->d_head, sizeof *order, fastest_first);
    return true;
}

static int ascending(const void *a, const void *b)
{
    return *(const int16_t *)a - *(const int16_t *)b;
}

static void take(int16_t *out, const turning_dim *order, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        out[j] = order[j].dim;
    qsort(out, (size_t)n, sizeof *out, ascending);
}

prism_status prism_bands_split(prism_bands *bands, const prism_rope *rope, int32_t n_high, int32_t n_low)
{
    turning_dim order[PRISM_MAX_D_HEAD];
    if (!bands || !order_dims(rope, order))
        return PRISM_ERROR_INVALID;
    const int32_t d = rope->d_head;
    if (n_high < 0 || n_low < 0 || n_high > d || n_low > d || n_high + n_low == 0)
        return PRISM_ERROR_INVALID;
    const int32_t cut[2] = {n_high, d - n_low};
    for (int i = 0; i < 2; i++)
        if (cut[i] > 0 && cut[i] < d && order[cut[i] - 1].pair == order[cut[i]].pair)
            return PRISM_ERROR_INVALID; /* would split a pair */
    memset(bands, 0, sizeof *bands);
    bands->d_head = d;
    bands->n_high = n_high;
    bands->n_low = n_low;
    take(bands->high, order, n_high);
    take(bands->low, order + d - n_low, n_low);
    return PRISM_OK;
}

/* |Dirichlet kernel|: the part of a component that survives averaging over n positions if it turns by w per
 * position. */
static double attenuation(double w, int32_t n)
{
    const double half = sin(w / 2);
    return fabs(half) < 1e-12 ? 1.0 : fabs(sin(n * w / 2) / (n * half));
}

prism_status prism_bands_auto(prism_bands *bands, const prism_rope *rope, int32_t block_size)
{
    enum { granule = 8 }; /* frequencies: bands grow in steps of 16 dimensions */
    turning_dim order[PRISM_MAX_D_HEAD];
    if (!bands || block_size < 1 || !order_dims(rope, order))
        return PRISM_ERROR_INVALID;
    const int32_t n = rope->d_head / 2;
    int32_t past_null = 0; /* first frequency that turns at most once within a block */
    for (int32_t j = 0; j < n; j++)
        if (block_size * order[2 * j].frequency > 6.283185307179586476925)
            past_null = j + 1;
    int32_t audible = past_null; /* first later frequency that averaging leaves at 0.4 or more */
    while (audible < n && attenuation(order[2 * audible].frequency, block_size) < 0.4)
        audible++;
    int32_t intact = n; /* from here on averaging leaves 0.99 or more */
    while (intact > 0 && attenuation(order[2 * (intact - 1)].frequency, block_size) >= 0.99)
        intact--;

    int32_t low_start = granule * ((2 * audible + granule) / (2 * granule));
    int32_t high_end = granule * ((intact + granule - 1) / granule);
    if (low_start > n)
        low_start = n;
    if (high_end > n)
        high_end = n;
    int32_t n_low = rope->d_head - 2 * low_start;
    if (n_low == 0 && high_end == 0)
        n_low = rope->d_head;
    return prism_bands_split(bands, rope, 2 * high_end, n_low);
}
