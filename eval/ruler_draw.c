/* What the families draw with: random numbers, and the draft that they fill. */
#include "ruler_internal.h"

#include <stdlib.h>

void ruler_draft_free(ruler_draft *draft)
{
    lm_text_free(&draft->prompt);
    lm_text_free(&draft->prefix);
    eval_list_free(draft->gold, draft->n_gold);
    *draft = (ruler_draft){0};
}

eval_rng ruler_rng(const ruler_task *task, int32_t i)
{
    eval_rng rng = {task->shared->seed};
    rng.state = eval_rng_next(&rng) ^ ((uint64_t)task->number << 32 | (uint32_t)i);
    rng.state = eval_rng_next(&rng); /* neighbours' streams have nothing in common */
    return rng;
}

void ruler_shuffle(int32_t *items, int32_t n, eval_rng *rng)
{
    for (int32_t i = n - 1; i > 0; i--) {
        const int32_t j = (int32_t)eval_rng_below(rng, (uint64_t)i + 1), item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

bool ruler_pick(int32_t *out, int32_t k, int32_t n, eval_rng *rng, lm_error *err)
{
    int32_t *all = malloc((size_t)n * sizeof *all);
    if (!all)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d numbers", (int)n);
    for (int32_t i = 0; i < n; i++)
        all[i] = i;
    for (int32_t i = 0; i < k; i++) {
        const int32_t j = i + (int32_t)eval_rng_below(rng, (uint64_t)(n - i));
        out[i] = all[j];
        all[j] = all[i];
    }
    free(all);
    return true;
}

static int compare_int(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void ruler_sort(int32_t *items, int32_t n)
{
    qsort(items, (size_t)n, sizeof *items, compare_int);
}
