/* What the formulas of docs/moments.md fix, for C and CUDA. */
#ifndef PRISM_CORE_BLOCK_MOMENTS_CONSTANTS_H
#define PRISM_CORE_BLOCK_MOMENTS_CONSTANTS_H

enum {
    PRISM_MOMENT_GROUP = 8,   /* neighbouring dimensions that share a variance */
    PRISM_MOMENT_SINGLE = 16, /* tokens of block 0 that stand for themselves */
    PRISM_MOMENT_STEP = 4,    /* every so manieth query token is asked, by position */
    PRISM_MOMENT_SAMPLE = 16, /* and every so manieth counts for the mean query */
    PRISM_MOMENT_NEAR = 6144  /* with more keys before it a row prunes less */
};

/* The estimate's second-order term is at most this (natural logarithm). */
#define PRISM_MOMENT_CAP 6.0f
/* Weights e^t of a block's tokens are tamed until the t have no larger standard deviation than this. */
#define PRISM_MOMENT_TILT 0.8f

#endif
