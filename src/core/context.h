/* The context: a backend, its threads, and the sentence about the last error. */
#ifndef PRISM_CORE_CONTEXT_H
#define PRISM_CORE_CONTEXT_H

#include <stdbool.h>

#include "prism_attn/prism.h"

struct prism_backend; /* stages.h: the stages of one backend */
struct prism_tier;    /* cpu/tiers/tier.h: the inner loops of one CPU tier */

struct prism_ctx {
    const struct prism_backend *backend;
    const struct prism_tier *cpu;
    int32_t n_thread;
    void *device; /* the backend's own, NULL on the CPU */
    double *marks; /* [PRISM_N_MARK], of the CPU backend */
    char cpu_features[256];
    char error[512];
    int32_t ordinal; /* of the GPU */
    long process;    /* that created it */
};

/* Keeps the sentence in ctx->error and returns status. ctx NULL: only returns status. */
__attribute__((format(printf, 3, 4))) prism_status prism_fail(prism_ctx *ctx, prism_status status, const char *format,
                                                              ...);

#endif
