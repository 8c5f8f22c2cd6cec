#include "eval/needle_task.h"

#include "eval/metric.h"

#include <stdio.h>
#include <stdlib.h>

/* Tokens kept free for the answer: a word, seven digits or a UUID in the least favourable tokenizer, and a period. */
static const int32_t answer_tokens[] = {16, 16, 48};

typedef struct needle_data {
    eval_needle_spec spec;
    const lm_tokenizer *tok;
    const char *book;
    size_t n_book;
} needle_data;

static bool make(const eval_task *task, int32_t i, eval_sample *out, lm_error *err)
{
    const needle_data *data = task->data;
    eval_needle_spec spec = data->spec;
    eval_needle needle = {0};
    spec.seed += (uint64_t)i;
    if (!eval_needle_make(&spec, data->tok, data->book, data->n_book, &needle, err))
        return false;
    *out = (eval_sample){.prompt = needle.prompt,
                         .gold = needle.gold,
                         .n_gold = needle.n_gold,
                         .n_answer = answer_tokens[spec.value],
                         .stop_at_newline = true};
    needle.prompt = NULL; /* handed over */
    needle.gold = NULL;
    needle.n_gold = 0;
    eval_needle_free(&needle);
    return true;
}

static double score(const eval_task *task, const eval_sample *sample, const char *answer)
{
    (void)task;
    return eval_match_all(answer, sample->gold, sample->n_gold);
}

static void close_task(eval_task *task)
{
    free(task->data);
    task->data = NULL;
}

static bool fill(const eval_needle_options *o, const lm_model *model, eval_haystack haystack, double depth,
                 eval_task *task, lm_error *err)
{
    needle_data *data = malloc(sizeof *data);
    if (!data)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the needle tasks");
    *data = (needle_data){.tok = lm_model_tokenizer(model), .book = o->book, .n_book = o->n_book};
    eval_needle_spec_init(&data->spec);
    data->spec.haystack = haystack;
    data->spec.key = o->key;
    data->spec.value = o->value;
    data->spec.n_key = o->n_key;
    data->spec.depth = depth;
    data->spec.seed = o->seed;
    data->spec.n_token = o->n_ctx - o->n_reserve - answer_tokens[o->value];
    *task = (eval_task){.n_sample = o->n_sample, .data = data, .make = make, .score = score, .close = close_task};
    snprintf(task->name, sizeof task->name, "needle/%s/%s-%s/k%d/d%.2f", eval_haystack_names[haystack],
             eval_payload_names[o->key], eval_payload_names[o->value], o->n_key, depth);
    return true;
}

bool eval_needle_open(const eval_needle_options *o, const lm_model *model, eval_task **tasks, int32_t *n_task,
                      lm_error *err)
{
    const int32_t n = o->n_haystack * o->n_depth;
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT, "the model comes without a tokenizer");
    if (n < 1 || o->n_ctx - o->n_reserve - answer_tokens[o->value] < 64)
        return lm_fail(err, LM_ERROR_USAGE, "needle: no haystack, no depth, or a context of %d tokens: too short",
                       o->n_ctx);
    eval_task *list = calloc((size_t)n, sizeof *list);
    bool ok = list || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the needle tasks");
    int32_t made = 0;
    for (; ok && made < n; made++)
        ok = fill(o, model, o->haystacks[made / o->n_depth], o->depths[made % o->n_depth], &list[made], err);
    if (!ok) {
        for (int32_t i = 0; list && i < made; i++)
            free(list[i].data);
        free(list);
        return false;
    }
    *tasks = list;
    *n_task = n;
    return true;
}
