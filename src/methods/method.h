/*
 * A method turns Q and K into a plan, through the backend's stages and nothing else. All facts about a method stand in
 * its descriptor: its sentence, its options, what it needs, its functions. docs/howto/method.md shows how to add one.
 */
#ifndef PRISM_METHODS_METHOD_H
#define PRISM_METHODS_METHOD_H

#include "stages.h"

/* One option: a field of prism_options. */
typedef struct prism_option_row {
    const char *name, *text; /* text: a phrase for people */
    prism_option_kind kind;
    size_t offset;
    double value, min, max; /* value: the default. min FLT_TRUE_MIN: anything above 0 */
    bool power_of_two;
    const char *const *names; /* kind PRISM_OPTION_NAME: value i is called names[i], and max is the last i */
} prism_option_row;

#define PRISM_ROW(field, default_value, least, most, sentence)                                                         \
    .name = #field, .offset = offsetof(prism_options, field), .value = default_value, .min = least, .max = most,       \
    .text = sentence,                                                                                                  \
    .kind = _Generic(((prism_options *)0)->field, float: PRISM_OPTION_FLOAT, default: PRISM_OPTION_INT)
#define PRISM_NAMED_ROW(field, default_value, value_names, sentence)                                                   \
    .name = #field, .offset = offsetof(prism_options, field), .value = default_value,                                  \
    .max = sizeof value_names / sizeof *value_names - 1, .names = value_names, .text = sentence,                       \
    .kind = PRISM_OPTION_NAME

/* Options that several methods read. options.c has the options that every method reads. */
extern const prism_option_row prism_option_top_p, prism_option_keep_sink, prism_option_keep_own;

/* What a method works with. Its buffers are cut from the caller's workspace. */
typedef struct prism_plan_job {
    prism_ctx *ctx;
    const prism_problem *problem;
    const prism_options *options;
    int32_t min_tokens;       /* options->min_tokens, default resolved */
    bool attends;             /* the plan is attended in the same call */
    bool timed;               /* pooling notes its marks */
    void *q_mean, *k_mean;    /* in the backend's formats */
    void *moments;            /* in the backend's format; NULL: not wanted */
    void *bits;               /* select() writes them, unless the method has list() */
    int32_t *n_block, *n_key; /* [n_row]: select() writes them if the method has list() */
    void *scratch;            /* of scratch_bytes() bytes */
} prism_plan_job;

/*
 * select() fills the bitmaps, and the plan is made from them. A method with single keys also has list(): then select()
 * only counts each row's blocks and keys, and list() writes them into the opened plan.
 */
typedef struct prism_method_impl {
    const char *name, *text;
    const char *flop_text, *workspace_text; /* for docs/methods.md, in its notation; NULL: nothing */
    const prism_option_row *const *options; /* options beside the common ones; ends with NULL */
    bool needs_bands, needs_means, needs_moments;
    prism_correction correct; /* what PRISM_CORRECTION_DEFAULT means; 0: NONE */
    prism_stage stage;        /* the stage that select() runs: a backend may refuse it */
    bool (*is_full)(const prism_options *o); /* whether these options keep every block; NULL: never */
    size_t (*scratch_bytes)(const prism_plan_job *job); /* must not read a buffer of the job */
    void (*select)(const prism_plan_job *job);          /* NULL: the full plan */
    void (*list)(const prism_plan_job *job, prism_plan *plan);
    /* Returns the work of select() on one sequence whose first n_pooled keys were pooled before (core/work.h). */
    double (*flop)(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled);
} prism_method_impl;

/* Returns the method's descriptor; NULL for an unknown value. */
const prism_method_impl *prism_method_get(prism_method method);

/* The first option whose value is out of range or not for options->method. */
typedef struct prism_option_problem {
    const char *name;
    double value;
    char wanted[64]; /* "above 0 to 1" */
} prism_option_problem;

/* Checks every option. false: *problem says which does not fit; problem NULL: not wanted. */
bool prism_options_fit(const prism_options *options, prism_option_problem *problem);
/* Returns what pruned blocks contribute; resolves PRISM_CORRECTION_DEFAULT. */
prism_correction prism_options_correction(const prism_options *options);
/* Whether these options keep every block. */
bool prism_options_are_full(const prism_options *options);
/* Whether pooling must keep moments: for choosing blocks, or for correcting where the plan is attended. */
bool prism_options_need_moments(const prism_options *options, bool attends);

/* Pools into job->k_mean and job->moments, unless they are NULL, and into job->q_mean if `queries`. bands: as in
 * prism_pool_job. */
void prism_pool(const prism_plan_job *job, bool queries, const prism_bands *bands);

static inline size_t prism_max_bytes(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Returns the elements of a per-key buffer of one head. */
static inline int64_t prism_key_stride(const prism_problem *p)
{
    return (int64_t)p->n_kblk * p->block_size;
}

#endif
