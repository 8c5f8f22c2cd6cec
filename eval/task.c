#include "eval/task.h"

#include "eval/text.h"

#include <stdlib.h>

void eval_sample_free(eval_sample *sample)
{
    if (!sample)
        return;
    free(sample->prompt);
    free(sample->answer_prefix);
    eval_list_free(sample->gold, sample->n_gold);
    *sample = (eval_sample){0};
}
