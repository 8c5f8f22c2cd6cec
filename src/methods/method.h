/*
 * A method turns Q and K into a plan, through the backend's stages and nothing else. Everything that is known about a
 * method stands in its descriptor: its sentence, its options, what it needs, its functions.
 */
#ifndef PRISM_METHODS_METHOD_H
#define PRISM_METHODS_METHOD_H

#include "stages.h"

/* One option: a field of prism_options. */
typedef struct prism_option_row {
    const char *name, *text; /* text: one sentence for people */
    prism_option_kind kind;
    size_t offset;
    double value, min, max; /* value: the default. min FLT_TRUE_MIN: anything above 0 */
    bool power_of_two;
    const char *const *names; /* kind PRISM_OPTION_NAME: value i is called names[i]; max is the last one's place */
} prism_option_row;

#define PRISM_ROW(field, default_value, least, most, sentence)                                                         \
    .name = #field, .offset = offsetof(prism_options, field), .value = default_value, .min = least, .max = most,       \
    .text = sentence,                                                                                                  \
    .kind = _Generic(((prism_options *)0)->field, float: PRISM_OPTION_FLOAT, default: PRISM_OPTION_INT)
#define PRISM_NAMED_ROW(field, default_value, value_names, sentence)                                                   \
    .name = #field, .offset = offsetof(prism_options, field), .value = default_value,                                  \
    .max = sizeof value_names / sizeof *value_names - 1, .names = value_names, .text = sentence,                       \
    .kind = PRISM_OPTION_NAME

/* Options that several methods have; options.c has those that every method has. */
extern const prism_option_row prism_option_top_p, prism_option_keep_sink, prism_option_keep_own;

/* What a method works with; buffers are cut from the caller's workspace. */
typedef struct prism_plan_job {
    prism_ctx *ctx;
    const prism_problem *problem;
    const prism_options *options;
    int32_t min_tokens;       /* options->min_tokens, default resolved */
    bool attends;             /* the plan is attended in the same call */
    bool timed;               /* marks are to be noted */
    void *q_mean, *k_mean;    /* the backend's formats */
    void *moments;            /* the backend's, too; NULL: not wanted */
    void *bits;               /* out of select(), unless the method lists */
    int32_t *n_block, *n_key; /* [n_row]: out of select() if the method lists */
    void *scratch;            /* scratch_bytes() */
} prism_plan_job;

/*
 * select() fills the bitmaps, and the plan is made from them. A method with single keys has list(), too: select() then
 * only counts each row's blocks and keys, and list() writes them into the plan that was opened for them.
 */
typedef struct prism_method_impl {
    const char *name, *text;
    const char *flop_text, *workspace_text; /* for docs/methods.md, in its letters; NULL: nothing */
    const prism_option_row *const *options; /* beside those of every method; ends with NULL */
    bool needs_bands, needs_means, needs_moments;
    prism_correction correct; /* what PRISM_CORRECTION_DEFAULT means; 0: NONE */
    prism_stage stage;        /* the stage of the backend that select() ends in */
    bool (*is_full)(const prism_options *o); /* whether these options keep every block; NULL: none do */
    size_t (*scratch_bytes)(const prism_plan_job *job); /* reads no buffer of the job */
    void (*select)(const prism_plan_job *job);          /* NULL: the full plan */
    void (*list)(const prism_plan_job *job, prism_plan *plan);
    /* Operations that select() spends on one sequence of which n_pooled keys were pooled before (core/work.h). */
    double (*flop)(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled);
} prism_method_impl;

/* NULL for an unknown value. */
const prism_method_impl *prism_method_get(prism_method method);

/* The first option whose value is out of range or not for options->method. */
typedef struct prism_option_problem {
    const char *name;
    double value;
    char wanted[64]; /* "above 0 to 1" */
} prism_option_problem;

/* Checks every option. false: *problem says which does not fit; problem NULL: not wanted. */
bool prism_options_fit(const prism_options *options, prism_option_problem *problem);
/* What pruned blocks contribute, the default resolved. */
prism_correction prism_options_correction(const prism_options *options);
/* Whether these options keep every block. */
bool prism_options_are_full(const prism_options *options);
/* Whether pooling must keep moments: for choosing blocks, or for correcting where the plan is attended. */
bool prism_options_need_moments(const prism_options *options, bool attends);

/* Into job->k_mean and moments, where these are not NULL, and, if wanted, job->q_mean; bands: as in prism_pool_job. */
void prism_pool(const prism_plan_job *job, bool queries, const prism_bands *bands);

static inline size_t prism_max_bytes(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Entries of a per-key buffer of one head. */
static inline int64_t prism_key_stride(const prism_problem *p)
{
    return (int64_t)p->n_kblk * p->block_size;
}

#endif
