/*
 * eval/ruler_internal.h - what the families of RULER tasks share.
 *
 *   size found once per task: grow by steps, step back -> sample: draw at that size, draw smaller while it is too long
 *
 * A family (niah, vt, words, qa) draws a prompt of a given size; ruler_size.c finds the size, ruler.c does the rest.
 */
#ifndef EVAL_RULER_INTERNAL_H
#define EVAL_RULER_INTERNAL_H

#include "corpus.h"
#include "rng.h"
#include "ruler.h"
#include "text.h"

/* A prompt under construction. */
typedef struct ruler_draft {
    lm_text prompt, prefix;
    char **gold;
    size_t n_gold;
} ruler_draft;

typedef struct ruler_question {
    char *text;
    char **gold; /* [n_gold] */
    size_t n_gold;
    int32_t *own; /* [n_own] its documents; the documents with the answer come first */
    int32_t n_own, n_support;
    int32_t related, n_related; /* documents of the same article: better distractors than others */
} ruler_question;

typedef struct ruler_library {
    char **texts; /* [n_text] documents, all different */
    size_t n_text;
    ruler_question *questions;
    size_t n_question;
} ruler_library;

/* What all tasks of one eval_ruler_open() look at. Counted, as they may be closed in any order. */
typedef struct ruler_shared {
    int32_t n_user;
    const lm_model *model;
    int32_t n_ctx, n_reserve;
    uint64_t seed;
    eval_corpus corpus;
    eval_words words;
    ruler_library squad, hotpot;
} ruler_shared;

typedef struct ruler_task ruler_task;

typedef struct ruler_kind {
    const char *name;
    int32_t variant;  /* tells tasks of a family apart */
    int32_t n_answer; /* generation limit */
    unsigned needs;   /* RULER_NEEDS_* */
    /* Sets start, step, least and most. */
    bool (*prepare)(ruler_task *task, lm_error *err);
    /* Fills *out (which is empty) with sample i at this size; on failure the caller frees what is in it. */
    bool (*draw)(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);
    double (*score)(const char *answer, char *const *gold, size_t n_gold);
} ruler_kind;

enum { RULER_NEEDS_CORPUS = 1, RULER_NEEDS_WORDS = 2, RULER_NEEDS_SQUAD = 4, RULER_NEEDS_HOTPOT = 8 };

struct ruler_task {
    const ruler_kind *kind;
    int32_t number; /* of the kind in the table; part of the seed */
    ruler_shared *shared;
    int32_t start, step, least, most; /* sizes that the search may try */
    int32_t size;                     /* what was found */
    int32_t extra;                    /* the family's own */
};

/* ------------------------------------------------------------------------------------------------ families ---- */

enum {
    NIAH_SINGLE_1,
    NIAH_SINGLE_2,
    NIAH_SINGLE_3,
    NIAH_MULTIKEY_1,
    NIAH_MULTIKEY_2,
    NIAH_MULTIKEY_3,
    NIAH_MULTIVALUE,
    NIAH_MULTIQUERY
};

bool ruler_niah_prepare(ruler_task *task, lm_error *err);
bool ruler_niah_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);
bool ruler_vt_prepare(ruler_task *task, lm_error *err);
bool ruler_vt_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);
bool ruler_cwe_prepare(ruler_task *task, lm_error *err);
bool ruler_cwe_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);
bool ruler_fwe_prepare(ruler_task *task, lm_error *err);
bool ruler_fwe_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);
bool ruler_qa_prepare(ruler_task *task, lm_error *err);
bool ruler_qa_draw(const ruler_task *task, int32_t size, int32_t i, eval_rng rng, ruler_draft *out, lm_error *err);

bool ruler_squad_open(const char *path, ruler_library *out, lm_error *err);
bool ruler_hotpot_open(const char *path, ruler_library *out, lm_error *err);
void ruler_library_close(ruler_library *library); /* {0} is allowed */

/* -------------------------------------------------------------------------------------------------- pieces ---- */

void ruler_draft_free(ruler_draft *draft);

/* Sample i's own numbers. */
eval_rng ruler_rng(const ruler_task *task, int32_t i);

void ruler_shuffle(int32_t *items, int32_t n, eval_rng *rng);
/* k different numbers out of 0 .. n-1, k <= n, in random order. */
bool ruler_pick(int32_t *out, int32_t k, int32_t n, eval_rng *rng, lm_error *err);
void ruler_sort(int32_t *items, int32_t n);

/* Tokens of a text, without BOS: that is in the reserve. */
bool ruler_count_text(const ruler_task *task, const char *text, size_t n, int32_t *n_token, lm_error *err);

/* Finds task->size: the largest start + k * step whose sample 0 fits. */
bool ruler_find_size(ruler_task *task, lm_error *err);
/* Draws sample i at the task's size, or as much smaller as it takes to fit. */
bool ruler_draw_fitting(const ruler_task *task, int32_t i, ruler_draft *out, lm_error *err);

#endif
