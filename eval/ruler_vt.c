/*
 * Variable tracking: one chain of assignments, hidden in order among lines of filler; all its variables are asked
 * for.
 *
 * A solved example of its own comes first. Sizes are lines of filler. Differences from the original generator: what is
 * kept free for the answer is the generation limit itself, not a smaller number, and the prefix is spelt right.
 */
#include "ruler_internal.h"

#include "payload.h"

#include <string.h>

enum { N_NAME = 5, MAX_LETTER = 5, EXAMPLE_LETTER = 3, EXAMPLE_TOKENS = 500, EXAMPLE_STEP = 5 };

typedef struct chain {
    char names[N_NAME][MAX_LETTER + 1];
    int32_t value;
} chain;

static chain draw_chain(int32_t n_letter, int32_t other_value, eval_rng *rng)
{
    chain c = {0};
    for (int32_t i = 0; i < N_NAME;) {
        for (int32_t j = 0; j < n_letter; j++)
            c.names[i][j] = (char)('A' + eval_rng_below(rng, 26));
        bool taken = false;
        for (int32_t j = 0; j < i; j++)
            taken = taken || strcmp(c.names[j], c.names[i]) == 0;
        i += !taken;
    }
    do
        c.value = 10000 + (int32_t)eval_rng_below(rng, 90000);
    while (c.value == other_value);
    return c;
}

static bool put_assignment(lm_text *out, const chain *c, int32_t j, lm_error *err)
{
    return j == 0 ? eval_putf(out, err, "VAR %s = %d", c->names[0], (int)c->value)
                  : eval_putf(out, err, "VAR %s = VAR %s", c->names[j], c->names[j - 1]);
}

/* Context and question; the positions come from rng. */
static bool put_problem(lm_text *out, const chain *c, int32_t n_line, eval_rng *rng, lm_error *err)
{
    int32_t at[N_NAME];
    if (!ruler_pick(at, N_NAME, n_line, rng, err))
        return false;
    ruler_sort(at, N_NAME);
    bool ok =
        eval_put(out, "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n", err);
    for (int32_t i = 0, j = 0; ok && i < n_line; i++) {
        for (; ok && j < N_NAME && at[j] == i; j++)
            ok = put_assignment(out, c, j, err) && eval_put(out, " ", err);
        ok = ok && eval_put(out, eval_noise, err) && eval_put(out, i + 1 < n_line ? "\n " : "\n", err);
    }
    return ok && eval_putf(out, err, "Question: Find all variables that are assigned the value %d in the text above.",
                           (int)c->value);
}

static bool put_prefix(lm_text *out, const chain *c, lm_error *err)
{
    return eval_putf(out, err,
                     "Answer: According to the chain(s) of variable assignment in the text above, %d variables are "
                     "assigned the value %d, they are:",
                     (int)N_NAME, (int)c->value);
}

static bool put_example(lm_text *out, const chain *c, int32_t n_line, eval_rng *rng, lm_error *err)
{
    bool ok = put_problem(out, c, n_line, rng, err) && eval_put(out, " ", err) && put_prefix(out, c, err);
    for (int32_t i = 0; ok && i < N_NAME; i++)
        ok = eval_putf(out, err, " %s", c->names[i]);
    return ok && eval_put(out, "\n\n", err);
}

/* The example's lines: as many, in steps, as EXAMPLE_TOKENS hold. */
bool ruler_vt_prepare(ruler_task *task, lm_error *err)
{
    task->step = task->start = 10;
    task->least = N_NAME;
    task->most = INT32_MAX / 2;
    task->extra = EXAMPLE_STEP;
    for (;;) {
        lm_text text = {0};
        eval_rng rng = ruler_rng(task, 0);
        const chain c = draw_chain(EXAMPLE_LETTER, 0, &rng);
        int32_t n_token = 0;
        const bool ok = put_example(&text, &c, task->extra + EXAMPLE_STEP, &rng, err) &&
                        ruler_count_text(task, text.data, text.n, &n_token, err);
        lm_text_free(&text);
        if (!ok)
            return false;
        if (n_token > EXAMPLE_TOKENS)
            return true;
        task->extra += EXAMPLE_STEP;
    }
}

bool ruler_vt_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err)
{
    (void)i;
    const chain c = draw_chain(MAX_LETTER, 0, &rng), example = draw_chain(EXAMPLE_LETTER, c.value, &rng);
    bool ok = put_example(&out->prompt, &example, task->extra, &rng, err) &&
              put_problem(&out->prompt, &c, size, &rng, err) && put_prefix(&out->prefix, &c, err);
    for (int32_t j = 0; ok && j < N_NAME; j++)
        ok = eval_list_add(&out->gold, &out->n_gold, c.names[j], strlen(c.names[j]), err);
    return ok;
}
