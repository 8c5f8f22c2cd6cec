/* How large a prompt may be: the one place that counts tokens. */
#include "ruler_internal.h"

/* Tokens that a draft takes of the context, its answer and the reserve among them. */
static bool cost(const ruler_task *task, const ruler_draft *draft, int32_t *n_token, lm_error *err)
{
    lm_text whole = {0};
    bool ok = lm_text_append(&whole, draft->prompt.data, draft->prompt.n, err) && eval_put(&whole, " ", err) &&
              lm_text_append(&whole, draft->prefix.data, draft->prefix.n, err) &&
              ruler_count_text(task, whole.data, whole.n, n_token, err);
    lm_text_free(&whole);
    *n_token += task->shared->n_reserve + task->kind->n_answer;
    return ok;
}

bool ruler_count_text(const ruler_task *task, const char *text, size_t n, int32_t *n_token, lm_error *err)
{
    lm_tokens ids = {0};
    const bool ok = lm_model_encode(task->shared->model, text, n, false, &ids, err);
    *n_token = ids.n < INT32_MAX / 2 ? (int32_t)ids.n : INT32_MAX / 2;
    lm_tokens_free(&ids);
    return ok;
}

/* *out: the draft, if it is wanted and fits. */
static bool try_size(const ruler_task *task, int32_t size, int32_t i, ruler_draft *out, int32_t *n_token, lm_error *err)
{
    ruler_draft draft = {0};
    const bool ok =
        task->kind->draw(task, size, i, ruler_rng(task, i), &draft, err) && cost(task, &draft, n_token, err);
    if (ok && out && *n_token <= task->shared->n_ctx)
        *out = draft;
    else
        ruler_draft_free(&draft);
    return ok;
}

/* From size downwards, by steps and then by halves, until sample i fits. */
static bool shrink(const ruler_task *task, int32_t *size, int32_t i, ruler_draft *out, lm_error *err)
{
    for (;;) {
        int32_t n_token = 0;
        if (!try_size(task, *size, i, out, &n_token, err))
            return false;
        if (n_token <= task->shared->n_ctx)
            return true;
        if (*size <= task->least)
            return lm_fail(err, LM_ERROR_USAGE,
                           "%s: a context of %d tokens is too short: sample %d takes at least %d, %d of them for the "
                           "answer",
                           task->kind->name, (int)task->shared->n_ctx, (int)i, (int)n_token, (int)task->kind->n_answer);
        *size = *size > task->step ? *size - task->step : *size / 2;
        if (*size < task->least)
            *size = task->least;
    }
}

/* Growing by single steps would draw n_ctx / step prompts; doubling and halving the number of steps finds the same
 * size, as prompts only get longer with it. */
bool ruler_find_size(ruler_task *task, lm_error *err)
{
    const int32_t limit = task->shared->n_ctx;
    const int64_t last = task->most > task->start ? (task->most - task->start) / task->step : 0; /* most steps */
    int64_t low = 0, high = 1;
    int32_t n_token = 0;
    task->size = task->start;
    if (!try_size(task, task->start, 0, NULL, &n_token, err))
        return false;
    if (n_token > limit)
        return shrink(task, &task->size, 0, NULL, err);
    for (;; low = high, high *= 2) {
        if (high > last) {
            high = last + 1;
            break;
        }
        if (!try_size(task, (int32_t)(task->start + high * task->step), 0, NULL, &n_token, err))
            return false;
        if (n_token > limit)
            break;
    }
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (!try_size(task, (int32_t)(task->start + middle * task->step), 0, NULL, &n_token, err))
            return false;
        *(n_token > limit ? &high : &low) = middle;
    }
    task->size = (int32_t)(task->start + low * task->step);
    return true;
}

bool ruler_draw_fitting(const ruler_task *task, int32_t i, ruler_draft *out, lm_error *err)
{
    int32_t size = task->size;
    return shrink(task, &size, i, out, err);
}
