#include "eval/task.h"

#include <stdlib.h>

static void free_list(char **list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        free(list[i]);
    free(list);
}

void eval_sample_free(eval_sample *sample)
{
    if (!sample)
        return;
    free(sample->prompt);
    free(sample->answer_prefix);
    free_list(sample->gold, sample->n_gold);
    free_list(sample->classes, sample->n_class);
    *sample = (eval_sample){0};
}
