/*
 * Questions over documents: a question's own documents are hidden among others of the same collection.
 *
 * Sizes are documents. Sample i asks question i. Where a question's own documents are too long together, those without
 * the answer go first (the original would go over the length).
 */
#include "ruler_internal.h"

#include <stdlib.h>
#include <string.h>

static const ruler_library *library_of(const ruler_task *task)
{
    return task->kind->needs & RULER_NEEDS_SQUAD ? &task->shared->squad : &task->shared->hotpot;
}

bool ruler_qa_prepare(ruler_task *task, lm_error *err)
{
    (void)err;
    const size_t n_text = library_of(task)->n_text;
    task->step = task->start = 10;
    task->least = 1;
    task->most = n_text < INT32_MAX / 2 ? (int32_t)n_text : INT32_MAX / 2;
    if (task->start > task->most)
        task->start = task->most;
    return true;
}

typedef struct hand {
    int32_t *documents;
    int32_t n;
    bool *taken; /* [n_text] */
} hand;

static void take(hand *h, int32_t document)
{
    if (h->taken[document])
        return;
    h->taken[document] = true;
    h->documents[h->n++] = document;
}

/* Documents first .. first+n_from-1 in random order, until the hand holds `wanted` or they run out. */
static bool take_random(hand *h, int32_t wanted, int32_t first, int32_t n_from, eval_rng *rng, lm_error *err)
{
    int32_t *order = malloc((size_t)(n_from > 0 ? n_from : 1) * sizeof *order);
    if (!order)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d documents", (int)n_from);
    for (int32_t i = 0; i < n_from; i++)
        order[i] = first + i;
    for (int32_t i = 0; i < n_from && h->n < wanted; i++) {
        const int32_t j = i + (int32_t)eval_rng_below(rng, (uint64_t)(n_from - i)), document = order[j];
        order[j] = order[i];
        take(h, document);
    }
    free(order);
    return true;
}

/* What holds the answer always; then the question's other documents, the article's, anything. */
static bool deal(hand *h, const ruler_library *l, const ruler_question *q, int32_t size, eval_rng *rng, lm_error *err)
{
    for (int32_t i = 0; i < q->n_own && (i < q->n_support || h->n < size); i++)
        take(h, q->own[i]);
    return take_random(h, size, q->related, q->n_related, rng, err) &&
           take_random(h, size, 0, (int32_t)l->n_text, rng, err);
}

static const char instruction[] =
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n";

static bool put_documents(const hand *h, const ruler_library *l, const ruler_question *q, ruler_draft *out,
                          lm_error *err)
{
    bool ok = eval_put(&out->prompt, instruction, err) &&
              eval_put(&out->prompt, "The following are given documents.\n\n", err);
    for (int32_t i = 0; ok && i < h->n; i++)
        ok = eval_putf(&out->prompt, err, "Document %d:\n", (int)i + 1) &&
             eval_put(&out->prompt, l->texts[h->documents[i]], err) && eval_put(&out->prompt, "\n\n", err);
    ok = ok && eval_put(&out->prompt, instruction, err) && eval_put(&out->prompt, "Question: ", err) &&
         eval_put(&out->prompt, q->text, err) && eval_put(&out->prefix, "Answer:", err);
    for (size_t i = 0; ok && i < q->n_gold; i++)
        ok = eval_list_add(&out->gold, &out->n_gold, q->gold[i], strlen(q->gold[i]), err);
    return ok;
}

bool ruler_qa_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err)
{
    const ruler_library *l = library_of(task);
    const ruler_question *q = &l->questions[i];
    hand h = {malloc(l->n_text * sizeof *h.documents), 0, calloc(l->n_text, sizeof *h.taken)};
    bool ok = (h.documents && h.taken) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu documents", l->n_text);
    ok = ok && deal(&h, l, q, size, &rng, err);
    if (ok)
        ruler_shuffle(h.documents, h.n, &rng);
    ok = ok && put_documents(&h, l, q, out, err);
    free(h.documents);
    free(h.taken);
    return ok;
}
