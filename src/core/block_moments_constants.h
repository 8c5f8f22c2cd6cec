/* What the formulas of docs/moments.md fix, for C and CUDA. */
#ifndef PRISM_CORE_BLOCK_MOMENTS_CONSTANTS_H
#define PRISM_CORE_BLOCK_MOMENTS_CONSTANTS_H

enum {
    PRISM_MOMENT_GROUP = 8,   /* neighbouring dimensions that share a variance */
    PRISM_MOMENT_SINGLE = 16, /* tokens of block 0 that stand for themselves */
    PRISM_MOMENT_STEP = 4,    /* every 4th query token is an asking token, by position */
    PRISM_MOMENT_SAMPLE = 16  /* every 16th query token counts for the mean query, by position */
};

/* Tokens of a block have weights e^t. The t are scaled down until their standard deviation is at most this. */
#define PRISM_MOMENT_TILT 0.8f

#endif
